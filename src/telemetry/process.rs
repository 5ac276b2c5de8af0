//! The `process_*` metrics that dashboards expect, read from `/proc`.

use std::fs;

use prometheus::proto::MetricFamily;

use super::render::{single, total_float};

/// Clock ticks per second in `/proc`: fixed at 100 for programs on every Linux that we build for.
const TICKS: f64 = 100.0;

/// Processor time, memory, descriptors, start. What cannot be read is left out.
pub(super) fn families() -> Vec<MetricFamily> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", kibibytes(&status, "VmRSS:")),
        ("process_virtual_memory_bytes", "Virtual memory.", kibibytes(&status, "VmSize:")),
        ("process_open_fds", "Open file descriptors.", open),
        ("process_max_fds", "Most file descriptors.", max_descriptors(&limits)),
        ("process_start_time_seconds", "When the process started.", start_time(&stat, &boot)),
    ];
    let cpu = cpu_seconds(&stat)
        .map(|seconds| total_float("process_cpu_seconds_total", "Processor time, user and system.", seconds));
    let gauges =
        gauges.into_iter().filter_map(|(name, help, value)| value.map(|value| single(name, help, value)));
    gauges.chain(cpu).collect()
}

/// A field of `/proc/self/stat`, counted as in proc(5); the name in parentheses may hold blanks.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS)
}

fn start_time(stat: &str, boot: &str) -> Option<f64> {
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + field(stat, 22)? / TICKS)
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024.0)
}

fn max_descriptors(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_process_names_do_not_shift_the_fields() {
        let stat = "42 (a ) b) S 1 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1000 123 45";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_time(stat, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_010.0));
    }

    #[test]
    fn this_process_has_all_of_them() {
        let names: Vec<_> = families().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(names.len(), 6, "{names:?}");
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(kibibytes("", "VmRSS:"), None);
        assert_eq!(max_descriptors("Max open files  unlimited unlimited files"), None);
        assert_eq!(cpu_seconds("no stat"), None);
    }
}

//! Times in lines. Thousands of lines have the same second, so its text is kept.

use time::OffsetDateTime;

use super::Form;
use super::text::digits;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The text of the last second that was asked for.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    of: Option<(Form, u64)>,
    text: String,
}

impl Stamp {
    /// `2026-11-22T05:07:08.` for JSON, `22/Nov/2026:05:07:08` for the combined form, `05:07:08` for people.
    pub(super) fn of(&mut self, form: Form, wall: u64) -> &str {
        let second = wall / 1000;
        if self.of != Some((form, second)) {
            self.of = Some((form, second));
            self.text.clear();
            match form {
                Form::Json => push_date_time(second, &mut self.text),
                Form::Combined => push_clf(second, &mut self.text),
                Form::Readable => push_time(moment(second), &mut self.text),
            }
        }
        &self.text
    }
}

/// `2026-11-22T05:07:08.123Z`; `wall` is milliseconds since 1970.
pub fn push_rfc3339(wall: u64, out: &mut String) {
    push_date_time(wall / 1000, out);
    digits(out, wall % 1000, 3);
    out.push('Z');
}

fn push_date_time(second: u64, out: &mut String) {
    let at = moment(second);
    digits(out, year(at), 4);
    for part in [u8::from(at.month()), at.day()] {
        out.push('-');
        digits(out, part.into(), 2);
    }
    out.push('T');
    push_time(at, out);
    out.push('.');
}

fn push_clf(second: u64, out: &mut String) {
    let at = moment(second);
    digits(out, at.day().into(), 2);
    out.push('/');
    out.push_str(MONTHS.get(usize::from(u8::from(at.month())) - 1).unwrap_or(&"Jan"));
    out.push('/');
    digits(out, year(at), 4);
    out.push(':');
    push_time(at, out);
}

fn push_time(at: OffsetDateTime, out: &mut String) {
    digits(out, at.hour().into(), 2);
    for part in [at.minute(), at.second()] {
        out.push(':');
        digits(out, part.into(), 2);
    }
}

/// No clock of ours is before 1970 or after 9999.
fn year(at: OffsetDateTime) -> u64 {
    u64::try_from(at.year()).unwrap_or_default()
}

fn moment(second: u64) -> OffsetDateTime {
    let second = i64::try_from(second).unwrap_or_default();
    OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

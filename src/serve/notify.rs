//! Tells systemd how far the gateway is (`Type=notify-reload`), where `NOTIFY_SOCKET` says that it listens.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState::{ExtendTimeoutUsec, MainPid, Ready, Reloading, Status, Stopping};
use sd_notify::{NotifyState, notify};

/// What a stop takes beside the drain.
const REST: Duration = Duration::from_secs(10);

/// Every listener stands. A process that took over is the one to watch from now on.
///
/// # Errors
/// When systemd does not hear it: it would wait, and then end the gateway.
pub fn ready(took_over: bool) -> io::Result<()> {
    if took_over {
        notify(&[MainPid(std::process::id())])?;
    }
    notify(&[Ready, Status("serving")])
}

/// The config is read anew; [`reloaded`] must follow.
pub fn reloading() {
    if let Ok(time) = NotifyState::monotonic_usec_now() {
        // Whoever waits for it hears of the end, and that is tried again with every reload.
        let _ = notify(&[Reloading, time, Status("reloading")]);
    }
}

/// The new config is served, or the old one on.
pub fn reloaded(taken: bool) {
    let status = if taken { "serving" } else { "serving the old config: the one on the disk was refused" };
    let _ = notify(&[Ready, Status(status)]);
}

/// Another process serves in our place: it is the one to watch, and nothing stops. Said by us, because systemd hears only the
/// process that it watches (`NotifyAccess=main`).
pub fn given_way(successor: Option<i32>) {
    if let Some(process) = successor.and_then(|process| u32::try_from(process).ok()) {
        let _ = notify(&[MainPid(process)]);
    }
}

/// The drain has begun, and may take so long.
pub fn stopping(drain: Duration) {
    let limit = u32::try_from((drain + REST).as_micros()).unwrap_or(u32::MAX);
    let _ = notify(&[Stopping, Status("draining"), ExtendTimeoutUsec(limit)]);
}

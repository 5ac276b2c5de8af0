//! An order to block that no gateway has answered waits on the disk: one that runs looks there every few seconds, any other at its
//! start. It may be obeyed twice, which blocks twice and harms nothing.

use std::io::{self, Write};
use std::path::Path;

use super::client::{Failure, Gateway};
use super::exit;
use crate::admin::api::{Refusal, RefusalKind};
use crate::admin::client::CallError;
use crate::clock::Clock;
use crate::stores::blocks::Order;
use crate::stores::blocks::order::{Spooled, width};
use crate::stores::durable::spool;

/// Whether an order that has come to this may still wait to be obeyed, and why it is not known.
pub(super) fn unanswered(failure: Failure) -> Result<CallError, Failure> {
    match failure {
        Failure::NotReached(down @ CallError::Down(_)) => Ok(down),
        Failure::NoAnswer(silent) => Ok(silent),
        // It ends with the order in its queue.
        Failure::Refused(Refusal { error: RefusalKind::Unavailable, message, .. }) => {
            Ok(CallError::NoAnswer(message))
        }
        other => Err(other),
    }
}

/// Leaves the order, and says so.
pub(super) fn leave(
    order: &Order,
    json: bool,
    gateway: &Gateway,
    why: &CallError,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    if let Some(width) = width(&order.what).filter(|_| !order.yes) {
        let message = format!("{width}; if that is meant, say it again with --yes");
        return Err(Failure::Refused(Refusal::new(RefusalKind::Refused, message)));
    }
    let by = format!("uid {}", rustix::process::getuid().as_raw());
    let spooled = Spooled { schema: 1, order: order.clone(), by, created: Clock::system().now().wall };
    let socket = gateway.socket.display();
    let path = spool::leave(&gateway.state_dir, &spooled).map_err(|error| {
        let place = gateway.state_dir.display();
        let word = if is_down(why) { "NOT BLOCKED" } else { "NOT CONFIRMED" };
        let message =
            format!("{word}: {why} ({socket}), and the order could not be left in {place}: {error}");
        Failure::Io(io::Error::other(message))
    })?;
    let code = if is_down(why) { exit::UNREACHED } else { exit::ERROR };
    if json {
        let left = serde_json::json!({ "schema": 1, "confirmed": false, "durable": true, "spooled": path, "exit": code });
        writeln!(err, "{left}")?;
    } else {
        tell(why, gateway, &path, err)?;
    }
    Ok(code)
}

fn is_down(why: &CallError) -> bool {
    matches!(why, CallError::Down(_))
}

fn tell(why: &CallError, gateway: &Gateway, path: &Path, err: &mut dyn Write) -> io::Result<()> {
    let (socket, path) = (gateway.socket.display(), path.display());
    if let CallError::Down(cause) = why {
        writeln!(err, "NOT CONFIRMED: the gateway does not answer on {socket} ({cause}).")?;
        writeln!(err, "  The order is safe on the disk ({path}) and holds from the gateway's next start,")?;
        writeln!(err, "  or within seconds where a new gateway is just taking over (`portcullis blocks`).")?;
        writeln!(
            err,
            "  While the gateway is down nothing is blocked: can the application be reached without it?"
        )
    } else {
        writeln!(err, "NOT CONFIRMED: {why} ({socket}).")?;
        writeln!(
            err,
            "  The order is safe on the disk ({path}): a gateway that runs obeys it within seconds,"
        )?;
        writeln!(err, "  any other from its next start. See `portcullis blocks`; there it may stand twice.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_gateway_has_refused_waits_on_the_disk_and_what_it_has_does_not() {
        let refused = |kind| Failure::Refused(Refusal::new(kind, "why"));
        let silent = CallError::NoAnswer("nothing within 15 s".into());
        for waits in [Failure::NoAnswer(silent), refused(RefusalKind::Unavailable)] {
            let dir = tempfile::tempdir().unwrap();
            let gateway = Gateway {
                socket: dir.path().join("admin.sock"),
                state_dir: dir.path().to_owned(),
                formats: Vec::new(),
            };
            let what = crate::stores::blocks::What::Jti { jti: "7".into() };
            let order =
                Order { what, site: None, lasting: None, expires: None, reason: String::new(), yes: false };
            let mut said = Vec::new();
            let why = unanswered(waits).unwrap();
            assert_eq!(leave(&order, false, &gateway, &why, &mut said).unwrap(), exit::ERROR);
            let said = String::from_utf8(said).unwrap();
            assert!(said.starts_with("NOT CONFIRMED") && said.contains("safe on the disk"), "{said}");
            let found = spool::read(&dir.path().join("spool")).unwrap();
            assert_eq!((found.orders.len(), &found.orders[0].1.order), (1, &order));
        }
        let forbidden = CallError::Forbidden(io::ErrorKind::PermissionDenied.into());
        for stays in
            [refused(RefusalKind::Refused), refused(RefusalKind::Usage), Failure::NotReached(forbidden)]
        {
            assert!(unanswered(stays).is_err());
        }
    }
}

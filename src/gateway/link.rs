//! What stands below a request.

use std::net::IpAddr;
use std::rc::Rc;

use crate::config::class::Class;
use crate::request::certificate::Certified;
use crate::request::facts::Malformed;
use crate::stores::streams::Kill;

/// What the gateway may know of the connection that a request came by.
pub trait Link {
    /// The socket's peer; where a trusted proxy sent a PROXY header, the client that it names.
    fn peer(&self) -> IpAddr;
    /// The socket's own peer, whatever a PROXY header says.
    fn carrier(&self) -> IpAddr {
        self.peer()
    }
    /// A trusted proxy says that the connection is its own (PROXY `LOCAL`).
    fn is_own(&self) -> bool {
        false
    }
    /// A trusted proxy says that it cannot name the client (PROXY `UNKNOWN` and the like): headers that came behind it are
    /// that client's own.
    fn is_nobody(&self) -> bool {
        false
    }
    /// What rules about client certificates its handshake was made under, and what was shown; `None`: nobody was asked.
    fn certified(&self) -> Option<&Certified> {
        None
    }
    /// It came by a `plain` listener, where a trusted proxy has ended TLS.
    fn is_plain(&self) -> bool;
    /// The name of the TLS handshake.
    fn sni(&self) -> Option<&str>;
    /// Counts the request; answers why its head was refused below, if it was.
    fn begin(&self) -> Option<Malformed>;
    /// Why the body of the present request was refused below, if it was.
    fn malformed_body(&self) -> Option<Malformed>;
    /// The class of the present request: `live` and `rpc` owe no minimum rate.
    fn of_class(&self, class: Class);
    /// A request's body is waited for, or no longer; so many bytes of it have come.
    fn owes(&self, owes: bool, received: u64) {
        let _ = (owes, received);
    }
    /// A tunnel begins in a stream of this connection; `down` ends what the stream still sends. Said in the same poll in
    /// which its answer is. (An HTTP/1.1 connection becomes the tunnel.)
    fn tunnel_begins(&self, down: &Rc<Kill>) {
        let _ = down;
    }
    /// It has ended.
    fn tunnel_ends(&self) {}
}

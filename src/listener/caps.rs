//! How many connections may be open, all together and for one client; shared by all workers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::request::client::Client;
use crate::stores::places::{Place, Places};

/// Counts of open connections. A client has an entry only while it has one open, so the first bound bounds the second.
#[derive(Debug, Default)]
pub struct Caps {
    all: AtomicUsize,
    clients: Arc<Places>,
}

/// A place among the open connections; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    open: Open,
    client: Option<Place>,
}

/// One of all.
#[derive(Debug)]
struct Open(Arc<Caps>);

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `limits.connections`.
    All,
    /// `limits.connections_per_client`.
    Client,
}

impl Caps {
    /// Takes a place. `per_client` is `None` for peers that stand for many clients.
    ///
    /// # Errors
    /// When there is none left.
    pub fn enter(
        self: &Arc<Self>,
        peer: IpAddr,
        all: usize,
        per_client: Option<usize>,
    ) -> Result<Permit, Full> {
        let before = self.all.fetch_add(1, Ordering::Relaxed);
        // It exists from here, so that every way out gives the place back.
        let open = Open(Arc::clone(self));
        if before >= all {
            return Err(Full::All);
        }
        let take = |most| self.clients.take(Client::Address(peer), most).ok_or(Full::Client);
        Ok(Permit { client: per_client.map(take).transpose()?, open })
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// The connection turns out to be this client's, of whom a trusted proxy told: it takes a place of his too.
    ///
    /// # Errors
    /// When he has none left.
    pub fn count_for(&mut self, client: IpAddr, most: usize) -> Result<(), Full> {
        let place = self.open.0.clients.take(Client::Address(client), most).ok_or(Full::Client)?;
        self.client = Some(place);
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_cannot_take_all_places() {
        let caps = Arc::new(Caps::default());
        let first = caps.enter(at("192.0.2.1"), 10, Some(2)).unwrap();
        let _second = caps.enter(at("::ffff:192.0.2.1"), 10, Some(2)).unwrap();
        assert_eq!(caps.enter(at("192.0.2.1"), 10, Some(2)).unwrap_err(), Full::Client);
        let _other = caps.enter(at("192.0.2.2"), 10, Some(2)).unwrap();
        drop(first);
        assert!(caps.enter(at("192.0.2.1"), 10, Some(2)).is_ok());
    }

    #[test]
    fn a_client_of_whom_a_proxy_tells_has_as_many_places_as_any() {
        let caps = Arc::new(Caps::default());
        let mut proxied = caps.enter(at("10.0.0.1"), 10, None).unwrap();
        proxied.count_for(at("192.0.2.1"), 1).unwrap();
        assert_eq!(caps.enter(at("192.0.2.1"), 10, Some(1)).unwrap_err(), Full::Client);
        let mut second = caps.enter(at("10.0.0.1"), 10, None).unwrap();
        assert_eq!(second.count_for(at("192.0.2.1"), 1).unwrap_err(), Full::Client);
        drop((proxied, second));
        assert_eq!((caps.open(), caps.clients.clients()), (0, 0));
    }

    #[test]
    fn a_whole_64_is_one_client() {
        let caps = Arc::new(Caps::default());
        let _one = caps.enter(at("2001:db8:0:1::1"), 10, Some(1)).unwrap();
        assert_eq!(caps.enter(at("2001:db8:0:1:ffff::"), 10, Some(1)).unwrap_err(), Full::Client);
        assert!(caps.enter(at("2001:db8:0:2::1"), 10, Some(1)).is_ok());
    }

    #[test]
    fn the_bound_over_all_holds_for_proxies_too_and_nothing_is_left_behind() {
        let caps = Arc::new(Caps::default());
        let held: Vec<_> = (0..3).map(|_| caps.enter(at("192.0.2.1"), 3, None).unwrap()).collect();
        assert_eq!(caps.enter(at("192.0.2.9"), 3, Some(3)).unwrap_err(), Full::All);
        drop(held);
        drop(caps.enter(at("192.0.2.9"), 3, Some(3)).unwrap());
        assert_eq!(caps.open(), 0);
        assert_eq!(caps.clients.clients(), 0);
    }
}

//! Bytes of bodies that are held in memory while they are read: few at once, whoever sends them. A client has a number of
//! places, so that one that sends slowly takes the room of no other; all together have a number of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::places::{Place, Places};
use crate::request::client::Client;

/// Bodies of one client at once (IPv6: of one /64).
const OF_A_CLIENT: usize = 64;
/// Bytes of all bodies at once.
pub const MOST: usize = 32 << 20;

/// The room.
#[derive(Debug, Default)]
pub struct Room {
    bytes: AtomicUsize,
    places: Arc<Places>,
}

/// One body's part of the room; given back when dropped.
#[derive(Debug)]
pub struct Held {
    room: Arc<Room>,
    bytes: usize,
    _place: Place,
}

impl Room {
    /// Room for a body that begins; `None`: this client holds as many as it may.
    pub fn begin(self: &Arc<Self>, client: Client) -> Option<Held> {
        let place = self.places.take(client, OF_A_CLIENT)?;
        Some(Held { room: Arc::clone(self), bytes: 0, _place: place })
    }
}

impl Held {
    /// So many bytes more; `false`: there is no room for them.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let before = self.room.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before.saturating_add(bytes) <= MOST
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::Address([192, 0, 2, last].into())
    }

    #[test]
    fn a_client_has_its_places_and_all_have_so_many_bytes_and_both_come_back() {
        let room = Arc::<Room>::default();
        let held: Vec<Held> = std::iter::from_fn(|| room.begin(client(1))).collect();
        assert_eq!(held.len(), OF_A_CLIENT);
        let mut other = room.begin(client(2)).unwrap();
        assert!(other.grow(MOST) && !other.grow(1));
        drop(other);
        assert!(room.begin(client(2)).unwrap().grow(MOST), "given back");
        drop(held);
        assert!(room.begin(client(1)).is_some());
    }
}

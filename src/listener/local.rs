//! Handles to what one thread shares by `Rc`, in types that hyper wants to be `Send`.
//!
//! hyper hands a connection over to a tunnel as a boxed `Send` type, whatever the runtime. A [`Local`] is a number; the
//! `Rc` stays in a table of its thread. On any other thread the number leads nowhere.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::LocalKey;

use slab::Slab;

use super::Connection;
use crate::stores::streams::Kill;

/// A table of one thread.
pub type Table<T> = RefCell<Slab<(u64, Rc<T>)>>;

/// What can be kept in a table of a thread.
pub trait Kept: Sized + 'static {
    /// The table.
    fn table() -> &'static LocalKey<Table<Self>>;
}

/// A `Send` handle that leads to its `Rc` on the thread that made it, as long as it lives.
#[derive(Debug)]
pub struct Local<T: Kept> {
    place: usize,
    serial: u64,
    kept: std::marker::PhantomData<fn() -> T>,
}

/// No two handles of the process are alike.
static SERIAL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CONNECTIONS: Table<Connection> = const { RefCell::new(Slab::new()) };
    static KILLS: Table<Kill> = const { RefCell::new(Slab::new()) };
}

impl Kept for Connection {
    fn table() -> &'static LocalKey<Table<Self>> {
        &CONNECTIONS
    }
}

impl Kept for Kill {
    fn table() -> &'static LocalKey<Table<Self>> {
        &KILLS
    }
}

impl<T: Kept> Local<T> {
    /// Keeps `value` in this thread's table.
    pub fn new(value: Rc<T>) -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let place = T::table().with(|table| table.borrow_mut().insert((serial, value)));
        Self { place, serial, kept: std::marker::PhantomData }
    }

    /// The value; `None` on another thread.
    pub fn get(&self) -> Option<Rc<T>> {
        T::table().try_with(|table| self.find(&table.borrow()).cloned()).ok().flatten()
    }

    fn find<'table>(&self, table: &'table Slab<(u64, Rc<T>)>) -> Option<&'table Rc<T>> {
        table.get(self.place).filter(|(serial, _)| *serial == self.serial).map(|(_, value)| value)
    }
}

impl<T: Kept> Drop for Local<T> {
    fn drop(&mut self) {
        // The value is dropped outside of the borrow: its own drop may come here again.
        let _value = T::table().try_with(|table| {
            let mut table = table.borrow_mut();
            if self.find(&table).is_some() { table.try_remove(self.place) } else { None }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_leads_home_and_nowhere_else() {
        let kill = Rc::new(Kill::default());
        let handle = Local::new(Rc::clone(&kill));
        assert!(handle.get().is_some_and(|found| Rc::ptr_eq(&found, &kill)));
        let handle = std::thread::spawn(move || {
            assert!(handle.get().is_none());
            handle
        })
        .join()
        .unwrap();
        drop(handle);
        assert_eq!(Rc::strong_count(&kill), 1);
    }
}

//! One worker's view of the published block index: a reference count of its own, renewed when the generation changes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::blocks::{Blocks, Index};

/// The index as one thread holds it.
#[derive(Debug)]
pub struct Current(Arc<Index>);

impl std::ops::Deref for Current {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.0
    }
}

/// A reader for one thread.
#[derive(Debug)]
pub struct BlocksReader {
    blocks: Arc<Blocks>,
    cached: RefCell<(u64, Rc<Current>)>,
}

impl BlocksReader {
    /// A reader for one thread.
    pub fn new(blocks: Arc<Blocks>) -> Self {
        let cached = RefCell::new((blocks.generation(), Rc::new(Current(blocks.load()))));
        Self { blocks, cached }
    }

    /// The index as it is now. Read it after the stream is registered: then a block either is seen here or finds the
    /// stream on its sweep.
    pub fn current(&self) -> Rc<Current> {
        // The generation is read before the index: an older number with a newer index only renews once more.
        let generation = self.blocks.generation();
        let mut cached = self.cached.borrow_mut();
        if cached.0 != generation {
            *cached = (generation, Rc::new(Current(self.blocks.load())));
        }
        Rc::clone(&cached.1)
    }
}

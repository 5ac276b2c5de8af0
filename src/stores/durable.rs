//! The durable store of blocks: redb behind one owner (DESIGN 6).

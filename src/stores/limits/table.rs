//! The places of one shard: sets of 16, of which each key may use two, so that they fill up evenly.
//!
//! With ten keys for each set a key that finds both of its sets full is a matter of chance that does not happen: a table
//! for so many keys holds them all. A place is free again as soon as its budget is full again: then nothing is lost.

const WAYS: usize = 16;
/// Keys for which a set is meant: the rest is room for chance.
const MEANT: usize = 10;
/// Shares of a budget are counted in parts of this.
const WHOLE: u64 = 1 << 16;
const EMPTY: Set = [Slot { key: 0, due: 0, span: 0 }; WAYS];

type Set = [Slot; WAYS];

/// One key's budget. An empty place has key 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) key: u64,
    /// GCRA's theoretical arrival time, monotonic nanoseconds: when the budget will be full again.
    pub(super) due: u64,
    /// How long an empty budget takes to be full again, in nanoseconds.
    pub(super) span: u64,
}

/// Places of one shard. A set comes into being with its first key.
#[derive(Debug)]
pub(super) struct Shard {
    sets: Vec<Option<Box<Set>>>,
}

/// A place: which set, and which one of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat(usize, usize);

/// Where a key is, or could be.
#[derive(Debug)]
pub(super) enum Found {
    /// Here, and this is its budget.
    Known(Seat, Slot),
    /// Not yet; it may have this place. `true`: which nobody has had before.
    Free(Seat, bool),
    /// Nowhere; of all that could give way to it, this is the one that has used least of its budget.
    Full(Seat, Slot),
}

impl Shard {
    /// Places for at least this many keys.
    pub(super) fn new(keys: usize) -> Self {
        Self { sets: vec![None; keys.div_ceil(MEANT).max(2)] }
    }

    pub(super) fn seek(&self, key: u64, now: u64) -> Found {
        let pair = self.pair(key);
        for (set, slots) in pair {
            if let Some(way) = slots.iter().position(|slot| slot.key == key) {
                return Found::Known(Seat(set, way), slots.get(way).copied().unwrap_or(EMPTY_SLOT));
            }
        }
        let [first, second] = pair;
        let live = |slots: &Set| slots.iter().filter(|slot| slot.due > now).count();
        let (set, slots) = if live(second.1) < live(first.1) { second } else { first };
        if let Some((way, slot)) = slots.iter().enumerate().find(|(_, slot)| slot.due <= now) {
            return Found::Free(Seat(set, way), slot.key == 0);
        }
        let all = pair.into_iter().flat_map(|(set, slots)| {
            slots.iter().enumerate().map(move |(way, slot)| (Seat(set, way), *slot))
        });
        let fullest = all.min_by_key(|(_, slot)| slot.used(now));
        let (seat, slot) = fullest.unwrap_or((Seat(0, 0), EMPTY_SLOT));
        Found::Full(seat, slot)
    }

    pub(super) fn put(&mut self, seat: Seat, slot: Slot) {
        let set = self.sets.get_mut(seat.0).map(|set| set.get_or_insert_with(|| Box::new(EMPTY)));
        if let Some(place) = set.and_then(|set| set.get_mut(seat.1)) {
            *place = slot;
        }
    }

    /// The two sets of a key.
    fn pair(&self, key: u64) -> [(usize, &Set); 2] {
        let count = self.sets.len() as u64;
        // The lowest bits have chosen the shard.
        let first = (key >> 8) % count;
        let second = (first + 1 + (key >> 36) % (count - 1)) % count;
        [first, second].map(|place| {
            let place = usize::try_from(place).unwrap_or_default();
            (place, self.sets.get(place).and_then(Option::as_deref).unwrap_or(&EMPTY))
        })
    }
}

const EMPTY_SLOT: Slot = Slot { key: 0, due: 0, span: 0 };

impl Slot {
    /// The same share of the budget is used where it is now one of this span.
    pub(super) fn under(self, span: u64, now: u64) -> Self {
        if self.span == span || self.span == 0 {
            return self;
        }
        let left = u128::from(self.due.saturating_sub(now)) * u128::from(span) / u128::from(self.span);
        let left = u64::try_from(left).unwrap_or(u64::MAX).min(span);
        Self { due: now.saturating_add(left), span, ..self }
    }

    /// Which share of the budget is used, in parts of [`WHOLE`].
    fn used(&self, now: u64) -> u64 {
        let left = u128::from(self.due.saturating_sub(now).min(self.span));
        u64::try_from(left * u128::from(WHOLE) / u128::from(self.span.max(1))).unwrap_or(WHOLE)
    }

    /// Nothing worth a place is lost: at least half of the budget is there, and less is used than of the other's.
    pub(super) fn gives_way_to(&self, other: &Self, now: u64) -> bool {
        let used = self.used(now);
        used <= WHOLE / 2 && used < other.used(now)
    }
}

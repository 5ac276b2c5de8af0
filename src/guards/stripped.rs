//! Which of an application's token cookies are left out of a request that goes on all the same, and which of them the browser
//! is to forget.
//!
//! A cookie is known by its place among the app file's carriers; all from the 63rd on are one.

/// Which cookies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stripped {
    left_out: u64,
    forgotten: u64,
    /// The refresh cookie too: both.
    refresh: bool,
}

impl Stripped {
    /// None.
    pub const NONE: Self = Self { left_out: 0, forgotten: 0, refresh: false };
    /// All, the refresh cookie with them: a session is blocked.
    pub const ALL: Self = Self { left_out: u64::MAX, forgotten: u64::MAX, refresh: true };

    /// One more is left out; `forget`: for good.
    pub fn leave_out(&mut self, place: usize, forget: bool) {
        self.left_out |= bit(place);
        if forget {
            self.forgotten |= bit(place);
        }
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            left_out: self.left_out | other.left_out,
            forgotten: self.forgotten | other.forgotten,
            refresh: self.refresh || other.refresh,
        }
    }

    /// Whether there are any.
    pub const fn any(self) -> bool {
        self.left_out != 0
    }

    /// Whether one is bad, not only ended.
    pub const fn any_bad(self) -> bool {
        self.forgotten != 0
    }

    /// Whether it is all of them.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether the cookie at this place, or the refresh cookie (`None`), is left out.
    pub fn leaves_out(self, place: Option<usize>) -> bool {
        place.map_or(self.refresh, |place| self.left_out & bit(place) != 0)
    }

    /// Whether the browser is to forget it.
    pub fn forgets(self, place: Option<usize>) -> bool {
        place.map_or(self.refresh, |place| self.forgotten & bit(place) != 0)
    }
}

fn bit(place: usize) -> u64 {
    1 << place.min(63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_left_out_by_itself_and_the_refresh_cookie_only_with_all() {
        let mut stripped = Stripped::NONE;
        stripped.leave_out(1, false);
        assert!(!stripped.any_bad());
        stripped.leave_out(2, true);
        let of = |place| (stripped.leaves_out(place), stripped.forgets(place));
        assert_eq!([of(Some(0)), of(Some(1)), of(Some(2))], [(false, false), (true, false), (true, true)]);
        assert_eq!(of(None), (false, false));
        assert!(stripped.any_bad() && stripped.any() && !stripped.is_all() && !Stripped::NONE.any());
        let all = stripped.and(Stripped::ALL);
        assert!(all.is_all() && all.leaves_out(Some(1000)) && all.forgets(None));
    }
}

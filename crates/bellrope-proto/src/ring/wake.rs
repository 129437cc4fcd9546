/// Whether the other side must be woken because of what was just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "a sleeping peer stays asleep unless it is woken"]
pub struct Wake(bool);

impl Wake {
    /// Nobody needs to be woken.
    pub const NO: Self = Self(false);
    /// The peer sleeps and must be woken.
    pub const YES: Self = Self(true);

    /// Whether the peer must be woken.
    #[inline]
    #[must_use]
    pub fn needed(self) -> bool {
        self.0
    }
}

impl std::ops::BitOrAssign for Wake {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        // Where nobody needs to be woken, as nearly always, nothing is stored.
        if other.0 {
            self.0 = true;
        }
    }
}

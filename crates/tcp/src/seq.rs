//! Sequence numbers: 32 bits that wrap (RFC 9293, 3.4).

use std::ops::{Add, AddAssign, Sub};

/// A sequence number. Two are compared by the way around that is shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seq(pub(crate) u32);

impl Seq {
    /// How far it is from `earlier` to this one.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    #[inline]
    pub(crate) fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    #[inline]
    pub(crate) fn after(self, other: Self) -> bool {
        other.before(self)
    }

    #[inline]
    pub(crate) fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    #[inline]
    pub(crate) fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// The earlier of two.
    #[inline]
    pub(crate) fn earlier(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }

    /// The later of two.
    #[inline]
    pub(crate) fn later(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    #[inline]
    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for Seq {
    #[inline]
    fn add_assign(&mut self, bytes: u32) {
        *self = *self + bytes;
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    #[inline]
    fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::Seq;

    #[test]
    fn comparison_goes_the_shorter_way_around() {
        let (low, high) = (Seq(5), Seq(u32::MAX - 5));
        assert!(high.before(low) && low.after(high) && high.at_or_before(low) && low.at_or_after(high));
        assert_eq!((low.since(high), high.earlier(low), high.later(low)), (11, high, low));
        assert!(low.at_or_before(low) && low.at_or_after(low) && !low.before(low) && !low.after(low));
        assert_eq!((high + 11, low - 11), (low, high));
    }
}

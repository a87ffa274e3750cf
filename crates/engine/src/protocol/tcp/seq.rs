//! Sequence numbers compare modulo 2³² (RFC 9293, section 3.4).
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A sequence or acknowledgement number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct Seq(pub(crate) u32);

impl Seq {
    /// Is it before `other`?
    #[inline(always)]
    pub(crate) const fn before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Is it after `other`?
    #[inline(always)]
    pub(crate) const fn after(self, other: Seq) -> bool {
        other.before(self)
    }

    /// `bytes` later.
    #[inline(always)]
    pub(crate) const fn plus(self, bytes: u32) -> Seq {
        Seq(self.0.wrapping_add(bytes))
    }

    /// `bytes` earlier.
    #[inline(always)]
    pub(crate) const fn minus(self, bytes: u32) -> Seq {
        Seq(self.0.wrapping_sub(bytes))
    }

    /// Number of bytes from `earlier` to this, modulo 2³².
    #[inline(always)]
    pub(crate) const fn since(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_survives_the_wrap(at in any::<u32>(), on in 1u32..1 << 31) {
            prop_assert!(Seq(at).before(Seq(at).plus(on)));
            prop_assert!(!Seq(at).plus(on).before(Seq(at)));
            prop_assert_eq!(Seq(at).plus(on).since(Seq(at)), on);
            prop_assert_eq!(Seq(at).plus(on).minus(on), Seq(at));
        }
    }
}

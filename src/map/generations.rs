//! The source of generations: [`Generations`]. Each is drawn once in a registry, and those of a job grow.

use std::num::NonZeroU64;

use crate::owner::Generation;
use crate::sync::{AtomicU64, Counter, LOOM, Ordering};

const STRIPE_BITS: u32 = if LOOM { 0 } else { 3 };
const STRIPES: usize = 1 << STRIPE_BITS;

/// Hands out generations, each once, in several stripes so that writers of different jobs seldom share a cache line.
///
/// A job's hash chooses its stripe, so the numbers of one job come from one counter and grow (E2).
#[derive(Debug)]
pub(super) struct Generations {
    stripes: [Stripe; STRIPES],
}

/// Two cache lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    /// How many were drawn.
    drawn: AtomicU64,
    /// How many of those went to no mark, as their publication was outrun.
    discarded: Counter,
}

impl Stripe {
    crate::sync::const_unless_loom! {
        const fn new() -> Self {
            Self { drawn: AtomicU64::new(0), discarded: Counter::new() }
        }
    }
}

impl Generations {
    crate::sync::const_unless_loom! {
        pub(super) const fn new() -> Self {
            Self { stripes: crate::sync::array_of!(Stripe::new(); STRIPES) }
        }
    }

    /// Draws the next generation for a job of this hash.
    ///
    /// Called *after* the slot was loaded and published only where that load still holds (E2).
    #[inline]
    pub(super) fn draw(&self, hash: u64) -> Generation {
        let place = stripe_of(hash);
        // E2: the counter orders nothing by itself. The slot's load and compare-exchange order the draws of a job.
        let number = self.stripe(hash).drawn.fetch_add(1, Ordering::Relaxed);
        let number = number.wrapping_add(1).wrapping_shl(STRIPE_BITS) | place as u64;
        NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN).into()
    }

    /// Takes note that a drawn generation went to no mark.
    #[cold]
    pub(super) fn discard(&self, hash: u64) {
        self.stripe(hash).discarded.increment();
    }

    /// How many generations went to a mark; one that is being tried counts until it is discarded.
    pub(super) fn published(&self) -> u64 {
        self.stripes.iter().fold(0, |sum, stripe| {
            let discarded = stripe.discarded.get();
            let drawn = stripe.drawn.load(Ordering::Relaxed); // E6
            sum.wrapping_add(drawn.saturating_sub(discarded))
        })
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`stripe_of` is below STRIPES")]
    fn stripe(&self, hash: u64) -> &Stripe {
        &self.stripes[stripe_of(hash)]
    }
}

/// Chooses by high bits, as the map uses the low ones.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "masked to the number of stripes")]
fn stripe_of(hash: u64) -> usize {
    hash.wrapping_shr(u64::BITS.wrapping_sub(STRIPE_BITS).wrapping_sub(1)) as usize & STRIPES.wrapping_sub(1)
}

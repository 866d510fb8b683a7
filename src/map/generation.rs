//! The source of generations: [`Generations`]. Each is handed out once in a registry, and those of a job grow.

use std::num::NonZeroU64;

use crate::owner::Generation;
use crate::sync::{AtomicU64, Counter, LOOM, Ordering};

const STRIPE_BITS: u32 = if LOOM { 0 } else { 3 };
const STRIPES: usize = 1 << STRIPE_BITS;

/// Hands out generations, each once, in several stripes so that writers of different jobs seldom share a cache line.
///
/// A job's hash chooses its stripe, so the numbers of one job come from one counter and grow (E2).
///
/// ```text
///   63                          3 2        0
///  │ count of the stripe, from 1 │ stripe   │
/// ```
#[derive(Debug)]
pub(super) struct Generations {
    stripes: [Stripe; STRIPES],
}

/// Two cache lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    /// How many were handed out.
    drawn: AtomicU64,
    /// How many of those went to no mark, as another write to the slot came first.
    abandoned: Counter,
}

impl Stripe {
    crate::sync::const_unless_loom! {
        const fn new() -> Self {
            Self { drawn: AtomicU64::new(0), abandoned: Counter::new() }
        }
    }
}

impl Generations {
    crate::sync::const_unless_loom! {
        pub(super) const fn new() -> Self {
            Self { stripes: crate::sync::array_of!(Stripe::new(); STRIPES) }
        }
    }

    /// Returns the next generation for a job of this hash.
    ///
    /// Called *after* the slot was loaded and published only where that load still holds (E2).
    #[inline]
    pub(super) fn next(&self, hash: u64) -> Generation {
        let stripe = stripe_of(hash);
        // E2: the counter orders nothing by itself. The slot's load and compare-exchange order the draws of a job.
        let number = self.stripe(hash).drawn.fetch_add(1, Ordering::Relaxed);
        let number = (number + 1) << STRIPE_BITS | stripe as u64;
        NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN).into()
    }

    /// Takes note that a generation went to no mark.
    #[cold]
    pub(super) fn abandon(&self, hash: u64) {
        self.stripe(hash).abandoned.increment();
    }

    /// Returns how many generations went to a mark. One that is being tried counts until it is abandoned.
    pub(super) fn published(&self) -> u64 {
        let of_stripe = |stripe: &Stripe| {
            // Not of one instant: a generation may be seen abandoned before it is seen drawn.
            let abandoned = stripe.abandoned.get();
            let drawn = stripe.drawn.load(Ordering::Relaxed); // E6
            drawn.saturating_sub(abandoned)
        };
        self.stripes.iter().map(of_stripe).sum()
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`stripe_of` is below STRIPES")]
    fn stripe(&self, hash: u64) -> &Stripe {
        &self.stripes[stripe_of(hash)]
    }
}

/// Chooses by high bits, as the map uses the low ones.
#[inline]
fn stripe_of(hash: u64) -> usize {
    (hash >> (u64::BITS - STRIPE_BITS - 1)) as usize & (STRIPES - 1)
}

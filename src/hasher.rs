//! The default hasher, [`DefaultHashBuilder`]: it can be made in a constant, and is seeded once per process.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// The hasher of a [`Registry`](crate::Registry) unless another is given: fast, and seeded per process.
///
/// It can be made in a constant, so that a registry can be a `static`. Its seed makes collisions hard to *guess*, but
/// it is not a cryptographic hash. Where attackers choose job ids and can watch timings, give
/// [`Registry::with_hasher`](crate::Registry::with_hasher) a keyed one such as [`std::hash::RandomState`].
///
/// ```
/// use livemark::{DefaultHashBuilder, Registry};
///
/// static REGISTRY: Registry<u64, &str> = Registry::with_hasher(DefaultHashBuilder::new());
/// assert!(REGISTRY.is_empty());
/// ```
#[derive(Clone, Copy, Default)]
pub struct DefaultHashBuilder(());

impl DefaultHashBuilder {
    /// Returns the process's hasher: all of its instances hash alike.
    ///
    /// ```
    /// use livemark::{DefaultHashBuilder, Registry};
    ///
    /// static FINALIZING: Registry<String, &str> = Registry::with_hasher(DefaultHashBuilder::new()); // as `Registry::new`
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }
}

/// Any odd number with mixed bits: the randomness is in the shared seed.
const PER_HASHER_SEED: u64 = 0x9E37_79B9_7F4A_7C15;

impl BuildHasher for DefaultHashBuilder {
    type Hasher = DefaultHasher;

    #[inline]
    fn build_hasher(&self) -> DefaultHasher {
        DefaultHasher(FoldHasher::with_seed(PER_HASHER_SEED, SharedSeed::global_random()))
    }
}

impl fmt::Debug for DefaultHashBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultHashBuilder")
    }
}

/// The state of one hash by [`DefaultHashBuilder`].
///
/// ```
/// use std::hash::BuildHasher;
/// use livemark::DefaultHashBuilder;
///
/// let hash = DefaultHashBuilder::new().hash_one("job-7");
/// assert_eq!(hash, DefaultHashBuilder::new().hash_one("job-7"), "one seed for the whole process");
/// ```
#[derive(Clone)]
pub struct DefaultHasher(FoldHasher<'static>);

/// Hands each write on: the integers' own methods are what makes the hash fast.
macro_rules! forward {
    ($($write:ident: $int:ty),*) => {$(
        #[inline]
        fn $write(&mut self, value: $int) {
            self.0.$write(value);
        }
    )*};
}

impl Hasher for DefaultHasher {
    forward!(write_u8: u8, write_u16: u16, write_u32: u32, write_u64: u64, write_u128: u128, write_usize: usize);

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl fmt::Debug for DefaultHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultHasher")
    }
}

//! Hashers whose keys collide.

use std::hash::{BuildHasherDefault, Hasher};

/// Hashes every key alike: all jobs share one bucket, at the last bits of the hash.
#[derive(Default)]
pub(crate) struct Constant;

impl Hasher for Constant {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0x5EED_5EED_5EED_5EED
    }
}

/// Every key collides with every other.
pub(crate) type AllEqual = BuildHasherDefault<Constant>;

/// Hashes numbers so that they share the low 12 bits and differ in the next: they meet in one slot of the root, and
/// part in its branch.
#[derive(Default)]
pub(crate) struct Crowded(u64);

impl Hasher for Crowded {
    fn write(&mut self, _: &[u8]) {
        panic!("for u64 keys");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number << 12;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Every key goes through one slot of the root.
pub(crate) type OneRootSlot = BuildHasherDefault<Crowded>;

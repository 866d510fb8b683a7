//! Memory that shares its cache lines with nothing else: [`CachePadded`].

use std::ops::Deref;

/// A value on cache lines of its own, two of them, as processors fetch them in pairs.
///
/// A write to a line takes it away from every core that reads it. So what is read often stands apart from what is
/// written often by others.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

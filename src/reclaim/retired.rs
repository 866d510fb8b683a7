//! One thing that waits to be freed: [`Retired`].

/// A pointer to what is to be freed, and how.
pub(super) struct Retired {
    pointer: *mut (),
    free: unsafe fn(*mut ()),
}

// SAFETY: what is retired may be freed on any thread, by the promise of `new`'s caller.
unsafe impl Send for Retired {}

impl Retired {
    /// Takes note of what is to be freed.
    ///
    /// # Safety
    ///
    /// `free` may be called with `pointer` once, on any thread, when no thread is pinned any more that is pinned now.
    /// It does not panic.
    #[inline]
    pub(super) unsafe fn new(pointer: *mut (), free: unsafe fn(*mut ())) -> Self {
        Self { pointer, free }
    }

    /// Frees it. Called when no thread is pinned any more that was when it was retired.
    pub(super) fn free(self) {
        // SAFETY: by the promise of `new`'s caller, and as `self` is gone after this.
        unsafe { (self.free)(self.pointer) };
    }
}

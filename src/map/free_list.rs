//! A free list in each thread that marks: memory of freed entries, for its next marks.
//!
//! Entries are freed by the dozen, when an epoch has passed, and often by another thread than the one that allocated
//! them: both is what allocators are slow at. An entry's memory is put to another use only after it could have been
//! given back to the allocator, so nothing depends on this for its correctness.

use std::alloc::{Layout, dealloc};
use std::cell::RefCell;

use crate::sync::LOOM;
use crate::unwind::drop_quietly;

/// How many blocks a thread keeps at most: twice as many as a batch has.
const MOST: usize = 128;
/// How many bytes they have together at most. A thread keeps fewer of larger blocks, and none that is larger than this.
const MOST_BYTES: usize = 64 << 10;

// Of `std` also under loom, where it stays empty: in a model each entry has memory of its own.
std::thread_local! {
    static FREE_LIST: RefCell<FreeList> = const { RefCell::new(FreeList { layout: None, blocks: Vec::new() }) };
}

/// Blocks of one layout, that of the thread's first mark: few programs have registries of several types.
struct FreeList {
    layout: Option<Layout>,
    /// Allocated with `layout`, and nobody else's.
    blocks: Vec<*mut u8>,
}

/// Does what [`Box::new`] does, in a block of the free list if there is one.
#[inline]
pub(super) fn boxed<T>(value: T) -> Box<T> {
    let Some(block) = take(Layout::new::<T>()) else { return Box::new(value) };
    let block = block.cast::<T>();
    // SAFETY: `take` gave an allocation of this layout, which nobody else has.
    unsafe { block.write(value) };
    // SAFETY: allocated as a box of this layout is, and it holds a value now.
    unsafe { Box::from_raw(block) }
}

/// Drops what is in a box, quietly, and puts its block on the free list if the thread marks and has few.
///
/// # Safety
///
/// `boxed` came from a `Box<T>`, and nobody else has it.
pub(super) unsafe fn free<T>(boxed: *mut ()) {
    let (boxed, layout) = (boxed.cast::<T>(), Layout::new::<T>());
    // SAFETY: the caller's alone, and used no more.
    drop_quietly(|| unsafe { boxed.drop_in_place() });
    if !keep(layout, boxed.cast()) {
        // SAFETY: it came from a box of this layout, whose value is gone.
        unsafe { dealloc(boxed.cast(), layout) };
    }
}

#[inline]
fn take(layout: Layout) -> Option<*mut u8> {
    let take = |list: &RefCell<FreeList>| {
        let mut list = list.try_borrow_mut().ok()?;
        if list.layout == Some(layout) {
            return list.blocks.pop();
        }
        if list.layout.is_none() && !LOOM && layout.size() != 0 {
            list.layout = Some(layout);
            list.blocks.reserve_exact(most(layout));
        }
        None
    };
    FREE_LIST.try_with(take).ok().flatten()
}

#[inline]
fn keep(layout: Layout, block: *mut u8) -> bool {
    let keep = |list: &RefCell<FreeList>| {
        let Ok(mut list) = list.try_borrow_mut() else { return false };
        let keeps = list.layout == Some(layout) && list.blocks.len() < most(layout);
        if keeps {
            list.blocks.push(block);
        }
        keeps
    };
    FREE_LIST.try_with(keep).unwrap_or(false)
}

/// Returns how many blocks of this layout a thread keeps at most.
#[inline]
fn most(layout: Layout) -> usize {
    MOST_BYTES.checked_div(layout.size()).unwrap_or(0).min(MOST) // 0 if the size is
}

impl Drop for FreeList {
    fn drop(&mut self) {
        let Some(layout) = self.layout else { return };
        for block in self.blocks.drain(..) {
            // SAFETY: an allocation of this layout, and nobody else's.
            unsafe { dealloc(block, layout) };
        }
    }
}

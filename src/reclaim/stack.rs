//! A stack that is filled by anyone and emptied by one at a time: [`Stack`]. To push is lock-free; to pop gives up
//! instead of waiting.

use std::fmt;
use std::ptr;

use crate::sync::{AtomicPtr, Mutex, Ordering};

/// What is put on a stack, in the box that it stays in.
pub struct Node<T> {
    /// What it holds.
    pub value: T,
    /// On a stack: the one below.
    below: *mut Node<T>,
}

/// A stack: to push is lock-free, to pop is given up where another thread is about it.
///
/// What is left in it when it is dropped is leaked: the library's is `static`.
pub struct Stack<T> {
    /// The top one. Written by `push`, and by the holder of `taken`.
    top: AtomicPtr<Node<T>>,
    /// What was taken from there. Only ever tried: who finds it locked leaves the work to the one who holds it.
    taken: Mutex<Taken<T>>,
}

/// The nodes of a stack that was taken, from the top one on.
struct Taken<T>(*mut Node<T>);

// SAFETY: nodes are owned by the stack, and of values that may go to another thread.
unsafe impl<T: Send> Send for Taken<T> {}

impl<T> Node<T> {
    /// A node on no stack.
    pub fn new(value: T) -> Box<Self> {
        Box::new(Self { value, below: ptr::null_mut() })
    }
}

impl<T> Stack<T> {
    crate::sync::const_unless_loom! {
        /// An empty one.
        #[must_use]
        pub const fn new() -> Self {
            Self { top: AtomicPtr::new(ptr::null_mut()), taken: Mutex::new(Taken(ptr::null_mut())) }
        }
    }

    /// Puts `node` on top. To be called under a pin that every node waits for before it is pushed again (E9): or the
    /// one that is loaded here could be freed, and another at its address be taken for it.
    pub fn push(&self, node: Box<Node<T>>) {
        let node = Box::into_raw(node);
        let mut top = self.top.load(Ordering::Relaxed); // E9: it is only compared
        loop {
            // SAFETY: this thread's alone until the exchange succeeds.
            unsafe { (*node).below = top };
            // E9, release half: whoever takes the stack sees the node, and those below it.
            match self.top.compare_exchange(top, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => top = other,
            }
        }
    }

    /// One of the nodes, unless there is none or another thread is just here.
    pub fn pop(&self) -> Option<Box<Node<T>>> {
        let mut taken = self.taken.try_lock().ok()?;
        if taken.0.is_null() {
            // E9, acquire half. The whole stack: so that its nodes cannot come back between a look and an exchange.
            taken.0 = self.top.swap(ptr::null_mut(), Ordering::Acquire);
        }
        let node = taken.0;
        if node.is_null() {
            return None;
        }
        // SAFETY: it came from a box (`push`), and belonged to the stack that was taken whole.
        let node = unsafe { Box::from_raw(node) };
        taken.0 = node.below;
        Some(node)
    }
}

impl<T> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Stack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

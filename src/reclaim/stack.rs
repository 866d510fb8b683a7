//! A [`TreiberStack`]: anyone pushes, lock-free. The stack is taken whole, so that nodes cannot come back (ABA) between
//! a pop's look and its exchange. A pop gives up instead of waiting.

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

/// The nodes of a stack that was taken whole, from the top one on.
///
/// What is left in it when it is dropped is leaked.
pub struct List<T>(*mut Node<T>);

/// Nodes of which each is on the next, with the first and the last at hand.
///
/// They are leaked when it is dropped.
pub struct Chain<T> {
    first: *mut Node<T>,
    last: *mut Node<T>,
}

/// A Treiber stack whose pops take turns: to push is lock-free, to pop is given up where another thread is about it.
///
/// What is left in it when it is dropped is leaked: the library's are `static`.
pub struct TreiberStack<T> {
    /// The top one. Written by `push` and by `take`.
    top: AtomicPtr<Node<T>>,
    /// What was taken from there by `pop`. Only ever tried: a thread that finds it locked leaves the work to the one
    /// that holds it.
    taken: Mutex<List<T>>,
}

// SAFETY: nodes are owned by the list, and of values that may go to another thread.
unsafe impl<T: Send> Send for List<T> {}

impl<T> Node<T> {
    /// Creates a node on no stack.
    pub fn new(value: T) -> Box<Self> {
        Box::new(Self { value, below: ptr::null_mut() })
    }
}

impl<T> List<T> {
    /// Returns a list of no nodes.
    #[must_use]
    pub const fn new() -> Self {
        Self(ptr::null_mut())
    }

    /// Returns `true` if there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    /// Finds the last one, so that all can be pushed in one step. None if there is none. Walks through all.
    #[must_use]
    pub fn into_chain(self) -> Option<Chain<T>> {
        let mut last = self.0;
        // SAFETY: null, or the list's own.
        while let Some(below) = unsafe { last.as_ref() }.map(|node| node.below).filter(|below| !below.is_null()) {
            last = below;
        }
        (!last.is_null()).then_some(Chain { first: self.0, last })
    }

    /// Takes the first one out.
    pub fn pop(&mut self) -> Option<Box<Node<T>>> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: it came from a box (`TreiberStack::push`), and belonged to the stack that was taken whole.
        let node = unsafe { Box::from_raw(self.0) };
        self.0 = node.below;
        Some(node)
    }
}

impl<T> TreiberStack<T> {
    crate::sync::const_unless_loom! {
        /// Returns an empty stack.
        #[must_use]
        pub const fn new() -> Self {
            Self { top: AtomicPtr::new(ptr::null_mut()), taken: Mutex::new(List::new()) }
        }
    }

    /// Puts `node` on top.
    ///
    /// The caller is pinned, and every node waits for that pin before it is pushed again (E9). Otherwise the node that is
    /// loaded here could be freed, and another at its address be taken for it.
    pub fn push(&self, mut node: Box<Node<T>>) {
        node.below = ptr::null_mut();
        let node = Box::into_raw(node);
        self.push_chain(Chain { first: node, last: node });
    }

    /// Puts the nodes of a chain on top, as [`push`](Self::push) does, in one step.
    pub fn push_chain(&self, Chain { first, last }: Chain<T>) {
        let mut top = self.top.load(Ordering::Relaxed); // E9: it is only compared
        loop {
            // SAFETY: this thread's alone until the exchange succeeds.
            unsafe { (*last).below = top };
            // E9, release half: whoever takes the stack sees the nodes, and those below them.
            match self.top.compare_exchange(top, first, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => top = other,
            }
        }
    }

    /// Takes all of them.
    #[must_use]
    pub fn take(&self) -> List<T> {
        List(self.top.swap(ptr::null_mut(), Ordering::Acquire)) // E9, acquire half
    }

    /// Returns `true` if there is none to be taken. May be outdated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed).is_null() // E9: it is only compared
    }

    /// Takes one node out. None if there is none, or another thread is just here.
    pub fn pop(&self) -> Option<Box<Node<T>>> {
        // Another thread is at it: the work is left to that one.
        let mut taken = self.taken.try_lock().ok()?;
        // What was taken before is used up first.
        if taken.is_empty() && !self.is_empty() {
            *taken = self.take();
        }
        taken.pop()
    }
}

impl<T> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for TreiberStack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreiberStack").finish_non_exhaustive()
    }
}

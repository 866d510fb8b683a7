//! Mistakes that the sanitizers must find: `.ci/sanitize` runs them, one by one, and fails if one passes. Ignored
//! otherwise.
#![allow(unsafe_code, reason = "these are mistakes")]

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;

#[test]
#[ignore = "a mistake that AddressSanitizer must find"]
fn use_after_free() {
    let boxed = Box::into_raw(Box::new(7));
    // SAFETY: from a box, and freed once.
    drop(unsafe { Box::from_raw(boxed) });
    // SAFETY: none: it is freed.
    assert_eq!(unsafe { *black_box(boxed) }, 7);
}

#[test]
#[ignore = "a mistake that AddressSanitizer must find when the process ends"]
fn leak() {
    thread::spawn(|| std::mem::forget(black_box(Box::new([7_u8; 1_000])))).join().unwrap();
}

#[test]
#[ignore = "a mistake that ThreadSanitizer must find"]
fn race() {
    struct Shared(UnsafeCell<u64>);
    // SAFETY: none: it is written by two threads at once.
    unsafe impl Sync for Shared {}
    let shared = Arc::new(Shared(UnsafeCell::new(0)));
    let writers = [0, 1].map(|_| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            for _ in 0..10_000 {
                // SAFETY: none.
                unsafe { *black_box(shared.0.get()) += 1 };
            }
        })
    });
    for writer in writers {
        writer.join().unwrap();
    }
}

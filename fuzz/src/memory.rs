//! How much memory a piece of work takes: an allocator that counts, and nothing else. Counted by
//! thread; what other threads take is not seen.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The allocator of the system, counted.
pub struct Counting;

thread_local! {
    /// Bytes held now; less than zero where another thread's are let go here.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static HELD_MAX: Cell<isize> = const { Cell::new(0) };
}

/// Does the work and says how many bytes more than before were held at most meanwhile.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    HELD_MAX.set(before);
    let result = work();
    (result, usize::try_from(HELD_MAX.get() - before).unwrap_or(0))
}

fn count(bytes: usize, sign: isize) {
    // A thread that is ending has no counters any more, and needs none.
    let _ = HELD.try_with(|held| {
        let now = held.get() + sign * isize::try_from(bytes).unwrap_or(isize::MAX);
        held.set(now);
        let _ = HELD_MAX.try_with(|max| max.set(max.get().max(now)));
    });
}

// SAFETY: every call is handed to the system's allocator as it is; counting neither allocates nor
// unwinds.
#[expect(unsafe_code, reason = "an allocator is unsafe by nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, bytes: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        unsafe { System.dealloc(bytes, layout) }
    }

    unsafe fn realloc(&self, bytes: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may exist at once while the bytes are moved.
        count(size, 1);
        count(layout.size(), -1);
        unsafe { System.realloc(bytes, layout, size) }
    }
}

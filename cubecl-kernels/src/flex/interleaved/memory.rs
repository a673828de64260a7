//! Memory for weights on huge pages.
//!
//! A processor reads memory about twice as fast when its page tables do not get in the way. The
//! kernel gives huge pages to aligned regions that ask for them before they are first touched, so
//! matrices share large aligned regions instead of lying where the allocator puts them.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A cache line of words.
pub(in crate::flex) type Line = [u32; 16];

const LINE: usize = size_of::<Line>();
/// A huge page.
const PAGE: usize = 2 << 20;
/// The least that is taken from the system at once.
const REGION: usize = 32 << 20;

/// Memory from the system, freed with its last [`Lines`].
#[derive(Debug)]
struct Region {
    start: NonNull<Line>,
    layout: Layout,
}

// SAFETY: a region is plain memory; its parts are handed out once each.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Keeps the allocator from giving a large buffer back to the system each time a tensor is dropped:
/// a step would touch all its pages anew, a quarter of the time that a prompt takes.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: sets two thresholds of the allocator, under its own lock.
        ONCE.call_once(|| unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
        });
    }
}

impl Region {
    fn new(bytes: usize) -> Self {
        keep_freed_memory();
        let layout = Layout::from_size_align(bytes.next_multiple_of(PAGE), PAGE).unwrap_or(Layout::new::<Line>());
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start.cast::<Line>()) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        // SAFETY: the range was allocated above. The call is advice; where it fails nothing changes.
        unsafe {
            libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
        }
        Self { start, layout }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no part of it is left.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// Lines of a region that nobody else has.
#[derive(Debug)]
pub(in crate::flex) struct Lines {
    region: Arc<Region>,
    first: usize,
    count: usize,
}

impl Lines {
    /// `count` lines of zeros.
    pub(in crate::flex) fn zeros(count: usize) -> Self {
        /// The region that small matrices are taken from, and how much of it is taken.
        static CURRENT: Mutex<(Weak<Region>, usize)> = Mutex::new((Weak::new(), 0));
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = count.saturating_mul(LINE);
        let (region, first) = match current.0.upgrade() {
            Some(region) if region.layout.size() - current.1 * LINE >= bytes => (region, current.1),
            _ => {
                let region = Arc::new(Region::new(bytes.max(REGION)));
                current.0 = Arc::downgrade(&region);
                (region, 0)
            }
        };
        current.1 = first + count;
        // SAFETY: the lines lie within the region, and no other `Lines` holds them: what is taken
        // only grows while the region lives. Zeros make them initialized.
        unsafe { region.start.add(first).write_bytes(0, count) };
        Self { region, first, count }
    }

    pub(in crate::flex) fn lines(&self) -> &[Line] {
        // SAFETY: initialized lines within the region, which `self` keeps alive; changed only
        // through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.region.start.add(self.first).as_ptr(), self.count) }
    }

    pub(in crate::flex) fn lines_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above, and nobody else holds these lines.
        unsafe { std::slice::from_raw_parts_mut(self.region.start.add(self.first).as_ptr(), self.count) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, REGION};

    #[test]
    fn lines_are_aligned_zeroed_and_apart() {
        let mut all: Vec<Lines> = [1, 7, REGION / 64, 3, 2 * REGION / 64 + 1, 1].map(Lines::zeros).into();
        for (i, lines) in all.iter_mut().enumerate() {
            assert_eq!(lines.lines().as_ptr().addr() % 64, 0);
            assert!(lines.lines().iter().all(|line| *line == [0; 16]));
            lines.lines_mut().fill([i as u32; 16]);
        }
        for (i, lines) in all.iter().enumerate() {
            assert!(lines.lines().iter().all(|line| *line == [i as u32; 16]));
        }
    }
}

//! Heaps, and collections with and without one.

use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

use dlmalloc::Dlmalloc;
use hashbrown::DefaultHashBuilder;
use rt0::adapters::lock_api::RawMutex;
use rt0::mapping::Pages;
use rt0::thread;
use talc::{ErrOnOom, Span, Talc, Talck};

/// dlmalloc's source of memory: rt0's pages. (Its own one for Linux calls libc.)
struct Source;

// SAFETY: memory is of the kernel's, and of no one else until it is freed.
unsafe impl dlmalloc::Allocator for Source {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        Pages.allocate(size).map_or((null_mut(), 0, 0), |pages| (pages.cast().as_ptr(), pages.len(), 0))
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut() // It allocates and copies then.
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        self.free(start.wrapping_add(new), old - new)
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        let pages = NonNull::new(start).map(|start| NonNull::slice_from_raw_parts(start, size));
        // SAFETY: 1. dlmalloc gives back what it was given, and uses it no more.
        pages.is_some_and(|pages| unsafe { Pages.free(pages) }.is_ok())
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        // The largest of any machine's.
        64 << 10
    }
}

/// What is written into small and large blocks is there until they are freed.
pub fn of_dlmalloc() -> bool {
    let mut heap = Dlmalloc::new_with_allocator(Source);
    let sizes = [1, 24, 4000, 70_000, 300_000];
    let mut blocks = [null_mut(); 5];
    for (block, size) in blocks.iter_mut().zip(sizes) {
        // SAFETY: the size is not zero, and the alignment is a power of two.
        *block = unsafe { heap.malloc(size, 16) };
        if block.is_null() {
            return false;
        }
        // SAFETY: the block has this size.
        unsafe { block.write_bytes(size as u8, size) };
    }
    blocks.iter().zip(sizes).all(|(block, size)| {
        // SAFETY: it was written above.
        let last = unsafe { block.wrapping_add(size - 1).read() };
        // SAFETY: it comes from this heap, with this size and alignment, and is not used again.
        unsafe { heap.free(*block, size, 16) };
        last == size as u8
    })
}

/// Threads allocate from one arena at once, under rt0's lock, and the blocks do not overlap.
pub fn of_talc() -> bool {
    const BLOCKS: usize = 50;
    let Ok(arena) = Pages.allocate(1 << 20) else { return false };
    let heap: Talck<RawMutex, ErrOnOom> = Talc::new(ErrOnOom).lock();
    // SAFETY: the pages are this function's until it returns them.
    if unsafe { heap.lock().claim(Span::from_base_size(arena.cast().as_ptr(), arena.len())) }.is_err() {
        return false;
    }
    let layout = Layout::new::<[u8; 200]>();
    let fill = |mark: u8| {
        let mut blocks = [None; BLOCKS];
        for block in &mut blocks {
            // SAFETY: the layout's size is not zero.
            *block = unsafe { heap.lock().malloc(layout) }.ok();
            // SAFETY: the block has this size.
            block.inspect(|block| unsafe { block.write_bytes(mark, layout.size()) });
        }
        blocks.iter().all(|block| {
            let Some(block) = *block else { return false };
            // SAFETY: it was written above.
            let bytes: [u8; 200] = unsafe { block.cast().read() };
            // SAFETY: it comes from this heap, with this layout, and is not used again.
            unsafe { heap.lock().free(block, layout) };
            bytes == [mark; 200]
        })
    };
    let kept = thread::scope(|scope| {
        let Ok(other) = scope.spawn(|| fill(1)) else { return false };
        fill(2) & other.join()
    });
    drop(heap);
    // SAFETY: 1. The heap is gone.
    kept && unsafe { Pages.free(arena) }.is_ok()
}

/// What is put into a hash map, on pages of its own, is found there until it is removed.
pub fn map() -> bool {
    let mut squares = hashbrown::HashMap::<u32, u64, _, _>::with_hasher_in(DefaultHashBuilder::default(), Pages);
    squares.extend((0..1000u32).map(|n| (n, u64::from(n) * u64::from(n))));
    squares.retain(|n, _| n % 2 == 0);
    squares.len() == 500 && squares.get(&31).is_none() && squares.remove(&998) == Some(998 * 998)
}

/// A queue and a text of a fixed size, which say when they are full.
pub fn without_a_heap() -> bool {
    let mut queue = heapless::Deque::<u32, 4>::new();
    let all_fit = (0..4).all(|n| queue.push_back(n).is_ok());
    let mut text = heapless::String::<8>::new();
    all_fit
        && queue.push_back(4).is_err()
        && queue.pop_front() == Some(0)
        && text.push_str("12345678").is_ok()
        && text.push('9').is_err()
}

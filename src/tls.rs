//! Where a thread's own data lies: its copy of the program's TLS image, the ABI's control block,
//! and rt0's thread block.
//!
//! ```text
//!     variant I       │ thread block │ control block │ TLS image │  start of control block + bias = thread pointer
//!     variant II      │ TLS image │ thread block │                  thread block                  = thread pointer
//! ```
//!
//! The linker has put each variable at a fixed distance from the thread pointer, computed from the
//! image's address and alignment. It lays the main thread's area out too (common.ld), so nothing is
//! computed here: every thread's area is as aligned and as large as the main thread's, and the
//! parts are at the same distances.
//!
//! Source: Ulrich Drepper, *ELF Handling For Thread-Local Storage*; the machines' psABIs.

use core::ptr::NonNull;

use crate::arch::{Arch, Cpu, Tls};
use crate::intrinsics;

/// An address that the linker defines. A type without bytes: of others the compiler knows that no
/// two lie at one address.
type Mark = [u8; 0];

unsafe extern "C" {
    /// The TLS image in the program: its first byte, and the end of what is not just zeros, rounded
    /// up to words.
    static __rt0_tls_start: Mark;
    static __rt0_tls_filled: Mark;

    /// What in the program lies where the thread pointer points, without its bias, in a thread's
    /// TLS: of variant II, and of variant I with a control block. (Without one that is the image's
    /// start.)
    static __rt0_tls_below: Mark;
    static __rt0_tls_above: Mark;

    /// The main thread's area: of variant II from the first to the end of a block at the second, of
    /// variant I from the second to the last. The thread pointer is, without its bias, the second
    /// or the third.
    static __rt0_area: Mark;
    static __rt0_area_below: Mark;
    static __rt0_area_above: Mark;
    static __rt0_area_end: Mark;
    /// Its copy of the image, of variant II, and of variant I with a control block.
    static __rt0_area_image_below: Mark;
    static __rt0_area_image_above: Mark;
    /// No variable: its address is the alignment of areas and of the image.
    static __rt0_tls_align: Mark;
}

const _: () = assert!(
    matches!(Cpu::TLS, Tls::Below | Tls::Above { tcb: 0..=16, .. }),
    "link.ld aligns the image to 16, and so puts it that far behind the control block's start"
);

const BIAS: usize = match Cpu::TLS {
    Tls::Below => 0,
    Tls::Above { bias, .. } => bias,
};

/// A thread's area, or the addresses in it, for a block of some type.
struct Area {
    start: *mut u8,
    end: *mut u8,
    /// Where the image's copy begins.
    image: *mut u8,
    /// Where the thread pointer points, without its bias.
    pointer: *mut u8,
}

impl Area {
    /// The main thread's. All addresses are the linker's.
    #[inline(always)]
    fn of_main<B>() -> Area {
        let (start, end, image, pointer) = match Cpu::TLS {
            Tls::Below => {
                let block = &raw const __rt0_area_below;
                (
                    &raw const __rt0_area,
                    block.wrapping_byte_add(size_of::<B>()),
                    &raw const __rt0_area_image_below,
                    block,
                )
            }
            Tls::Above { tcb, .. } => {
                let above = &raw const __rt0_area_above;
                let image = if tcb == 0 { above } else { &raw const __rt0_area_image_above };
                (&raw const __rt0_area_below, &raw const __rt0_area_end, image, above)
            }
        };
        let at = |mark: *const Mark| mark.cast_mut().cast();
        Area { start: at(start), end: at(end), image: at(image), pointer: at(pointer) }
    }

    /// Copies the program's image there. Returns the block, which is zeros, and the thread pointer.
    ///
    /// # Safety
    ///
    /// 1. The area is the main thread's or laid out so, all zeros, and nobody else's.
    #[inline(always)]
    unsafe fn fill<B>(self) -> (NonNull<B>, *mut u8) {
        let (from, end) = (&raw const __rt0_tls_start, &raw const __rt0_tls_filled);
        // SAFETY: 1. The linker keeps the image within the area; the program's own lies elsewhere.
        // 2. Both begin at a multiple of 16, and the end is rounded up.
        unsafe { intrinsics::copy_words(self.image.cast(), from.cast(), end.cast()) };
        let thread_pointer = self.pointer.wrapping_add(BIAS);
        // SAFETY: 1. A block's place is within the area.
        (unsafe { block_at(thread_pointer) }, thread_pointer)
    }
}

/// The size and the alignment of a thread's area.
#[inline(always)]
pub(crate) fn area_layout<B>() -> (usize, usize) {
    let main = Area::of_main::<B>();
    (main.end.addr() - main.start.addr(), (&raw const __rt0_tls_align).addr())
}

/// Copies the program's image into a thread's area. Returns the block, which is zeros, and the
/// thread pointer.
///
/// # Safety
///
/// 1. `area` is laid out as [`area_layout`] says, all zeros, and nobody else's.
#[inline(always)]
pub(crate) unsafe fn fill<B>(area: *mut u8) -> (NonNull<B>, *mut u8) {
    let Area { start, end, image, pointer } = Area::of_main::<B>();
    let at = |of_main: *mut u8| area.wrapping_add(of_main.addr() - start.addr());
    let area = Area { start: area, end: at(end), image: at(image), pointer: at(pointer) };
    // SAFETY: 1. is our caller's.
    unsafe { area.fill() }
}

/// The same for the main thread's area, which is static.
///
/// # Safety
///
/// 1. Nobody has written there.
#[inline(always)]
pub(crate) unsafe fn fill_main<B>() -> (NonNull<B>, *mut u8) {
    // SAFETY: 1. By ours, for it starts as zeros.
    unsafe { Area::of_main::<B>().fill() }
}

/// The main thread's block; zeros before [`fill_main`] and what came after.
#[cfg(feature = "panic-handler")]
pub(crate) fn block_of_main<B>() -> NonNull<B> {
    // SAFETY: 1. The main thread's, as `fill_main` computes it.
    unsafe { block_at(Area::of_main::<B>().pointer.wrapping_add(BIAS)) }
}

/// The block of the thread with this thread pointer.
///
/// # Safety
///
/// 1. It is one that [`fill`] returned, for `B`.
#[inline(always)]
unsafe fn block_at<B>(thread_pointer: *mut u8) -> NonNull<B> {
    // SAFETY: 1. A block lies there.
    unsafe { NonNull::new_unchecked(address_at(thread_pointer)) }
}

#[inline(always)]
fn address_at<B>(thread_pointer: *mut u8) -> *mut B {
    match Cpu::TLS {
        Tls::Above { .. } => thread_pointer.wrapping_sub(BIAS + size_of::<B>()).cast(),
        Tls::Below => thread_pointer.cast(),
    }
}

/// Where the calling thread's block lies if it has one.
pub(crate) fn block_address<B>() -> *const B {
    address_at(Cpu::any_thread_pointer())
}

/// The calling thread's block.
///
/// # Safety
///
/// 1. This thread's pointer is set, to one that [`fill`] returned for `B`.
#[inline(always)]
pub(crate) unsafe fn block_of_this_thread<B>() -> NonNull<B> {
    // SAFETY: 1. is our caller's.
    let thread_pointer = unsafe { Cpu::thread_pointer() };
    // SAFETY: 1. is our caller's.
    unsafe { block_at(thread_pointer) }
}

/// What in the program's image stands for where the thread pointer points, without its bias, in a
/// thread's.
#[inline(always)]
fn origin() -> *const Mark {
    match Cpu::TLS {
        Tls::Below => &raw const __rt0_tls_below,
        Tls::Above { tcb: 0, .. } => &raw const __rt0_tls_start,
        Tls::Above { .. } => &raw const __rt0_tls_above,
    }
}

/// The calling thread's copy of something in the program's TLS image. (A `#[thread_local]` is found
/// so by the compiler.)
#[inline(always)]
pub(crate) fn copy_of_this_thread<T>(in_image: *const T) -> *mut T {
    // SAFETY: 1. All safe code runs where the thread pointer is set.
    let thread_pointer = unsafe { Cpu::thread_pointer() };
    thread_pointer.wrapping_add(in_image.addr()).wrapping_sub(origin().addr() + BIAS).cast()
}

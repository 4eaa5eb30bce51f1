//! A thread's static data: its copy of the program's TLS image, the ABI's control block, and rt0's
//! thread block.
//!
//! ```text
//!     variant I     │ thread block │ control block │ TLS image │
//!                                  ▲ + bias = thread pointer
//!     variant II    │ TLS image │ thread block │
//!                               ▲ = thread pointer
//! ```
//!
//! The linker puts each variable at a fixed distance from the thread pointer, computed from the
//! image's address and alignment. It also lays out the main thread's area (common.ld). Every other
//! thread's area has the same size, alignment and distances, so nothing is computed here.
//!
//! Source: Ulrich Drepper, *ELF Handling For Thread-Local Storage*; the machines' psABIs.

use core::ptr::NonNull;

use crate::arch::{Arch, Cpu, Tls};
use crate::intrinsics;

/// An address that the linker defines. Zero-sized: two linker symbols may share an address, and the
/// compiler assumes that distinct non-empty statics do not.
type LinkerSymbol = [u8; 0];

/// Declares addresses that the linker scripts define.
///
/// A program without the script, such as a test that std started, has undefined symbols instead.
/// Their names say why, since the linker shows nothing else.
macro_rules! linker_symbols {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal;)*) => {
        unsafe extern "C" {$(
            $(#[$doc])*
            #[link_name = concat!("__rt0_did_not_start_this_program__test_its_threads_by_cargo_rt0_test__", $symbol)]
            static $name: LinkerSymbol;
        )*}
    };
}

linker_symbols! {
    /// The TLS image in the program: its first byte, and the end of its initialised part, rounded
    /// up to words.
    __rt0_tls_start = "tls_start";
    __rt0_tls_filled = "tls_filled";

    /// The place in the program's image that corresponds to the thread pointer without its bias:
    /// for variant II, and for variant I with a control block. (Without a control block it is the
    /// image's start.)
    __rt0_tls_below = "tls_below";
    __rt0_tls_above = "tls_above";

    /// The main thread's area. Variant II: from the first symbol to the end of a block at the
    /// second. Variant I: from the second symbol to the last. The thread pointer without its bias
    /// is the second symbol (II) or the third (I).
    __rt0_area = "area";
    __rt0_area_below = "area_below";
    __rt0_area_above = "area_above";
    __rt0_area_end = "area_end";
    /// The area's copy of the image: for variant II, and for variant I with a control block.
    __rt0_area_image_below = "area_image_below";
    __rt0_area_image_above = "area_image_above";
    /// Not a variable: its address is the alignment of areas and of the image.
    __rt0_tls_align = "tls_align";
}

const _: () = assert!(
    matches!(Cpu::TLS, Tls::Below | Tls::Above { tcb: 0..=16, .. }),
    "link.ld aligns the image to 16, and so puts it that far behind the control block's start"
);

const BIAS: usize = match Cpu::TLS {
    Tls::Below => 0,
    Tls::Above { bias, .. } => bias,
};

/// A thread's area, or the main thread's addresses, for a block of type `B`.
struct Area {
    start: *mut u8,
    end: *mut u8,
    /// The start of the image's copy.
    image: *mut u8,
    /// The thread pointer without its bias.
    pointer: *mut u8,
}

impl Area {
    /// The main thread's area. The linker defines all its addresses.
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
        let at = |symbol: *const LinkerSymbol| symbol.cast_mut().cast();
        Area { start: at(start), end: at(end), image: at(image), pointer: at(pointer) }
    }

    /// Copies the program's image into the area. Returns the block, which is zeros, and the thread
    /// pointer.
    ///
    /// # Safety
    ///
    /// 1. The area is the main thread's or has the same layout, is all zeros, and no other code
    ///    uses it.
    #[inline(always)]
    unsafe fn fill<B>(self) -> (NonNull<B>, *mut u8) {
        let (from, end) = (&raw const __rt0_tls_start, &raw const __rt0_tls_filled);
        // SAFETY: 1. The linker keeps the image within the area, and the program's image lies
        // elsewhere. 2. Both begin at a multiple of 16, and the end is rounded up.
        unsafe { intrinsics::copy_words(self.image.cast(), from.cast(), end.cast()) };
        let thread_pointer = self.pointer.wrapping_add(BIAS);
        // SAFETY: 1. The block lies within the area.
        (unsafe { block_at(thread_pointer) }, thread_pointer)
    }
}

/// The size and the alignment of a thread's area, in bytes.
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
/// 1. `area` has the layout of [`area_layout`], is all zeros, and no other code uses it.
#[inline(always)]
pub(crate) unsafe fn fill<B>(area: *mut u8) -> (NonNull<B>, *mut u8) {
    let Area { start, end, image, pointer } = Area::of_main::<B>();
    let at = |of_main: *mut u8| area.wrapping_add(of_main.addr() - start.addr());
    let area = Area { start: area, end: at(end), image: at(image), pointer: at(pointer) };
    // SAFETY: 1. The caller guarantees it.
    unsafe { area.fill() }
}

/// [`fill`] for the main thread's area, which is static.
///
/// # Safety
///
/// 1. No code has written to the area.
#[inline(always)]
pub(crate) unsafe fn fill_main<B>() -> (NonNull<B>, *mut u8) {
    // SAFETY: 1. No code has written to the area, and it starts as zeros.
    unsafe { Area::of_main::<B>().fill() }
}

/// The main thread's block; all zeros before [`fill_main`].
#[cfg(feature = "panic-handler")]
pub(crate) fn block_of_main<B>() -> NonNull<B> {
    // SAFETY: 1. The main thread's pointer, as `fill_main` computes it.
    unsafe { block_at(Area::of_main::<B>().pointer.wrapping_add(BIAS)) }
}

/// The block of the thread with this thread pointer.
///
/// # Safety
///
/// 1. `thread_pointer` is one that [`fill`] returned for `B`.
#[inline(always)]
unsafe fn block_at<B>(thread_pointer: *mut u8) -> NonNull<B> {
    // SAFETY: 1. A block lies at this address, so it is not null.
    unsafe { NonNull::new_unchecked(address_at(thread_pointer)) }
}

#[inline(always)]
fn address_at<B>(thread_pointer: *mut u8) -> *mut B {
    match Cpu::TLS {
        Tls::Above { .. } => thread_pointer.wrapping_sub(BIAS + size_of::<B>()).cast(),
        Tls::Below => thread_pointer.cast(),
    }
}

/// The address of the calling thread's block, if it has one.
pub(crate) fn block_address<B>() -> *const B {
    address_at(Cpu::any_thread_pointer())
}

/// The calling thread's block.
///
/// # Safety
///
/// 1. This thread's pointer is set to one that [`fill`] returned for `B`.
#[inline(always)]
pub(crate) unsafe fn block_of_this_thread<B>() -> NonNull<B> {
    // SAFETY: 1. The thread pointer is set.
    let thread_pointer = unsafe { Cpu::thread_pointer() };
    // SAFETY: 1. [`fill`] returned it for `B`.
    unsafe { block_at(thread_pointer) }
}

/// The copy, in the area of the thread with this block, of something in the program's TLS image.
#[inline(always)]
pub(crate) fn copy_of<B, T>(block: *const B, in_image: *const T) -> *mut T {
    // The pointer to the block leads to the block alone; that to the area was exposed, as each
    // mapping's is.
    let pointer = match Cpu::TLS {
        Tls::Below => block.addr(),
        Tls::Above { .. } => block.addr() + size_of::<B>(),
    };
    core::ptr::with_exposed_provenance_mut(pointer.wrapping_add(in_image.addr()).wrapping_sub(origin().addr()))
}

/// The place in the program's image that corresponds to the thread pointer without its bias.
#[inline(always)]
fn origin() -> *const LinkerSymbol {
    match Cpu::TLS {
        Tls::Below => &raw const __rt0_tls_below,
        Tls::Above { tcb: 0, .. } => &raw const __rt0_tls_start,
        Tls::Above { .. } => &raw const __rt0_tls_above,
    }
}

/// The address of the calling thread's copy of `in_image`, which lies in the program's TLS image.
/// (The compiler finds a `#[thread_local]` in this way.)
#[inline(always)]
pub(crate) fn copy_of_this_thread<T>(in_image: *const T) -> *mut T {
    // SAFETY: 1. The thread pointer is set wherever safe code runs.
    let thread_pointer = unsafe { Cpu::thread_pointer() };
    thread_pointer.wrapping_add(in_image.addr()).wrapping_sub(origin().addr() + BIAS).cast()
}

//! Where a thread's own data lies: the program's TLS image (PT_TLS), the ABI's control block, and rt0's thread block.
//!
//! ```text
//!     variant I       │ thread block │ tcb │ TLS image │           start of tcb + bias = thread pointer
//!     variant II      │ TLS image │ thread block │                thread block        = thread pointer
//! ```
//!
//! The linker has put each variable at a fixed distance from the thread pointer, computed from the image's address and
//! alignment; [`Layout`] must agree with it to the byte, also where the image's address is no multiple of its
//! alignment.
//!
//! Source: Ulrich Drepper, *ELF Handling For Thread-Local Storage*; the machines' psABIs.

use core::ptr::NonNull;
use core::slice;

use linux_raw_sys::elf;

use crate::arch::{Arch, Cpu, Tls};

unsafe extern "C" {
    /// The program's own ELF header, mapped with its first segment; the linker defines it.
    static __ehdr_start: elf::Elf_Ehdr;

    /// What in the program lies where the thread pointer points, without its bias, in a thread's TLS. The script has one for
    /// variant II and one for each control block of variant I; all say what [`Layout`] says.
    static __rt0_tls_below: u8;
    static __rt0_tls_above_0: u8;
    static __rt0_tls_above_8: u8;
    static __rt0_tls_above_16: u8;
}

/// The program's TLS image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    bytes: &'static [u8],
    /// Its size with the zeros after `bytes`.
    size: usize,
    /// A power of two.
    align: usize,
    /// Its address in the program modulo `align`.
    skew: usize,
}

impl Image {
    /// The image of this program; empty if it has none.
    pub(crate) fn of_program() -> Image {
        let header = &raw const __ehdr_start;
        // SAFETY: the linker script maps the ELF header and the program headers; nobody writes to them.
        let ehdr = unsafe { &*header };
        let headers = header.cast::<u8>().wrapping_add(ehdr.e_phoff).cast();
        // SAFETY: as above, `e_phnum` headers lie at `e_phoff`.
        let headers: &[elf::Elf_Phdr] = unsafe { slice::from_raw_parts(headers, ehdr.e_phnum.into()) };
        // The script asks for the header also where there is nothing to describe: then it is all zero.
        match headers.iter().find(|header| header.p_type == elf::PT_TLS && header.p_memsz != 0) {
            None => Image { bytes: &[], size: 0, align: 1, skew: 0 },
            Some(tls) => {
                let align = tls.p_align.max(1);
                let start = core::ptr::with_exposed_provenance(tls.p_vaddr);
                Image {
                    // SAFETY: a static program lies where its headers say; the image is read-only until copied.
                    bytes: unsafe { slice::from_raw_parts(start, tls.p_filesz) },
                    size: tls.p_memsz,
                    align,
                    skew: tls.p_vaddr & (align - 1),
                }
            }
        }
    }
}

/// Offsets within a thread's area, which starts at a multiple of `align`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Of the thread block.
    block: usize,
    /// Of the TLS image.
    image: usize,
    /// Of what the thread pointer holds, bias included.
    thread_pointer: usize,
    pub size: usize,
    pub align: usize,
}

impl Layout {
    /// For a thread block of type `B`.
    pub(crate) const fn new<B>(image: &Image) -> Layout {
        Layout::of_variant(&Cpu::TLS, size_of::<B>(), align_of::<B>(), image)
    }

    const fn of_variant(tls: &Tls, block_size: usize, block_align: usize, image: &Image) -> Layout {
        let align = if image.align > block_align { image.align } else { block_align };
        let modulus = image.align - 1;
        match *tls {
            Tls::Above { tcb, bias } => {
                let start = block_size.next_multiple_of(align);
                let image_offset = start + tcb + (image.skew.wrapping_sub(tcb) & modulus);
                Layout {
                    block: start - block_size,
                    image: image_offset,
                    thread_pointer: start + bias,
                    size: image_offset + image.size,
                    align,
                }
            }
            Tls::Below => {
                // The image ends so far below that its start is as skewed as in the program.
                let below = image.size + (0usize.wrapping_sub(image.skew).wrapping_sub(image.size) & modulus);
                let start = below.next_multiple_of(align);
                Layout { block: start, image: start - below, thread_pointer: start, size: start + block_size, align }
            }
        }
    }

    /// Fills a thread's area: the image is copied, the block written. Returns the block and the thread pointer.
    ///
    /// # Safety
    ///
    /// 1. `area` is a multiple of `self.align`, and `self.size` bytes there are writable and nobody else's; if `is_zero`, they
    ///    are zero.
    /// 2. The layout is that of `image` and `B`.
    pub(crate) unsafe fn fill<B>(
        &self,
        area: *mut u8,
        is_zero: bool,
        image: &Image,
        block: B,
    ) -> (NonNull<B>, *mut u8) {
        // SAFETY: 1. and 2.: the layout keeps the image within the area.
        let to = unsafe { area.add(self.image) };
        // SAFETY: as above; the program's image lies elsewhere.
        unsafe { to.copy_from_nonoverlapping(image.bytes.as_ptr(), image.bytes.len()) };
        if !is_zero {
            let rest = to.wrapping_add(image.bytes.len());
            // SAFETY: as above, for the rest of the image.
            unsafe { rest.write_bytes(0, image.size - image.bytes.len()) };
        }
        // SAFETY: 1. and 2.: likewise the block, which the layout aligns.
        let at = unsafe { area.add(self.block) }.cast::<B>();
        // SAFETY: as above.
        unsafe { at.write(block) };
        // SAFETY: within the area, so not null.
        (unsafe { NonNull::new_unchecked(at) }, area.wrapping_add(self.thread_pointer))
    }
}

/// The calling thread's block.
///
/// # Safety
///
/// 1. This thread's pointer is set, from a [`Layout`] for `B`.
#[inline(always)]
pub(crate) unsafe fn block_of_this_thread<B>() -> NonNull<B> {
    // SAFETY: 1. is our caller's.
    let thread_pointer = unsafe { Cpu::thread_pointer() };
    let block = match Cpu::TLS {
        Tls::Above { bias, .. } => thread_pointer.wrapping_sub(bias + size_of::<B>()),
        Tls::Below => thread_pointer,
    };
    // SAFETY: 1. A block lies there.
    unsafe { NonNull::new_unchecked(block.cast()) }
}

const _: () = assert!(
    matches!(Cpu::TLS, Tls::Below | Tls::Above { tcb: 0 | 8 | 16, .. }),
    "link.ld has no __rt0_tls_above_* for a control block of this size"
);

/// The calling thread's copy of something in the program's TLS image. (A `#[thread_local]` is found so by the compiler.)
#[inline(always)]
pub(crate) fn copy_of_this_thread<T>(in_image: *const T) -> *mut T {
    // SAFETY: 1. All safe code runs where the thread pointer is set.
    let thread_pointer = unsafe { Cpu::thread_pointer() };
    let (origin, bias) = match Cpu::TLS {
        Tls::Below => (&raw const __rt0_tls_below, 0),
        Tls::Above { tcb: 16, bias } => (&raw const __rt0_tls_above_16, bias),
        Tls::Above { tcb: 8, bias } => (&raw const __rt0_tls_above_8, bias),
        Tls::Above { bias, .. } => (&raw const __rt0_tls_above_0, bias),
    };
    thread_pointer.wrapping_add(in_image.addr()).wrapping_sub(origin.addr() + bias).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: (usize, usize) = (144, 16);

    fn image(size: usize, align: usize, skew: usize) -> Image {
        Image { bytes: &[], size, align, skew }
    }

    /// What LLD subtracts from or adds to the thread pointer for the image's first byte (`getTlsTpOffset`, in our
    /// words).
    fn linker_offset(tls: &Tls, image: &Image) -> isize {
        let modulus = image.align as isize - 1;
        let (size, skew) = (image.size as isize, image.skew as isize);
        match *tls {
            Tls::Above { tcb, bias } => tcb as isize + ((skew - tcb as isize) & modulus) - bias as isize,
            Tls::Below => -(size + ((-skew - size) & modulus)),
        }
    }

    #[test]
    fn every_variant_agrees_with_the_linker() {
        for tls in [
            Tls::Below,
            Tls::Above { tcb: 16, bias: 0 },
            Tls::Above { tcb: 8, bias: 0 },
            Tls::Above { tcb: 0, bias: 0 },
            Tls::Above { tcb: 0, bias: 0x7000 },
        ] {
            for align in [1, 2, 4, 8, 16, 32, 64, 256, 4096, 65536] {
                for skew in [0, 1, 4, 8, 16, 24, 60, 4000].into_iter().filter(|skew| *skew < align) {
                    for size in [0, 1, 7, 8, 64, 100, 4096, 5000] {
                        check(&tls, &image(size, align, skew));
                    }
                }
            }
        }
    }

    #[test]
    fn the_linker_scripts_origins_agree_with_every_variant() {
        for align in [1, 4, 8, 16, 64, 4096] {
            for size in [1, 8, 100, 5000] {
                let image = image(size, align, 0);
                let start = 10 * align; // Where the image lies in the program.
                let below = (start + size).next_multiple_of(align);
                assert_eq!(origin(&Tls::Below, &image, start), below, "{image:?}");
                for tcb in [0, 8, 16] {
                    let above = if tcb == 0 { start as isize } else { start as isize - tcb.max(align) as isize };
                    let found = origin(&Tls::Above { tcb, bias: 0 }, &image, start) as isize;
                    assert_eq!(found, above, "{tcb} {image:?}");
                }
            }
        }
    }

    /// The address in the program that stands for the thread pointer.
    fn origin(tls: &Tls, image: &Image, start: usize) -> usize {
        let layout = Layout::of_variant(tls, BLOCK.0, BLOCK.1, image);
        start.wrapping_add(layout.thread_pointer).wrapping_sub(layout.image)
    }

    fn check(tls: &Tls, image: &Image) {
        let (block_size, block_align) = BLOCK;
        let layout = Layout::of_variant(tls, block_size, block_align, image);
        let offset = layout.image as isize - layout.thread_pointer as isize;
        assert_eq!(offset, linker_offset(tls, image), "{image:?}");
        assert_eq!(layout.image % image.align, image.skew, "{image:?}: the image is as aligned as in the program");
        assert_eq!(layout.block % block_align, 0, "{image:?}");
        let block = layout.block..layout.block + block_size;
        let data = layout.image..layout.image + image.size;
        assert!(block.end <= layout.size && data.end <= layout.size, "{image:?}");
        assert!(block.end <= data.start || data.end <= block.start, "{image:?}: block and image overlap");
        match *tls {
            Tls::Below => assert_eq!(block.start, layout.thread_pointer),
            Tls::Above { bias, .. } => assert_eq!(block.end, layout.thread_pointer - bias),
        }
    }
}

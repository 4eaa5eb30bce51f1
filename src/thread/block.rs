//! A thread's block: rt0's record of the thread, at its thread pointer.

use core::cell::Cell;
use core::ops::Range;
use core::ptr::{NonNull, null_mut};

use memoffset::offset_of;

use super::lifecycle::Lifecycle;
use super::{fork, gate, interrupt, list, local, scope, stack};
use crate::arch::{Arch, Cpu, Guard, Tls};
use crate::futex::base::const_fn;
use crate::parker::Parker;
use crate::signal::{Blocked, SignalStack};
use crate::{sys, tls};

/// rt0's record of a thread. It lies at the thread pointer (TLS variant II), or right below the
/// part of the thread's area that belongs to the ABI (variant I). The main thread's block starts as
/// zeros.
#[repr(C, align(16))]
pub(crate) struct Block {
    /// Its own address. Variant II requires it at the thread pointer.
    pub(super) this: *mut Block,
    /// In variant II, the next words, which belong to the ABI.
    above: [Cell<usize>; RESERVED.above],
    pub(super) lifecycle: Lifecycle,
    pub(super) parker: Parker,
    pub(super) interrupts: interrupt::Interrupts,
    pub(super) signalling: interrupt::Signalling,
    pub(super) held: gate::Held,
    /// The generation of the process that the thread runs in (`fork.rs`). Written while holding the
    /// list's latch before the thread runs, and in a forked child.
    pub(super) generation: Cell<u32>,
    pub(super) neighbours: list::Neighbours,
    pub(super) destructors: local::Destructors,
    /// The scope that counts the thread. Written by the thread itself. If a call of the program's
    /// own or a filter ended the thread, it is written while holding the list's latch.
    pub(super) scope: scope::CountedBy,
    /// The number of its [`ThreadId`](super::ThreadId).
    pub(super) number: usize,
    pub(super) name: Option<NonNull<str>>,
    /// `Some` if it has a name, so that a program that names no thread does not link the function.
    pub(super) set_kernel_name: Option<fn(&Block)>,
    /// The signals that were blocked on the thread that spawned this one; never 32 or 33.
    pub(super) mask: Blocked,
    /// Base and length; null and 0 for the main thread.
    pub(super) mapping: (*mut u8, usize),
    /// A part of the mapping; empty for the main thread.
    pub(crate) signal_stack: SignalStack,
    /// The addresses of the stack, right above its guard. It is a part of the mapping, or memory of
    /// the program's ([`Builder::spawn_on`](super::Builder::spawn_on)); empty for the main thread.
    pub(crate) stack: Range<usize>,
    /// What `run` calls, and room for its result; see also `affinity.rs`. Written before the thread
    /// is linked, and by the thread itself.
    pub(super) launch: Cell<*mut u8>,
    /// What the thread calls. Written and read as `launch`.
    pub(crate) run: Cell<Option<unsafe fn(&Block)>>,
    /// In variant I, the words below the thread pointer that belong to the ABI.
    below: Below,
}

/// It has the block's alignment, so that it ends where the block ends.
#[repr(C, align(16))]
struct Below([Cell<usize>; RESERVED.below]);

const _: () = assert!(offset_of!(Block, this) == 0, "variant II reads it at the thread pointer");
const _: () = assert!(size_of::<Block>().is_multiple_of(align_of::<Block>()), "variant I finds it from its end");

/// The part of a block that belongs to the ABI ([`Arch::GUARD`]), in words.
struct Reserved {
    above: usize,
    below: usize,
    /// The index of the guard among them.
    guard: usize,
}

const RESERVED: Reserved = {
    const WORD: usize = size_of::<usize>();
    let (words, guard) = match Cpu::GUARD {
        Guard::Variable => (0, 0),
        Guard::Word { at, reserved } => (reserved / WORD, at / WORD as isize),
    };
    match Cpu::TLS {
        Tls::Below if words != 0 => Reserved { above: words - 1, below: 0, guard: guard as usize - 1 },
        Tls::Below => Reserved { above: 0, below: 0, guard: 0 },
        Tls::Above { .. } => Reserved { above: 0, below: words, guard: words.wrapping_add_signed(guard) },
    }
};

const _: () = {
    if let Guard::Word { at, .. } = Cpu::GUARD {
        let (pointer, words) = match Cpu::TLS {
            Tls::Below => (0, offset_of!(Block, above)),
            Tls::Above { .. } => (size_of::<Block>(), offset_of!(Block, below)),
        };
        let guard = words + RESERVED.guard * size_of::<usize>();
        assert!(guard == pointer.wrapping_add_signed(at), "compiled code counts from the thread pointer");
        let behind = words + (RESERVED.above + RESERVED.below) * size_of::<usize>();
        assert!(guard < behind, "the guard is one of the ABI's words");
    }
};

impl Block {
    const_fn! {
        /// All zeros.
        const fn new() -> Block {
            Block {
                this: null_mut(),
                above: [const { Cell::new(0) }; RESERVED.above],
                lifecycle: Lifecycle::new(),
                parker: Parker::new(),
                interrupts: interrupt::Interrupts::new(),
                signalling: interrupt::Signalling::new(),
                held: gate::Held::new(),
                generation: Cell::new(0),
                neighbours: list::Neighbours::new(),
                destructors: local::Destructors::new(),
                scope: scope::CountedBy::new(),
                number: 0,
                name: None,
                set_kernel_name: None,
                mask: Blocked::NOTHING,
                mapping: (null_mut(), 0),
                signal_stack: SignalStack { base: null_mut(), size: 0 },
                stack: 0..0,
                launch: Cell::new(null_mut()),
                run: Cell::new(None),
                below: Below([const { Cell::new(0) }; RESERVED.below]),
            }
        }
    }

    /// The word that compiled code uses as its guard; `None` where the guard is a variable.
    pub(super) fn guard(&self) -> Option<&Cell<usize>> {
        let words = if RESERVED.above == 0 { &self.below.0[..] } else { &self.above[..] };
        words.get(RESERVED.guard)
    }

    /// The kernel's id for the thread. It is 0 after the thread ended, for threads of the parent in
    /// a forked child, and for the main thread before it first needs the list of threads.
    pub(crate) fn tid(&self) -> u32 {
        if self.generation.get() == fork::generation() { self.lifecycle.tid() } else { 0 }
    }

    /// Whether a thread in the list has ended or was never cloned. The gate is closed.
    pub(super) fn is_gone(&self) -> bool {
        self.tid() == 0 || self.lifecycle.was_never_cloned()
    }

    /// Waits until the thread no longer runs on its stack. In a forked child it does not wait for
    /// threads of the parent, which do not exist there.
    pub(super) fn wait_for_end(&self) {
        self.lifecycle.wait_for_end(|| {
            list::notice_fork();
            self.tid() == 0
        });
    }

    pub(super) fn name(&self) -> Option<&str> {
        if self.is_main() {
            return Some("main");
        }
        // SAFETY: copied from a `str`, into the mapping that this block lies in.
        self.name.map(|name| unsafe { name.as_ref() })
    }

    pub(crate) fn name_for_messages(&self) -> &str {
        self.name().unwrap_or("<unnamed>")
    }

    pub(super) fn is_main(&self) -> bool {
        self.mapping.0.is_null()
    }
}

/// Gives up a reference to a block. The last one frees its mapping (`thread`, 3).
///
/// # Safety
///
/// 1. The caller owns a reference and does not access the block after this.
pub(super) unsafe fn release(block: NonNull<Block>) {
    // SAFETY: 1. The reference keeps the block until the next line.
    let this = unsafe { block.as_ref() };
    if this.lifecycle.release() {
        // SAFETY: 1. This was the last reference, so the thread has given up its own.
        unsafe { stack::keep_or_free(block) };
    }
}

/// The main thread's block, which the linker script places in the main thread's area (`tls.rs`). In
/// a section with this name the compiler accepts only zeros. That proves that zeros are a valid
/// block, which a new thread's block starts as.
#[cfg(not(all(loom, test)))]
#[used]
#[unsafe(link_section = ".bss.rt0_block")]
static MAIN: Main = Main(core::cell::UnsafeCell::new(Block::new()));

#[cfg(not(all(loom, test)))]
struct Main(#[allow(dead_code)] core::cell::UnsafeCell<Block>); // Only the linker uses it.

// SAFETY: no code accesses it by this name.
#[cfg(not(all(loom, test)))]
unsafe impl Sync for Main {}

/// Gives the main thread its TLS, its block and its thread pointer.
///
/// # Safety
///
/// 1. Called once, before any other thread exists and before any code asks for the current thread.
#[inline(always)]
pub(crate) unsafe fn set_up_main() {
    // SAFETY: 1. The caller guarantees it (1).
    let (block, thread_pointer) = unsafe { tls::fill_main::<Block>() };
    // SAFETY: all zeros, which is a valid block, and no other code has it yet.
    unsafe { (*block.as_ptr()).this = block.as_ptr() };
    // SAFETY: 1. The area was just filled, and stays until the process ends.
    if let Err(errno) = unsafe { sys::set_thread_pointer(thread_pointer) } {
        sys::die("setting the thread pointer", errno);
    }
}

/// The word near the calling thread's thread pointer that code compiled with `-fstack-protector`
/// uses as its guard; `None` on machines where the guard is a variable.
pub(crate) fn stack_guard<'a>() -> Option<&'a Cell<usize>> {
    // SAFETY: a running thread's block stays.
    unsafe { this_block().as_ref() }.guard()
}

/// Ends the main thread's part of the program, after `main` has returned.
pub(crate) fn end_main() {
    // SAFETY: the main thread's block stays.
    unsafe { this_block().as_ref() }.destructors.run();
}

/// The name to show for the calling thread. A process that is still starting has no block yet.
#[cfg(feature = "panic-handler")]
pub(crate) fn name_for_messages() -> &'static str {
    // SAFETY: static memory. It is all zeros until `set_up_main` writes to it, which is before a
    // second thread exists.
    if unsafe { tls::block_of_main::<Block>().as_ref() }.this.is_null() {
        return "starting";
    }
    block_in_report().map_or(FOREIGN, Block::name_for_messages)
}

/// What a message calls a thread that rt0 did not start.
#[cfg(feature = "panic-handler")]
const FOREIGN: &str = "<not of rt0>";

pub(crate) fn this_block() -> NonNull<Block> {
    // SAFETY: 1. All safe code runs after `set_up_main` or in a thread that `start` made.
    unsafe { tls::block_of_this_thread() }
}

/// The calling thread's block, for a handler. `None` on a thread that rt0 did not make.
///
/// Such a thread may have any thread pointer: its maker's, or none. So nothing is read through the
/// pointer until the kernel has found this thread's id in the word where a block holds it.
pub(crate) fn block_in_handler() -> Option<&'static Block> {
    const WORD: usize = offset_of!(Block, lifecycle) + Lifecycle::TID;
    let block = tls::block_address::<Block>();
    let is_ours = sys::holds(block.wrapping_byte_add(WORD).cast(), sys::gettid());
    // SAFETY: the kernel has just read a word of the block.
    is_ours.then(|| unsafe { &*block }).filter(|found| core::ptr::eq(found.this, block))
}

/// The calling thread's block, for a report about the thread. It also finds the block of two
/// threads whose id is not in their block yet, which [`block_in_handler`] does not: the main thread
/// before it needs the list, and the only thread of a child that was forked past rt0.
///
/// Both are the first thread of their process. A forked child runs with the thread pointer of the
/// thread that forked it, and uses its block from then on (`list::adopt`).
pub(crate) fn block_in_report() -> Option<&'static Block> {
    let block = tls::block_address::<Block>();
    let [a, b, c, d, ..] = block.addr().to_ne_bytes();
    if !block.is_aligned() || !sys::holds(block.cast(), u32::from_ne_bytes([a, b, c, d])) {
        return None;
    }
    // SAFETY: the kernel has just read the first word of the block.
    let found = unsafe { &*block };
    let (tid, known) = (sys::gettid(), found.lifecycle.tid());
    let is_first = || tid == sys::getpid() && (known == 0 || fork::has_forked());
    (core::ptr::eq(found.this, block) && (known == tid || is_first())).then_some(found)
}

const _: () = assert!(offset_of!(Block, lifecycle) + Lifecycle::TID < 256, "one look tells that all of this is there");

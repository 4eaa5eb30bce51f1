//! Threads: clone(2), with the stacks, the closure and its result, the thread's TLS and its block in one mapping.
//!
//! ```text
//!     low                                                                                           high
//!     │ guard │ signal stack │ guard │ stack ◄──────── grows down │ name │ Launch<F, T> │ TLS + block │
//! ```
//!
//! No allocator is needed. What holds of every thread, and how:
//!
//! 1. *A thread with a handle is whole.* Everything is written before clone(2); the kernel writes the tid word before
//!    either side runs (`CLONE_PARENT_SETTID`).
//! 2. *No handler runs on half a thread.* The parent blocks all signals around clone(2), so the child starts deaf, and
//!    opens its ears when its block, its signal stack and its name are in place; it closes them before it gives its
//!    memory away. (The kernel is not told that the signal stack goes with it: it uses one only to run a handler, and
//!    none runs again.)
//! 3. *The mapping lives as long as anyone can touch it.* `Life::refs` counts the thread itself, its [`JoinHandle`] and
//!    each [`Thread`]. Who takes it to 0 puts the mapping away for a thread to come (`stack.rs`). Where that has no room,
//!    the mapping is freed: by the thread as its last act, without a stack (`Arch::unmap_and_exit`); by anybody else
//!    after (4).
//! 4. *Nobody uses or frees a stack that is in use.* The kernel clears the tid word after the thread's last instruction,
//!    with a shared wake (`CLONE_CHILD_CLEARTID`). Joining, freeing and using again look at that word, never at a wait's
//!    result. A thread that frees itself takes the word away first, else the kernel would write into whatever lies there
//!    by then. The wake may come when another thread has the memory: then somebody wakes for nothing, and looks again.
//! 5. *The result is dropped once.* `Life::state` decides, by one compare-exchange on each side: the thread that finishes
//!    a joinable thread leaves the result to the handle; on a detached one it drops it itself.
//! 6. *A failed spawn leaves nothing.* The mapping and the closure are owned by values that undo themselves.
//!
//! `models` runs what 3 to 5 rest on (`life.rs`, `cache.rs`) in every order.
//!
//! The main thread's block is static, and its end is the process's.
//!
//! A stack that runs over meets the guard below it, and the process ends by SIGSEGV with a line that
//! says so. The reporter and the main thread's signal stack are installed by the first [`spawn`], or
//! by [`report_overflows`] before. What a guard catches depends on the machine:
//!
//! - x86, x86_64, aarch64, s390x, PowerPC: frames of any size. There the compiler makes a function
//!   touch each page of a large frame, and a guard is one page.
//! - ARM, RISC-V, LoongArch, MIPS, SPARC: frames of less than 64 KiB, which is the size of a guard. A
//!   larger frame steps over it if nothing is touched in the part of the frame that lies there.
//!
//! Code of another compiler may step over the one page of the first kind: C does, unless it is
//! compiled with `-fstack-clash-protection`. The main thread's own stack has no guard of rt0's; the
//! kernel keeps 256 pages below it free of other mappings.
//!
//! [`scope()`] starts threads that may borrow; [`thread_local!`](crate::thread_local!) gives each thread values of its own.
//!
//! All threads are in a list (`list.rs`), which `all_threads` goes through.

mod cache;
mod fork;
mod gate;
mod interrupt;
mod life;
mod list;
#[doc(hidden)]
pub mod local;
#[cfg(all(loom, test))]
mod models;
mod overflow;
mod scope;
mod stack;

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::num::NonZeroUsize;
use core::ops::Range;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use memoffset::offset_of;
use static_assertions::{assert_impl_all, assert_not_impl_any};

use crate::all_threads::Mailbox;
use crate::arch::{Arch, CloneArgs, Cpu, Guard, Tls};
use crate::cpu;
use crate::errno::{Errno, Result};
use crate::futex::{self, base::const_fn};
use crate::intrinsics;
use crate::parker::Parker;
use crate::profile;
use crate::signal::{self, Blocked, SignalStack};
use crate::sys;
use crate::time::{ClockId, Instant};
use crate::tls;
use crate::vdso;
use life::Life;
use list::Passage;
use stack::{MIN_STACK_SIZE, Mapping, STACK_ALIGN};

pub use fork::{Fork, fork};
pub use interrupt::Generation;
pub(crate) use list::{Links, List, Profiler, notice_fork};
pub use local::{AccessError, LocalKey};
pub(crate) use overflow::main_stack_end;
pub use overflow::report_overflows;
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use stack::{limit_stack_cache, trim_stack_cache};

/// Starts a thread that calls `f`, with [`Builder`]'s defaults.
///
/// Errors: `EAGAIN` when a limit on processes or threads is reached (after some 200 ms of trying again), `ENOMEM` when
/// there is no memory or address space for the stack. Nothing is left behind, and `f` was dropped.
///
/// In handlers: no.
pub fn spawn<F, T>(f: F) -> Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new().spawn(f)
}

/// How many threads can run at once: [`cpu::count`], which says how that is found. It never fails; the `Result` is std's.
///
/// In handlers: yes.
pub fn available_parallelism() -> Result<NonZeroUsize> {
    Ok(cpu::count())
}

/// A thread's properties, before it starts.
#[derive(Clone, Copy, Debug)]
#[must_use = "no thread starts before it is spawned"]
pub struct Builder<'a> {
    name: Option<&'a str>,
    stack_size: usize,
}

impl<'a> Builder<'a> {
    /// No name, and a stack of 2 MiB, as std's.
    ///
    /// In handlers: yes.
    pub const fn new() -> Builder<'a> {
        Builder { name: None, stack_size: 2 << 20 }
    }

    /// Names the thread, for [`Thread::name`] and, cut to 15 bytes at a character's end, for the kernel (`ps`, `top`,
    /// `/proc/self/task/*/comm`). A name with a NUL makes [`Builder::spawn`] fail with `EINVAL`.
    ///
    /// In handlers: yes.
    pub const fn name(self, name: &'a str) -> Builder<'a> {
        Builder { name: Some(name), ..self }
    }

    /// The least size of the stack in bytes, rounded up to whole pages. Fewer than 16 KiB, and room for some copies of the
    /// closure and its result, it never has: so 0 is enough for a closure that does little, and for handlers of signals,
    /// which run on a stack of their own. Only what is touched takes memory. A size that no address space has makes
    /// [`Builder::spawn`] fail with `ENOMEM`.
    ///
    /// In handlers: yes.
    pub const fn stack_size(self, bytes: usize) -> Builder<'a> {
        Builder { stack_size: bytes, ..self }
    }

    /// Starts a thread that calls `f`; see [`spawn`].
    ///
    /// In handlers: no.
    pub fn spawn<F, T>(self, f: F) -> Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: 1. Both may live for ever.
        unsafe { self.spawn_unchecked(f) }
    }

    /// [`Builder::spawn`] of a closure that may borrow, where somebody else sees to it that what it borrows lives long
    /// enough. [`scope()`] does so by itself.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. What `f` and its result borrow outlives the thread, all copies of its [`Thread`], and the handle; or the thread
    ///    is joined before any of that ends.
    pub unsafe fn spawn_unchecked<F, T>(self, f: F) -> Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        // SAFETY: 1. Of these types. 2. is our 1. 3. None.
        unsafe { self.launch(f, run::<F, T>, null()) }
    }

    /// Starts a thread that does `run`, which finds `content` at [`Block::launch`]; in a scope, if there is one.
    ///
    /// # Safety
    ///
    /// 1. `run` takes a `C` from there and leaves the result to [`finish`], as a `T`. Another thread may have either.
    /// 2. What `content` and the result borrow outlives `run`, and the handle.
    /// 3. The scope, if it is not null, was opened by the caller or counts it.
    unsafe fn launch<C, T>(
        self,
        content: C,
        run: unsafe fn(&Block),
        scope: *const scope::Running,
    ) -> Result<JoinHandle<T>> {
        let ready = self.prepare(size_of::<Launch<C, T>>(), align_of::<Launch<C, T>>(), run)?;
        let (block, launch) = (ready.block, ready.launch);
        // SAFETY: fresh, of the size and alignment of this type among others.
        unsafe { launch.cast::<C>().write(content) };
        // SAFETY: nobody else has the block until it is linked.
        unsafe { block.as_ref() }.scope.store(scope.cast_mut(), Relaxed);
        match start(&ready) {
            Ok(()) => {
                core::mem::forget(ready.mapping); // The block's references own it now.
                Ok(JoinHandle { thread: Thread { block }, result: launch.cast(), owns: PhantomData })
            }
            Err(errno) => {
                // SAFETY: no thread started, so the content is still here and nobody else's.
                unsafe { launch.cast::<C>().drop_in_place() };
                Err(errno)
            }
        }
    }

    /// All that a thread needs, but for what it starts from, which takes `size` bytes.
    fn prepare(self, size: usize, align: usize, run: unsafe fn(&Block)) -> Result<Ready> {
        let name = self.name.unwrap_or_default();
        if name.contains('\0') {
            return Err(Errno::EINVAL);
        }
        // What it could not set up costs no more than the line about an overflow.
        let _ = report_overflows();
        let (area_size, area_align) = tls::area_layout::<Block>();
        let number = ThreadId::next_number()?;
        // Who moves the closure and the result to and from their place does so over the stack.
        let stack_size = self.stack_size.max(size.saturating_mul(4).saturating_add(MIN_STACK_SIZE));
        let room = [area_align, size, align, name.len()].into_iter().fold(area_size, usize::saturating_add);
        let mut mapping = Mapping::new(stack_size, room)?;
        let area = mapping.carve(area_size, area_align);
        let launch = mapping.carve(size, align);
        let name_at = mapping.carve(name.len(), 1);
        let stack = mapping.carve(0, STACK_ALIGN);

        // SAFETY: carved, of this length.
        unsafe { name_at.copy_from_nonoverlapping(name.as_ptr(), name.len()) };
        // SAFETY: just written, from a str; the mapping keeps it as long as the block, and nobody writes to it again.
        let name_there = unsafe { &*core::ptr::slice_from_raw_parts(name_at, name.len()) };
        // SAFETY: as above.
        let name_there = unsafe { core::str::from_utf8_unchecked(name_there) };
        if !mapping.is_fresh {
            // SAFETY: 1. Carved, of this size. 2. Both are multiples of 16.
            unsafe { intrinsics::zero_words(area.cast(), area.wrapping_add(area_size).cast()) };
        }
        // SAFETY: 1. Carved by the layout, and zeros: a fresh mapping is nothing else.
        let (mut block, thread_pointer) = unsafe { tls::fill::<Block>(area) };
        // SAFETY: all zeros, as a block may be, and nobody else has it yet.
        let fields = unsafe { block.as_mut() };
        fields.this = fields;
        if let (Some(guard), Some(parents)) = (fields.guard(), stack_guard()) {
            guard.set(parents.get());
        }
        fields.number = number;
        fields.name = self.name.map(|_| NonNull::from_ref(name_there));
        fields.tell_name = self.name.map(|_| tell_name as fn(&Block));
        fields.mapping = (mapping.base, mapping.len);
        fields.signal_stack = mapping.signal_stack;
        fields.stack = mapping.stack_base.addr()..stack.addr();
        fields.launch = launch;
        fields.run = Some(run);
        Ok(Ready { mapping, block, launch, stack, thread_pointer })
    }
}

/// A thread that only has to be cloned.
struct Ready {
    mapping: Mapping,
    block: NonNull<Block>,
    launch: *mut u8,
    stack: *mut u8,
    thread_pointer: *mut u8,
}

impl Default for Builder<'_> {
    fn default() -> Self {
        Builder::new()
    }
}

/// Room for the closure and what goes with it, and once it ran, for its result; either starts where the room does.
#[repr(C)]
union Launch<C, T> {
    _content: ManuallyDrop<C>,
    _result: ManuallyDrop<T>,
}

/// Clones the thread, with all signals blocked (2), and tries again while the kernel says `EAGAIN`: it does so also
/// when a thread that just ended still counts. 20 times, 1 to 20 ms apart, then it is the caller's.
fn start(&Ready { block, stack, thread_pointer, .. }: &Ready) -> Result<()> {
    const FLAGS: u32 = k::CLONE_VM
        | k::CLONE_FS
        | k::CLONE_FILES
        | k::CLONE_SIGHAND
        | k::CLONE_THREAD
        | k::CLONE_SYSVSEM // qemu-user refuses threads without it.
        | k::CLONE_SETTLS
        | k::CLONE_PARENT_SETTID
        | k::CLONE_CHILD_CLEARTID;
    let mut tries = 0;
    loop {
        let before = signal::block_everything();
        // SAFETY: nobody else has the block until it is linked.
        unsafe { (*block.as_ptr()).mask = before.without_reserved() };
        let passage = Passage::enter(&before);
        passage.link(block);
        let args = CloneArgs {
            flags: FLAGS as usize,
            stack,
            // SAFETY: as above.
            tid: unsafe { block.as_ref() }.life.tid_word(),
            tls: thread_pointer,
            start: null_mut(),
        };
        // SAFETY: 1. Carved so. 2. The word and the thread pointer lie in the mapping, which the caller
        // leaves to the block's references; signals are blocked above. 3. The block is the new thread's.
        let cloned = unsafe { sys::clone(args, rust_thread, block.as_ptr().cast()) };
        if cloned.is_err() {
            passage.unlink(block);
        } // Else it runs, and may have left the list by now.
        drop(passage);
        before.restore();
        match cloned {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) if tries < 20 => {
                tries += 1;
                // Not `sleep`: a thread's start would bring the clocks into every program. A handler may cut it short.
                let _ = sys::nanosleep(&sys::Timespec { tv_sec: 0, tv_nsec: tries * 1_000_000 });
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// The thread's first function, on its own stack, with all signals blocked.
///
/// # Safety
///
/// 1. `block` is this thread's, and all of it was written before the clone.
unsafe extern "C" fn rust_thread(block: *mut u8) -> ! {
    let block = block.cast::<Block>();
    // SAFETY: 1. Until `end`, this thread's own reference keeps it; others only touch its atomics.
    let this = unsafe { &*block };
    // SAFETY: 1. It lies in the thread's own mapping, for this alone.
    // Only a filter can refuse it; then handlers run on the thread's stack, and an overflow ends without its line.
    let _ = unsafe { signal::set_signal_stack(this.signal_stack) };
    if let Some(tell_name) = this.tell_name {
        tell_name(this);
    }
    list::profile_from_start(this);
    this.mask.restore();
    if let Some(run) = this.run {
        // SAFETY: `launch` is what `run` was made for, and it runs once.
        unsafe { run(this) };
    }
    this.destructors.run();
    let before = signal::block_everything();
    this.interrupts.end(this, &before);
    Passage::enter(&before).leave_for_good();
    // No handler asks for random bytes any more, so no state is taken after this.
    this.random.give_back();
    let (base, len) = this.mapping;
    // SAFETY: 1. The last reference is gone, and what follows is the end.
    if this.life.release() && !unsafe { stack::keep(NonNull::from_ref(this)) } {
        // SAFETY: 1. No word at all.
        if unsafe { sys::set_tid_address(null_mut()) }.is_ok() {
            // SAFETY: 1. No other thread has a way here. 2. Blocked above. 3. Taken away above.
            unsafe { <crate::arch::Cpu as crate::arch::Arch>::unmap_and_exit(base, len) }
        }
        // A filter refused it. The mapping stays: the kernel will clear the word that lies there.
    }
    // SAFETY: 1. Whoever uses this stack next, or had something on it, waits for the end.
    unsafe { sys::exit(0) }
}

/// Calls the closure and settles who drops its result.
///
/// # Safety
///
/// 1. `this.launch` holds an `F`, has room for a `T`, and nobody else will take it.
unsafe fn run<F: FnOnce() -> T, T>(this: &Block) {
    // SAFETY: 1. It is read once.
    let closure = unsafe { this.launch.cast::<F>().read() };
    // SAFETY: 1. The closure was taken above.
    unsafe { finish(this, closure()) };
}

/// Leaves the result to the handle, or drops it (5).
///
/// # Safety
///
/// 1. `this` is the calling thread's, and `this.launch` has room for a `T` and nothing in it any more.
unsafe fn finish<T>(this: &Block, result: T) {
    let room = this.launch.cast::<T>();
    // SAFETY: 1. is our caller's.
    unsafe { room.write(result) };
    if !this.life.finish() {
        // SAFETY: written above; a detached thread's result is nobody else's.
        unsafe { room.drop_in_place() };
    }
}

/// Tells the kernel the calling thread's name, of which it keeps 15 bytes, here cut at a character's end.
fn tell_name(this: &Block) {
    let name = this.name().unwrap_or_default();
    let mut cut = [0; 16];
    for (to, from) in cut.iter_mut().zip(name[..name.floor_char_boundary(15)].bytes()) {
        *to = from;
    }
    sys::prctl_set_name(&cut);
}

/// What rt0 knows of a thread. Lies at the thread pointer (variant II) or right below the ABI's part of it. All zeros,
/// it is the main thread's before anything happened.
#[repr(C, align(16))]
pub(crate) struct Block {
    /// Its own address, where variant II wants it.
    this: *mut Block,
    /// In variant II, the words after it that belong to the ABI.
    above: [Cell<usize>; RESERVED.above],
    life: Life,
    parker: Parker,
    interrupts: interrupt::Interrupts,
    signalling: interrupt::Signalling,
    held: gate::Held,
    /// That of the process in which the thread was started, or has gone on after a fork. Written
    /// under the list's latch before the thread runs, and in a forked child.
    generation: Cell<u32>,
    neighbours: list::Neighbours,
    pub(crate) mailbox: Mailbox,
    destructors: local::Destructors,
    /// The scope that counts the thread. Written by the thread, and after an end by exit(2) or a
    /// filter, under the list's latch.
    scope: AtomicPtr<scope::Running>,
    /// What the vDSO makes this thread's random bytes with.
    random: vdso::StateSlot,
    pub(crate) profile: profile::Slot,
    /// Makes its [`ThreadId`].
    number: usize,
    name: Option<NonNull<str>>,
    /// `Some` if it has a name: so a program that names no thread has not the function either.
    tell_name: Option<fn(&Block)>,
    /// The signals that were blocked on the thread that spawned this one; never 32 or 33.
    mask: Blocked,
    /// Base and length; null and 0 for the main thread's.
    mapping: (*mut u8, usize),
    /// A part of the mapping; for the main thread, nothing.
    pub(crate) signal_stack: SignalStack,
    /// The addresses of the stack; its guard page lies right below.
    pub(crate) stack: Range<usize>,
    launch: *mut u8,
    pub(crate) run: Option<unsafe fn(&Block)>,
    /// In variant I, the words below the thread pointer that belong to the ABI.
    below: Below,
}

/// As aligned as the block, so that nothing lies between its end and the block's.
#[repr(C, align(16))]
struct Below([Cell<usize>; RESERVED.below]);

const _: () = assert!(offset_of!(Block, this) == 0, "variant II reads it at the thread pointer");
const _: () = assert!(size_of::<Block>().is_multiple_of(align_of::<Block>()), "variant I finds it from its end");

/// The part of a block that belongs to the ABI ([`Arch::GUARD`]), in words.
struct Reserved {
    above: usize,
    below: usize,
    /// Which of them is the guard.
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
                life: Life::new(),
                parker: Parker::new(),
                interrupts: interrupt::Interrupts::new(),
                signalling: interrupt::Signalling::new(),
                held: gate::Held::new(),
                generation: Cell::new(0),
                neighbours: list::Neighbours::new(),
                mailbox: Mailbox::new(),
                destructors: local::Destructors::new(),
                scope: AtomicPtr::new(null_mut()),
                random: vdso::StateSlot::new(),
                profile: profile::Slot::new(),
                number: 0,
                name: None,
                tell_name: None,
                mask: Blocked::NOTHING,
                mapping: (null_mut(), 0),
                signal_stack: SignalStack { base: null_mut(), size: 0 },
                stack: 0..0,
                launch: null_mut(),
                run: None,
                below: Below([const { Cell::new(0) }; RESERVED.below]),
            }
        }
    }

    /// The word that compiled code takes for its guard; `None` where the guard is a variable.
    fn guard(&self) -> Option<&Cell<usize>> {
        let words = if RESERVED.above == 0 { &self.below.0[..] } else { &self.above[..] };
        words.get(RESERVED.guard)
    }

    /// The kernel's number for it; 0 once it has ended, and for a thread that is the parent's of a
    /// forked child. The main thread's is 0 before its first way to the list of threads.
    pub(crate) fn tid(&self) -> u32 {
        if self.generation.get() == fork::generation() { self.life.tid() } else { 0 }
    }

    /// Of a thread in the list while its gate is closed: whether it runs no more, or never did.
    fn is_gone(&self) -> bool {
        self.tid() == 0 || self.life.was_never_cloned()
    }

    /// Waits until nothing of the thread runs on its stack. A thread of a process that this one was
    /// forked from does not.
    fn wait_for_end(&self) {
        self.life.wait_for_end(|| {
            list::notice_fork();
            self.tid() == 0
        });
    }

    fn name(&self) -> Option<&str> {
        if self.is_main() {
            return Some("main");
        }
        // SAFETY: copied from a str, into the mapping that this block lies in.
        self.name.map(|name| unsafe { name.as_ref() })
    }

    fn name_for_messages(&self) -> &str {
        self.name().unwrap_or("<unnamed>")
    }

    fn is_main(&self) -> bool {
        self.mapping.0.is_null()
    }
}

/// Gives up one reference to a block, and frees its mapping if that was the last (3).
///
/// # Safety
///
/// 1. The caller owned a reference, and does not touch the block again.
unsafe fn release(block: NonNull<Block>) {
    // SAFETY: 1. The reference keeps it until the next line.
    let this = unsafe { block.as_ref() };
    if this.life.release() {
        // SAFETY: 1. The last reference is gone, so the thread has given up its own.
        unsafe { stack::keep_or_free(block) };
    }
}

/// The main thread's block, as large as the linker makes room for (tls.rs). The compiler refuses what is not zero in a
/// section of this name; and so a new thread's block needs zeros only.
#[cfg(not(all(loom, test)))]
#[used]
#[unsafe(link_section = ".bss.rt0_block")]
static MAIN: Main = Main(core::cell::UnsafeCell::new(Block::new()));

#[cfg(not(all(loom, test)))]
struct Main(#[allow(dead_code)] core::cell::UnsafeCell<Block>); // For the linker alone.

// SAFETY: nobody touches it by this name.
#[cfg(not(all(loom, test)))]
unsafe impl Sync for Main {}

/// Gives the main thread its TLS, its block and its thread pointer.
///
/// # Safety
///
/// 1. Called once, before any other thread exists and before anything asks for the current thread.
#[inline(always)]
pub(crate) unsafe fn adopt_main() {
    // SAFETY: 1. By ours.
    let (block, thread_pointer) = unsafe { tls::fill_main::<Block>() };
    // SAFETY: all zeros, as a block may be, and nobody else has it yet.
    unsafe { (*block.as_ptr()).this = block.as_ptr() };
    // SAFETY: 1. Just filled; it stays for the life of the process.
    let done = unsafe { <crate::arch::Cpu as crate::arch::Arch>::set_thread_pointer(thread_pointer) };
    if let Err(errno) = Errno::check(done) {
        sys::die("setting the thread pointer", errno);
    }
}

/// The word near the calling thread's thread pointer that code compiled with `-fstack-protector`
/// takes for its guard; `None` on machines where the guard is a variable.
pub(crate) fn stack_guard<'a>() -> Option<&'a Cell<usize>> {
    // SAFETY: a running thread's block stays.
    unsafe { this_block().as_ref() }.guard()
}

/// What the main thread has to do when `main` has returned.
pub(crate) fn end_main() {
    // SAFETY: the main thread's block stays.
    unsafe { this_block().as_ref() }.destructors.run();
}

/// The name to show for the current thread, also before it has a block (then the process is still starting).
#[cfg(feature = "panic-handler")]
pub(crate) fn name_for_messages() -> &'static str {
    // SAFETY: static, and all zeros until `adopt_main` wrote to it, before anybody else came.
    if unsafe { tls::block_of_main::<Block>().as_ref() }.this.is_null() {
        return "starting";
    }
    // SAFETY: a running thread's block stays; the message is written before the thread ends.
    unsafe { this_block().as_ref() }.name_for_messages()
}

pub(crate) fn this_block() -> NonNull<Block> {
    // SAFETY: 1. All safe code runs after `adopt_main` or in a thread that `start` made.
    unsafe { tls::block_of_this_thread() }
}

/// The calling thread's block, for a handler, which may run on a thread that rt0 did not make: then
/// there is none. Such a thread may have any thread pointer, its maker's or none at all, so nothing
/// is read by that before the kernel has found this thread's id in the word where a block has it.
pub(crate) fn block_in_handler() -> Option<&'static Block> {
    const WORD: usize = offset_of!(Block, life) + Life::TID;
    let block = tls::block_address::<Block>();
    let is_ours = sys::holds(block.wrapping_byte_add(WORD).cast(), sys::gettid());
    // SAFETY: the kernel has read in it, within the first page.
    is_ours.then(|| unsafe { &*block }).filter(|found| core::ptr::eq(found.this, block))
}

const _: () = assert!(offset_of!(Block, life) + Life::TID < 256, "one look tells that all of this is there");

/// Hands out the place for the state of the calling thread's random bytes.
#[inline(always)]
pub(crate) fn with_random_slot<R>(f: impl FnOnce(&vdso::StateSlot) -> R) -> R {
    // SAFETY: a running thread's block stays.
    f(unsafe { &this_block().as_ref().random })
}

/// A thread's identity, unique for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(NonZeroUsize);

impl ThreadId {
    /// The number of a thread to come; the main thread's is 0, so that it need not be written. `EAGAIN` when all
    /// numbers were used (on a 32-bit machine, after four billion threads): none is given twice.
    fn next_number() -> Result<usize> {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: only the number counts.
        let next = |last| (last < usize::MAX - 1).then_some(last + 1);
        LAST.fetch_update(Relaxed, Relaxed, next).map_or(Err(Errno::EAGAIN), |last| Ok(last + 1))
    }

    fn of_number(number: usize) -> ThreadId {
        ThreadId(NonZeroUsize::MIN.saturating_add(number))
    }
}

/// Owns a running thread: [`join`](JoinHandle::join) it for its result, or drop it to let it run on its own.
pub struct JoinHandle<T> {
    /// Dropped after the result, whose place it keeps.
    thread: Thread,
    result: *mut T,
    owns: PhantomData<T>,
}

// SAFETY: the handle gives out the result only, which was made on another thread (spawn asks for Send), and atomics.
unsafe impl<T> Send for JoinHandle<T> {}
// SAFETY: as above; by reference it gives out nothing of T.
unsafe impl<T> Sync for JoinHandle<T> {}

assert_impl_all!(JoinHandle<*const u8>: Send, Sync);

impl<T> JoinHandle<T> {
    /// Waits for the thread to end and returns what its closure returned. What the thread did happens before this
    /// returns.
    ///
    /// A panic in the thread ends the process, so there is no error to return.
    ///
    /// In handlers: no, it waits.
    ///
    /// # Panics
    ///
    /// When called by the thread itself, which would wait forever.
    pub fn join(self) -> T {
        assert!(self.thread.block != this_block(), "a thread cannot join itself");
        let this = ManuallyDrop::new(self);
        let self_block = this.thread.block();
        let life = &self_block.life;
        self_block.wait_for_end();
        if !life.is_finished() {
            // By exit(2) in a call of the program's own, by a filter, or in a fork: there is no
            // result.
            sys::die("joining a thread that ended without a result", Errno::ECANCELED);
        }
        // SAFETY: the thread ended after it wrote the result, and left it to us: only dropping the handle detaches.
        let result = unsafe { this.result.read() };
        // SAFETY: 1. The handle's; forgotten above.
        unsafe { release(this.thread.block) };
        result
    }

    /// Whether the closure has returned, so that [`join`](JoinHandle::join) will not wait long.
    ///
    /// In handlers: yes.
    pub fn is_finished(&self) -> bool {
        self.thread.block().life.is_finished()
    }

    /// The thread.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl<T> Drop for JoinHandle<T> {
    /// Detaches the thread.
    fn drop(&mut self) {
        if self.thread.block().life.detach() {
            // SAFETY: written, and not taken, for join forgets the handle.
            unsafe { self.result.drop_in_place() };
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("thread", self.thread()).finish_non_exhaustive()
    }
}

/// A thread, for as long as one likes: also after it ended. It keeps the thread's mapping, not the thread.
pub struct Thread {
    block: NonNull<Block>,
}

// SAFETY: of the block it uses only what never changes, and atomics.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

// Its cells are for the thread itself and for whoever has the list's lock, and a panic ends the process.
impl UnwindSafe for Thread {}
impl RefUnwindSafe for Thread {}

assert_impl_all!(Thread: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(Thread: Copy);

impl Thread {
    /// # Safety
    ///
    /// 1. Somebody's reference keeps the block.
    unsafe fn of(block: NonNull<Block>) -> Thread {
        // SAFETY: 1. is our caller's.
        unsafe { block.as_ref() }.life.retain();
        Thread { block }
    }

    fn block(&self) -> &Block {
        // SAFETY: our reference keeps it.
        unsafe { self.block.as_ref() }
    }

    /// Its identity.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        ThreadId::of_number(self.block().number)
    }

    /// Its name, if it was given one; `main` for the main thread.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.block().name()
    }

    /// Lets its next or present [`park`] return. Several calls before that count as one. What the caller did happens
    /// before that park returns.
    ///
    /// In handlers: yes. It may interrupt any function of rt0.
    pub fn unpark(&self) {
        self.block().parker.unpark();
    }
}

impl Clone for Thread {
    fn clone(&self) -> Thread {
        // SAFETY: 1. Ours does.
        unsafe { Thread::of(self.block) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: 1. Ours.
        unsafe { release(self.block) };
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The calling thread.
///
/// In handlers: yes.
#[must_use]
pub fn current() -> Thread {
    // SAFETY: 1. The thread's own does.
    unsafe { Thread::of(this_block()) }
}

/// Whether the calling thread is unwinding after a panic, which no thread ever is: a panic ends the process, and destructors
/// do not run for it. So this is false; it is here for code that asks.
///
/// In handlers: yes.
#[must_use]
pub const fn panicking() -> bool {
    false
}

/// Lets other threads run: sched_yield(2).
///
/// In handlers: yes.
pub fn yield_now() {
    sys::sched_yield();
}

/// Sleeps for at least `duration`, by the monotonic clock; signal handlers that run meanwhile do not shorten it.
///
/// In handlers: no, it waits.
pub fn sleep(duration: Duration) {
    match Instant::now().checked_add(duration) {
        Some(deadline) => sleep_until(deadline),
        None => loop {
            sleep(Duration::from_secs(u32::MAX.into())); // Past the clock's end: for ever.
        },
    }
}

/// Sleeps until `deadline` at least, by the monotonic clock; at once back if it is past. Signal handlers that run meanwhile
/// do not shorten it.
///
/// In handlers: no, it waits.
pub fn sleep_until(deadline: Instant) {
    while Instant::now() < deadline {
        match sys::clock_nanosleep_until(ClockId::CLOCK_MONOTONIC.raw(), &deadline.deadline()) {
            Ok(()) | Err(Errno::EINTR) => {} // Early, or a handler ran.
            // A filter's. A wait for a word that no other thread has ends by the same clock.
            Err(_) => _ = futex::wait_until(&AtomicU32::new(0), 0, deadline),
        }
    }
}

/// Waits until somebody unparks this thread's [`Thread`]; returns at once if that happened since the last park.
///
/// In handlers: no, it waits.
pub fn park() {
    park_until(None);
}

/// [`park`], for at most `timeout`.
///
/// In handlers: no, it waits.
pub fn park_timeout(timeout: Duration) {
    park_until(Instant::now().checked_add(timeout));
}

fn park_until(deadline: Option<Instant>) {
    // SAFETY: a running thread's block stays.
    unsafe { this_block().as_ref() }.parker.park_with(deadline);
}

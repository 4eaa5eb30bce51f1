//! How a thread starts, runs its closure and ends.

use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::Ordering::Relaxed;

use linux_raw_sys::general as k;

use super::block::{Block, stack_guard};
use super::list::{self, Passage};
use super::stack::{self, MIN_STACK_SIZE, Mapping, STACK_ALIGN};
use super::{JoinHandle, ThreadId, report_overflows, scope};
use crate::arch::CloneArgs;
use crate::errno::{Errno, Result};
use crate::{intrinsics, signal, sys, tls};

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

    /// Names the thread, for [`Thread::name`](super::Thread::name) and, cut to 15 bytes at a character's end, for the kernel (`ps`, `top`,
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
    /// 1. What `f` and its result borrow outlives the thread, all copies of its [`Thread`](super::Thread), and the handle; or the thread
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
    pub(super) unsafe fn launch<C, T>(
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
                // SAFETY: 1. The thread has a reference of its own. 2. `run` leaves it there.
                Ok(unsafe { JoinHandle::new(block, launch.cast()) })
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
    list::started(this);
    this.mask.restore();
    if let Some(run) = this.run {
        // SAFETY: `launch` is what `run` was made for, and it runs once.
        unsafe { run(this) };
    }
    this.destructors.run();
    let before = signal::block_everything();
    this.interrupts.end(this, &before);
    Passage::enter(&before).leave_for_good();
    let (base, len) = this.mapping;
    // SAFETY: 1. The last reference is gone, and what follows is the end.
    if this.life.release() && !unsafe { stack::keep(NonNull::from_ref(this)) } {
        // SAFETY: 1. No word at all.
        if unsafe { sys::set_tid_address(null_mut()) }.is_ok() {
            // SAFETY: 1. No other thread has a way here. 2. Blocked above. 3. Taken away above.
            unsafe { sys::unmap_and_exit(base, len) }
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
pub(super) unsafe fn run<F: FnOnce() -> T, T>(this: &Block) {
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

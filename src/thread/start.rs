//! How a thread starts, runs its closure and ends.

use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null, null_mut};

use linux_raw_sys::general as k;

use super::block::{Block, stack_guard};
use super::list::{self, Passage};
use super::stack::{self, MIN_STACK_SIZE, Mapping, STACK_ALIGN};
use super::{JoinHandle, ThreadId, report_overflows, scope};
use crate::arch::CloneArgs;
use crate::errno::{Errno, Result};
use crate::signal::{self, Blocked, SigSet};
use crate::{intrinsics, sys, tls};

/// Starts a thread that calls `f`, with [`Builder`]'s defaults.
///
/// Errors: `EAGAIN`, a limit on processes or threads is reached, also after some 200 ms of trying
/// again; `ENOMEM`, there is no memory or address space for the stack. After an error nothing is
/// left behind, and `f` was dropped.
///
/// ```no_run
/// use rt0::thread;
///
/// let child = thread::spawn(|| 6 * 7)?;
/// assert_eq!(child.join(), 42);
/// # Ok::<(), rt0::Errno>(())
/// ```
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
///
/// ```no_run
/// use rt0::thread::Builder;
///
/// let worker = Builder::new().name("worker").stack_size(64 << 10).spawn(|| ())?;
/// assert_eq!(worker.thread().name(), Some("worker"));
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "no thread starts before it is spawned"]
pub struct Builder<'a> {
    name: Option<&'a str>,
    stack_size: usize,
    mask: Option<SigSet>,
}

impl<'a> Builder<'a> {
    /// No name, and a stack of 2 MiB, as in std.
    ///
    /// In handlers: yes.
    pub const fn new() -> Builder<'a> {
        Builder { name: None, stack_size: 2 << 20, mask: None }
    }

    /// Names the thread, for [`Thread::name`](super::Thread::name) and, cut to 15 bytes at a
    /// character's end, for the kernel (`ps`, `top`, `/proc/self/task/*/comm`). A name with a NUL
    /// makes [`Builder::spawn`] fail with `EINVAL`.
    ///
    /// In handlers: yes.
    pub const fn name(self, name: &'a str) -> Builder<'a> {
        Builder { name: Some(name), ..self }
    }

    /// The least size of the stack in bytes, rounded up to whole pages. It is never below 16 KiB
    /// plus four times the size of closure and result, so 0 is enough for a closure that does
    /// little. (Signal handlers run on a stack of their own.) Only pages that are touched take
    /// memory. A size that no address space has makes [`Builder::spawn`] fail with `ENOMEM`.
    ///
    /// In handlers: yes.
    pub const fn stack_size(self, bytes: usize) -> Builder<'a> {
        Builder { stack_size: bytes, ..self }
    }

    /// The signals that are blocked on the thread from its first instruction on; without this,
    /// those that are blocked on the thread that spawns it.
    ///
    /// In handlers: yes.
    pub const fn signal_mask(self, mask: SigSet) -> Builder<'a> {
        Builder { mask: Some(mask), ..self }
    }

    /// Starts a thread that calls `f`; see [`spawn`].
    ///
    /// In handlers: no.
    pub fn spawn<F, T>(self, f: F) -> Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: 1. Closure and result are `'static`.
        unsafe { self.spawn_unchecked(f) }
    }

    /// [`Builder::spawn`] of a closure that may borrow, where the caller ensures that what it
    /// borrows lives long enough. [`scope()`](super::scope()) ensures it by itself.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. What `f` and its result borrow outlives the thread, all copies of its
    ///    [`Thread`](super::Thread), and the handle; or the thread is joined before any of that
    ///    ends.
    pub unsafe fn spawn_unchecked<F, T>(self, f: F) -> Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        // SAFETY: 1. `run` is for these types. 2. The caller guarantees it (1). 3. There is no
        // scope.
        unsafe { self.launch(f, run::<F, T>, null()) }
    }

    /// Starts a thread that calls `run`, which finds `content` at [`Block::launch`]; in a scope, if
    /// there is one.
    ///
    /// # Safety
    ///
    /// 1. `run` takes a `C` from there and passes a `T` to [`finish`]. Both may be sent to another
    ///    thread.
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
        // SAFETY: fresh memory, of the size and alignment of the union that has a `C`.
        unsafe { launch.cast::<C>().write(content) };
        // SAFETY: no other thread has the block until it is linked.
        unsafe { block.as_ref() }.scope.set(scope);
        match start(&ready) {
            Ok(()) => {
                core::mem::forget(ready.mapping); // The block's references own it now.
                // SAFETY: 1. The thread has a reference of its own. 2. `run` leaves it there.
                Ok(unsafe { JoinHandle::new(block, launch.cast()) })
            }
            Err(errno) => {
                // SAFETY: no thread started, so the content is still there and only the caller's.
                unsafe { launch.cast::<C>().drop_in_place() };
                Err(errno)
            }
        }
    }

    /// Lays out everything that a thread needs. Its content, which takes `size` bytes, is not
    /// written yet.
    fn prepare(self, size: usize, align: usize, run: unsafe fn(&Block)) -> Result<Ready> {
        let name = self.name.unwrap_or_default();
        if name.contains('\0') {
            return Err(Errno::EINVAL);
        }
        // If it fails, an overflow ends the process without its line.
        let _ = report_overflows();
        let (area_size, area_align) = tls::area_layout::<Block>();
        let number = ThreadId::next_number()?;
        // Closure and result are moved over the stack, by both sides.
        let stack_size = self.stack_size.max(size.saturating_mul(4).saturating_add(MIN_STACK_SIZE));
        let room = [area_align, size, align, name.len()].into_iter().fold(area_size, usize::saturating_add);
        let mut mapping = Mapping::new(stack_size, room)?;
        let area = mapping.carve(area_size, area_align);
        let launch = mapping.carve(size, align);
        let name_at = mapping.carve(name.len(), 1);
        let stack = mapping.carve(0, STACK_ALIGN);

        // SAFETY: `name_at` was carved with this length.
        unsafe { name_at.copy_from_nonoverlapping(name.as_ptr(), name.len()) };
        // SAFETY: just written; the mapping keeps it as long as the block, and nothing writes to it
        // again.
        let name_there = unsafe { &*core::ptr::slice_from_raw_parts(name_at, name.len()) };
        // SAFETY: copied from a `str`.
        let name_there = unsafe { core::str::from_utf8_unchecked(name_there) };
        if !mapping.is_fresh {
            // SAFETY: 1. `area` was carved with this size. 2. Both ends are multiples of 16.
            unsafe { intrinsics::zero_words(area.cast(), area.wrapping_add(area_size).cast()) };
        }
        // SAFETY: 1. Carved by the layout, and zeros: a fresh mapping is all zeros.
        let (mut block, thread_pointer) = unsafe { tls::fill::<Block>(area) };
        // SAFETY: all zeros, which is a valid block, and no other thread has it yet.
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
        Ok(Ready { mapping, block, launch, stack, thread_pointer, mask: self.mask })
    }
}

/// A thread that is ready to be cloned.
struct Ready {
    mapping: Mapping,
    block: NonNull<Block>,
    launch: *mut u8,
    stack: *mut u8,
    thread_pointer: *mut u8,
    mask: Option<SigSet>,
}

impl Default for Builder<'_> {
    fn default() -> Self {
        Builder::new()
    }
}

/// Room for the closure and what goes with it, and after it returned, for its result. Both begin
/// where the room begins.
#[repr(C)]
union Launch<C, T> {
    _content: ManuallyDrop<C>,
    _result: ManuallyDrop<T>,
}

/// Clones the thread, with all signals blocked (2). While the kernel says `EAGAIN` it tries again,
/// 20 times, 1 to 20 ms apart: a thread that has just ended may still count against a limit.
fn start(&Ready { block, stack, thread_pointer, mask, .. }: &Ready) -> Result<()> {
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
        // SAFETY: no other thread has the block until it is linked.
        unsafe { (*block.as_ptr()).mask = mask.map_or(before.without_reserved(), |mask| Blocked::of(&mask)) };
        let passage = Passage::enter(&before);
        passage.link(block);
        let args = CloneArgs {
            flags: FLAGS as usize,
            stack,
            // SAFETY: the caller's references keep the block.
            tid: unsafe { block.as_ref() }.life.tid_word(),
            tls: thread_pointer,
            start: null_mut(),
        };
        // SAFETY: 1. The stack was carved with this alignment and is fresh. 2. The word and the
        // thread pointer lie in the mapping, which the caller leaves to the block's references; all
        // signals are blocked. 3. The block is the new thread's.
        let cloned = unsafe { sys::clone(args, rust_thread, block.as_ptr().cast()) };
        if cloned.is_err() {
            passage.unlink(block);
        } // Otherwise it runs, and may have left the list already.
        drop(passage);
        before.restore();
        match cloned {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) if tries < 20 => {
                tries += 1;
                // Not `sleep`, which would link the clocks into every program that spawns. A
                // handler may shorten it.
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
    // SAFETY: 1. This thread's own reference keeps it until `release`; other threads access only
    // its atomics, and cells by the rules that stand beside them.
    let this = unsafe { &*block };
    // Only a filter can refuse it. Then handlers run on the thread's stack, and an overflow ends
    // the process without its line.
    // SAFETY: 1. The signal stack is a part of the thread's mapping that has no other use.
    let _ = unsafe { signal::set_signal_stack(this.signal_stack) };
    if let Some(tell_name) = this.tell_name {
        tell_name(this);
    }
    list::started(this);
    this.mask.restore();
    if let Some(run) = this.run {
        // SAFETY: `launch` holds what `run` expects, and `run` is called once.
        unsafe { run(this) };
    }
    this.destructors.run();
    let before = signal::block_everything();
    this.interrupts.end(this, &before);
    Passage::enter(&before).leave_for_good();
    let (base, len) = this.mapping;
    // SAFETY: 1. This was the last reference, and the thread only ends from here on.
    if this.life.release() && !unsafe { stack::keep(NonNull::from_ref(this)) } {
        // SAFETY: 1. There is no word.
        if unsafe { sys::set_tid_address(null_mut()) }.is_ok() {
            // SAFETY: 1. No reference is left, so no other thread accesses the mapping. 2. All
            // signals are blocked. 3. The word was taken away above.
            unsafe { sys::unmap_and_exit(base, len) }
        }
        // A filter refused it. The mapping stays, because the kernel will clear the word in it.
    }
    // SAFETY: 1. Every other user of this stack waits until the tid word is clear.
    unsafe { sys::exit(0) }
}

/// Calls the closure and passes on its result.
///
/// # Safety
///
/// 1. `this.launch` holds an `F` and has room for a `T`. Nothing else takes the `F`.
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
/// 1. `this` is the calling thread's block. `this.launch` has room for a `T` and holds nothing.
unsafe fn finish<T>(this: &Block, result: T) {
    let room = this.launch.cast::<T>();
    // SAFETY: the caller guarantees that there is room (1).
    unsafe { room.write(result) };
    if !this.life.finish() {
        // SAFETY: written above; the thread was detached, so no handle takes the result.
        unsafe { room.drop_in_place() };
    }
}

/// Tells the kernel the calling thread's name. The kernel keeps 15 bytes; the name is cut at a
/// character's end.
fn tell_name(this: &Block) {
    let name = this.name().unwrap_or_default();
    let mut cut = [0; 16];
    for (to, from) in cut.iter_mut().zip(name[..name.floor_char_boundary(15)].bytes()) {
        *to = from;
    }
    sys::prctl_set_name(&cut);
}

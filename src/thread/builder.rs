//! A thread's properties, and the memory that it starts with.

use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null};

use super::affinity::{Affinity, Request};
use super::block::{Block, stack_guard};
use super::stack::{MIN_STACK_SIZE, Mapping, STACK_ALIGN};
use super::start::{run, set_kernel_name, start};
use super::{JoinHandle, ThreadId, report_overflows, scope};
use crate::cpu::CpuSet;
use crate::errno::{Errno, Result};
use crate::signal::SigSet;
use crate::{intrinsics, tls};

/// Starts a thread that calls `f`, with [`Builder`]'s defaults.
///
/// Errors: `EAGAIN`, a limit on processes or threads is reached, and was for about 200 ms of
/// retries; `ENOMEM`, there is no memory or address space for the stack. After an error nothing
/// remains allocated, and `f` was dropped.
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
    // SAFETY: 1. `run` is for these types. 2. Closure and result are `'static`. 3. There is no
    // scope. 4. No stack is given.
    unsafe { const { &Builder::new() }.launch(f, run::<F, T>, null(), None) }
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
    affinity: Option<Affinity<'a>>,
}

impl<'a> Builder<'a> {
    /// No name, and a stack of 2 MiB, as in std.
    ///
    /// In handlers: yes.
    pub const fn new() -> Builder<'a> {
        Builder { name: None, stack_size: 2 << 20, mask: None, affinity: None }
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
    /// ```no_run
    /// use rt0::signal::SigSet;
    /// use rt0::thread::Builder;
    ///
    /// // A thread on which no handler of the program runs.
    /// let worker = Builder::new().signal_mask(SigSet::full()).spawn(|| ())?;
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: yes.
    pub const fn signal_mask(self, mask: SigSet) -> Builder<'a> {
        Builder { mask: Some(mask), ..self }
    }

    /// The processors that the thread may run on, before it calls its closure; without this, those
    /// of the thread that spawns it. sched_setaffinity(2), of the thread itself; the spawn waits
    /// for it, and fails as [`cpu::set_affinity`](crate::cpu::set_affinity) does: `EINVAL` if the
    /// thread may use none of these. Then `f` was dropped on the calling thread. `ECANCELED` if a
    /// filter killed the thread for the call.
    ///
    /// ```no_run
    /// use rt0::{cpu::CpuSet, thread::Builder};
    ///
    /// let mut first = CpuSet::new();
    /// first.insert(0)?;
    /// let worker = Builder::new().affinity(&first).spawn(|| ())?;
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: yes.
    pub const fn affinity(self, processors: &'a CpuSet) -> Builder<'a> {
        Builder { affinity: Some(Affinity::new(processors)), ..self }
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
    /// ```no_run
    /// use rt0::thread::Builder;
    ///
    /// let words = ["one", "two"];
    /// // SAFETY: 1. The thread is joined while `words` is borrowed.
    /// let child = unsafe { Builder::new().spawn_unchecked(|| words.len()) }?;
    /// assert_eq!(child.join(), 2);
    /// # Ok::<(), rt0::Errno>(())
    /// ```
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
        unsafe { self.launch(f, run::<F, T>, null(), None) }
    }

    /// [`Builder::spawn`] on a stack that the caller provides: for example of a coroutine, in huge
    /// pages, or in an arena. [`Builder::stack_size`] is ignored. Also `EINVAL`: the stack is
    /// smaller than 16 KiB plus four times the size of closure and result, plus 16 bytes for its
    /// alignment.
    ///
    /// The thread uses the stack only for its frames. Its thread-locals, block, closure, result and
    /// signal stack lie in a mapping of rt0's, as for every thread. [`Thread::stack`] returns this
    /// stack's addresses, with the end rounded down to a multiple of 16. An overflow is reported if
    /// it accesses a guard that the caller has put right below the stack; see
    /// [`thread`](crate::thread) for the size that a guard needs.
    ///
    /// After [`JoinHandle::join`], and after an error, the caller owns the stack again: the kernel
    /// has cleared the thread's tid word (`CLONE_CHILD_CLEARTID`), after its last instruction. A
    /// [`Thread`] does not keep the stack.
    ///
    /// ```no_run
    /// use core::ptr::NonNull;
    /// use rt0::{cpu, mapping::Mapping, thread::Builder};
    ///
    /// let memory = Mapping::reserve(1 << 20)?; // Its first pages are the guard.
    /// let guard = cpu::page_size().max(64 << 10);
    /// memory.commit(guard..)?;
    /// let base = NonNull::new(memory.as_ptr().wrapping_add(guard)).unwrap();
    /// let stack = NonNull::slice_from_raw_parts(base, memory.len() - guard);
    /// // SAFETY: 1. The mapping lives until the thread is joined. 2. Below it is the guard.
    /// let worker = unsafe { Builder::new().spawn_on(stack, || 6 * 7) }?;
    /// assert_eq!(worker.join(), 42);
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. The stack is readable and writable memory that nothing else uses until `join` has
    ///    returned; for ever, if the handle is dropped.
    /// 2. Right below it lies memory that faults when it is accessed, or the thread's frames never
    ///    reach below the stack.
    ///
    /// [`Thread`]: super::Thread
    /// [`Thread::stack`]: super::Thread::stack
    pub unsafe fn spawn_on<F, T>(self, stack: NonNull<[u8]>, f: F) -> Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: 1. `run` is for these types. 2. Closure and result are `'static`. 3. There is no
        // scope. 4. The caller guarantees it (1, 2).
        unsafe { self.launch(f, run::<F, T>, null(), Some(stack)) }
    }

    /// Starts a thread that calls `run`, which finds `content` at [`Block::launch`]. The thread is
    /// counted in `scope`, unless that is null. After an error `content` was dropped.
    ///
    /// Every closure of a program has a copy of this function, so [`Builder::launch_bytes`] does
    /// the work.
    ///
    /// # Safety
    ///
    /// 1. `run` takes a `C` from there and passes a `T` to `finish`. Both may be sent to another
    ///    thread.
    /// 2. What `content` and the result borrow outlives `run`, and the handle.
    /// 3. The scope, if it is not null, was opened by the caller or counts it.
    /// 4. A `stack` that is given meets the conditions of [`Builder::spawn_on`].
    pub(super) unsafe fn launch<C, T>(
        &self,
        content: C,
        run: unsafe fn(&Block),
        scope: *const scope::Running,
        stack: Option<NonNull<[u8]>>,
    ) -> Result<JoinHandle<T>> {
        let shape = const { &Shape::of::<C, T>() };
        let content = ManuallyDrop::new(content); // Not accessed below if the thread has it.
        // SAFETY: 1. `content` has this shape. 2. The caller guarantees it (1, 2). 3, 4. The caller
        // guarantees the same (3, 4).
        match unsafe { self.launch_bytes(shape, (&raw const content).cast(), run, scope, stack) } {
            // SAFETY: 1. The thread has a reference of its own. 2. `run` leaves it there.
            Ok((block, launch)) => Ok(unsafe { JoinHandle::new(block, launch.cast()) }),
            Err(errno) => {
                drop(ManuallyDrop::into_inner(content));
                Err(errno)
            }
        }
    }

    /// Starts a thread that calls `run`, which finds the bytes of `content` at [`Block::launch`].
    /// Returns the block, with a reference for the caller, and that address. After an error no
    /// thread has used the content.
    ///
    /// # Safety
    ///
    /// 1. `content` has the size in `shape`. After success the caller does not use it any more.
    /// 2. `run` takes such a value from there, and puts a result of the shape in its place. Both
    ///    may be sent to another thread, and what they borrow outlives `run`.
    /// 3. The scope, if it is not null, was opened by the caller or counts it.
    /// 4. A `stack` that is given meets the conditions of [`Builder::spawn_on`].
    unsafe fn launch_bytes(
        &self,
        shape: &Shape,
        content: *const u8,
        run: unsafe fn(&Block),
        scope: *const scope::Running,
        stack: Option<NonNull<[u8]>>,
    ) -> Result<(NonNull<Block>, *mut u8)> {
        let ready = self.prepare(shape, run, stack)?;
        let (block, launch) = (ready.block, ready.launch);
        // SAFETY: fresh memory, which has room for the content; the caller has that (1).
        unsafe { launch.copy_from_nonoverlapping(content, shape.content) };
        // SAFETY: no other thread has the block until it is linked.
        let fields = unsafe { block.as_ref() };
        fields.scope.set(scope);
        let request = self.affinity.map(|affinity| Request::new(affinity, fields));
        if let Some(request) = &request {
            request.put(fields);
        }
        start(&ready)?;
        core::mem::forget(ready.mapping); // The block's references own it now.
        // Asked once more, so that a program that never asks for processors does not link the wait.
        if self.affinity.is_some()
            && let Some(request) = &request
        {
            // SAFETY: 1. The caller of this function gets the reference after success only.
            unsafe { request.wait(block) }?;
        }
        Ok((block, launch))
    }

    /// Lays out everything that a thread needs. Its content is not written yet.
    fn prepare(
        &self,
        &Shape { size, align, .. }: &Shape,
        run: unsafe fn(&Block),
        stack: Option<NonNull<[u8]>>,
    ) -> Result<Ready> {
        let name = self.name.unwrap_or_default();
        if name.contains('\0') {
            return Err(Errno::EINVAL);
        }
        // If it fails, an overflow ends the process without its line.
        let _ = report_overflows();
        let (area_size, area_align) = tls::area_layout::<Block>();
        let number = ThreadId::next_number()?;
        // Both threads move the closure and the result over their stacks.
        let least = size.saturating_mul(4).saturating_add(MIN_STACK_SIZE);
        let stack_size = match stack {
            Some(stack) if stack.len() < least.saturating_add(STACK_ALIGN) => return Err(Errno::EINVAL),
            Some(_) => 0,
            None => self.stack_size.max(least),
        };
        let room = [area_align, size, align, name.len()].into_iter().fold(area_size, usize::saturating_add);
        let mut mapping = Mapping::new(stack_size, room)?;
        let area = mapping.carve(area_size, area_align);
        let launch = mapping.carve(size, align);
        let name_at = mapping.carve(name.len(), 1);
        let (stack_base, stack) = match stack {
            Some(stack) => {
                let (base, len) = (stack.as_ptr().cast::<u8>(), stack.len());
                (base, base.wrapping_add(len - (base.addr() + len) % STACK_ALIGN))
            }
            None => (mapping.stack_base, mapping.carve(0, STACK_ALIGN)),
        };

        // SAFETY: `name_at` was carved with this length.
        unsafe { name_at.copy_from_nonoverlapping(name.as_ptr(), name.len()) };
        // SAFETY: just written. It is mapped as long as the block, and nothing writes to it again.
        let name_there = unsafe { &*core::ptr::slice_from_raw_parts(name_at, name.len()) };
        // SAFETY: copied from a `str`.
        let name_there = unsafe { core::str::from_utf8_unchecked(name_there) };
        if !mapping.is_fresh {
            // SAFETY: 1. `area` was carved with this size. 2. Both ends are multiples of 16.
            unsafe { intrinsics::zero(area, area.wrapping_add(area_size)) };
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
        fields.set_kernel_name = self.name.map(|_| set_kernel_name as fn(&Block));
        fields.mapping = (mapping.base, mapping.len);
        fields.signal_stack = mapping.signal_stack;
        fields.stack = stack_base.addr()..stack.addr();
        fields.launch.set(launch);
        fields.run.set(Some(run));
        Ok(Ready { mapping, block, launch, stack, thread_pointer, mask: self.mask })
    }
}

/// A thread that is ready to be cloned.
pub(super) struct Ready {
    mapping: Mapping,
    pub(super) block: NonNull<Block>,
    launch: *mut u8,
    pub(super) stack: *mut u8,
    pub(super) thread_pointer: *mut u8,
    pub(super) mask: Option<SigSet>,
}

impl Default for Builder<'_> {
    fn default() -> Self {
        Builder::new()
    }
}

/// The sizes, in bytes, of what lies at [`Block::launch`]: first the content, and after the closure
/// returned its result. Both begin at offset 0.
struct Shape {
    content: usize,
    size: usize,
    align: usize,
}

impl Shape {
    const fn of<C, T>() -> Shape {
        #[repr(C)]
        union Launch<C, T> {
            _content: ManuallyDrop<C>,
            _result: ManuallyDrop<T>,
        }
        Shape { content: size_of::<C>(), size: size_of::<Launch<C, T>>(), align: align_of::<Launch<C, T>>() }
    }
}

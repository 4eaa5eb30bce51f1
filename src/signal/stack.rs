//! Signal stacks: sigaltstack(2).

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::{auxvec, general as k};

use crate::auxv::{self, page_size};
use crate::errno::Result;
use crate::guard::{self, Guarded};
use crate::sys;

/// Memory for the calling thread's handlers to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalStack {
    /// Its low end.
    pub base: *mut u8,
    /// Its size in bytes.
    pub size: usize,
}

/// The calling thread's signal stack, if it has one.
///
/// In handlers: yes.
pub fn signal_stack() -> Option<SignalStack> {
    // Only a filter can make it fail. Then there is no signal stack either.
    let mut now = NONE;
    // SAFETY: 1. This only reads the signal stack.
    unsafe { sys::sigaltstack(None, Some(&mut now)) }.ok().and_then(|()| from_kernel(now))
}

/// sigaltstack(2): sets the calling thread's signal stack, `None` for none, and returns the one
/// before. Errors: `ENOMEM`, it is smaller than the kernel's minimum (`AT_MINSIGSTKSZ`); `EPERM`,
/// the caller is a handler that runs on the present one.
///
/// ```no_run
/// use rt0::mapping::Mapping;
/// use rt0::signal::{self, SignalStack};
///
/// let size = signal::signal_stack().map_or(1 << 16, |present| 2 * present.size);
/// let base = Mapping::new(size)?.into_raw().cast().as_ptr();
/// // SAFETY: 1. It stays mapped for ever. 2. It is twice as large as the one before.
/// unsafe { signal::sigaltstack(Some(SignalStack { base, size })) }?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. As long as `new` is this thread's signal stack, its memory is mapped and used for nothing
///    else.
/// 2. It is large enough for the handlers that run on it; there is no guard below it.
pub unsafe fn sigaltstack(new: Option<SignalStack>) -> Result<Option<SignalStack>> {
    let (new, mut old) = (new.map_or(NONE, to_kernel), NONE);
    // SAFETY: the caller guarantees 1 and 2.
    unsafe { sys::sigaltstack(Some(&new), Some(&mut old)) }?;
    Ok(from_kernel(old))
}

/// [`sigaltstack`] without the one before.
///
/// # Safety
///
/// 1. Conditions 1 and 2 of [`sigaltstack`].
pub(crate) unsafe fn set_signal_stack(new: SignalStack) -> Result<()> {
    // SAFETY: the caller guarantees them (1).
    unsafe { sys::sigaltstack(Some(&to_kernel(new)), None) }
}

const NONE: k::sigaltstack = k::sigaltstack { ss_sp: null_mut(), ss_flags: k::SS_DISABLE as i32, ss_size: 0 };

fn to_kernel(SignalStack { base, size }: SignalStack) -> k::sigaltstack {
    k::sigaltstack { ss_sp: base.cast(), ss_flags: 0, ss_size: size as _ }
}

fn from_kernel(old: k::sigaltstack) -> Option<SignalStack> {
    let disabled = old.ss_flags as u32 & k::SS_DISABLE != 0;
    (!disabled).then_some(SignalStack { base: old.ss_sp.cast(), size: old.ss_size as usize })
}

/// The size of a thread's signal stack in bytes, whole pages.
///
/// It has space for the processor's registers twice. A handler of the program's blocks all signals
/// except rt0's, so one of rt0's handlers, which block everything, may interrupt it.
pub(crate) fn stack_size() -> usize {
    const LEAST: usize = 32 << 10;
    const HANDLERS: usize = 16 << 10;
    const MOST_BELIEVED: usize = 1 << 20; // About 16 times the largest register set of today.
    // The largest frame of a kernel that does not say it: gVisor's, on an x86 processor with AMX.
    const UNSAID: usize = 12 << 10;
    let frame = auxv::of_process().get(auxvec::AT_MINSIGSTKSZ as usize).unwrap_or(UNSAID).min(MOST_BELIEVED);
    let page = page_size(); // A power of two.
    ((2 * frame + HANDLERS).max(LEAST) + page - 1) & !(page - 1)
}

/// Gives the main thread a signal stack with a guard below it, unless it has one. The first call
/// happens before a second thread exists, so it is the main thread's. If a filter forbids
/// sigaltstack(2), handlers run on the thread's own stack. `ENOMEM`: there is no memory.
pub(crate) fn ensure_main_has_stack() -> Result<()> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    // Relaxed: later threads are cloned after this.
    if ASKED.load(Relaxed) {
        return Ok(());
    }
    if signal_stack().is_none() {
        let (guard, size) = (guard::size(), stack_size());
        let memory = Guarded::map(guard + size, &[0])?;
        let stack = SignalStack { base: memory.base().wrapping_add(guard), size };
        // SAFETY: 1. It is fresh memory, and the next line keeps it mapped for ever.
        if unsafe { set_signal_stack(stack) }.is_ok() {
            memory.into_raw();
        }
    }
    ASKED.store(true, Relaxed);
    Ok(())
}

//! What every wait in rt0 uses: atomics, four futex operations, and whether spinning pays. In a
//! model loom provides the atomics, and a fake kernel the operations.

use core::time::Duration;

use crate::sys;
use crate::time::Instant;

#[cfg(not(all(loom, test)))]
pub(crate) use self::kernel::current_thread;
#[cfg(not(all(loom, test)))]
pub(crate) use self::kernel::{AtomicPtr, AtomicU32, pause, requeue, several_processors, wait, wait_a_while, wake};
#[cfg(all(loom, test))]
pub(crate) use super::fake_kernel::{
    AtomicPtr, AtomicU32, pause, requeue, several_processors, wait, wait_a_while, wake,
};

/// Makes a constructor `const`, except in a model: loom's atomics are created at run time.
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis const fn $($rest:tt)*) => {
        #[cfg(not(all(loom, test)))]
        $(#[$meta])*
        $vis const fn $($rest)*
        #[cfg(all(loom, test))]
        $(#[$meta])*
        $vis fn $($rest)*
    };
}
pub(crate) use const_fn;

/// Whether this is a model: a unit test under `--cfg loom`.
pub(crate) const MODEL: bool = cfg!(all(loom, test));

/// The bitset of a wake that reaches every waiter.
pub(crate) const ANY: u32 = sys::FUTEX_ANY;

#[cfg(not(any(all(loom, test), miri)))]
mod kernel {
    use crate::arch::{Arch, Cpu};
    use crate::errno::Errno;
    use crate::futex;
    use crate::once_word::OnceBool;
    use crate::sys;
    use crate::time::Instant;

    pub(crate) use core::hint::spin_loop as pause;
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32};

    pub(crate) use crate::futex::{requeue, wait_a_while};

    /// Sleeps while `word` holds `expected`, until a wake whose bitset shares a bit with `bitset`.
    /// May return at any time; true means that the deadline has passed.
    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>, bitset: u32) -> bool {
        // EAGAIN, EINTR and a spurious Ok all mean: look again.
        futex::wait_as(word, expected, deadline, bitset) == Err(Errno::ETIMEDOUT)
    }

    /// Wakes up to `count` waiters that share a bit with `bitset`; returns how many. `word` may be
    /// unmapped.
    pub(crate) fn wake(word: *const AtomicU32, count: u32, bitset: u32) -> usize {
        futex::wake_at(word, false, count, bitset)
    }

    /// A number that no other running thread has, and that is not 0: its thread pointer.
    pub(crate) fn current_thread() -> usize {
        // SAFETY: 1. All safe code runs after the thread pointer is set.
        unsafe { <Cpu as Arch>::thread_pointer() }.addr()
    }

    /// Whether the process may run on several processors (its main thread's affinity), asked once.
    /// False if the kernel refuses to say.
    pub(crate) fn several_processors() -> bool {
        static SEVERAL: OnceBool = OnceBool::new();
        SEVERAL.get(look_for_several)
    }

    #[cold]
    fn look_for_several() -> bool {
        // The most processors that a kernel supports.
        let mut mask = [0usize; 8192 / usize::BITS as usize];
        let _ = sys::sched_getaffinity(sys::getpid(), &mut mask); // An error leaves the mask empty.
        let mut found = false;
        for word in mask.into_iter().filter(|word| *word != 0) {
            if found || !word.is_power_of_two() {
                return true;
            }
            found = true;
        }
        false
    }
}

/// Under Miri, which has no system calls, each wait ends at once, as any wait may.
#[cfg(all(miri, not(all(loom, test))))]
mod kernel {
    use crate::time::Instant;

    pub(crate) use core::hint::spin_loop as pause;
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32};

    pub(crate) fn wait(_: &AtomicU32, _: u32, _: Option<Instant>, _: u32) -> bool {
        pause(); // Miri switches to another thread here.
        false
    }

    pub(crate) fn wait_a_while(_: &AtomicU32, _: u32, _: u32) -> bool {
        pause();
        false
    }

    pub(crate) fn wake(_: *const AtomicU32, _: u32, _: u32) -> usize {
        0
    }

    pub(crate) fn requeue(_: &AtomicU32, _: &AtomicU32) {}

    pub(crate) fn current_thread() -> usize {
        std::thread_local!(static PLACE: u8 = const { 0 });
        PLACE.with(|place| (&raw const *place).addr())
    }

    pub(crate) fn several_processors() -> bool {
        false
    }
}

/// The instant at which `timeout` ends; none if that is beyond the clock's end.
pub(crate) fn deadline_of(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Spins until `done`, at most a few times, with growing pauses (together about 1.5 µs): a sleep
/// and a wake cost a few µs. On one processor it asks once, because no other thread could run
/// meanwhile.
pub(crate) fn spin_until(mut done: impl FnMut() -> bool) -> bool {
    const LOOKS: u32 = if MODEL { 1 } else { 6 };
    if done() {
        return true;
    }
    several_processors()
        && (0..LOOKS).any(|look| {
            (0..1 << look).for_each(|_| pause());
            done()
        })
}

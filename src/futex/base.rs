//! What everything that waits stands on: atomics, four operations of the kernel, and whether
//! looking again pays. In a model the first are loom's and the second a fake kernel's.

use core::time::Duration;

use crate::sys;
use crate::time::Instant;

#[cfg(not(all(loom, test)))]
pub(crate) use self::kernel::{AtomicPtr, AtomicU32, pause, requeue, several_processors, wait, wait_a_while, wake};
#[cfg(all(loom, test))]
pub(crate) use super::fake_kernel::{
    AtomicPtr, AtomicU32, pause, requeue, several_processors, wait, wait_a_while, wake,
};

/// Lets a constructor be `const`, except in a model, whose atomics come to life at run time.
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

/// Every kind of waiter.
pub(crate) const ANY: u32 = sys::FUTEX_ANY;

#[cfg(not(any(all(loom, test), miri)))]
mod kernel {
    use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

    use crate::errno::Errno;
    use crate::futex;
    use crate::sys;
    use crate::time::Instant;

    pub(crate) use core::hint::spin_loop as pause;
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32};

    pub(crate) use crate::futex::{requeue, wait_a_while};

    /// Sleeps while `word` holds `expected`, until a wake for one of its `kinds`. May return at any
    /// time; true says that the deadline has passed.
    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>, kinds: u32) -> bool {
        // EAGAIN, EINTR and a spurious Ok all mean: look again.
        futex::wait_as(word, expected, deadline, kinds) == Err(Errno::ETIMEDOUT)
    }

    /// Wakes up to `count` sleepers of one of the `kinds`, and says how many. The word may be gone.
    pub(crate) fn wake(word: *const AtomicU32, count: u32, kinds: u32) -> usize {
        futex::wake_at(word, false, count, kinds)
    }

    /// Whether the process may run on several processors (its main thread's affinity), asked for
    /// once. No if the kernel won't say.
    pub(crate) fn several_processors() -> bool {
        static FOUND: AtomicU8 = AtomicU8::new(0);
        // Relaxed: the answer is all there is, and threads that ask at once find the same.
        match FOUND.load(Relaxed) {
            0 => {
                let several = look_for_several();
                FOUND.store(1 + u8::from(several), Relaxed);
                several
            }
            found => found > 1,
        }
    }

    #[cold]
    fn look_for_several() -> bool {
        let mut mask = [0usize; 8192 / usize::BITS as usize]; // As many as any kernel has been built for.
        let _ = sys::sched_getaffinity(sys::getpid(), &mut mask); // Of an error nothing is there.
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

/// Under Miri, which knows no system calls: each sleep ends at once, as any may.
#[cfg(all(miri, not(all(loom, test))))]
mod kernel {
    use crate::time::Instant;

    pub(crate) use core::hint::spin_loop as pause;
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32};

    pub(crate) fn wait(_: &AtomicU32, _: u32, _: Option<Instant>, _: u32) -> bool {
        pause(); // Miri runs another thread then.
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

    pub(crate) fn several_processors() -> bool {
        false
    }
}

/// The moment when `timeout` is over; none if that is beyond the clock's end.
pub(crate) fn deadline_of(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Looks a few times, with growing pauses (together some 1.5 µs), whether `done`; not where nobody
/// could make it so meanwhile. A sleep and a wake cost a few µs.
pub(crate) fn poll(mut done: impl FnMut() -> bool) -> bool {
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

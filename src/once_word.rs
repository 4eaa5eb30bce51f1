//! Words that are computed when they are first needed: what the machine, the kernel or the loader
//! tells, and what was found out by trying.
//!
//! 1. *No wait, no lock:* threads that need the word at the same time each compute it, and so does
//!    a signal handler that interrupts the computation.
//! 2. *One answer:* the first result that is stored is the answer for all. It changes only by
//!    `set`.
//! 3. *An [`OnceWord`] and a [`OnceBool`] order nothing:* the word is all there is. Memory that it
//!    leads to was there before the process started. So Relaxed is enough, and a thread that does
//!    not see another thread's store computes the word again.
//! 4. *An [`OncePtr`] leads to memory that was written here:* publishing releases it, and each look
//!    acquires it.
//!
//! All begin as zeros, which take no room in a program's file.

use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// A number that is computed once. It is never [`UNKNOWN`].
pub(crate) struct OnceWord(AtomicUsize);

const UNKNOWN: usize = 0;

impl OnceWord {
    pub(crate) const fn new() -> OnceWord {
        OnceWord(AtomicUsize::new(UNKNOWN))
    }

    /// The word; computed by `find` if it is not known. `find` is a cold function of its own.
    #[inline(always)]
    pub(crate) fn get(&self, find: impl FnOnce() -> usize) -> usize {
        // Relaxed, here and below: property 3.
        match self.0.load(Relaxed) {
            UNKNOWN => self.store(find()),
            known => known,
        }
    }

    /// [`get`](OnceWord::get), where `find` may fail: then nothing is stored.
    #[inline(always)]
    pub(crate) fn try_get<E>(&self, find: impl FnOnce() -> Result<usize, E>) -> Result<usize, E> {
        match self.0.load(Relaxed) {
            UNKNOWN => find().map(|found| self.store(found)),
            known => Ok(known),
        }
    }

    /// Replaces what is known.
    #[inline(always)]
    pub(crate) fn set(&self, word: usize) {
        self.0.store(word, Relaxed);
    }

    /// Stores what was found, unless another thread or a handler was first; returns what is known.
    #[inline(always)]
    fn store(&self, found: usize) -> usize {
        self.0.compare_exchange(UNKNOWN, found, Relaxed, Relaxed).map_or_else(|known| known, |_| found)
    }
}

/// Whether something is so, found out once.
pub(crate) struct OnceBool(OnceWord);

const NO: usize = 1;
const YES: usize = 2;

impl OnceBool {
    pub(crate) const fn new() -> OnceBool {
        OnceBool(OnceWord::new())
    }

    /// The answer; found by `find` if it is not known. `find` is a cold function of its own.
    #[inline(always)]
    pub(crate) fn get(&self, find: impl FnOnce() -> bool) -> bool {
        self.0.get(|| word_of(find())) == YES
    }

    /// The answer, if it is known.
    #[inline(always)]
    pub(crate) fn known(&self) -> Option<bool> {
        match self.0.0.load(Relaxed) {
            UNKNOWN => None,
            word => Some(word == YES),
        }
    }

    /// Replaces the answer.
    #[inline(always)]
    pub(crate) fn set(&self, is_so: bool) {
        self.0.set(word_of(is_so));
    }
}

const fn word_of(is_so: bool) -> usize {
    if is_so { YES } else { NO }
}

/// A pointer to something that was made once and stays for the life of the process.
pub(crate) struct OncePtr<T>(AtomicPtr<T>);

impl<T> OncePtr<T> {
    pub(crate) const fn new() -> OncePtr<T> {
        OncePtr(AtomicPtr::new(null_mut()))
    }

    /// What was published; null before.
    #[inline(always)]
    pub(crate) fn get(&self) -> *const T {
        // Acquire pairs with the release in `publish` (4).
        self.0.load(Acquire)
    }

    /// Publishes it, unless another thread or a handler was first; returns what is published. If
    /// that is not `made`, the caller gives `made` back.
    pub(crate) fn publish(&self, made: *const T) -> *const T {
        // Release: what `made` points to was written before. Acquire, of what another thread
        // published. Both pair with the release here and the acquire in `get` (4).
        match self.0.compare_exchange(null_mut(), made.cast_mut(), AcqRel, Acquire) {
            Ok(_) => made,
            Err(theirs) => theirs,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::thread;

    use super::*;

    #[test]
    fn a_word_is_computed_until_it_is_known() {
        let word = OnceWord::new();
        assert_eq!(word.try_get(|| Err::<usize, _>("not yet")), Err("not yet"));
        assert_eq!(word.get(|| 5), 5);
        assert_eq!(word.get(|| unreachable!("it is known")), 5);
        assert_eq!(word.try_get(|| Err::<usize, _>("it is known")), Ok(5));
        word.set(6);
        assert_eq!(word.get(|| unreachable!("it is known")), 6);
    }

    /// As a handler, or another thread, that computes the word or sets it meanwhile.
    #[test]
    fn what_is_stored_first_is_the_answer_for_all() {
        let (word, flag) = (OnceWord::new(), OnceBool::new());
        assert_eq!(word.get(|| word.get(|| 7) + 1), 7);
        assert!(!flag.get(|| {
            flag.set(false);
            true
        }));
        assert_eq!((word.get(|| 0), flag.known()), (7, Some(false)));
    }

    #[test]
    fn a_flag_is_unknown_then_no_or_yes() {
        let flag = OnceBool::new();
        assert_eq!(flag.known(), None);
        assert!(!flag.get(|| false) && flag.known() == Some(false));
        flag.set(true);
        assert!(flag.get(|| unreachable!("it is known")) && flag.known() == Some(true));
    }

    #[test]
    fn threads_that_publish_at_once_agree() {
        for _ in 0..100 {
            let (once, made) = (OncePtr::<u32>::new(), [1, 2, 3, 4]);
            assert!(once.get().is_null());
            let seen = thread::scope(|scope| {
                let (once, made) = (&once, &made);
                let threads =
                    [0, 1, 2, 3].map(|index| scope.spawn(move || once.publish(&raw const made[index]).addr()));
                threads.map(|thread| thread.join().unwrap())
            });
            assert!(seen.iter().all(|address| *address == once.get().addr()), "{seen:?}");
            assert!(made.iter().any(|number| (&raw const *number).addr() == seen[0]));
        }
    }
}

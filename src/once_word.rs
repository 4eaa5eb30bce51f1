//! Words that are computed at first use: facts about the machine, the kernel or the loader.
//!
//! Properties, and how they are achieved:
//!
//! 1. *No wait and no lock:* threads that need the word at the same time each compute it, and so
//!    does a signal handler that interrupts the computation.
//! 2. *One value for all:* the first result that is stored is the value for all threads. Only `set`
//!    changes it.
//! 3. *An [`OnceWord`] and a [`OnceBool`] order no other memory:* the word is the whole state.
//!    Memory that it points to was written before the process started. So Relaxed is enough, and a
//!    thread that does not see another thread's store computes the word again.
//! 4. *An [`OncePtr`] points to memory that this process wrote:* publishing releases it, and each
//!    load acquires it.
//!
//! All start as zeros, which take no space in the program's file.

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

    /// The word, which `find` computes if it is not known. `find` should be a `#[cold]` function.
    #[inline(always)]
    pub(crate) fn get(&self, find: impl FnOnce() -> usize) -> usize {
        // Relaxed, here and below: property 3.
        match self.0.load(Relaxed) {
            UNKNOWN => self.store(find()),
            known => known,
        }
    }

    /// [`get`](OnceWord::get) with a `find` that may fail. Then nothing is stored.
    #[inline(always)]
    pub(crate) fn try_get<E>(&self, find: impl FnOnce() -> Result<usize, E>) -> Result<usize, E> {
        match self.0.load(Relaxed) {
            UNKNOWN => find().map(|found| self.store(found)),
            known => Ok(known),
        }
    }

    /// Replaces the word.
    #[inline(always)]
    pub(crate) fn set(&self, word: usize) {
        self.0.store(word, Relaxed);
    }

    /// Stores `found`, unless another thread or a handler stored a word before. Returns the word.
    #[inline(always)]
    fn store(&self, found: usize) -> usize {
        self.0.compare_exchange(UNKNOWN, found, Relaxed, Relaxed).map_or_else(|known| known, |_| found)
    }
}

/// A yes or no that is computed once.
pub(crate) struct OnceBool(OnceWord);

const NO: usize = 1;
const YES: usize = 2;

impl OnceBool {
    pub(crate) const fn new() -> OnceBool {
        OnceBool(OnceWord::new())
    }

    /// The answer, which `find` computes if it is not known. `find` should be a `#[cold]` function.
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

/// A pointer to a value that is made once and stays until the process ends.
pub(crate) struct OncePtr<T>(AtomicPtr<T>);

impl<T> OncePtr<T> {
    pub(crate) const fn new() -> OncePtr<T> {
        OncePtr(AtomicPtr::new(null_mut()))
    }

    /// The published pointer; null before.
    #[inline(always)]
    pub(crate) fn get(&self) -> *const T {
        // Acquire pairs with the release in `publish` (4).
        self.0.load(Acquire)
    }

    /// Publishes `made`, unless another thread or a handler published before. Returns the published
    /// pointer. If that is not `made`, the caller frees `made`.
    pub(crate) fn publish(&self, made: *const T) -> *const T {
        // Release: the value of `made` was written before; pairs with the acquire in `get`.
        // Acquire: the value that another thread published; pairs with the release here (4).
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

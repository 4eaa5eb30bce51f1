//! Hooks: what a module does where threads start, end and fork. A module registers its hooks before
//! it first keeps something of a thread, so a program that never uses it has nothing of it.
//!
//! What holds, and how:
//!
//! 1. *A thread's end finds the hooks of each module that keeps something of the thread.* A module
//!    registers its hooks before it writes a part. It does so on the thread itself, or while the
//!    list is closed, and then the thread passes the gate after that. A thread that takes out one
//!    that ended has seen the tid word that the kernel cleared at its end.
//! 2. *A start is hooked from the registration on.* Hooks with a `start` are registered while the
//!    list is closed. A thread that started earlier is in the list then; one that starts later sees
//!    them, for its parent passes the gate after that.
//! 3. *Registering waits for no other thread.* It is one exchange for each place, so it may happen
//!    in a signal handler that interrupts it.
//! 4. *What is registered stays*, so that what a thread was given is taken back from it.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::block::Block;
use super::list::Links;
use crate::errno::Errno;
use crate::sys;

/// What a module does. All signals are blocked meanwhile.
pub(crate) struct Hooks {
    /// For the calling thread, which has just started. It may be known to the module already, from
    /// the list.
    pub(crate) start: Option<fn(&Links, &Block)>,
    /// For a thread that leaves the list: called by the thread itself, or after it ended. Called
    /// again if the thread was killed in the first call.
    pub(crate) end: Option<fn(&Links, &Block)>,
    /// In a forked child, for its one thread.
    pub(crate) fork: Option<fn(&Links, &Block)>,
}

/// Those of all modules that have hooks: all_threads, profile, random and rseq.
static REGISTERED: [AtomicPtr<Hooks>; 4] = [const { AtomicPtr::new(null_mut()) }; _];

/// Registers the hooks of a module, once however often it is called.
#[cold]
pub(crate) fn register(hooks: &'static Hooks) {
    let new = core::ptr::from_ref(hooks).cast_mut();
    for place in &REGISTERED {
        // Places fill in order and stay, so hooks are found where they are before a free place is.
        // Relaxed, here and below: hooks are constants, and 1 and 2 say what orders the rest.
        match place.compare_exchange(null_mut(), new, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(other) if other == new => return,
            Err(_) => {}
        }
    }
    sys::die("registering one more module's hooks", Errno::ENOSPC);
}

/// What is registered.
pub(super) fn registered() -> impl Iterator<Item = &'static Hooks> {
    // SAFETY: registered from a reference that lasts.
    REGISTERED.iter().map_while(|place| unsafe { place.load(Relaxed).as_ref() })
}

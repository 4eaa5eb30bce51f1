//! Hooks: functions of a module that are called when a thread starts, ends or forks. A module
//! registers them before it first keeps state of a thread. So a program that never uses the module
//! does not link them.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A thread that ends calls the hooks of every module that keeps state of it.* A module
//!    registers its hooks before it writes to a part. It registers them on the thread itself, or
//!    while the list is closed; in that case the thread enters the gate after that. If another
//!    thread removes the ended one, it has seen the tid word that the kernel cleared at its end.
//! 2. *Each thread that starts after the registration calls `start`.* Hooks with a `start` are
//!    registered while the list is closed. A thread that started earlier is in the list then. The
//!    parent of one that starts later enters the gate after that, so the child sees the hooks.
//! 3. *Registering waits for no other thread.* It is one exchange for each place. So a signal
//!    handler may register hooks, also while it interrupts a registration.
//! 4. *Hooks stay registered*, so that a thread's end always releases what its start acquired.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::block::Block;
use super::list::ListLock;
use crate::errno::Errno;
use crate::sys;

/// A module's hooks. They are called with all signals blocked.
pub(crate) struct Hooks {
    /// Called by a thread that has just started. The module may have found the thread in the list
    /// before.
    pub(crate) start: Option<fn(&ListLock, &Block)>,
    /// Called for a thread that leaves the list: by the thread itself, or after it ended. Called
    /// again if the thread was killed in the first call.
    pub(crate) end: Option<fn(&ListLock, &Block)>,
    /// Called in a forked child, by its only thread.
    pub(crate) fork: Option<fn(&ListLock, &Block)>,
}

/// The hooks of all modules that have some: all_threads, profile, random and rseq.
static REGISTERED: [AtomicPtr<Hooks>; 4] = [const { AtomicPtr::new(null_mut()) }; _];

/// Registers the hooks of a module. Further calls with the same hooks change nothing.
#[cold]
pub(crate) fn register(hooks: &'static Hooks) {
    let new = core::ptr::from_ref(hooks).cast_mut();
    for place in &REGISTERED {
        // Places fill in order and stay filled. So hooks that are registered are found before a
        // free place is. Relaxed, here and below: hooks are constants, and 1 and 2 say what orders
        // the rest.
        match place.compare_exchange(null_mut(), new, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(other) if other == new => return,
            Err(_) => {}
        }
    }
    sys::die("registering one more module's hooks", Errno::ENOSPC);
}

/// All registered hooks.
pub(super) fn registered() -> impl Iterator<Item = &'static Hooks> {
    // SAFETY: registered from a reference that lasts.
    REGISTERED.iter().map_while(|place| unsafe { place.load(Relaxed).as_ref() })
}

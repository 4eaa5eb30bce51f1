//! The states of the vDSO's getrandom, one per thread that asks for random bytes.
//!
//! ```text
//!     List:     │ next │ State │ State │ State │ …
//!                          │       └─────────┐
//!     memory:   │ page:    ▼ state │ state   ▼ … │ page: … │     none straddles a page
//! ```
//!
//! The vDSO says which kind of memory the states need: the kernel may zero its pages at any time,
//! and does so in a forked child. So rt0 keeps its own data about a state elsewhere, in a [`List`].
//!
//! 1. *One thread per state:* the thread that takes a state changes `taken` from 0 to 1, and
//!    changes it back when it ends.
//! 2. *One state per thread:* the thread's [`StateSlot`] changes from null to the state by one
//!    compare-exchange. If a signal handler has set it meanwhile, the thread returns its state at
//!    once and uses the handler's.
//! 3. *No leak:* lists are never freed, but their states are reused. So there are about as many
//!    states as threads ever held one at the same time. (In a forked child the states of the
//!    parent's other threads stay taken.)
//!
//! No step waits for another thread, so all of this may run in a signal handler and in a forked
//! child.

use core::ptr::{self, NonNull, null_mut};
use core::slice;
use core::sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use linux_raw_sys::general as k;
use static_assertions::assert_impl_all;

use crate::errno::{Errno, Result};
use crate::sys;

/// A thread's state, if it has one. Only its own thread and the handlers on that thread use it.
#[derive(Debug)]
pub(crate) struct StateSlot(AtomicPtr<State>);

assert_impl_all!(StateSlot: Send, Sync);

impl StateSlot {
    pub(crate) const fn new() -> StateSlot {
        StateSlot(AtomicPtr::new(null_mut()))
    }

    /// The state; takes one at the first call. `None` if there is no memory.
    #[inline(always)]
    pub(super) fn state(&self, params: impl FnOnce() -> Option<k::vgetrandom_opaque_params>) -> Option<&State> {
        // Relaxed, here and below: only this thread stores here.
        match NonNull::new(self.0.load(Relaxed)) {
            // SAFETY: states are never freed.
            Some(state) => Some(unsafe { state.as_ref() }),
            None => self.take(params()?),
        }
    }

    #[cold]
    fn take(&self, params: k::vgetrandom_opaque_params) -> Option<&State> {
        let state = take(&params).ok()?;
        match self.0.compare_exchange(null_mut(), ptr::from_ref(state).cast_mut(), Relaxed, Relaxed) {
            Ok(_) => Some(state),
            Err(other) => {
                state.give_back(); // See property 2.
                // SAFETY: not null, since the exchange failed, and states are never freed.
                Some(unsafe { &*other })
            }
        }
    }

    /// Makes the state available to other threads. The thread takes another one when it needs it.
    #[inline]
    pub(crate) fn give_back(&self) {
        if let Some(state) = NonNull::new(self.0.swap(null_mut(), Relaxed)) {
            // SAFETY: states are never freed.
            unsafe { state.as_ref() }.give_back();
        }
    }
}

/// rt0's data about a state.
#[derive(Debug)]
pub(super) struct State {
    /// The state's memory. Address and size do not change once the list is published.
    address: *mut u8,
    size: usize,
    /// 0 or 1.
    taken: AtomicU32,
}

// SAFETY: only the thread that took the state uses the address.
unsafe impl Sync for State {}

impl State {
    pub(super) fn address(&self) -> *mut u8 {
        self.address
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    fn try_take(&self) -> bool {
        // Acquire pairs with the release in `give_back`: what the last owner wrote to the state
        // happens before this thread's accesses.
        self.taken.load(Relaxed) == 0 && self.taken.swap(1, Acquire) == 0
    }

    fn give_back(&self) {
        self.taken.store(0, Release);
    }
}

/// States that were made together. They follow the list in its page.
struct List {
    next: *const List,
    states: &'static [State],
}

const _: () = assert!(align_of::<State>() <= align_of::<List>(), "the states follow the list");

/// No page is smaller, and a state that does not straddle pages of this size straddles no larger
/// one.
const PAGE: usize = 4096;

/// The list that was made last.
static LISTS: AtomicPtr<List> = AtomicPtr::new(null_mut());

/// Takes a free state; makes new ones if there is none.
fn take(params: &k::vgetrandom_opaque_params) -> Result<&'static State> {
    // Acquire pairs with the release in `List::add`: every published list is complete.
    let mut list = LISTS.load(Acquire).cast_const();
    // SAFETY: lists are never freed.
    while let Some(known) = unsafe { list.as_ref() } {
        if let Some(state) = known.states.iter().find(|state| state.try_take()) {
            return Ok(state);
        }
        list = known.next;
    }
    List::add(params)
}

impl List {
    /// Makes a list of as many states as its page has room for, and takes the first for the caller.
    /// Errors: `ENOMEM`; `EINVAL` if a state does not fit into a page.
    fn add(params: &k::vgetrandom_opaque_params) -> Result<&'static State> {
        /// States in separate cache lines do not slow each other down.
        const LINE: usize = 64;
        const MOST: usize = (PAGE - size_of::<List>()) / size_of::<State>();
        let size = params.size_of_opaque_state as usize;
        if size == 0 || size > PAGE {
            return Err(Errno::EINVAL);
        }
        let stride = size.next_multiple_of(LINE);
        let per_page = PAGE / stride;
        let pages = (MOST / per_page).max(1);
        let count = MOST.min(pages * per_page);

        // SAFETY: 1. Not MAP_FIXED, which the vDSO has no reason to ask for.
        let memory = unsafe { sys::mmap(null_mut(), pages * PAGE, params.mmap_prot, params.mmap_flags, -1, 0) }?;
        let (prot, flags) = (k::PROT_READ | k::PROT_WRITE, k::MAP_PRIVATE | k::MAP_ANONYMOUS);
        // SAFETY: 1. Not MAP_FIXED.
        let list = unsafe { sys::mmap(null_mut(), PAGE, prot, flags, -1, 0) }.inspect_err(|_| {
            // SAFETY: 1. Mapped just now, and no other code has its address.
            let _ = unsafe { sys::munmap(memory, pages * PAGE) };
        })?;
        let list = list.cast::<List>();
        let states = list.wrapping_add(1).cast::<State>();
        for index in 0..count {
            let address = memory.wrapping_add(index / per_page * PAGE + index % per_page * stride);
            let state = State { address, size, taken: AtomicU32::new(u32::from(index == 0)) };
            // SAFETY: `MOST` states fit into the page behind the list.
            unsafe { states.wrapping_add(index).write(state) };
        }
        // SAFETY: just written and never freed; from here on only their atomics change.
        let states = unsafe { slice::from_raw_parts(states, count) };
        let mut next = LISTS.load(Relaxed);
        loop {
            // SAFETY: a new page, whose address no other thread has yet.
            unsafe { list.write(List { next, states }) };
            // Release: the list is complete before it is published. The lists behind it stay
            // published by the exchange itself.
            match LISTS.compare_exchange(next, list, Release, Relaxed) {
                Ok(_) => return Ok(&states[0]),
                Err(other) => next = other,
            }
        }
    }
}

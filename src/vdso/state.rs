//! The states that the vDSO's getrandom works with, one per thread that asks for random bytes.
//!
//! ```text
//!     List:     │ next │ State │ State │ State │ …
//!                          │       └─────────┐
//!     memory:   │ page:    ▼ state │ state   ▼ … │ page: … │     none straddles a page
//! ```
//!
//! The memory of the states is of a kind that the vDSO asks for: the kernel may zero its pages at
//! any time, and does so in a forked child. So what rt0 must remember of a state, it keeps
//! elsewhere, in a [`List`].
//!
//! 1. *One thread per state.* `taken` goes from 0 to 1 by the thread that takes it, and back when
//!    that thread ends.
//! 2. *One state per thread.* Its [`StateSlot`] goes from null to the state by one exchange; a
//!    signal handler that came in between has set it already, and the state that was taken in vain
//!    goes back at once.
//! 3. *Nothing is lost.* Lists are never freed but used again: there are about as many states as
//!    threads ever had one at a time. (In a forked child those of its parent's other threads stay
//!    taken.)
//!
//! No step waits for another thread, so all of it may happen in a signal handler, and in a child
//! after a fork.

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

/// A thread's state, if it has one. Only its own thread uses it, and the handlers that run on it.
#[derive(Debug)]
pub(crate) struct StateSlot(AtomicPtr<State>);

assert_impl_all!(StateSlot: Send, Sync);

impl StateSlot {
    pub(crate) const fn new() -> StateSlot {
        StateSlot(AtomicPtr::new(null_mut()))
    }

    /// The state, taken when it is first asked for. `None` if there is no memory.
    #[inline(always)]
    pub(super) fn state(&self, params: impl FnOnce() -> Option<k::vgetrandom_opaque_params>) -> Option<&State> {
        // Relaxed, here and below: this thread's own stores.
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
                state.give_back(); // 2.
                // SAFETY: not null, and states are never freed.
                Some(unsafe { &*other })
            }
        }
    }

    /// Lets other threads have the state. The thread takes another if it asks again.
    #[inline]
    pub(crate) fn give_back(&self) {
        if let Some(state) = NonNull::new(self.0.swap(null_mut(), Relaxed)) {
            // SAFETY: states are never freed.
            unsafe { state.as_ref() }.give_back();
        }
    }
}

/// What rt0 knows of a state.
#[derive(Debug)]
pub(super) struct State {
    /// Where it lies. Neither this nor the size changes once the list is known.
    address: *mut u8,
    size: usize,
    /// 0 or 1.
    taken: AtomicU32,
}

// SAFETY: the address is only used by the thread that took the state.
unsafe impl Sync for State {}

impl State {
    pub(super) fn address(&self) -> *mut u8 {
        self.address
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    fn try_take(&self) -> bool {
        // Acquire pairs with the release below: what the last owner wrote to the state comes before
        // what we do.
        self.taken.load(Relaxed) == 0 && self.taken.swap(1, Acquire) == 0
    }

    fn give_back(&self) {
        self.taken.store(0, Release);
    }
}

/// States that were made at once. They follow it in its page.
struct List {
    next: *const List,
    states: &'static [State],
}

const _: () = assert!(align_of::<State>() <= align_of::<List>(), "the states follow the list");

/// No page is smaller, and what does not straddle one of this size straddles no larger one.
const PAGE: usize = 4096;

/// The list that was made last.
static LISTS: AtomicPtr<List> = AtomicPtr::new(null_mut());

/// Any free state; made if there is none.
fn take(params: &k::vgetrandom_opaque_params) -> Result<&'static State> {
    // Acquire pairs with the release in `List::add`: every list that is known is whole.
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
    /// `ENOMEM`; `EINVAL` for states that no page holds.
    fn add(params: &k::vgetrandom_opaque_params) -> Result<&'static State> {
        /// States that share no line of the processor's cache do not slow one another down.
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
            // SAFETY: 1. Mapped above, and nobody has it.
            let _ = unsafe { sys::munmap(memory, pages * PAGE) };
        })?;
        let list = list.cast::<List>();
        let states = list.wrapping_add(1).cast::<State>();
        for index in 0..count {
            let address = memory.wrapping_add(index / per_page * PAGE + index % per_page * stride);
            let state = State { address, size, taken: AtomicU32::new(u32::from(index == 0)) };
            // SAFETY: `MOST` of them fit into the page behind the list.
            unsafe { states.wrapping_add(index).write(state) };
        }
        // SAFETY: just written; never freed, and from here on only their atomics change.
        let states = unsafe { slice::from_raw_parts(states, count) };
        let mut next = LISTS.load(Relaxed);
        loop {
            // SAFETY: a fresh page, which nobody else knows yet.
            unsafe { list.write(List { next, states }) };
            // Release: the list is whole before it is known. What follows it stays known by the
            // exchange itself.
            match LISTS.compare_exchange(next, list, Release, Relaxed) {
                Ok(_) => return Ok(&states[0]),
                Err(other) => next = other,
            }
        }
    }
}

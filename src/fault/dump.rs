//! The frames of every thread. Signal 33 asks each thread for its frames.
//!
//! ```text
//!     the caller                                       the thread it asks
//!     own the slot; close the list
//!     for each thread: state = ASKED, tgkill ───────▶  handler: ASKED → ANSWERING, walk the chain,
//!     state is ANSWERED, or a second is over  ◀──────  frames into the slot, state = ANSWERED
//!     write them; state = IDLE
//!     open the list; release the slot
//! ```
//!
//! Properties, and how they are achieved:
//!
//! 1. *One dump at a time:* `owner` holds the id of the thread that dumps. Another thread tries for
//!    a second to become the owner. If the owner has ended, the other one becomes the owner at
//!    once.
//! 2. *Frames belong to the thread that they are shown for:* the state holds the id of the thread
//!    that is asked, and a handler answers by an exchange from `ASKED` with its own id. A thread
//!    that handles the signal too late finds another state, and does nothing.
//! 3. *Frames are complete when they are read:* they are stored before `ANSWERED` is (release), and
//!    read after it was seen (acquire). A thread that is still `ANSWERING` when its time is over
//!    may still write. Then the dump ends, and no thread uses the slot until that one has answered.
//! 4. *A dump ends:* each wait has a limit, and so have all waits of a dump together. The dump
//!    says which threads did not answer in time. If standard error takes no text for five seconds,
//!    the rest of the text is lost.
//! 5. *No thread starts or ends during a dump:* the list's gate is closed. A dump that cannot close
//!    it within a second leaves out the other threads. So it never waits for a thread that waits
//!    for it. A handler of the program never runs on a thread that holds the gate or a ticket,
//!    except in a wait there (`list.rs`, 4), which the dump notices.
//! 6. *It may be called in handlers:* it allocates nothing, and takes no lock without a limit.
//! 7. *A forked child can dump:* an owner that is a thread of the parent counts as ended (1), and
//!    its request is dropped.

use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::{Frames, Text};
use crate::errno::{Errno, Result};
use crate::profile::DEPTH;
use crate::signal::{ALL_THREADS, Info};
use crate::thread::{Block, List, block_in_report};
use crate::{all_threads, auxv, futex, sys};

/// The states. The bits above hold the id of the thread that is asked.
const IDLE: u32 = 0;
const ASKED: u32 = 1;
const ANSWERING: u32 = 2;
const ANSWERED: u32 = 3;
const ID: u32 = 4;

struct Slot {
    owner: AtomicU32,
    state: AtomicU32,
    depth: AtomicUsize,
    addresses: [AtomicUsize; DEPTH],
}

static SLOT: Slot = Slot {
    owner: AtomicU32::new(0),
    state: AtomicU32::new(IDLE),
    depth: AtomicUsize::new(0),
    addresses: [const { AtomicUsize::new(0) }; DEPTH],
};

/// How often a wait checks the state: at most a tenth of a second apart.
const LOOKS: u32 = 10;

/// Installs the handler, and puts the calling thread into the list if it is not there.
pub(super) fn prepare() -> Result<()> {
    crate::signal::end_inherited_blocks();
    List::with(|_| catch())
}

/// Installs the handler. The list is closed.
fn catch() -> Result<()> {
    // SAFETY: 1. The handler accesses atomics, reads its own stack (property 3 of `fault`), and
    // does what the handler of `all_threads` does.
    match unsafe { all_threads::catch_with_info(arrived) } {
        Err(Errno::EINVAL) => Ok(()), // An emulator without the signal: no thread can be asked.
        done => done,
    }
}

/// The handler of signal 33.
fn arrived(info: &Info) {
    let tid = sys::gettid();
    let own = |state: u32| tid * ID + state;
    // Acquire pairs with the owner's release: its earlier reads of the slot happen before.
    if SLOT.state.compare_exchange(own(ASKED), own(ANSWERING), Acquire, Relaxed).is_ok() {
        let frames = Frames::of(info);
        SLOT.addresses.iter().zip(frames.addresses).for_each(|(to, address)| to.store(address, Relaxed));
        SLOT.depth.store(frames.depth, Relaxed);
        // Release: the frames are stored before (3).
        SLOT.state.store(own(ANSWERED), Release);
        futex::wake(&SLOT.state, 1);
    }
    all_threads::answer_for(info);
}

/// The right to ask other threads. At most one thread has it.
struct Owner(());

impl Owner {
    /// `None` if another thread owns the slot for this many tenths of a second (1).
    fn new(tenths: u32) -> Option<Owner> {
        let tid = sys::gettid();
        for _ in 0..tenths * 10 {
            let now = SLOT.owner.load(Relaxed);
            if now == tid {
                return None; // A handler interrupted this thread's own dump.
            }
            let is_free = now == 0 || sys::tgkill(sys::getpid(), now, 0) == Err(Errno::ESRCH);
            // Acquire pairs with the release in `drop`.
            if is_free && SLOT.owner.compare_exchange(now, tid, Acquire, Relaxed).is_ok() {
                let owner = Owner(());
                return owner.end_last_request().then_some(owner);
            }
            // A handler may shorten it, which does no harm.
            let _ = sys::nanosleep(&sys::Timespec { tv_sec: 0, tv_nsec: 10_000_000 });
        }
        None
    }

    /// Waits until no thread writes to the slot for the last owner (3); returns whether that is so.
    fn end_last_request(&self) -> bool {
        for _ in 0..LOOKS {
            let state = SLOT.state.load(Acquire);
            let asked = state / ID;
            let is_over = state % ID != ANSWERING || sys::tgkill(sys::getpid(), asked, 0) == Err(Errno::ESRCH);
            if is_over && SLOT.state.compare_exchange(state, IDLE, AcqRel, Relaxed).is_ok() {
                return true;
            }
            futex::wait_a_while(&SLOT.state, state, sys::FUTEX_ANY);
        }
        false
    }

    /// Asks a thread, and waits for its answer. Counts `looks` down, and stops waiting at 0.
    fn ask(&self, tid: u32, looks: &mut u32) -> core::result::Result<Frames, NoAnswer> {
        let own = |state: u32| tid * ID + state;
        // Release pairs with the handler's acquire.
        SLOT.state.store(own(ASKED), Release);
        if sys::tgkill(sys::getpid(), tid, ALL_THREADS).is_err() {
            return Err(self.take_back(own(ASKED)));
        }
        for _ in 0..LOOKS {
            // Acquire pairs with the handler's release (3).
            let state = SLOT.state.load(Acquire);
            if state == own(ANSWERED) {
                SLOT.state.store(IDLE, Relaxed);
                let addresses = SLOT.addresses.each_ref().map(|address| address.load(Relaxed));
                return Ok(Frames { addresses, depth: SLOT.depth.load(Relaxed) });
            }
            if *looks == 0 {
                break;
            }
            *looks -= u32::from(futex::wait_a_while(&SLOT.state, state, sys::FUTEX_ANY));
        }
        Err(self.take_back(own(ASKED)))
    }

    /// Writes a thread's part. Returns whether other threads can be asked after it.
    fn tell(&self, text: &mut Text, block: &Block, looks: &mut u32) -> bool {
        let tid = match block.tid() {
            0 if core::ptr::eq(block, block_in_report().map_or(core::ptr::null(), core::ptr::from_ref)) => {
                sys::gettid()
            }
            tid => tid,
        };
        if tid == 0 {
            return true; // It has ended.
        }
        text.make_room(PART + block.name_for_messages().len());
        text.text("\n");
        write_name(text, Some(block), tid);
        if auxv::of_process().secure() {
            text.text("\n");
            return true;
        }
        match self.ask(tid, looks) {
            Ok(frames) => {
                text.text(":\n");
                frames.write(text);
                true
            }
            Err(why) => {
                text.text(" does not answer\n");
                matches!(why, NoAnswer::Withdrawn)
            }
        }
    }

    /// Writes the parts of all threads except the calling one.
    fn tell_others(&self, text: &mut Text, list: &List<'_>) {
        let this = block_in_report().map(NonNull::from_ref);
        let mut looks = LOOKS_IN_ALL;
        for block in list.iter().filter(|block| Some(*block) != this) {
            // SAFETY: a block stays as long as it is linked; what this reads of it does not change.
            let block = unsafe { block.as_ref() };
            if !self.tell(text, block, &mut looks) {
                text.text("the dump ends here\n");
                break;
            }
        }
    }

    fn take_back(&self, asked: u32) -> NoAnswer {
        match SLOT.state.compare_exchange(asked, IDLE, Relaxed, Relaxed) {
            Ok(_) => NoAnswer::Withdrawn,
            Err(_) => NoAnswer::Pending,
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Release: this owner's reads of the slot happen before the next owner's requests.
        SLOT.owner.store(0, Release);
    }
}

/// Why there are no frames of a thread.
enum NoAnswer {
    /// It cannot be signalled, or did not answer in time. It will not write to the slot.
    Withdrawn,
    /// It did not answer in time, and may still write to the slot.
    Pending,
}

/// How long a dump may wait in all, in looks: 10 s.
const LOOKS_IN_ALL: u32 = 100;

/// The most bytes that a thread's part of a dump can take.
const PART: usize = 64 + 128 + DEPTH * (7 + 2 * size_of::<usize>());

/// Writes the frames of every thread to standard error, the calling one first. Each thread has a
/// line with its name and id, and then lines as [`fault`](super) describes them. The threads
/// continue.
///
/// Signal 33 asks one thread after the other. Each has a second to answer, and all of them together
/// have ten. If a thread is stopped, or blocks the signal by a raw system call, the dump says that
/// it does not answer. Meanwhile no thread starts or ends. A process with more rights than its
/// caller ([`Auxv::secure`](crate::Auxv::secure)) prints names and ids only.
///
/// Errors: `EBUSY`, another dump has been running for a second, or the caller is a handler that
/// interrupted one; `ETIMEDOUT`, the list of threads could not be closed within a second, for
/// example during a call on all threads that blocks, and only the calling thread's frames were
/// written, or standard error takes nothing for five seconds; `EOPNOTSUPP`, the calling thread was
/// not started by rt0; `EIO` and those of write(2).
///
/// ```no_run
/// rt0::fault::dump_all()?; // For example when a watchdog finds that nothing progresses.
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes. On SIGQUIT, as Go does it: [`dump_on`](super::dump_on).
pub fn dump_all() -> Result<()> {
    let this = block_in_report().ok_or(Errno::EOPNOTSUPP)?;
    let owner = Owner::new(LOOKS).ok_or(Errno::EBUSY)?;
    let mut text = Text::with_room(2);
    let all = List::within(LOOKS, |list| {
        catch()?;
        if owner.tell(&mut text, this, &mut LOOKS.clone()) {
            owner.tell_others(&mut text, list);
        }
        Ok(())
    });
    let done = all.unwrap_or_else(|| {
        owner.tell(&mut text, this, &mut LOOKS.clone());
        Err(Errno::ETIMEDOUT)
    });
    text.finish().and(done)
}

/// Dumps the other threads, for a thread that has written its own frames and ends the process. It
/// waits longer for its turn: if several threads fault together, the first one can finish its dump.
pub(super) fn dump_others() {
    let mut text = Text::with_room(2);
    let told = block_in_report().is_some().then(|| Owner::new(LOOKS_IN_ALL + 2 * LOOKS)).flatten().and_then(|owner| {
        List::within(LOOKS, |list| catch().map(|()| owner.tell_others(&mut text, list)).ok()).flatten()
    });
    if told.is_none() {
        text.text("the other threads cannot be listed\n");
    }
    text.flush(); // An error cannot be reported anywhere.
}

/// The calling thread's frames, starting at this call; `None` if it cannot be signalled, or another
/// dump is running.
pub(super) fn own_frames() -> Option<Frames> {
    Owner::new(LOOKS)?.ask(sys::gettid(), &mut LOOKS.clone()).ok()
}

/// `thread 'NAME' (tid NUMBER)`.
pub(super) fn write_name(text: &mut Text, block: Option<&Block>, tid: u32) {
    match block {
        Some(block) => text.text("thread '").text(block.name_for_messages()).text("' (tid "),
        None => text.text("a thread that rt0 did not start (tid "),
    };
    text.number(tid as usize, false).text(")");
}

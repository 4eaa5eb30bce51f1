//! A thread's processors, set before its closure runs.
//!
//! ```text
//!     parent   clone(2) ── waits for the answer ──────────────▶ handle, or error
//!     thread      └─▶ sched_setaffinity(2) ── answers ── closure, or the end
//! ```
//!
//! The request lies on the parent's stack. [`Block::launch`] points to it, and [`Block::run`] is
//! [`run_placed`], until the thread has restored both. So a thread without a request has no word
//! and no step for it.
//!
//! What holds, and how:
//!
//! 1. *The closure runs on these processors or not at all:* the thread calls it after the kernel
//!    has accepted the set.
//! 2. *A refusal is the error of the spawn:* the thread that was refused leaves its scope, answers
//!    and ends. It leaves the closure to the parent, which waits for its end: then the stack is
//!    unused.
//! 3. *The request is there while it is used:* the parent stays until it has the answer or the
//!    thread has ended. The thread does not access the request after its answer: the wake names the
//!    address only, and a wait on another word there looks again.
//! 4. *A thread that ends without an answer keeps its parent a tenth of a second:* a filter may
//!    kill it, and in a forked child it does not exist. The parent looks at its tid word after each
//!    such step without an answer.
//!
//! `models` runs [`Answer`], on which 2 and 3 rest.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::{Acquire, Release};

use super::block::{Block, release};
use super::{list, scope};
use crate::cpu::{self, CpuSet};
use crate::errno::{Errno, Result};
use crate::futex::base::{self, ANY, AtomicU32};

/// What [`Builder::affinity`](super::Builder::affinity) asks for. It has the functions too, so that
/// a program that never asks does not link them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affinity<'a> {
    set: &'a CpuSet,
    run: unsafe fn(&Block),
    wait: unsafe fn(&Request, NonNull<Block>) -> Result<()>,
}

impl<'a> Affinity<'a> {
    pub(super) const fn new(set: &'a CpuSet) -> Affinity<'a> {
        Affinity { set, run: run_placed, wait }
    }
}

/// A request to the thread that has `block`, which is not cloned yet.
pub(super) struct Request<'a> {
    affinity: Affinity<'a>,
    run: Option<unsafe fn(&Block)>,
    launch: *mut u8,
    answer: Answer,
}

impl<'a> Request<'a> {
    pub(super) fn new(affinity: Affinity<'a>, block: &Block) -> Request<'a> {
        Request { affinity, run: block.run.get(), launch: block.launch.get(), answer: Answer::new() }
    }

    /// Puts the request where the thread finds it. It stays there until [`Request::wait`] returned.
    pub(super) fn put(&self, block: &Block) {
        block.run.set(Some(self.affinity.run));
        block.launch.set(core::ptr::from_ref(self).cast_mut().cast());
    }

    /// Waits for the answer of the thread, which was cloned; the error is the kernel's, or
    /// `ECANCELED` if the thread ended without one. After an error the thread has ended, and the
    /// caller's reference to it is released.
    ///
    /// # Safety
    ///
    /// 1. The caller owns a reference to the block, and after an error does not use it any more.
    pub(super) unsafe fn wait(&self, block: NonNull<Block>) -> Result<()> {
        // SAFETY: 1. The caller guarantees the same (1).
        unsafe { (self.affinity.wait)(self, block) }
    }
}

/// [`Request::wait`].
///
/// # Safety
///
/// As there.
unsafe fn wait(request: &Request, block: NonNull<Block>) -> Result<()> {
    // SAFETY: the caller's reference keeps it (1).
    let thread = unsafe { block.as_ref() };
    let answer = request.answer.wait(|| {
        list::notice_fork();
        thread.tid() == 0
    });
    if answer.is_err() {
        thread.wait_for_end();
        // SAFETY: 1. The caller's, which does not use it any more (1).
        unsafe { release(block) };
    }
    answer
}

/// The thread's side: in place of its `run`.
///
/// # Safety
///
/// 1. `this` is the calling thread's block, and its `launch` points to a [`Request`] that is there
///    until it is answered.
unsafe fn run_placed(this: &Block) {
    let request = this.launch.get().cast::<Request>().cast_const();
    // SAFETY: 1. It is not answered.
    let &Request { ref affinity, run, launch, ref answer } = unsafe { &*request };
    let (placed, answer) = (cpu::set_affinity(affinity.set), &raw const *answer);
    this.run.set(run);
    this.launch.set(launch);
    if placed.is_err() {
        scope::leave(this);
    }
    // SAFETY: 1. It is not given yet, and the request is not accessed after this.
    unsafe { Answer::give(answer, placed) };
    if let (Ok(()), Some(run)) = (placed, run) {
        // SAFETY: `launch` holds what `run` expects, and `run` is called once.
        unsafe { run(this) };
    }
}

/// [`NO_ANSWER`], [`PLACED`] or an error's number.
pub(super) struct Answer(AtomicU32);

const NO_ANSWER: u32 = 0;
/// Above each error's number.
const PLACED: u32 = 1 << 16;

impl Answer {
    pub(super) fn new() -> Answer {
        Answer(AtomicU32::new(NO_ANSWER))
    }

    /// The parent's side: the answer, or `ECANCELED` if the thread `has_ended` without one. That is
    /// asked after each step of the wait.
    pub(super) fn wait(&self, has_ended: impl Fn() -> bool) -> Result<()> {
        loop {
            // Acquire pairs with the release in `give`: the thread is done with the request, and
            // with the closure if it was refused.
            match self.0.load(Acquire) {
                NO_ANSWER => {}
                PLACED => return Ok(()),
                refused => return Err(Errno::from_raw(refused as u16).unwrap_or(Errno::EINVAL)),
            }
            // The end is looked at first: an answer precedes it.
            if base::wait_a_while(&self.0, NO_ANSWER, ANY) && has_ended() && self.0.load(Acquire) == NO_ANSWER {
                return Err(Errno::ECANCELED);
            }
        }
    }

    /// The thread's side. The answer may be gone when this returns (3).
    ///
    /// # Safety
    ///
    /// 1. `answer` is there, and was not given before.
    pub(super) unsafe fn give(answer: *const Answer, placed: Result<()>) {
        // SAFETY: 1. It is there.
        let word = unsafe { &raw const (*answer).0 };
        let value = placed.map_or_else(|errno| errno.raw().into(), |()| PLACED);
        // Release pairs with the acquire in `wait`. An exchange, because loom orders no store with
        // what the waiter's kernel reads.
        // SAFETY: 1. It is there.
        unsafe { &*word }.swap(value, Release);
        base::wake(word, 1, ANY);
    }
}

//! Models of the locks: each runs in every interleaving of its threads, within a bound.
//!
//! The bound is the number of preemptions, the first argument of [`model`]: switches away from a
//! thread that could continue. Switches from a thread that sleeps or ends are not counted. In a
//! model newcomers overtake at most twice, a spinning thread looks once, and an RwLock has room for
//! two readers. loom reports a thread that waits forever as a deadlock, and an unordered access as
//! a causality violation. All models together take about a minute of one processor.
//!
//! What loom does not explore: a load that reads a store which another thread makes later. So the
//! release with which waiters announce themselves, and its acquire (2 of `raw_mutex`), rest on the
//! memory model alone.

mod barrier;
mod channel;
mod condvar;
mod mutex;
mod once;
mod parker;
mod rwlock;
mod semaphore;
mod wait_group;

use std::sync::Arc;

use loom::thread::{self, JoinHandle};

use super::{Barrier, Channel, Condvar, LazyLock, Mutex, Once, OnceLock, Parker, RecvError, RwLock, Semaphore};
use crate::futex::fake_kernel::{Watched, expire, interrupt, model, model_on};
use crate::time::Instant;

/// A thread that shares `shared` with the model.
fn spawn<S: Send + Sync + 'static, R: 'static>(shared: &Arc<S>, run: impl FnOnce(&S) -> R + 'static) -> JoinHandle<R> {
    let shared = shared.clone();
    thread::spawn(move || run(&shared))
}

/// Lets the other threads run until they sleep or end, in the interleavings without preemptions.
fn let_others_go_first() {
    thread::yield_now();
}

fn join<R, const N: usize>(threads: [JoinHandle<R>; N]) -> [R; N] {
    threads.map(|thread| thread.join().unwrap())
}

/// A deadline that passes when the model calls [`expire`].
fn some_time() -> Instant {
    Instant::now()
}

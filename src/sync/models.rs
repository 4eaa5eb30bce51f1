//! Models of the locks: each runs in every way in which its threads can follow each other, within a
//! bound.
//!
//! The bound is the number of preemptions, the first argument of [`model`]: switches from a thread
//! that could have gone on. Switches from one that sleeps or ends are not counted. In a model a
//! newcomer overtakes at most twice, and who polls looks once, and a lock has room for two readers.
//! A thread that waits for ever is reported as a deadlock, an access that nothing orders as a
//! violation of causality. All models together take about a minute of one processor.
//!
//! What loom cannot see: a load that another thread's later store reaches before it is made. The
//! release with which waiters announce themselves, and its acquire (2 of `raw_mutex`), stand on the
//! memory model alone.

mod barrier;
mod channel;
mod condvar;
mod mutex;
mod once;
mod parker;
mod rwlock;
mod semaphore;

use std::sync::Arc;

use loom::thread::{self, JoinHandle};

use super::{Barrier, Channel, Condvar, LazyLock, Mutex, Once, OnceLock, Parker, RecvError, RwLock, Semaphore};
use crate::futex::fake_kernel::{Watched, expire, interrupt, model, model_on};
use crate::time::Instant;

/// A thread that has what it needs.
fn spawn<S: Send + Sync + 'static, R: 'static>(shared: &Arc<S>, run: impl FnOnce(&S) -> R + 'static) -> JoinHandle<R> {
    let shared = shared.clone();
    thread::spawn(move || run(&shared))
}

/// Lets the other threads run until they sleep or end, in the runs without preemptions.
fn let_others_go_first() {
    thread::yield_now();
}

fn join<R, const N: usize>(threads: [JoinHandle<R>; N]) -> [R; N] {
    threads.map(|thread| thread.join().unwrap())
}

/// A deadline that passes when the model says so.
fn some_time() -> Instant {
    Instant::now()
}

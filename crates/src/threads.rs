//! Crates for programs with threads.

use alloc::boxed::Box;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use core::task::{Poll, Waker};

use crossbeam_epoch::{Atomic, Collector, Owned};
use crossbeam_queue::ArrayQueue;
use embassy_executor::raw::{Executor, TaskStorage};
use rt0::sync::{Mutex, Parker};
use rt0::thread;

/// Every number that one thread puts in comes out on the other.
pub fn queue() -> bool {
    const LAST: u32 = 1000;
    let queue = ArrayQueue::new(8);
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            for mut n in 1..=LAST {
                while let Err(back) = queue.push(n) {
                    n = back;
                    thread::yield_now();
                }
            }
        });
        if producer.is_err() {
            return false;
        }
        let mut next = 1;
        while next <= LAST {
            match queue.pop() {
                Some(n) if n == next => next += 1,
                Some(_) => return false,
                None => thread::yield_now(),
            }
        }
        true
    })
}

/// One thread replaces a value that another one reads; each is freed once and not too early.
pub fn epochs() -> bool {
    const LAST: u32 = 500;
    static DROPPED: Mutex<u32> = Mutex::new(0);
    struct Counted(u32);
    impl Drop for Counted {
        fn drop(&mut self) {
            // A value that was freed before would not have its mark.
            *DROPPED.lock() += u32::from(self.0 >> 16 == 0xA5A5);
            self.0 = 0;
        }
    }
    let new = |n: u32| Counted(0xA5A5_0000 | n);
    let value = Atomic::new(new(0));
    let collector = Collector::new();
    let in_order = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let handle = collector.register();
            let mut last = 0;
            while last < LAST {
                let guard = handle.pin();
                // SAFETY: the guard was made before the value could be replaced and freed.
                let seen = unsafe { value.load(Acquire, &guard).deref() }.0;
                if seen >> 16 != 0xA5A5 || seen & 0xFFFF < last {
                    return false;
                }
                last = seen & 0xFFFF;
            }
            true
        });
        let Ok(reader) = reader else { return false };
        let handle = collector.register();
        for n in 1..=LAST {
            let guard = handle.pin();
            let old = value.swap(Owned::new(new(n)), AcqRel, &guard);
            // SAFETY: it is in no other place now.
            unsafe { guard.defer_destroy(old) };
        }
        reader.join()
    });
    // SAFETY: no other thread has it.
    drop(unsafe { value.into_owned() });
    drop(collector); // It frees what it still has.
    in_order && *DROPPED.lock() == LAST + 1
}

/// What an executor of embassy's wakes its thread by.
#[unsafe(export_name = "__pender")]
fn pender(context: *mut ()) {
    // SAFETY: it is the context of an executor of `run`, whose parker stays.
    unsafe { &*context.cast::<Parker>() }.unpark();
}

/// Runs a future on this thread, by an executor of its own, until it is done.
fn run<F: Future<Output = ()> + 'static>(future: F) {
    let parker: &'static Parker = Box::leak(Box::new(Parker::new()));
    let executor: &'static Executor = Box::leak(Box::new(Executor::new((&raw const *parker).cast_mut().cast())));
    let done: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let task = Box::leak(Box::new(TaskStorage::new()));
    let token = task.spawn(move || async {
        future.await;
        done.store(true, Relaxed);
    });
    executor.spawner().spawn(token.expect("a task that was not spawned"));
    loop {
        // SAFETY: this thread alone polls it, here.
        unsafe { executor.poll() };
        if done.load(Relaxed) {
            return;
        }
        parker.park();
    }
}

/// A place for one number on its way from a task to another.
struct Letter(Mutex<(Option<u32>, Option<Waker>)>);

impl Letter {
    const fn new() -> Letter {
        Letter(Mutex::new((None, None)))
    }

    fn put(&self, number: u32) {
        let mut inside = self.0.lock();
        inside.0 = Some(number);
        if let Some(waker) = inside.1.take() {
            waker.wake();
        }
    }

    async fn take(&self) -> u32 {
        poll_fn(|context| {
            let mut inside = self.0.lock();
            if let Some(number) = inside.0.take() {
                return Poll::Ready(number);
            }
            inside.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Two threads have an executor each, and their tasks wake each other.
pub fn executors() -> bool {
    const ROUNDS: u32 = 200;
    static THERE: Letter = Letter::new();
    static BACK: Letter = Letter::new();
    static SUM: Mutex<u32> = Mutex::new(0);
    let other = thread::spawn(|| {
        run(async {
            for _ in 0..ROUNDS {
                let number = THERE.take().await;
                BACK.put(number + 1);
            }
        })
    });
    let Ok(other) = other else { return false };
    run(async {
        for number in 0..ROUNDS {
            THERE.put(number);
            let back = BACK.take().await;
            *SUM.lock() += back;
        }
    });
    other.join();
    *SUM.lock() == (1..=ROUNDS).sum::<u32>()
}

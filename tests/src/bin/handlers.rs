//! What may be called in a signal handler, called there while signals come all the time.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use rt0::signal::{Action, How, SigSet, Signal, action_of, mask, raise, sigaction};
use rt0::sync::{Channel, Condvar, Mutex, Once, Parker, RwLock, Semaphore};
use rt0::time::{ClockId, Instant, SystemTime};
use rt0::{Env, Errno, cpu, futex, io, random, sys, thread};
use rt0_tests::{alarm_every, emulated, stress_time, tests, wait_until};

static PERMITS: Semaphore = Semaphore::new(0);
static RELEASED: AtomicU32 = AtomicU32::new(0);
static ACQUIRED: AtomicU32 = AtomicU32::new(0);
static HANDLED: AtomicU32 = AtomicU32::new(0);
static WORD: AtomicU32 = AtomicU32::new(0);
static PARKER: Parker = Parker::new();
static MUTEX: Mutex<u32> = Mutex::new(0);
static RWLOCK: RwLock<u32> = RwLock::new(0);
static ONCE: Once = Once::new();
static STOP: AtomicBool = AtomicBool::new(false);

fn release() {
    PERMITS.release(1).expect("few permits");
    RELEASED.fetch_add(1, Relaxed);
}

fn acquired(taken: bool) {
    ACQUIRED.fetch_add(taken as u32, Relaxed);
}

/// Calls what is documented to be allowed here. The handler may run on any thread at any instruction.
extern "C" fn call_all(_: i32) {
    release();
    acquired(PERMITS.try_acquire());
    let _ = PERMITS.available();
    PARKER.unpark();
    let this = thread::current();
    this.unpark();
    match this.interrupt() {
        Ok(generation) => _ = this.has_seen(generation),
        Err(errno) => assert!(matches!(errno, Errno::EOPNOTSUPP | Errno::EAGAIN), "{errno}"),
    }
    let _ = this.clone().id();
    assert!(this.name().is_none_or(|name| name == "main"));
    WORD.fetch_add(1, Relaxed);
    futex::wake(&WORD, 1);
    futex::wake_all(&WORD);
    if let Some(mut value) = MUTEX.try_lock() {
        *value += 1;
    }
    if let Some(mut value) = RWLOCK.try_write() {
        *value += 1;
    }
    let _ = RWLOCK.try_read().map(|value| *value);
    let _ = ONCE.is_completed();
    let _ = (Instant::now(), SystemTime::now(), ClockId::CLOCK_THREAD_CPUTIME_ID.now());
    random::fill(&mut [0; 40]).expect("random bytes");
    let _ = (cpu::count(), cpu::page_size(), thread::available_parallelism());
    let _ = (sys::getpid(), sys::gettid());
    thread::yield_now();
    mask(How::Block, &SigSet::empty());
    let _ = action_of(Signal::SIGUSR1);
    let _ = raise(Signal::SIGURG); // By default it does nothing.
    let _ = io::stderr().write(b"");
    HANDLED.fetch_add(1, Relaxed);
}

/// What a program does meanwhile: each of these is interrupted somewhere in its middle.
fn work(channel: &Channel<u32, 2>) {
    static CONDVAR: Condvar = Condvar::new();
    let soon = Duration::from_micros(50);
    assert_eq!(thread::spawn(|| 5).unwrap().join(), 5);
    *MUTEX.lock() += 1;
    *RWLOCK.write() += 1;
    let _ = *RWLOCK.read();
    release();
    PERMITS.acquire();
    acquired(true);
    acquired(PERMITS.try_acquire_for(soon));
    thread::park_timeout(soon);
    PARKER.park_timeout(soon);
    let _ = futex::wait_timeout(&WORD, WORD.load(Relaxed), soon);
    let (sender, receiver) = channel.split();
    sender.send(1).unwrap();
    receiver.recv().unwrap();
    drop(CONDVAR.wait_timeout(MUTEX.lock(), soon));
    CONDVAR.notify_all();
    ONCE.call_once(|| ());
    thread::scope(|scope| scope.spawn(|| ()).unwrap().join());
    random::fill(&mut [0; 40]).unwrap();
}

fn install() {
    for signal in [Signal::SIGALRM, Signal::SIGUSR1] {
        // SAFETY: 1. It calls what this test is about.
        unsafe { sigaction(signal, Action::call(call_all)) }.unwrap();
    }
}

/// Works while signals come to this thread and to another, for so long.
fn storm(env: Env) {
    static CHANNEL: Channel<u32, 2> = Channel::new();
    install();
    let other = thread::spawn(|| {
        while !STOP.load(Relaxed) {
            work(&CHANNEL);
        }
    })
    .unwrap();
    let target = other.thread().clone();
    let sender = thread::spawn(move || {
        mask(How::Set, &SigSet::full());
        while !STOP.load(Relaxed) {
            target.signal(Signal::SIGUSR1).expect("it works");
            // As often as it can be handled.
            let before = HANDLED.load(Relaxed);
            (0..100).take_while(|_| HANDLED.load(Relaxed) == before).for_each(|_| thread::yield_now());
        }
    })
    .unwrap();
    alarm_every(Duration::from_micros(if emulated() { 2000 } else { 50 }));
    let own = Channel::new();
    let end = Instant::now() + stress_time(env) / 2;
    while Instant::now() < end || HANDLED.load(Relaxed) < 50 {
        work(&own);
    }
    STOP.store(true, Relaxed);
    sender.join();
    other.join();
    alarm_every(Duration::ZERO);
}

tests! {
    #[keys("alone")]
    fn what_may_be_called_in_handlers_is_called_there_while_the_program_does_the_same(env) {
        storm(env);
        let left = RELEASED.load(Relaxed) - ACQUIRED.load(Relaxed);
        assert_eq!(PERMITS.available(), left, "no permit is lost, and none is there twice");
        for _ in 0..left {
            assert!(PERMITS.try_acquire());
        }
        assert!(!PERMITS.try_acquire());
    }

    /// The only permits that ever come are those of handlers, on the very thread that waits.
    fn a_handlers_release_wakes_the_thread_that_it_interrupts() {
        install();
        alarm_every(Duration::from_micros(if emulated() { 5000 } else { 200 }));
        for _ in 0..rt0_tests::often(500) {
            // The handler's own `try_acquire` fails while this thread waits in the queue.
            PERMITS.acquire();
        }
        alarm_every(Duration::ZERO);
    }

    fn a_handlers_unpark_wakes_the_thread_that_it_interrupts() {
        install();
        alarm_every(Duration::from_micros(if emulated() { 5000 } else { 200 }));
        for _ in 0..rt0_tests::often(500) {
            thread::park();
            PARKER.park();
        }
        alarm_every(Duration::ZERO);
    }

    fn a_handlers_release_serves_threads_that_wait_first_come_first_served() {
        static ORDER: Mutex<[u32; 4]> = Mutex::new([0; 4]);
        static WAITING: AtomicU32 = AtomicU32::new(0);
        static SERVED: AtomicU32 = AtomicU32::new(0);
        extern "C" fn release_one(_: i32) {
            PERMITS.release(1).unwrap();
        }
        // SAFETY: 1. A release is allowed there.
        unsafe { sigaction(Signal::SIGUSR2, Action::call(release_one)) }.unwrap();
        let waiters: [_; 4] = core::array::from_fn(|index| {
            let waiter = thread::spawn(move || {
                WAITING.store(sys::gettid(), Relaxed);
                PERMITS.acquire();
                let turn = SERVED.fetch_add(1, Relaxed) as usize;
                ORDER.lock()[turn] = index as u32;
            })
            .unwrap();
            wait_until("it to run", || WAITING.load(Relaxed) != 0);
            rt0_tests::wait_until_asleep(WAITING.swap(0, Relaxed));
            waiter
        });
        for served in 1..=4 {
            raise(Signal::SIGUSR2).unwrap();
            wait_until("its turn", || SERVED.load(Relaxed) == served);
        }
        waiters.into_iter().for_each(|waiter| waiter.join());
        assert_eq!(*ORDER.lock(), [0, 1, 2, 3]);
    }
}

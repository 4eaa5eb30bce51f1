//! Calls the functions that are allowed in signal handlers, while signals arrive all the time.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use rt0::io::EventFd;
use rt0::signal::{self, Action, How, Info, SigSet, Signal, action_of, mask, raise, sigaction};
use rt0::sync::{Channel, Condvar, Mutex, Once, OnceLock, Parker, RwLock, RwLockWriteGuard, Semaphore};
use rt0::test::Expect;
use rt0::time::{ClockId, Instant, SystemTime};
use rt0::{Env, Errno, cpu, futex, io, process, random, sys, thread};
use rt0_tests::{alarm_after, emulated, stress_time, wait_until};

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
/// Microseconds from the end of one SIGALRM to the next; 0 for no next one.
static PAUSE: AtomicU32 = AtomicU32::new(0);

fn release() {
    PERMITS.release(1).expect("few permits");
    RELEASED.fetch_add(1, Relaxed);
}

fn acquired(taken: bool) {
    ACQUIRED.fetch_add(taken as u32, Relaxed);
}

/// Calls the functions that are documented as allowed here. The handler may run on any thread at
/// any instruction.
extern "C" fn call_all(signal: i32) {
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
    call_what_asks_the_kernel();
    call_what_computes(&this);
    HANDLED.fetch_add(1, Relaxed);
    // Not at a fixed rate: a machine on which the handler takes longer would do nothing else.
    if signal == Signal::SIGALRM.raw() as i32 {
        alarm_after(Duration::from_micros(PAUSE.load(Relaxed).into()));
    }
}

/// Makes SIGALRM arrive repeatedly, each time this long after the previous one was handled.
fn start_alarms(native_micros: u32, emulated_micros: u32) {
    PAUSE.store(if emulated() { emulated_micros } else { native_micros }, Relaxed);
    alarm_after(Duration::from_micros(1));
}

fn stop_alarms() {
    PAUSE.store(0, Relaxed);
    alarm_after(Duration::ZERO);
}

/// Descriptors, processes, masks: functions of one or two system calls.
fn call_what_asks_the_kernel() {
    let counter = EventFd::new().expect("few are open at once");
    counter.add(3).expect("it has room");
    assert_eq!(counter.take(), Ok(3));
    drop(sys::dup(&counter).expect("few are open at once"));
    let file = sys::open(c"/proc/self/exe", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).expect("/proc");
    let mut start = [0; 4];
    assert_eq!((sys::pread(&file, &mut start, 0), &start), (Ok(4), b"\x7fELF"));
    assert_eq!(process::id(), sys::getpid());
    process::kill(process::id(), Signal::SIGURG).expect("this process is there");
    thread::current().signal(Signal::SIGURG).expect("this thread is there");
    let _ = (signal::pending(), signal::signal_stack(), cpu::affinity(), cpu::huge_page_size());
}

/// Functions that only access the caller's values.
fn call_what_computes(this: &thread::Thread) {
    let mut set = SigSet::empty();
    set.insert(Signal::SIGUSR2);
    assert!(set.contains(Signal::SIGUSR2) && SigSet::full().contains(Signal::SIGUSR2));
    set.remove(Signal::SIGUSR2);
    assert!(set.as_bytes().iter().all(|byte| *byte == 0));
    assert_eq!(this.id(), thread::current().id());
    let now = Instant::now();
    assert!(now.checked_add(Duration::from_secs(1)).is_some_and(|later| later > now));
    let _ = (now.elapsed(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH));
    static MADE: OnceLock<u32> = OnceLock::new();
    assert_eq!((MADE.get(), Mutex::new(1).into_inner()), (None, 1));
    assert_eq!(Errno::from_raw(2), Some(Errno::ENOENT));
    if let Some(value) = RWLOCK.try_write() {
        let _ = *RwLockWriteGuard::downgrade(value);
    }
}

/// The handler of SIGUSR1, with a siginfo.
fn call_all_with_info(info: &Info) {
    assert_eq!(info.number(), Signal::SIGUSR1.raw() as i32);
    assert!(info.from_user() && info.sender().is_some_and(|sender| sender.pid == sys::getpid()));
    assert!(info.pc() != 0 && info.sp() != 0);
    let _ = (info.code(), info.fp(), info.address(), info.value(), info.from_seccomp());
    call_all(info.number());
}

/// The program's work meanwhile: the signals interrupt each of these functions in the middle.
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
    let actions = [(Signal::SIGALRM, Action::call(call_all)), (Signal::SIGUSR1, Action::info(call_all_with_info))];
    for (signal, action) in actions {
        // SAFETY: 1. It calls the functions under test.
        unsafe { sigaction(signal, action) }.unwrap();
    }
}

/// Works for this time, while signals reach this thread and another.
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
            // As often as the thread can handle it.
            let before = HANDLED.load(Relaxed);
            (0..100).take_while(|_| HANDLED.load(Relaxed) == before).for_each(|_| thread::yield_now());
        }
    })
    .unwrap();
    start_alarms(50, 2000);
    let own = Channel::new();
    let end = Instant::now() + stress_time(env) / 2;
    while Instant::now() < end || HANDLED.load(Relaxed) < 50 {
        work(&own);
    }
    STOP.store(true, Relaxed);
    sender.join();
    other.join();
    stop_alarms();
}

rt0::test_module! {
    what_may_be_called_in_handlers_is_called_there_while_the_program_does_the_same =>
        Expect::success().alone(),
    a_handlers_release_wakes_the_thread_that_it_interrupts,
    a_handlers_unpark_wakes_the_thread_that_it_interrupts,
    a_handlers_release_serves_threads_that_wait_first_come_first_served,
}

fn what_may_be_called_in_handlers_is_called_there_while_the_program_does_the_same(env: Env) {
    storm(env);
    let left = RELEASED.load(Relaxed) - ACQUIRED.load(Relaxed);
    assert_eq!(PERMITS.available(), left, "no permit is lost, and none is there twice");
    for _ in 0..left {
        assert!(PERMITS.try_acquire());
    }
    assert!(!PERMITS.try_acquire());
}

/// The only permits come from handlers on the thread that waits.
fn a_handlers_release_wakes_the_thread_that_it_interrupts() {
    install();
    start_alarms(200, 5000);
    for _ in 0..rt0_tests::often(500) {
        // The handler's own `try_acquire` fails while this thread waits in the queue.
        PERMITS.acquire();
    }
    stop_alarms();
}

fn a_handlers_unpark_wakes_the_thread_that_it_interrupts() {
    install();
    start_alarms(200, 5000);
    for _ in 0..rt0_tests::often(500) {
        thread::park();
        PARKER.park();
    }
    stop_alarms();
}

fn a_handlers_release_serves_threads_that_wait_first_come_first_served() {
    static ORDER: Mutex<[u32; 4]> = Mutex::new([0; 4]);
    static WAITING: AtomicU32 = AtomicU32::new(0);
    static SERVED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn release_one(_: i32) {
        PERMITS.release(1).unwrap();
    }
    // SAFETY: 1. A release is allowed in a handler.
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

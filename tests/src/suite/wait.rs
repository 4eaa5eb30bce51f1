//! Waiting for signals, and waking threads that wait for descriptors.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::io::EventFd;
use rt0::process::{self, Command, Stdio};
use rt0::signal::{self, Action, How, SigSet, Signal};
use rt0::sys::OwnedFd;
use rt0::time::Instant;
use rt0::{Errno, sys, thread};
use rt0_tests::{emulated, wait_until, wait_until_asleep};

/// The time that a test waits for an event that does not come.
const SOON: Duration = Duration::from_millis(30);

/// The time that it waits for an event that must come.
const LONG: Duration = Duration::from_secs(60);

fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: 1. The tests' calls access only the tests' own memory and descriptors.
    unsafe { sys::syscall(nr as usize, args) }
}

fn set_of<const N: usize>(signals: [Signal; N]) -> SigSet {
    SigSet::from_iter(signals)
}

/// A real-time signal: every one that is sent arrives.
fn real_time() -> Signal {
    Signal::from_raw(40).expect("the program's")
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

/// Counts the handler's runs from now on.
fn count(signal: Signal) {
    extern "C" fn handled(_: i32) {
        HANDLED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. It counts.
    unsafe { signal::sigaction(signal, Action::call(handled)) }.expect("sigaction");
}

/// [`signal::wait_timeout`] for a signal that comes. An emulator also catches signals that its
/// program has blocked, so there the wait ends with `EINTR` when another thread's signal comes.
fn wait_long(set: &SigSet) -> signal::Siginfo {
    loop {
        match signal::wait_timeout(set, LONG) {
            Err(Errno::EINTR) if emulated() => {}
            waited => return waited.expect("nothing interrupts it").expect("the signal comes"),
        }
    }
}

/// Whether a poller sees it as readable now.
fn is_readable(fd: &OwnedFd) -> bool {
    let epoll = call(k::__NR_epoll_create1, [0; 6]).expect("epoll");
    // SAFETY: 1. Just opened.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll as i32) };
    let mut event = [k::EPOLLIN, 0, 0, 0]; // struct epoll_event; its first field is the events.
    let (poller, at) = (epoll.as_raw_fd() as usize, (&raw mut event).expose_provenance());
    call(k::__NR_epoll_ctl, [poller, k::EPOLL_CTL_ADD as usize, fd.as_raw_fd() as usize, at, 0, 0]).expect("epoll");
    call(k::__NR_epoll_pwait, [poller, at, 1, 0, 0, 0]).expect("epoll") == 1
}

rt0::test_module! {
    a_blocked_signal_is_pending_until_it_is_taken_and_its_handler_does_not_run,
    values_come_with_queued_signals_in_their_order,
    a_wait_ends_with_the_time,
    far_deadlines_are_waited_for,
    a_handler_or_an_interrupt_ends_a_wait_with_eintr,
    suspending_misses_no_signal_and_blocks_again,
    a_set_that_is_blocked_before_the_first_thread_is_blocked_on_all,
    each_signal_goes_to_one_of_two_that_wait,
    the_end_of_a_child_is_a_signal_to_wait_for,
    the_bytes_of_a_set_are_what_signalfd_takes,
    an_event_counter_is_readable_until_it_is_taken,
    an_event_wakes_a_thread_that_waits_for_it,
}

fn a_blocked_signal_is_pending_until_it_is_taken_and_its_handler_does_not_run() {
    count(Signal::SIGUSR1);
    let set = set_of([Signal::SIGUSR1, Signal::SIGUSR2]);
    signal::mask(How::Block, &set);
    assert!(!signal::pending().unwrap().contains(Signal::SIGUSR1));
    signal::raise(Signal::SIGUSR1).unwrap();
    let pending = signal::pending().unwrap();
    assert!(pending.contains(Signal::SIGUSR1) && !pending.contains(Signal::SIGUSR2));
    let info = signal::wait(&set).unwrap();
    assert_eq!(info.number(), Signal::SIGUSR1.raw() as i32);
    assert_eq!(info.sender().map(|sender| sender.pid), Some(sys::getpid()));
    assert_eq!((info.value(), info.address()), (None, None));
    assert!(!signal::pending().unwrap().contains(Signal::SIGUSR1));
    assert_eq!(HANDLED.load(Relaxed), 0);
}

fn values_come_with_queued_signals_in_their_order() {
    let set = set_of([real_time()]);
    signal::mask(How::Block, &set);
    for value in [1, usize::MAX, 0] {
        process::sigqueue(sys::getpid(), real_time(), value).unwrap();
    }
    for value in [1, usize::MAX, 0] {
        let info = signal::wait(&set).unwrap();
        assert_eq!((info.value(), info.number()), (Some(value), 40));
        assert!(info.from_user() && info.sender().is_some_and(|sender| sender.pid == sys::getpid()));
    }
    assert!(signal::wait_timeout(&set, Duration::ZERO).unwrap().is_none());
}

fn a_wait_ends_with_the_time() {
    let set = set_of([Signal::SIGUSR1]);
    signal::mask(How::Block, &set);
    let start = Instant::now();
    assert!(signal::wait_timeout(&set, SOON).unwrap().is_none());
    assert!(start.elapsed() >= SOON);
    assert!(signal::wait_until(&set, start).unwrap().is_none()); // A deadline in the past.
    signal::raise(Signal::SIGUSR1).unwrap();
    // But a pending signal is taken.
    assert!(signal::wait_until(&set, start).unwrap().is_some());
}

fn far_deadlines_are_waited_for() {
    let set = set_of([Signal::SIGUSR1]);
    signal::mask(How::Block, &set);
    for timeout in [Duration::from_secs(1 << 40), Duration::MAX] {
        let waiter = thread::spawn(move || {
            loop {
                match signal::wait_timeout(&set, timeout) {
                    Err(Errno::EINTR) if emulated() => {}
                    waited => return waited.map(|info| info.map(|info| info.number())),
                }
            }
        })
        .unwrap();
        thread::sleep(SOON);
        assert!(!waiter.is_finished());
        process::kill(sys::getpid(), Signal::SIGUSR1).unwrap();
        assert_eq!(waiter.join(), Ok(Some(Signal::SIGUSR1.raw() as i32)));
    }
}

fn a_handler_or_an_interrupt_ends_a_wait_with_eintr() {
    static TID: AtomicU32 = AtomicU32::new(0);
    count(Signal::SIGUSR2);
    let set = set_of([Signal::SIGUSR1]);
    signal::mask(How::Block, &set);
    for interrupt in [false, true] {
        TID.store(0, Relaxed);
        let waiter = thread::spawn(move || {
            TID.store(sys::gettid(), Relaxed);
            signal::wait_timeout(&set, LONG).map(drop)
        })
        .unwrap();
        wait_until("a thread to wait", || TID.load(Relaxed) != 0);
        wait_until_asleep(TID.load(Relaxed));
        if interrupt {
            waiter.thread().interrupt().unwrap();
        } else {
            waiter.thread().signal(Signal::SIGUSR2).unwrap();
        }
        assert_eq!(waiter.join(), Err(Errno::EINTR));
    }
    assert_eq!(HANDLED.load(Relaxed), 1);
}

fn suspending_misses_no_signal_and_blocks_again() {
    count(Signal::SIGUSR1);
    signal::mask(How::Block, &set_of([Signal::SIGUSR1, Signal::SIGUSR2]));
    signal::raise(Signal::SIGUSR1).unwrap(); // Pending before the wait begins.
    assert_eq!(HANDLED.load(Relaxed), 0);
    while HANDLED.load(Relaxed) == 0 {
        signal::suspend(&set_of([Signal::SIGUSR2])).unwrap();
    }
    signal::raise(Signal::SIGUSR1).unwrap();
    assert!(HANDLED.load(Relaxed) == 1 && signal::pending().unwrap().contains(Signal::SIGUSR1));
}

fn a_set_that_is_blocked_before_the_first_thread_is_blocked_on_all() {
    let set = set_of([Signal::SIGTERM, Signal::SIGINT]);
    signal::mask(How::Block, &set);
    let has_it = || {
        let mask = signal::mask(How::Block, &SigSet::empty());
        mask.contains(Signal::SIGTERM) && mask.contains(Signal::SIGINT)
    };
    assert!(thread::spawn(move || has_it() && thread::spawn(has_it).unwrap().join()).unwrap().join());
    // So no thread dies of it, and the waiting thread gets it.
    let other = thread::spawn(|| thread::park_timeout(LONG)).unwrap();
    process::kill(sys::getpid(), Signal::SIGTERM).unwrap();
    assert_eq!(wait_long(&set).number(), Signal::SIGTERM.raw() as i32);
    other.thread().unpark();
    other.join();
}

fn each_signal_goes_to_one_of_two_that_wait() {
    let set = set_of([real_time()]);
    signal::mask(How::Block, &set);
    // The kernel may wake both for the first signal, and the second of them gets EINTR.
    let wait = move || loop {
        match signal::wait_timeout(&set, LONG) {
            Err(Errno::EINTR) => {}
            waited => return waited.unwrap().expect("the signal comes").value(),
        }
    };
    let waiters = [thread::spawn(wait).unwrap(), thread::spawn(wait).unwrap()];
    for value in [1, 2] {
        process::sigqueue(sys::getpid(), real_time(), value).unwrap();
    }
    let [one, other] = waiters.map(|waiter| waiter.join().expect("a value"));
    assert_eq!(one + other, 3);
}

fn the_end_of_a_child_is_a_signal_to_wait_for() {
    let set = set_of([Signal::SIGCHLD]);
    signal::mask(How::Block, &set);
    let program = if emulated() { c"/bin/true" } else { c"/proc/self/exe" };
    let child = Command::new(program).stdout(Stdio::Null).spawn().unwrap();
    let info = wait_long(&set);
    assert_eq!(info.number(), Signal::SIGCHLD.raw() as i32);
    let (pid, status) = process::try_wait_any().unwrap().unwrap();
    assert!(pid == child.id() && status.success());
    assert_eq!(process::try_wait_any(), Err(Errno::ECHILD));
}

fn the_bytes_of_a_set_are_what_signalfd_takes() {
    let set = set_of([Signal::SIGUSR1, real_time()]);
    signal::mask(How::Block, &set);
    let bytes = set.as_bytes();
    assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 2);
    let args = [usize::MAX, bytes.as_ptr().expose_provenance(), bytes.len(), k::O_CLOEXEC as usize, 0, 0];
    let fd = call(k::__NR_signalfd4, args).unwrap();
    // SAFETY: 1. Just opened.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    assert!(!is_readable(&fd));
    for signal in [Signal::SIGUSR1, real_time()] {
        signal::raise(signal).unwrap();
        let mut info = [0; 128]; // struct signalfd_siginfo; its first field is the number.
        assert_eq!(rt0::io::read(&fd, &mut info), Ok(128));
        assert_eq!(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]), signal.raw());
    }
}

fn an_event_counter_is_readable_until_it_is_taken() {
    let event = EventFd::new().unwrap();
    assert_eq!((event.take(), is_readable(event.as_fd())), (Ok(0), false));
    event.add(2).unwrap();
    event.add(3).unwrap();
    assert!(is_readable(event.as_fd()));
    assert_eq!((event.take(), event.take()), (Ok(5), Ok(0)));
    // A full counter does not wait.
    event.add(u64::MAX).unwrap();
    event.add(1).unwrap();
    assert_eq!((event.take(), is_readable(event.as_fd())), (Ok(u64::MAX - 1), false));
    event.add(0).unwrap();
    assert!(!is_readable(event.as_fd()));
}

fn an_event_wakes_a_thread_that_waits_for_it() {
    static TID: AtomicU32 = AtomicU32::new(0);
    let event = EventFd::new().unwrap();
    thread::scope(|scope| {
        let waiter = scope
            .spawn(|| {
                TID.store(sys::gettid(), Relaxed);
                event.wait()
            })
            .unwrap();
        wait_until("a thread to wait", || TID.load(Relaxed) != 0);
        wait_until_asleep(TID.load(Relaxed));
        assert!(!waiter.is_finished());
        event.add(7).unwrap();
        assert_eq!(waiter.join(), Ok(7));
    });
}

//! Timed waits that are stopped and continued in the middle, and then interrupted by a handler:
//! each ends at its deadline.
//!
//! A stop, a tracer's interruption and a freezer end the call in the kernel without a handler. The
//! kernel restarts it by itself; where the remaining time counts, it does so by another call:
//! restart_syscall(2). On RISC-V it then leaves that call's number in the register of the program's
//! number. A handler in the middle of the second call makes it return EINTR, and the program calls
//! again, with the current values of its registers.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use linux_raw_sys::ptrace::{PTRACE_DETACH, PTRACE_INTERRUPT, PTRACE_SEIZE};
use rt0::signal::{Action, Signal, sigaction};
use rt0::sync::{Channel, Condvar, Mutex, Once, OnceLock, Parker, RwLock, Semaphore};
use rt0::time::{ClockId, Instant};
use rt0::{Errno, futex, println, sys, thread};
use rt0_tests::files;
use rt0_tests::processes::state_of_process;
use rt0_tests::text::Text;
use rt0_tests::{Ended, fork, read_file, skip, wait_for, wait_until};

/// Waits for this time, and returns whether it timed out.
type Wait = fn(Duration) -> bool;

/// Every kind of wait with a limit.
const WAITS: [(&str, Wait); 16] = [
    ("sleep", |time| {
        thread::sleep(time);
        true
    }),
    ("sleep_until", |time| {
        thread::sleep_until(Instant::now() + time);
        true
    }),
    ("ClockId::sleep_until", |time| {
        let mut deadline = ClockId::CLOCK_MONOTONIC.now().unwrap();
        deadline.tv_sec += time.as_secs() as i64; // Whole seconds in all rounds.
        ClockId::CLOCK_MONOTONIC.sleep_until(deadline).is_ok()
    }),
    ("futex", |time| {
        let (word, end) = (AtomicU32::new(0), Instant::now() + time);
        until_timed_out(|| futex::wait_until(&word, 0, end))
    }),
    ("futex, shared", |time| {
        let (word, end) = (AtomicU32::new(0), Instant::now() + time);
        until_timed_out(|| futex::shared::wait_until(&word, 0, end))
    }),
    ("park", |time| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            thread::park_timeout(end.saturating_duration_since(Instant::now()));
        }
        true
    }),
    ("Parker", |time| !Parker::new().park_timeout(time)),
    ("Mutex", |time| {
        let mutex = Mutex::new(());
        let _guard = mutex.lock();
        mutex.try_lock_for(time).is_none()
    }),
    ("RwLock, reading", |time| {
        let lock = RwLock::new(());
        let _guard = lock.write();
        lock.try_read_for(time).is_none()
    }),
    ("RwLock, writing", |time| {
        let lock = RwLock::new(());
        let _guard = lock.read();
        lock.try_write_for(time).is_none()
    }),
    ("Condvar", |time| {
        let (mutex, condvar) = (Mutex::new(()), Condvar::new());
        condvar.wait_timeout_while(mutex.lock(), time, |()| true).1.timed_out()
    }),
    ("Semaphore", |time| !Semaphore::new(0).try_acquire_for(time)),
    ("Once", |time| !Once::new().wait_timeout(time)),
    ("OnceLock", |time| OnceLock::<u8>::new().wait_timeout(time).is_none()),
    ("Channel, receiving", |time| {
        let channel = Channel::<u8, 1>::new();
        let (_sender, receiver) = channel.split();
        receiver.recv_timeout(time).is_err()
    }),
    ("Channel, sending", |time| {
        let channel = Channel::<u8, 1>::new();
        let (sender, _receiver) = channel.split();
        sender.send(1).is_ok() && sender.send_timeout(2, time).is_err()
    }),
];

/// Waits again after each interruption, as locks do.
fn until_timed_out(mut wait: impl FnMut() -> Result<(), Errno>) -> bool {
    loop {
        match wait() {
            Err(Errno::ETIMEDOUT) => return true,
            Ok(()) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// A child's exit status: the wait kept its deadline.
const KEPT: u32 = 0;
/// The wait ended before the handler ran: more time is needed.
const TOO_QUICK: u32 = 9;
/// The wait ended for another reason than its deadline.
const NOT_TIMED_OUT: u32 = 1;
/// The wait reported its timeout too early.
const EARLY: u32 = 2;

static HANDLED: AtomicU32 = AtomicU32::new(0);

/// One child for each kind of wait. All are disturbed, then each gets a signal, and each must end
/// at its deadline. If the machine was too slow for that before the deadline, repeats with more
/// time.
fn each_wait_keeps_its_deadline(disturb: impl Fn(&[u32])) {
    let mut left = [true; WAITS.len()];
    for milliseconds in [1_000, 4_000, 16_000, 64_000] {
        let time = Duration::from_millis(milliseconds);
        let mut children = [0; WAITS.len()];
        for (index, (_, wait)) in WAITS.iter().enumerate().filter(|(index, _)| left[*index]) {
            children[index] = fork().expect("fork");
            if children[index] == 0 {
                sys::exit_group(child(*wait, time) as i32);
            }
        }
        let mut running = [0; WAITS.len()];
        let mut count = 0;
        for &pid in children.iter().filter(|pid| **pid != 0) {
            running[count] = pid;
            count += 1;
        }
        let running = &running[..count];
        until_state(running, b'S');
        disturb(running);
        until_state(running, b'S');
        running.iter().for_each(|&pid| signal(pid, k::SIGUSR1));
        let end = Instant::now() + time + Duration::from_secs(30);
        let mut broken = 0;
        for (index, &pid) in children.iter().enumerate().filter(|(_, pid)| **pid != 0) {
            let name = WAITS[index].0;
            match ended(pid, end) {
                Some(KEPT) => left[index] = false,
                Some(TOO_QUICK) => println!("{name}: {time:?} are too few"),
                Some(status) => {
                    println!("{name}: a wait of {time:?} ended with {status}");
                    broken += 1;
                }
                None => {
                    println!("{name}: a wait of {time:?} does not end");
                    broken += 1;
                }
            }
        }
        assert_eq!(broken, 0, "waits that did not keep their deadline");
        if left == [false; WAITS.len()] {
            return;
        }
    }
    skip("this machine takes more than a minute to stop processes and let them go on");
}

/// Waits and checks; returns the exit status.
fn child(wait: Wait, time: Duration) -> u32 {
    extern "C" fn count(_: i32) {
        HANDLED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. An atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(count)) }.expect("a handler");
    let start = Instant::now();
    let timed_out = wait(time);
    match (HANDLED.load(Relaxed), timed_out, start.elapsed() >= time) {
        (0, ..) => TOO_QUICK,
        (_, true, true) => KEPT,
        (_, false, _) => NOT_TIMED_OUT,
        (_, true, false) => EARLY,
    }
}

/// kill(2). A child that has ended is not reaped yet, so its id is not reused.
fn signal(pid: u32, signal: u32) {
    // SAFETY: 1. A child of this process.
    unsafe { sys::syscall(k::__NR_kill as usize, [pid as usize, signal as usize, 0, 0, 0, 0]) }.expect("kill");
}

/// A child that has ended and is not reaped.
const ENDED: u8 = b'Z';

/// The state of a child. proc_pid_stat(5)
fn state(pid: u32) -> u8 {
    state_of_process(pid).expect("a child that is not waited for is there")
}

/// Waits until each child is in this state, or has ended.
fn until_state(children: &[u32], wanted: u8) {
    for &pid in children {
        wait_until("a child's state", || [wanted, ENDED].contains(&state(pid)));
    }
}

/// waitid(2) for a child that ends before `end`; otherwise kills it and returns none. Returns its
/// exit status, or 1000 plus the signal that killed it.
fn ended(pid: u32, end: Instant) -> Option<u32> {
    loop {
        // SAFETY: the struct is numbers, for which all zeros are valid.
        let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
        let at = (&raw mut info).expose_provenance();
        let options = (k::WEXITED | k::WNOHANG | k::WNOWAIT) as usize;
        // SAFETY: 1. The kernel writes `info`.
        unsafe { sys::syscall(k::__NR_waitid as usize, [k::P_PID as usize, pid as usize, at, options, 0, 0]) }
            .expect("waitid");
        // SAFETY: waitid filled it in, or left the zeros.
        let has_ended = unsafe { info.__bindgen_anon_1.__bindgen_anon_1 }.si_signo != 0;
        let in_time = Instant::now() < end;
        if !has_ended && in_time {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        if !has_ended {
            signal(pid, k::SIGKILL);
        }
        let how = match wait_for(pid) {
            Ended::Exit(status) => status,
            Ended::Signal(signal) => 1000 + signal,
        };
        return has_ended.then_some(how);
    }
}

/// ptrace(2) without an address.
fn ptrace(request: u32, pid: u32) -> Result<(), Errno> {
    // SAFETY: 1. A child of this process; the request only lets this process stop it.
    unsafe { sys::syscall(k::__NR_ptrace as usize, [request as usize, pid as usize, 0, 0, 0, 0]) }.map(drop)
}

rt0::test_module! {
    stopped_and_continued_each_wait_keeps_its_deadline,
    interrupted_by_a_tracer_each_wait_keeps_its_deadline,
    frozen_and_thawed_each_wait_keeps_its_deadline,
}

fn stopped_and_continued_each_wait_keeps_its_deadline() {
    each_wait_keeps_its_deadline(|children| {
        children.iter().for_each(|&pid| signal(pid, k::SIGSTOP));
        until_state(children, b'T');
        children.iter().for_each(|&pid| signal(pid, k::SIGCONT));
    });
}

fn interrupted_by_a_tracer_each_wait_keeps_its_deadline() {
    each_wait_keeps_its_deadline(|children| {
        for &pid in children {
            if let Err(errno) = ptrace(PTRACE_SEIZE, pid) {
                if state(pid) == ENDED {
                    continue; // Its time was too short.
                }
                children.iter().for_each(|&pid| signal(pid, k::SIGKILL));
                assert!([Errno::ENOSYS, Errno::EPERM, Errno::EIO].contains(&errno), "{errno}");
                skip("no process may trace another here");
            }
            if let Err(errno) = ptrace(PTRACE_INTERRUPT, pid) {
                assert_eq!((errno, state(pid)), (Errno::ESRCH, ENDED), "it was seized");
            }
        }
        until_state(children, b't');
        // A child that has ended meanwhile cannot be detached.
        for &pid in children {
            let _ = ptrace(PTRACE_DETACH, pid);
        }
    });
}

fn frozen_and_thawed_each_wait_keeps_its_deadline() {
    let group = Text::of(format_args!("/sys/fs/cgroup/rt0-stopped-{}", sys::getpid()));
    let file = |name: &str| Text::of(format_args!("{}/{name}", group.as_str()));
    if let Err(errno) = files::make_folder(group.as_c()) {
        let known = [Errno::EROFS, Errno::EACCES, Errno::EPERM, Errno::ENOENT];
        assert!(known.contains(&errno), "{errno}");
        skip("no cgroup may be made here");
    }
    let mut buf = [0; 256];
    if read_file(file("cgroup.freeze").as_c(), &mut buf).is_err() {
        files::remove_folder(group.as_c()).expect("an empty group");
        skip("this kernel's cgroups do not freeze");
    }
    let frozen = |flag: &str| {
        let mut buf = [0; 256];
        let events = read_file(file("cgroup.events").as_c(), &mut buf).expect("its events");
        core::str::from_utf8(events).is_ok_and(|text| text.lines().any(|line| line == flag))
    };
    each_wait_keeps_its_deadline(|children| {
        for pid in children {
            files::write(file("cgroup.procs").as_c(), Text::of(format_args!("{pid}")).as_str().as_bytes())
                .expect("a child of ours may be moved");
        }
        files::write(file("cgroup.freeze").as_c(), b"1").expect("freezing");
        wait_until("all to be frozen", || frozen("frozen 1"));
        files::write(file("cgroup.freeze").as_c(), b"0").expect("thawing");
        wait_until("all to be thawed", || frozen("frozen 0"));
    });
    files::remove_folder(group.as_c()).expect("all that were in it have ended");
}

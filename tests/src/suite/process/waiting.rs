//! Waiting for a child.

use core::ffi::CStr;
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::process::{self, Child, Command, Stdio};
use rt0::signal::{self, Action, Handler, Signal};
use rt0::sys::{self, OwnedFd};
use rt0::{Env, Errno, io, thread};
use rt0_tests::children::{self, role};
use rt0_tests::processes::state_of_process;
use rt0_tests::text::Text;
use rt0_tests::{Ended, files, often, skip, wait_until};

use super::{LONG, call};

/// The time that a test waits for an event that does not come.
const SOON: Duration = Duration::from_millis(50);

/// A child that is killed and reaped at the end of its test, even if the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child that sleeps until it is killed; see `sleep_for_the_parent`.
fn sleeper(test: &CStr) -> Killed {
    Killed(children::with(test, c"ROLE=sleep", &[], |command| command.stdin(Stdio::Piped).spawn()).unwrap())
}

/// Runs in the sleeper: it ends at the end of its standard input, in case its parent is gone.
fn sleep_for_the_parent() -> ! {
    let _ = io::stdin().read(&mut [0]);
    process::exit(0)
}

rt0::test_module! {
    a_traced_child_that_stops_has_not_ended,
    a_child_that_is_stopped_before_its_program_is_waited_for,
    a_signal_ends_a_child_and_is_its_status,
    waiting_ends_with_the_time_or_the_child,
    a_child_that_other_code_reaped_is_echild,
    of_two_that_wait_for_a_child_one_gets_its_status,
    a_process_that_has_a_reaped_childs_number_is_not_taken_for_it,
    a_poller_sees_the_child_end,
    numbers_that_are_no_processes_are_refused,
}

fn a_traced_child_that_stops_has_not_ended(env: Env) {
    const NAME: &CStr = c"process::waiting::a_traced_child_that_stops_has_not_ended";
    const TRACEME: usize = 0; // linux/ptrace.h, the same on every machine.
    const CONT: usize = 7;
    if role(env) == Some("child") {
        process::exit(7);
    }
    let trace_me = || call(k::__NR_ptrace, [TRACEME, 0, 0, 0, 0, 0]).map(drop);
    // A child that has executed its program and stopped.
    let stopped = || {
        let child = children::with(NAME, c"ROLE=child", &[], |command| {
            // SAFETY: 1. to 3. It makes one system call.
            unsafe { command.pre_exec(&trace_me) }.spawn()
        });
        let child = match child {
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EIO) => skip("no process is traced here"),
            child => child.unwrap(),
        };
        wait_until("a traced child to stop", || state_of_process(child.id()) == Some(b't'));
        child
    };
    let looks: [fn(&mut Child) -> bool; 3] = [
        |child| child.try_wait() == Ok(None),
        |child| child.wait_timeout(SOON) == Ok(None),
        |_| process::try_wait_any() == Ok(None),
    ];
    for look in looks {
        let mut child = stopped();
        assert!(look(&mut child));
        call(k::__NR_ptrace, [CONT, child.id() as usize, 0, 0, 0, 0]).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
    let mut child = stopped();
    let id = child.id();
    let killer = thread::spawn(move || {
        thread::sleep(SOON);
        process::kill(id, Signal::SIGKILL)
    });
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL.raw()));
    assert_eq!(killer.unwrap().join(), Ok(()));
}

fn a_child_that_is_stopped_before_its_program_is_waited_for(env: Env) {
    const NAME: &CStr = c"process::waiting::a_child_that_is_stopped_before_its_program_is_waited_for";
    if role(env) == Some("child") {
        process::exit(7);
    }
    let stop = || process::kill(process::id(), Signal::SIGSTOP);
    // The hook's memory is a copy: the number of the child comes by waitid(2).
    let other = thread::spawn(|| {
        // SAFETY: the struct is numbers, for which all zeros are valid.
        let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
        let at = (&raw mut info).expose_provenance();
        let options = (k::WSTOPPED | k::WNOWAIT) as usize;
        wait_until("a child to stop", || call(k::__NR_waitid, [k::P_ALL as usize, 0, at, options, 0, 0]).is_ok());
        // SAFETY: waitid filled it in.
        let head = unsafe { info.__bindgen_anon_1.__bindgen_anon_1 };
        // SAFETY: waitid filled it in; this is its part for SIGCHLD.
        let child = unsafe { head._sifields._sigchld };
        assert_eq!(head.si_code as u32, k::CLD_STOPPED);
        process::kill(child._pid as u32, Signal::SIGCONT)
    });
    let status = children::with(NAME, c"ROLE=child", &[], |command| {
        // SAFETY: 1. to 3. It makes two system calls.
        unsafe { command.pre_exec(&stop) }.status()
    });
    assert_eq!(status.map(|status| status.code()), Ok(Some(7)));
    assert_eq!(other.unwrap().join(), Ok(()));
}

fn a_signal_ends_a_child_and_is_its_status(env: Env) {
    match role(env) {
        Some("abort") => process::abort(),
        Some(_) => sleep_for_the_parent(),
        None => {}
    }
    const NAME: &CStr = c"process::waiting::a_signal_ends_a_child_and_is_its_status";
    let mut child = sleeper(NAME);
    assert_eq!(child.0.try_wait(), Ok(None));
    child.0.kill().unwrap();
    let status = child.0.wait().unwrap();
    assert_eq!((status.signal(), status.code()), (Some(9), None));
    assert_eq!((child.0.wait(), child.0.try_wait()), (Ok(status), Ok(Some(status))));
    assert_eq!((child.0.kill(), child.0.signal(Signal::SIGTERM)), (Ok(()), Err(Errno::ESRCH)));
    let status = children::with(NAME, c"ROLE=abort", &[], |command| command.stderr(Stdio::Null).status()).unwrap();
    assert_eq!(status.signal(), Some(6));
    let child = sleeper(NAME);
    process::kill(child.0.id(), Signal::SIGTERM).unwrap();
    wait_until("the child to end", || process::kill(child.0.id(), Signal::SIGTERM).is_ok());
    let mut child = child;
    assert_eq!(child.0.wait().unwrap().signal(), Some(15));
}

fn waiting_ends_with_the_time_or_the_child(env: Env) {
    if role(env).is_some() {
        sleep_for_the_parent();
    }
    let mut child = sleeper(c"process::waiting::waiting_ends_with_the_time_or_the_child");
    // It would end if its input were closed, which waiting does.
    let stdin = child.0.stdin.take();
    assert_eq!(child.0.wait_timeout(Duration::ZERO), Ok(None));
    assert_eq!(child.0.wait_timeout(SOON), Ok(None));
    child.0.signal(Signal::SIGSTOP).unwrap();
    assert_eq!(child.0.wait_timeout(SOON), Ok(None)); // A stopped child has not ended.
    child.0.signal(Signal::SIGCONT).unwrap();
    assert_eq!(child.0.wait_timeout(SOON), Ok(None));
    drop(stdin);
    assert!(child.0.wait_timeout(LONG).unwrap().unwrap().success());
    assert!(child.0.wait_timeout(Duration::MAX).unwrap().unwrap().success());
}

fn a_child_that_other_code_reaped_is_echild(env: Env) {
    if role(env).is_some() {
        process::exit(3);
    }
    let name = c"process::waiting::a_child_that_other_code_reaped_is_echild";
    let mut child = children::with(name, c"ROLE=child", &[], |command| command.spawn()).unwrap();
    let (pid, status) = process::wait_any().unwrap();
    assert_eq!((pid, status.code()), (child.id(), Some(3)));
    assert_eq!(child.try_wait(), Err(Errno::ECHILD));
    assert_eq!(child.wait(), Err(Errno::ECHILD));
    assert_eq!(child.kill(), Err(Errno::ESRCH));
    assert_eq!(process::wait_any(), Err(Errno::ECHILD));
    // If the kernel reaps, the status is lost too.
    let ignore = Action { handler: Handler::Ignore, ..Action::DEFAULT };
    // SAFETY: 1. No handler.
    unsafe { signal::sigaction(Signal::SIGCHLD, ignore) }.unwrap();
    let spawn = || children::with(name, c"ROLE=child", &[], |command| command.spawn()).unwrap();
    assert_eq!(spawn().wait(), Err(Errno::ECHILD));
    assert_eq!(spawn().wait_timeout(LONG), Err(Errno::ECHILD));
    assert_eq!(Command::new(c"/nonexistent").spawn().err(), Some(Errno::ENOENT));
}

/// One waits for the child, the other for any.
fn of_two_that_wait_for_a_child_one_gets_its_status(env: Env) {
    if role(env).is_some() {
        let _ = io::read(io::stdin(), &mut [0]); // Until both wait, most times.
        process::exit(3);
    }
    let name = c"process::waiting::of_two_that_wait_for_a_child_one_gets_its_status";
    for round in 0..often(30) {
        let spawn = |command: Command| command.stdin(Stdio::Piped).spawn();
        let mut child = children::with(name, c"ROLE=child", &[], spawn).unwrap();
        let (pid, stdin) = (child.id(), child.stdin.take().unwrap());
        let (of_child, of_any) = thread::scope(|scope| {
            let of_child = scope.spawn(|| child.wait().map(|status| (pid, status))).unwrap();
            let of_any = scope.spawn(process::wait_any).unwrap();
            drop(stdin);
            (of_child.join(), of_any.join())
        });
        let code = |(pid, status): (u32, process::ExitStatus)| (pid, status.code());
        let both = [of_child.map(code), of_any.map(code)];
        let (got, lost) = (Ok((pid, Some(3))), Err(Errno::ECHILD));
        assert!(both == [got, lost] || both == [lost, got], "{round}: {both:?}");
    }
}

/// A namespace's numbers can be set back.
fn a_process_that_has_a_reaped_childs_number_is_not_taken_for_it(env: Env) {
    if role(env).is_some() {
        process::exit(3);
    }
    const NO_PIDFD: u32 = 77;
    let name = c"process::waiting::a_process_that_has_a_reaped_childs_number_is_not_taken_for_it";
    let namespaces = (k::CLONE_NEWUSER | k::CLONE_NEWPID) as usize;
    if call(k::__NR_unshare, [namespaces, 0, 0, 0, 0, 0]).is_err() {
        skip("namespaces are not permitted here");
    }
    let first = rt0_tests::fork().unwrap();
    if first == 0 {
        let mut child = children::with(name, c"ROLE=child", &[], |command| command.spawn()).unwrap();
        if child.pidfd().is_none() {
            sys::exit_group(NO_PIDFD as i32);
        }
        assert_eq!(process::wait_any().map(|(pid, status)| (pid, status.code())), Ok((child.id(), Some(3))));
        let before = Text::of(format_args!("{}", child.id() - 1));
        files::write(c"/proc/sys/kernel/ns_last_pid", before.as_str().as_bytes()).unwrap();
        let other = rt0_tests::fork().unwrap();
        if other == 0 {
            thread::sleep(LONG); // Its namespace ends before.
            sys::exit_group(1);
        }
        assert_eq!(other, child.id());
        assert_eq!(child.kill(), Err(Errno::ESRCH));
        assert_eq!(child.try_wait(), Err(Errno::ECHILD));
        assert_eq!(child.wait_timeout(LONG), Err(Errno::ECHILD));
        assert_eq!(child.wait(), Err(Errno::ECHILD));
        process::kill(other, Signal::SIGUSR1).unwrap();
        let ended = process::wait_any().map(|(pid, status)| (pid, status.signal()));
        assert_eq!(ended, Ok((other, Some(k::SIGUSR1))));
        sys::exit_group(0);
    }
    match rt0_tests::wait_a_minute_for(first) {
        Ended::Exit(NO_PIDFD) => skip("no descriptors of processes here"),
        ended => assert_eq!(ended, Ended::Exit(0)),
    }
}

fn a_poller_sees_the_child_end(env: Env) {
    if role(env).is_some() {
        sleep_for_the_parent();
    }
    let mut child = sleeper(c"process::waiting::a_poller_sees_the_child_end");
    let Some(pidfd) = child.0.pidfd() else { skip("no descriptors of processes here") };
    let readable = |pidfd: &OwnedFd| {
        let epoll = call(k::__NR_epoll_create1, [0; 6]).unwrap();
        // SAFETY: 1. Just opened.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll as i32) };
        let [poller, fd] = [&epoll, pidfd].map(|fd| fd.as_raw_fd() as usize);
        let mut event = [0u32; 4]; // struct epoll_event; its first field is the events.
        event[0] = k::EPOLLIN;
        let at = (&raw mut event).expose_provenance();
        call(k::__NR_epoll_ctl, [poller, k::EPOLL_CTL_ADD as usize, fd, at, 0, 0]).unwrap();
        call(k::__NR_epoll_pwait, [poller, at, 1, 0, 0, 0]).unwrap() == 1
    };
    assert!(!readable(pidfd));
    child.0.signal(Signal::SIGTERM).unwrap();
    wait_until("the child to end", || child.0.pidfd().is_some_and(readable));
    assert_eq!(child.0.try_wait().unwrap().unwrap().signal(), Some(15));
}

fn numbers_that_are_no_processes_are_refused() {
    for pid in [0, i32::MAX as u32 + 1, u32::MAX] {
        assert_eq!(process::kill(pid, Signal::SIGCONT), Err(Errno::EINVAL));
        assert_eq!(process::kill_group(pid, Signal::SIGCONT), Err(Errno::EINVAL));
        assert_eq!(process::sigqueue(pid, Signal::SIGCONT, 0), Err(Errno::EINVAL));
    }
    assert_eq!(process::kill_group(1, Signal::SIGCONT), Err(Errno::EINVAL));
    assert_eq!(process::kill(i32::MAX as u32, Signal::SIGCONT), Err(Errno::ESRCH));
    assert_eq!(process::id(), sys::getpid());
}

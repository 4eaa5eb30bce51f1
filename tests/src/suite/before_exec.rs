//! A child between clone(2) and execve(2), where it shares its parent's memory: stopped, traced and
//! killed there. A tracer, the test's first process, holds the child at its first instruction.

use core::ffi::CStr;
use core::time::Duration;

use linux_raw_sys::general as k;
use linux_raw_sys::ptrace::{PTRACE_DETACH, PTRACE_GETEVENTMSG, PTRACE_SEIZE};
use rt0::process::{self, Command};
use rt0::signal::Signal;
use rt0::sys::OwnedFd;
use rt0::thread::JoinHandle;
use rt0::time::Instant;
use rt0::{Env, Errno, all_threads, io, sys, thread};
use rt0_tests::children::{self, role};
use rt0_tests::processes::state_of_process;
use rt0_tests::{Ended, emulated, seccomp, skip, wait_a_minute_for, wait_until};

rt0::test_module! {
    a_child_that_is_stopped_holds_up_its_spawn_until_it_continues,
    a_child_that_is_killed_ends_its_spawn_and_is_waited_for,
    a_call_on_all_threads_waits_for_a_spawn_that_is_held_up,
}

/// The time that a test waits for an event that does not come.
const SOON: Duration = Duration::from_millis(100);

/// The exit status of the program that the child executes.
const EXECUTED: i32 = 7;

/// What a parent adds to the signal that its child died of, as its own exit status.
const DIED: i32 = 100;

fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: 1. The tests' calls access only the tests' own memory and descriptors.
    unsafe { sys::syscall(nr as usize, args) }
}

fn ptrace(request: u32, pid: u32, data: usize) -> Result<(), Errno> {
    call(k::__NR_ptrace, [request as usize, pid as usize, 0, data, 0, 0]).map(drop)
}

/// A process that spawns, and the child that it has just made. The child is traced, and has run no
/// instruction of the program's yet.
struct Held {
    parent: u32,
    child: u32,
    /// The parent writes a byte after its spawn.
    spawned: OwnedFd,
}

/// What a process does before it spawns, with the pipe in which it will say that it has spawned. It
/// joins the thread before it ends.
type Before = fn(&OwnedFd) -> Option<JoinHandle<()>>;

/// Makes a process that calls `before`, then starts a child, which is held. The process's exit
/// status is that of its child, or `DIED` and the signal.
fn hold(name: &CStr, before: Before) -> Held {
    const PTRACE_O_TRACEVFORK: usize = 1 << 2;
    const PTRACE_EVENT_VFORK: usize = 2;
    if emulated() {
        skip("an emulator traces no process");
    }
    let [(go, go_on), (spawned, has_spawned)] = [(); 2].map(|()| sys::pipe().unwrap());
    let parent = rt0_tests::fork().unwrap();
    if parent == 0 {
        let thread = before(&has_spawned);
        io::write_all(&has_spawned, b"b").unwrap();
        assert_eq!(io::read(&go, &mut [0]), Ok(1));
        let mut child = children::with(name, c"ROLE=child", &[], |command: Command| command.spawn()).unwrap();
        io::write_all(&has_spawned, b"x").unwrap();
        let status = child.wait().unwrap();
        thread.map(JoinHandle::join);
        process::exit(status.code().or(status.signal().map(|signal| DIED + signal as i32)).unwrap_or(1));
    }
    assert_eq!(io::read(&spawned, &mut [0]), Ok(1)); // Only the spawn after this is traced.
    match ptrace(PTRACE_SEIZE, parent, PTRACE_O_TRACEVFORK) {
        Err(errno @ (Errno::ENOSYS | Errno::EPERM | Errno::EIO)) => {
            process::kill(parent, Signal::SIGKILL).unwrap();
            wait_a_minute_for(parent);
            skip(if errno == Errno::ENOSYS { "this kernel traces nothing" } else { "no process may be traced here" });
        }
        seized => seized.unwrap(),
    }
    io::write_all(&go_on, b"x").unwrap();
    wait_until("the parent to stop in clone(2)", || state_of_process(parent) == Some(b't'));
    let mut child = 0usize; // An unsigned long.
    ptrace(PTRACE_GETEVENTMSG, parent, (&raw mut child).expose_provenance()).unwrap();
    let child = child as u32;
    // Waiting takes the report of the stop away, as a tracer does.
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    let at = (&raw mut info).expose_provenance();
    let args = [k::P_PID as usize, parent as usize, at, k::WSTOPPED as usize, 0, 0];
    call(k::__NR_waitid, args).unwrap();
    // SAFETY: waitid filled it in.
    let head = unsafe { info.__bindgen_anon_1.__bindgen_anon_1 };
    // SAFETY: waitid filled it in; this is its part for SIGCHLD.
    let stopped = unsafe { head._sifields._sigchld };
    assert_eq!(stopped._status as usize, PTRACE_EVENT_VFORK << 8 | k::SIGTRAP as usize);
    wait_until("the child to be held", || state_of_process(child) == Some(b't'));
    ptrace(PTRACE_DETACH, parent, 0).unwrap();
    drop(has_spawned);
    Held { parent, child, spawned }
}

impl Held {
    /// Whether the parent's spawn returns within this time, or what else it says.
    fn returns_within(&self, time: Duration) -> bool {
        let mut fds = [0u8; 8]; // struct pollfd: a number, and two sets of 16 bits.
        fds[..4].copy_from_slice(&self.spawned.as_raw_fd().to_ne_bytes());
        fds[4..6].copy_from_slice(&(POLLIN as u16).to_ne_bytes());
        let end = Instant::now() + time;
        loop {
            let at = (&raw mut fds).expose_provenance();
            // Without a mask. A zero time is the same in each of the call's forms.
            let zero = [0u64; 2];
            let args = [at, 1, (&raw const zero).expose_provenance(), 0, 0, 0];
            let form = *seccomp::PPOLL.last().unwrap();
            if call(form, args).unwrap() == 1 {
                return io::read(&self.spawned, &mut [0]) == Ok(1);
            }
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the child go, stopped by a SIGSTOP.
    fn let_go_stopped(&self) {
        process::kill(self.child, Signal::SIGSTOP).unwrap();
        ptrace(PTRACE_DETACH, self.child, 0).unwrap();
        wait_until("the child to stop", || state_of_process(self.child) == Some(b'T'));
    }
}

const POLLIN: u32 = k::POLLIN;

/// The first spawn of a process has a pipe for the child's error, a later one has none.
const BEFORE: [Before; 2] = [
    |_| None,
    |_| {
        assert_eq!(Command::new(c"/nonexistent").spawn().err(), Some(Errno::ENOENT));
        None
    },
];

fn ends_as_the_childs_program(env: Env) {
    if role(env).is_some() {
        process::exit(EXECUTED);
    }
}

fn a_child_that_is_stopped_holds_up_its_spawn_until_it_continues(env: Env) {
    ends_as_the_childs_program(env);
    const NAME: &CStr = c"before_exec::a_child_that_is_stopped_holds_up_its_spawn_until_it_continues";
    for before in BEFORE {
        let held = hold(NAME, before);
        assert!(!held.returns_within(SOON), "it is held by its tracer");
        held.let_go_stopped();
        assert!(!held.returns_within(SOON), "it is stopped");
        process::kill(held.child, Signal::SIGCONT).unwrap();
        assert!(held.returns_within(Duration::from_secs(60)));
        assert_eq!(wait_a_minute_for(held.parent), Ended::Exit(EXECUTED as u32));
    }
}

fn a_child_that_is_killed_ends_its_spawn_and_is_waited_for(env: Env) {
    ends_as_the_childs_program(env);
    const NAME: &CStr = c"before_exec::a_child_that_is_killed_ends_its_spawn_and_is_waited_for";
    for before in BEFORE {
        for is_stopped in [false, true] {
            let held = hold(NAME, before);
            if is_stopped {
                held.let_go_stopped();
            }
            process::kill(held.child, Signal::SIGKILL).unwrap();
            if !is_stopped {
                // Its tracer learns of the end first.
                assert_eq!(wait_a_minute_for(held.child), Ended::Signal(k::SIGKILL));
            }
            assert!(held.returns_within(Duration::from_secs(60)));
            assert_eq!(wait_a_minute_for(held.parent), Ended::Exit(DIED as u32 + k::SIGKILL));
        }
    }
}

/// Another thread of the parent's goes on meanwhile. Its call on all threads needs the thread that
/// spawns.
fn a_call_on_all_threads_waits_for_a_spawn_that_is_held_up(env: Env) {
    ends_as_the_childs_program(env);
    const NAME: &CStr = c"before_exec::a_call_on_all_threads_waits_for_a_spawn_that_is_held_up";
    let held = hold(NAME, |has_spawned| {
        let (parent, has_called) = (sys::getpid(), sys::dup(has_spawned).unwrap());
        let caller = thread::spawn(move || {
            let is_in_clone = || state_of_process(parent).is_some_and(|state| state == b'D' || state == b't');
            wait_until("a spawn", is_in_clone);
            // SAFETY: 1. It only asks.
            unsafe { all_threads::syscall(k::__NR_getuid as usize, [0; 6]) }.unwrap();
            io::write_all(&has_called, b"x").unwrap();
        });
        Some(caller.unwrap())
    });
    assert!(!held.returns_within(SOON), "the spawn is held, and the call needs its thread");
    held.let_go_stopped();
    process::kill(held.child, Signal::SIGCONT).unwrap();
    for _ in 0..2 {
        assert!(held.returns_within(Duration::from_secs(60)), "both end");
    }
    assert_eq!(wait_a_minute_for(held.parent), Ended::Exit(EXECUTED as u32));
}

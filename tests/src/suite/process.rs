//! Starting programs and waiting for them. Each test's children are the same program in another
//! role.

use core::ffi::CStr;
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::process::{self, Child, Command, Stdio};
use rt0::signal::{self, Action, Handler, How, SigSet, Signal};
use rt0::sys::OwnedFd;
use rt0::test::Expect;
use rt0::{Env, Errno, all_threads, io, sys, thread};
use rt0_tests::children::{self, program, role};
use rt0_tests::files::Text;
use rt0_tests::{alarm_every, emulated, mappings, often, skip, wait_until};

/// A number that no descriptor of a test uses.
const HIGH: i32 = 57;

/// The time that a test waits for an event that does not come.
const SOON: Duration = Duration::from_millis(50);

/// The time that it waits for an event that must come.
const LONG: Duration = Duration::from_secs(60);

fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: 1. The tests' calls access only the tests' own memory and descriptors.
    unsafe { sys::syscall(nr as usize, args) }
}

/// The number of descriptors of this process.
fn descriptors() -> usize {
    (0..128).filter(|fd| sys::dup(rt0_tests::numbered(*fd)).is_ok()).count()
}

/// This thread's signal mask.
fn mask() -> SigSet {
    signal::mask(How::Block, &SigSet::empty())
}

fn is_empty(set: &SigSet) -> bool {
    set.as_bytes().iter().all(|byte| *byte == 0)
}

/// Whether a program that starts now has the signal blocked or ignored (`what`): proc_pid_status(5)
fn ignores(signal: Signal) -> bool {
    matches!(signal::action_of(signal).expect("a signal").handler, Handler::Ignore)
}

/// The letter of a process's state, if there is one: proc_pid_stat(5)
fn state_of(pid: u32) -> Option<u8> {
    let mut buf = [0; 512];
    let stat = rt0_tests::read_file(Text::of(format_args!("/proc/{pid}/stat")).as_c(), &mut buf).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

/// Reads until the end.
fn read_all<'a>(from: &OwnedFd, buf: &'a mut [u8]) -> &'a [u8] {
    let mut filled = 0;
    loop {
        match io::read(from, &mut buf[filled..]).expect("the pipe") {
            0 => return &buf[..filled],
            count => filled += count,
        }
    }
}

/// Calls `f` twice, and checks that the second call leaves nothing: no descriptor, mapping, blocked
/// signal or child.
fn leaves_nothing(f: impl Fn()) {
    f(); // The first one's setup stays.
    // An emulator has its own mappings.
    let all = || (descriptors(), if emulated() { 0 } else { mappings() });
    let before = all();
    f();
    assert_eq!(all(), before);
    assert!(is_empty(&mask()));
    assert_eq!(process::try_wait_any(), Err(Errno::ECHILD));
}

/// A memory file with this content and mode.
fn file(content: &[u8], mode: usize) -> OwnedFd {
    let made = call(k::__NR_memfd_create, [c"program".as_ptr().expose_provenance(), 0, 0, 0, 0, 0]);
    let Ok(fd) = made else { skip("no files in memory here") };
    // SAFETY: 1. Just opened.
    let file = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    io::write_all(&file, content).expect("memory");
    call(k::__NR_fchmod, [fd, mode, 0, 0, 0, 0]).expect("fchmod");
    file
}

fn path_of(file: &OwnedFd) -> Text {
    Text::of(format_args!("/proc/self/fd/{}", file.as_raw_fd()))
}

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
    a_program_gets_its_arguments_and_variables_and_gives_its_status,
    an_environment_is_inherited_cleared_or_changed => Expect::success().env(&[("KEPT", "1")]),
    a_program_that_cannot_be_executed_is_the_parents_error_and_leaves_nothing,
    a_command_without_arguments_tells_the_program_its_name,
    a_path_is_searched_in_order,
    pipes_lead_to_the_child_and_back,
    waiting_closes_the_childs_input,
    descriptors_change_places,
    a_parent_without_standard_descriptors_starts_children,
    a_traced_child_that_stops_has_not_ended,
    a_child_that_is_stopped_before_its_program_is_waited_for,
    signals_start_as_asked_for,
    no_handler_runs_in_a_child,
    a_hook_runs_in_the_child_with_memory_of_its_own,
    a_child_has_the_group_session_rights_and_folder_that_were_asked_for,
    credentials_are_the_childs_alone,
    a_limit_on_processes_is_eagain_and_leaves_nothing,
    a_signal_ends_a_child_and_is_its_status,
    waiting_ends_with_the_time_or_the_child,
    a_child_that_other_code_reaped_is_echild,
    exec_replaces_the_program_and_a_failed_one_leaves_signals_as_they_were,
    threads_start_children_while_calls_reach_all_threads,
    a_hundred_children_leave_nothing,
    a_poller_sees_the_child_end,
    numbers_that_are_no_processes_are_refused,
}

fn a_program_gets_its_arguments_and_variables_and_gives_its_status(env: Env) {
    const NAME: &CStr = c"process::a_program_gets_its_arguments_and_variables_and_gives_its_status";
    if role(env) == Some("child") {
        assert!(env.args().skip(1).eq([NAME, c"", c"a b"]));
        assert_eq!(env.var("ADDED"), Some(c"x=y"));
        process::exit(300 + 42);
    }
    children::with(NAME, c"", &[c"", c"a b"], |command| {
        let status = command.envs(&[c"ROLE=child", c"ADDED=x=y"]).status().unwrap();
        assert_eq!(status.code(), Some((300 + 42) & 0xff));
        assert!(!status.success() && status.signal().is_none() && !status.core_dumped());
    });
}

fn an_environment_is_inherited_cleared_or_changed(env: Env) {
    const MANY: usize = 10_000;
    const MANY_EMULATED: usize = 500; // qemu compares each variable with all others.
    let count = env.vars().count();
    let kept = env.var("KEPT");
    match role(env) {
        Some("inherited") => process::exit((kept == Some(c"1")) as i32),
        Some("cleared") => process::exit((count == 1 && kept.is_none()) as i32),
        Some("removed") => process::exit((count > 1 && kept.is_none()) as i32),
        Some("changed") => {
            process::exit((kept == Some(c"2") && env.vars().filter(|var| var.0 == b"KEPT").count() == 1) as i32)
        }
        Some("many") => process::exit((count == if emulated() { MANY_EMULATED } else { MANY }) as i32),
        _ => {}
    }
    let run = |role, f: &dyn Fn(Command) -> Command| {
        let name = c"process::an_environment_is_inherited_cleared_or_changed";
        children::with(name, role, &[], |command| f(command).status()).unwrap().code()
    };
    assert_eq!(run(c"ROLE=inherited", &|command| command), Some(1));
    assert_eq!(run(c"ROLE=cleared", &|command| command.env_clear()), Some(1));
    assert_eq!(run(c"ROLE=removed", &|command| command.env_remove(&[c"KEPT"])), Some(1));
    children::with_program(program(), c"process::an_environment_is_inherited_cleared_or_changed", &[], |command| {
        let changed = command.envs(&[c"ROLE=changed", c"KEPT=2"]);
        assert_eq!(changed.status().unwrap().code(), Some(1));
        let mut texts = [*b"V0000=\0"; MANY];
        for (index, text) in texts.iter_mut().enumerate() {
            let mut number = index;
            for digit in text[1..5].iter_mut().rev() {
                (*digit, number) = (b'0' + (number % 10) as u8, number / 10);
            }
        }
        let mut many = [c"ROLE=many"; MANY];
        for (entry, text) in many[1..].iter_mut().zip(&texts) {
            *entry = CStr::from_bytes_with_nul(text).unwrap();
        }
        let many = if emulated() { &many[..MANY_EMULATED] } else { &many };
        assert_eq!(command.env_clear().envs(many).status().unwrap().code(), Some(1));
    });
}

fn a_program_that_cannot_be_executed_is_the_parents_error_and_leaves_nothing() {
    let garbage = file(b"no program at all", 0o755);
    let foreign = file(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xfe\xff\x01\0\0\0", 0o755);
    let locked = file(b"#!/bin/true\n", 0o644);
    let [garbage_path, foreign_path, locked_path] = [&garbage, &foreign, &locked].map(path_of);
    const TOO_LARGE: usize = 3 << 20; // Too large for one argument, with pages of any size.
    let large = rt0::mapping::Mapping::new(TOO_LARGE + 1).unwrap();
    // SAFETY: the mapping is longer, writable and not shared.
    unsafe { large.as_ptr().write_bytes(b'x', TOO_LARGE) };
    // SAFETY: a 0 is left at its end, and the mapping outlives this.
    let large = unsafe { CStr::from_ptr(large.as_ptr().cast()) };
    let me = Command::new(program());
    let (too_large, no_number) = ([large], [(&garbage, -1)]);
    let cases = [
        (Command::new(c"/nonexistent/program"), Errno::ENOENT),
        (Command::new(c"no-program-has-this-name"), Errno::ENOENT),
        (Command::new(c""), Errno::ENOENT),
        (Command::new(c"/proc"), Errno::EACCES),
        (Command::new(locked_path.as_c()), Errno::EACCES),
        (Command::new(garbage_path.as_c()), Errno::ENOEXEC),
        (Command::new(foreign_path.as_c()), Errno::ENOEXEC),
        (Command::new(c"/proc/self/stat/x"), Errno::ENOTDIR),
        (me.args(&too_large), Errno::E2BIG),
        (me.current_dir(c"/nonexistent"), Errno::ENOENT),
        (me.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Null).current_dir(c"/proc/stat"), Errno::ENOTDIR),
        (me.uid(u32::MAX), Errno::EINVAL),
        (me.process_group(i32::MAX as u32), Errno::EPERM),
        (me.descriptors(&no_number), Errno::EBADF),
    ];
    for (command, errno) in &cases {
        leaves_nothing(|| assert_eq!(command.spawn().err(), Some(*errno)));
    }
}

fn a_command_without_arguments_tells_the_program_its_name(env: Env) {
    if role(env) == Some("child") {
        process::exit(env.args().count() as i32);
    }
    let command = Command::new(program()).stdout(Stdio::Piped);
    // Without arguments the program lists its tests, and an emulator fails.
    let mut child = command.arg0(c"a-name").stderr(Stdio::Null).spawn().unwrap();
    let mut buf = [0; 16384];
    let text = read_all(child.stdout.as_ref().unwrap(), &mut buf);
    assert_eq!(text.is_empty(), emulated());
    assert_eq!(child.wait().unwrap().success(), !emulated());
}

fn a_path_is_searched_in_order(env: Env) {
    const NAME: &CStr = c"process::a_path_is_searched_in_order";
    if role(env) == Some("child") {
        process::exit(7);
    }
    let path = if emulated() {
        c"PATH=/nonexistent:/proc/stat:/proc/thread-self"
    } else {
        c"PATH=/nonexistent:/proc/stat:/proc/self"
    };
    children::with_program(c"exe", NAME, &[], |command| {
        assert_eq!(command.envs(&[c"ROLE=child", path]).status().unwrap().code(), Some(7));
        assert_eq!(command.envs(&[c"PATH=/nonexistent"]).spawn().err(), Some(Errno::ENOENT));
        // The PATH of its own environment, where the search finds a folder first.
        let folder = Command::new(c"task").envs(&[c"PATH=/proc/self:/nonexistent"]);
        assert_eq!(folder.spawn().err(), Some(Errno::EACCES));
    });
}

fn pipes_lead_to_the_child_and_back(env: Env) {
    if role(env) == Some("child") {
        let mut buf = [0; 16];
        let count = io::stdin().read(&mut buf).unwrap();
        assert_eq!(io::stdin().read(&mut buf[count..]), Ok(0));
        io::stdout().write_all(&buf[..count]).unwrap();
        io::stderr().write_all(b"err").unwrap();
        return;
    }
    leaves_nothing(|| {
        let mut child = children::with(c"process::pipes_lead_to_the_child_and_back", c"ROLE=child", &[], |command| {
            command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped).spawn().unwrap()
        });
        let stdin = child.stdin.take().unwrap();
        io::write_all(&stdin, b"hello").unwrap();
        drop(stdin);
        let mut buf = [0; 64];
        assert_eq!(read_all(child.stdout.as_ref().unwrap(), &mut buf), b"hello");
        assert_eq!(read_all(child.stderr.as_ref().unwrap(), &mut buf), b"err");
        assert!(child.wait().unwrap().success());
    });
}

fn waiting_closes_the_childs_input(env: Env) {
    if role(env) == Some("child") {
        process::exit(io::stdin().read(&mut [0]).unwrap() as i32);
    }
    let spawn = || {
        children::with(c"process::waiting_closes_the_childs_input", c"ROLE=child", &[], |command| {
            command.stdin(Stdio::Piped).spawn().unwrap()
        })
    };
    assert!(spawn().wait().unwrap().success());
    assert!(spawn().wait_timeout(LONG).unwrap().unwrap().success());
}

fn descriptors_change_places(env: Env) {
    match role(env) {
        Some("all") => {
            for (fd, text) in [(0, b"a"), (1, b"b"), (HIGH, b"c"), (HIGH + 1, b"a")] {
                let mut buf = [0];
                assert_eq!(sys::pread(rt0_tests::numbered(fd), &mut buf, 0), Ok(1));
                assert_eq!(&buf, text, "{fd}");
            }
            process::exit(3);
        }
        Some(_) => process::exit(
            [HIGH, HIGH + 1].iter().all(|fd| sys::dup(rt0_tests::numbered(*fd)).err() == Some(Errno::EBADF)) as i32,
        ),
        None => {}
    }
    let [a, b, c] = [b"a", b"b", b"c"].map(|text| file(text, 0o600));
    let at = |file: OwnedFd, number: i32| {
        call(k::__NR_dup3, [file.as_raw_fd() as usize, number as usize, k::O_CLOEXEC as usize, 0, 0, 0]).unwrap();
        // SAFETY: 1. Just opened.
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    // The files are at 1, HIGH + 1 and HIGH; in the child they are at 0, 1 and HIGH, one of
    // them twice.
    let (a, b, c) = (at(a, 1), at(b, HIGH + 1), at(c, HIGH));
    let run = |role, f: &dyn Fn(Command) -> Command| {
        children::with(c"process::descriptors_change_places", role, &[], |command| f(command).status()).unwrap().code()
    };
    let more = [(&c, HIGH), (&a, HIGH + 1)];
    children::with(c"process::descriptors_change_places", c"ROLE=all", &[], |command| {
        let status = command.stdin(Stdio::Fd(&a)).stdout(Stdio::Fd(&b)).descriptors(&more).status();
        assert_eq!(status.unwrap().code(), Some(3));
    });
    assert_eq!(run(c"ROLE=none", &|command| command.stdout(Stdio::Null)), Some(1));
}

fn a_parent_without_standard_descriptors_starts_children(env: Env) {
    if role(env) == Some("child") {
        let mut buf = [0; 8];
        let count = io::stdin().read(&mut buf).unwrap();
        io::stdout().write_all(&buf[..count]).unwrap();
        return;
    }
    let before = descriptors();
    for fd in 0..3 {
        call(k::__NR_close, [fd, 0, 0, 0, 0, 0]).unwrap();
    }
    let missing = Command::new(c"/nonexistent");
    assert_eq!(missing.spawn().err(), Some(Errno::ENOENT));
    assert_eq!(missing.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Null).spawn().err(), Some(Errno::ENOENT));
    children::with(c"process::a_parent_without_standard_descriptors_starts_children", c"ROLE=child", &[], |command| {
        let mut child = command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Null).spawn().unwrap();
        io::write_all(child.stdin.as_ref().unwrap(), b"through").unwrap();
        let mut buf = [0; 8];
        let stdout = child.stdout.take().unwrap();
        drop(child.stdin.take());
        assert_eq!(read_all(&stdout, &mut buf), b"through");
        assert!(child.wait().unwrap().success());
        drop(stdout);
        // Inherited descriptors are closed, and the pipe for errors is not mistaken for one of
        // them.
        assert!(command.stdin(Stdio::Null).status().unwrap().success());
    });
    assert_eq!(descriptors(), before - 3);
}

fn a_traced_child_that_stops_has_not_ended(env: Env) {
    const NAME: &CStr = c"process::a_traced_child_that_stops_has_not_ended";
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
        wait_until("a traced child to stop", || state_of(child.id()) == Some(b't'));
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
    const NAME: &CStr = c"process::a_child_that_is_stopped_before_its_program_is_waited_for";
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

fn signals_start_as_asked_for(env: Env) {
    let list = |number: u32| Signal::from_raw(number).unwrap();
    if let Some(role) = role(env) {
        let mask = mask();
        let blocked = |signal| mask.contains(signal);
        let as_wanted = match role {
            "default" => is_empty(&mask) && !ignores(Signal::SIGPIPE) && ignores(Signal::SIGHUP),
            _ => {
                blocked(Signal::SIGUSR1)
                    && blocked(list(40))
                    && !blocked(Signal::SIGUSR2)
                    && ignores(Signal::SIGPIPE)
                    && !ignores(Signal::SIGHUP)
            }
        };
        let caught = (1..64).filter_map(Signal::from_raw).filter(|signal| {
            matches!(signal::action_of(*signal).map(|action| action.handler), Ok(Handler::Call(_) | Handler::Info(_)))
        });
        process::exit((as_wanted && caught.count() == 0) as i32);
    }
    extern "C" fn nothing(_: i32) {}
    let ignore = Action { handler: Handler::Ignore, ..Action::DEFAULT };
    for (signal, action) in
        [(Signal::SIGPIPE, ignore), (Signal::SIGHUP, ignore), (Signal::SIGUSR1, Action::call(nothing))]
    {
        // SAFETY: 1. The handler does nothing.
        unsafe { signal::sigaction(signal, action) }.unwrap();
    }
    signal::mask(How::Block, &SigSet::from_iter([Signal::SIGUSR2, Signal::SIGTERM]));
    let before = mask();
    let run = |role, f: &dyn Fn(Command) -> Command| {
        children::with(c"process::signals_start_as_asked_for", role, &[], |command| f(command).status()).unwrap().code()
    };
    let some = SigSet::from_iter([Signal::SIGUSR1, list(40)]);
    assert_eq!(run(c"ROLE=default", &|command| command), Some(1));
    assert_eq!(
        run(c"ROLE=asked", &|command| {
            command.signal_mask(some).default_signals(SigSet::from_iter([Signal::SIGHUP]))
        }),
        Some(1)
    );
    assert_eq!(mask().as_bytes(), before.as_bytes());
    assert!(ignores(Signal::SIGPIPE) && ignores(Signal::SIGHUP));
}

fn no_handler_runs_in_a_child() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    static ELSEWHERE: AtomicBool = AtomicBool::new(false);
    extern "C" fn look(_: i32) {
        RUNS.fetch_add(1, Relaxed);
        if sys::getpid() != PARENT.load(Relaxed) {
            ELSEWHERE.store(true, Relaxed); // Seen if memory is shared;
            process::exit(99); // seen in any case.
        }
    }
    PARENT.store(sys::getpid(), Relaxed);
    for signal in [Signal::SIGALRM, Signal::SIGCHLD] {
        // SAFETY: 1. It touches atomics.
        unsafe { signal::sigaction(signal, Action::call(look)) }.unwrap();
    }
    alarm_every(Duration::from_micros(if emulated() { 5000 } else { 200 }));
    let command = Command::new(if emulated() { c"/nonexistent" } else { program() }).stdout(Stdio::Null);
    for round in 0..often(200) {
        match command.spawn() {
            Ok(mut child) => assert!(child.wait().unwrap().success(), "{round}"),
            Err(errno) => assert_eq!((errno, emulated()), (Errno::ENOENT, true)),
        }
    }
    wait_until("a handler to run", || RUNS.load(Relaxed) > 0);
    alarm_every(Duration::ZERO);
    assert!(!ELSEWHERE.load(Relaxed));
}

fn a_hook_runs_in_the_child_with_memory_of_its_own(env: Env) {
    const NAME: &CStr = c"process::a_hook_runs_in_the_child_with_memory_of_its_own";
    static SEEN: AtomicU32 = AtomicU32::new(0);
    if role(env) == Some("child") {
        let limit = call(k::__NR_umask, [0; 6]).unwrap();
        process::exit((limit == 0o123) as i32);
    }
    leaves_nothing(|| {
        children::with(NAME, c"ROLE=child", &[], |command| {
            let parent = sys::getpid();
            let works = || {
                assert!(sys::getppid() == parent && SEEN.fetch_add(1, Relaxed) == 0);
                call(k::__NR_umask, [0o123, 0, 0, 0, 0, 0]).map(drop)
            };
            // SAFETY: 1. to 3. It makes calls that touch its own process.
            let hooked = unsafe { command.pre_exec(&works) };
            assert_eq!(hooked.status().unwrap().code(), Some(1));
            // SAFETY: 1. to 3. It does nothing.
            let refused = unsafe { command.pre_exec(&|| Err(Errno::EXFULL)) };
            assert_eq!(refused.spawn().err(), Some(Errno::EXFULL));
            // SAFETY: 1. to 3. It ends the process.
            let ends = unsafe { command.pre_exec(&|| process::exit(5)) };
            assert_eq!(ends.status().unwrap().code(), Some(5));
            // SAFETY: 1. to 3. It ends the process.
            let killed = unsafe { command.pre_exec(&|| process::kill(process::id(), Signal::SIGKILL)) };
            assert_eq!(killed.status().unwrap().signal(), Some(9));
            // It may be forbidden. EINVAL means that the process shares its memory, that there are
            // no user namespaces, or that an emulator has its own thread.
            let user_namespace = || call(k::__NR_unshare, [k::CLONE_NEWUSER as usize, 0, 0, 0, 0, 0]).map(drop);
            // SAFETY: 1. to 3. It makes a call.
            let in_namespace = unsafe { command.pre_exec(&user_namespace) };
            let may_be = !emulated()
                && sys::open(c"/proc/self/ns/user", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).is_ok();
            assert!(in_namespace.status().err() != Some(Errno::EINVAL) || !may_be);
            assert_eq!(SEEN.load(Relaxed), 0);
        })
    });
}

fn a_child_has_the_group_session_rights_and_folder_that_were_asked_for(env: Env) {
    const NAME: &CStr = c"process::a_child_has_the_group_session_rights_and_folder_that_were_asked_for";
    let group = || call(k::__NR_getpgid, [0; 6]).unwrap() as u32;
    let session = || call(k::__NR_getsid, [0; 6]).unwrap() as u32;
    let no_new_privs = || {
        const PR_GET_NO_NEW_PRIVS: usize = 39;
        call(k::__NR_prctl, [PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0, 0]).unwrap() == 1
    };
    let folder = || {
        let mut buf = [0; 64];
        let count = call(k::__NR_getcwd, [buf.as_mut_ptr().expose_provenance(), 64, 0, 0, 0, 0]);
        count.is_ok_and(|_| buf.starts_with(b"/proc/self\0") || buf.starts_with(b"/proc\0"))
    };
    let me = sys::getpid();
    match role(env) {
        Some("group") => process::exit((group() == me && session() != me && !no_new_privs()) as i32),
        Some("session") => process::exit((group() == me && session() == me) as i32),
        Some("rights") => process::exit((group() != me && no_new_privs()) as i32),
        Some("folder") => process::exit(folder() as i32),
        Some(_) => process::exit(2),
        None => {}
    }
    let run = |role, f: &dyn Fn(Command) -> Command| {
        children::with(NAME, role, &[], |command| f(command).status()).unwrap().code()
    };
    assert_eq!(run(c"ROLE=group", &|command| command.process_group(0)), Some(1));
    assert_eq!(run(c"ROLE=session", &|command| command.setsid()), Some(1));
    assert_eq!(run(c"ROLE=rights", &|command| command.no_new_privs()), Some(1));
    assert_eq!(run(c"ROLE=folder", &|command| command.current_dir(c"/proc")), Some(1));
}

fn credentials_are_the_childs_alone(env: Env) {
    const OTHER: u32 = 54321;
    let id = |tag| env.auxv().get(tag).unwrap_or(0) as u32;
    const AT_UID: usize = 11;
    const AT_GID: usize = 13;
    if role(env) == Some("child") {
        let groups = call(k::__NR_getgroups, [0; 6]).unwrap();
        process::exit((id(AT_UID) == OTHER && id(AT_GID) == OTHER && groups == 0) as i32);
    }
    if id(AT_UID) != 0 {
        skip("only root becomes another user");
    }
    leaves_nothing(|| {
        children::with(c"process::credentials_are_the_childs_alone", c"ROLE=child", &[], |command| {
            match command.uid(OTHER).gid(OTHER).status() {
                Ok(status) => assert_eq!(status.code(), Some(1)),
                Err(Errno::EACCES) => skip("the other user may not execute this program"),
                Err(Errno::EINVAL | Errno::EPERM) => skip("there is no other user in this namespace"),
                Err(errno) => panic!("{errno}"),
            }
        })
    });
    const PR_GET_DUMPABLE: usize = 3;
    assert_eq!(call(k::__NR_prctl, [PR_GET_DUMPABLE, 0, 0, 0, 0, 0]), Ok(1));
}

fn a_limit_on_processes_is_eagain_and_leaves_nothing() {
    const NOBODY: usize = 54321; // The limit does not apply to root.
    // SAFETY: 1. It changes this process's ids.
    let _ = unsafe { sys::syscall(k::__NR_setresuid as usize, [NOBODY, NOBODY, NOBODY, 0, 0, 0]) };
    let set = |soft: u64| {
        let limit = [soft, 1000];
        let args = [0, k::RLIMIT_NPROC as usize, (&raw const limit).expose_provenance(), 0, 0, 0];
        call(k::__NR_prlimit64, args).expect("prlimit64");
    };
    set(0);
    if call(k::__NR_geteuid, [0; 6]) == Ok(0) {
        skip("root has no limit on processes");
    }
    leaves_nothing(|| assert_eq!(Command::new(program()).spawn().err(), Some(Errno::EAGAIN)));
}

fn a_signal_ends_a_child_and_is_its_status(env: Env) {
    match role(env) {
        Some("abort") => process::abort(),
        Some(_) => sleep_for_the_parent(),
        None => {}
    }
    const NAME: &CStr = c"process::a_signal_ends_a_child_and_is_its_status";
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
    let mut child = sleeper(c"process::waiting_ends_with_the_time_or_the_child");
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
    let name = c"process::a_child_that_other_code_reaped_is_echild";
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

fn exec_replaces_the_program_and_a_failed_one_leaves_signals_as_they_were(env: Env) {
    const NAME: &CStr = c"process::exec_replaces_the_program_and_a_failed_one_leaves_signals_as_they_were";
    match role(env) {
        Some("second") => process::exit((is_empty(&mask()) && !ignores(Signal::SIGPIPE)) as i32),
        Some(_) => {
            let ignore = Action { handler: Handler::Ignore, ..Action::DEFAULT };
            // SAFETY: 1. No handler.
            unsafe { signal::sigaction(Signal::SIGPIPE, ignore) }.unwrap();
            signal::mask(How::Block, &SigSet::from_iter([Signal::SIGUSR1]));
            let before = (mask(), descriptors());
            assert_eq!(Command::new(c"/nonexistent").exec(), Errno::ENOENT);
            assert_eq!(Command::new(program()).stdin(Stdio::Piped).exec(), Errno::EINVAL);
            assert!(mask().as_bytes() == before.0.as_bytes() && descriptors() == before.1);
            assert!(ignores(Signal::SIGPIPE));
            // Other threads end with the process.
            thread::spawn(|| thread::sleep(LONG)).unwrap();
            let errno = children::with_program(program(), NAME, &[], |command| command.envs(&[c"ROLE=second"]).exec());
            panic!("{errno}");
        }
        None => {}
    }
    let status = children::with(NAME, c"ROLE=first", &[], |command| command.status()).unwrap();
    assert_eq!(status.code(), Some(1));
}

fn threads_start_children_while_calls_reach_all_threads() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    const THREADS: u32 = 3;
    let command = Command::new(if emulated() { c"/bin/true" } else { program() }).stdout(Stdio::Null);
    let before = descriptors();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let children = || {
                (0..often(40)).for_each(|_| assert!(command.status().unwrap().success()));
                DONE.fetch_add(1, Release);
            };
            scope.spawn(children).unwrap();
        }
        while DONE.load(Acquire) < THREADS {
            // SAFETY: 1. It only asks.
            unsafe { all_threads::syscall(k::__NR_getuid as usize, [0; 6]) }.unwrap();
        }
    });
    assert_eq!((descriptors(), process::try_wait_any()), (before, Err(Errno::ECHILD)));
}

fn a_hundred_children_leave_nothing() {
    let command = Command::new(if emulated() { c"/bin/true" } else { program() }).stdout(Stdio::Null);
    leaves_nothing(|| (0..often(50)).for_each(|_| assert!(command.status().unwrap().success())));
}

fn a_poller_sees_the_child_end(env: Env) {
    if role(env).is_some() {
        sleep_for_the_parent();
    }
    let mut child = sleeper(c"process::a_poller_sees_the_child_end");
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

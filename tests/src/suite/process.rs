//! Starting programs and waiting for them. Each test's children are the same program in another
//! role.

mod descriptors;
mod inheritance;
mod waiting;

use core::ffi::CStr;
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::process::{self, Command, Stdio};
use rt0::signal::{self, Action, Handler, How, SigSet, Signal};
use rt0::sys::{self, OwnedFd};
use rt0::test::Expect;
use rt0::{Env, Errno, all_threads, io, thread};
use rt0_tests::children::{self, program, role};
use rt0_tests::processes::is_root;
use rt0_tests::text::Text;
use rt0_tests::{emulated, mappings, often, skip};

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

rt0::test_module! {
    a_program_gets_its_arguments_and_variables_and_gives_its_status,
    an_environment_is_inherited_cleared_or_changed => Expect::success().env(&[("KEPT", "1")]),
    a_program_that_cannot_be_executed_is_the_parents_error_and_leaves_nothing,
    a_command_without_arguments_tells_the_program_its_name,
    a_path_is_searched_in_order,
    a_limit_on_processes_is_eagain_and_leaves_nothing,
    exec_replaces_the_program_and_a_failed_one_leaves_signals_as_they_were,
    threads_start_children_while_calls_reach_all_threads,
    a_hundred_children_leave_nothing,
    descriptors::*,
    waiting::*,
    inheritance::*,
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
    if is_root() {
        skip("root has no limit on processes");
    }
    leaves_nothing(|| assert_eq!(Command::new(program()).spawn().err(), Some(Errno::EAGAIN)));
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

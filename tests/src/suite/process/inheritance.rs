//! What a child has of its parent, and what was changed for it.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::process::{self, Command, Stdio};
use rt0::signal::{self, Action, Handler, How, SigSet, Signal};
use rt0::{Env, Errno, sys};
use rt0_tests::children::{self, program, role};
use rt0_tests::{alarm_every, emulated, often, skip, wait_until};

use super::{call, ignores, is_empty, leaves_nothing, mask};

rt0::test_module! {
    signals_start_as_asked_for,
    no_handler_runs_in_a_child,
    a_hook_runs_in_the_child_with_memory_of_its_own,
    a_child_has_the_group_session_rights_and_folder_that_were_asked_for,
    credentials_are_the_childs_alone,
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
        children::with(c"process::inheritance::signals_start_as_asked_for", role, &[], |command| f(command).status())
            .unwrap()
            .code()
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
    const NAME: &CStr = c"process::inheritance::a_hook_runs_in_the_child_with_memory_of_its_own";
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
    const NAME: &CStr = c"process::inheritance::a_child_has_the_group_session_rights_and_folder_that_were_asked_for";
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
        children::with(c"process::inheritance::credentials_are_the_childs_alone", c"ROLE=child", &[], |command| {
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

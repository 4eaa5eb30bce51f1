//! The environment of a process, which its parents and the kernel determine.
//!
//! Each test starts this program again, in one changed environment or in several at once, with a
//! test's name and with claims for this test to check.
//!
//! It is a program of its own, because it runs under limits of memory that include everything in a
//! program, and because it never profiles.
#![no_std]
#![no_main]

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::{auxvec, general as k};
use rt0::random::{self, Source};
use rt0::signal::{Action, Handler, Signal, raise, sigaction};
use rt0::sync::{Channel, Condvar, Mutex, Once, OnceLock, RwLock, Semaphore};
use rt0::test::Expect;
use rt0::thread::{Fork, report_overflows, spawn};
use rt0::time::Instant;
use rt0::{Env, Errno, all_threads, cpu, futex, sys, thread, vdso};
use rt0_tests::files::{self, empty, own_mounts};
use rt0_tests::launch::{Before, InitialStack, SELF, again, null_ended, run_changed};
use rt0_tests::processes::is_root;
use rt0_tests::seccomp::{Verdict, filter};
use rt0_tests::{Ended, bytes_of_each_thread, machine, skip, wait_for};

/// A system call by number.
fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: 1. Each call affects only the test's own process.
    unsafe { sys::syscall(nr as usize, args) }
}

fn at<T: ?Sized>(pointer: *const T) -> usize {
    pointer.expose_provenance()
}

/// Starts the test below with these claims; returns how it ended.
fn start<'a>(claims: &[&CStr], vars: &[&CStr], before: Before, buf: &'a mut [u8]) -> (&'a str, Ended) {
    again(SELF, &arguments(claims), &null_ended::<8>(vars), before, buf)
}

/// The arguments for a program that checks these claims.
fn arguments(claims: &[&CStr]) -> [*const c_char; 16] {
    let mut args = [c"surroundings"; 15];
    args[1] = c"everything_that_a_program_relies_on_works";
    args[2..2 + claims.len()].copy_from_slice(claims);
    null_ended(&args[..2 + claims.len()])
}

/// Checks that the program works in this environment, and that the claims are true.
fn works(claims: &[&CStr], vars: &[&CStr], before: Before) {
    let mut buf = [0; 4096];
    let (text, ended) = start(claims, vars, before, &mut buf);
    assert_eq!(ended, Ended::Exit(0), "{claims:?} {text}");
}

/// Checks that the program works with a changed initial stack.
fn works_with(claims: &[&CStr], before: Before, change: impl FnOnce(&mut InitialStack)) {
    // Variables make room for the data that replaces them.
    let mut vars = [c"RT0_FILLER=x".as_ptr(); 701];
    vars[0] = c"RT0_TEST=everything_that_a_program_relies_on_works".as_ptr();
    vars[700] = core::ptr::null();
    match run_changed(&arguments(claims), &vars, before, change) {
        Ok(ended) => assert_eq!(ended, Ended::Exit(0), "{claims:?}"),
        Err(errno @ (Errno::EPERM | Errno::ENOSYS | Errno::EACCES)) => {
            rt0::println!("ptrace: {errno}");
            skip("processes may not be traced here")
        }
        Err(errno) => panic!("{errno}"),
    }
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handled(_: i32) {
    HANDLED.fetch_add(1, Relaxed);
}

/// Memory, threads, locks, waits, signals, random bytes.
fn everything_works() {
    let page = cpu::page_size();
    let two = rt0::mapping::Mapping::new(2 * page).unwrap();
    drop(two);
    assert!(page.is_power_of_two() && (4096..=1 << 18).contains(&page), "{page}");
    let mut bytes = [0; 32];
    random::fill(&mut bytes).unwrap();
    assert_ne!(bytes, [0; 32]);
    let startup = random::startup();
    assert!(startup.bytes[..8] != [0; 8] && startup.bytes[8..] != [0; 8], "{startup:?}");

    static COUNT: Mutex<u32> = Mutex::new(0);
    let threads = [(); 3].map(|()| {
        spawn(|| {
            thread::sleep(Duration::from_millis(1));
            *COUNT.lock() += 1;
        })
        .unwrap()
    });
    // SAFETY: 1. It only asks.
    let asked = unsafe { all_threads::syscall(k::__NR_getppid as usize, [0; 6]) };
    // If queued signals are not allowed, or an emulator lacks the signal.
    let refused = [Errno::EAGAIN, Errno::EOPNOTSUPP];
    assert!(!matches!(&asked, Err(all_threads::Error::Diverged(_))), "{asked:?}");
    assert!(asked.is_ok() || asked.is_err_and(|error| refused.contains(&error.errno_or_abort())));
    threads.into_iter().for_each(|thread| thread.join());
    assert_eq!(*COUNT.lock(), 3);

    let nothing = Semaphore::new(0);
    let began = Instant::now();
    assert!(!nothing.try_acquire_for(Duration::from_millis(5)));
    assert!(began.elapsed() >= Duration::from_millis(5));
    // SAFETY: 1. The handler touches an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(handled)) }.unwrap();
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(HANDLED.load(Relaxed), 1);
    assert!(thread::available_parallelism().is_ok_and(|count| count.get() >= 1));
}

/// Every kind of timed wait, one after another, in several threads at once: none is too short, and
/// each ends.
fn timed_waits(time: Duration) {
    const SHORT: Duration = Duration::from_millis(12);
    fn in_every_way(end: Instant) {
        let (word, semaphore, once, cell) = (AtomicU32::new(0), Semaphore::new(0), Once::new(), OnceLock::new());
        let (mutex, other, rwlock, condvar) = (Mutex::new(()), Mutex::new(()), RwLock::new(()), Condvar::new());
        let (empty, full) = (Channel::<u32, 1>::new(), Channel::<u32, 1>::new());
        let ((_writer, empty), (full, _reader)) = (empty.split(), full.split());
        full.try_send(1).unwrap();
        let (locked, read) = (mutex.lock(), rwlock.read());
        let cell: &OnceLock<u32> = &cell;
        let waits: [&dyn Fn() -> bool; 11] = [
            &|| futex::wait_timeout(&word, 0, SHORT) == Err(Errno::ETIMEDOUT),
            &|| !semaphore.try_acquire_for(SHORT),
            &|| !once.wait_timeout(SHORT),
            &|| cell.wait_timeout(SHORT).is_none(),
            &|| mutex.try_lock_for(SHORT).is_none(),
            &|| rwlock.try_write_for(SHORT).is_none(),
            &|| empty.recv_timeout(SHORT).is_err(),
            &|| full.send_timeout(2, SHORT).is_err(),
            &|| condvar.wait_timeout_while(other.lock(), SHORT, |()| true).1.timed_out(),
            &|| {
                thread::park_timeout(SHORT);
                true
            },
            &|| {
                thread::sleep(SHORT);
                true
            },
        ];
        while Instant::now() < end {
            for (index, wait) in waits.iter().enumerate() {
                let began = Instant::now();
                // A handler, or a tracer's signal, may end a bare wait early: futex(2).
                let ended_early = !wait();
                assert!(!ended_early || index == 0, "wait {index} did not time out");
                assert!(ended_early || began.elapsed() >= SHORT, "wait {index}: {:?}", began.elapsed());
            }
        }
        drop((locked, read));
    }
    let end = Instant::now() + time;
    let threads = [(); 3].map(|()| spawn(move || in_every_way(end)).unwrap());
    in_every_way(end);
    threads.into_iter().for_each(|thread| thread.join());
}

#[allow(unconditional_recursion)]
fn forever(n: usize) -> usize {
    let frame = core::hint::black_box([n as u8; 256]);
    forever(core::hint::black_box(n + 1)) + frame[n % 256] as usize
}

/// Checks a claim about the environment.
fn look_at(claim: &CStr, env: Env) {
    let get = |nr| call(nr, [0; 6]).unwrap();
    match claim.to_bytes() {
        b"secure" => assert!(env.auxv().secure()),
        b"ordinary" => assert!(!env.auxv().secure()),
        b"another user's" => assert_ne!(get(k::__NR_getuid), get(k::__NR_geteuid)),
        b"the vDSO is turned off" => assert!(vdso::turn_off_if_asked(env)),
        b"the vDSO stays" => assert!(env.var("RT0_VDSO") == Some(c"0") && !vdso::turn_off_if_asked(env)),
        b"no /proc" => assert_eq!(sys::open(c"/proc/self", 0, 0).err(), Some(Errno::ENOENT)),
        b"no vector" => assert_eq!(env.auxv().iter().count(), 0),
        b"AT_RANDOM" => assert_eq!(random::startup().source, Source::Auxv),
        b"other random bytes" => assert_ne!(random::startup().source, Source::Auxv),
        b"10,000 variables" => {
            assert_eq!(env.vars().count(), 10_000);
            assert_eq!(env.var("RT0_LAST"), Some(c"1"));
        }
        b"open" => {
            (0..3).for_each(|fd| drop(sys::dup(rt0_tests::numbered(fd)).unwrap()));
            assert!(sys::open(c"/", 0, 0).unwrap().as_raw_fd() > 2);
        }
        b"print" => rt0::println!("a line"),
        b"overflow" => _ = spawn(|| forever(0)).unwrap().join(),
        b"main overflows" => {
            report_overflows().unwrap();
            forever(0);
        }
        b"two seconds of waits" => timed_waits(Duration::from_secs(2)),
        b"spawn or an error" => {
            if let Err(errno) = spawn(|| ()).map(|thread| thread.join()) {
                assert!([Errno::EAGAIN, Errno::ENOMEM].contains(&errno), "{errno}");
            }
            sys::exit_group(0);
        }
        _ => panic!("the unknown claim {claim:?}"),
    }
}

fn close(fd: u32) {
    call(k::__NR_close, [fd as usize, 0, 0, 0, 0, 0]).unwrap();
}

/// prlimit(2): the soft limit.
fn limit(resource: u32, soft: u64) {
    let mut now = [0u64; 2];
    call(k::__NR_prlimit64, [0, resource as usize, 0, at(&raw mut now), 0, 0]).unwrap();
    let new = [soft.min(now[1]), now[1]];
    call(k::__NR_prlimit64, [0, resource as usize, at(&raw const new), 0, 0, 0]).unwrap();
}

/// The bits of personality(2) that change how a program lies in memory: linux/personality.h.
const NO_RANDOMIZE: usize = 0x004_0000;
const COMPAT_LAYOUT: usize = 0x020_0000;
const READ_IMPLIES_EXEC: usize = 0x040_0000;
const ADDR_LIMIT_3GB: usize = 0x800_0000;

fn personality(bits: usize) {
    let now = call(k::__NR_personality, [0xffff_ffff, 0, 0, 0, 0, 0]).unwrap();
    call(k::__NR_personality, [now | bits, 0, 0, 0, 0, 0]).unwrap();
}

/// Skips the test if the process is not root.
fn need_root() {
    if !is_root() {
        skip("only root can do that");
    }
}

const NONE: Before = &|| ();

const IGNORE: Action = Action { handler: Handler::Ignore, ..Action::DEFAULT };

/// A test that starts a program.
const STARTS_A_PROGRAM: Expect = Expect::success().native("an emulator starts no program");

/// A test that traces a process.
const TRACES: Expect = Expect::success().native("qemu-user traces no process");

rt0::tests! {
    everything_that_a_program_relies_on_works,
    any_standard_descriptors_may_be_closed => STARTS_A_PROGRAM,
    a_reader_that_is_gone_ends_a_program_that_prints => STARTS_A_PROGRAM,
    the_working_folder_may_be_gone_and_the_session_and_the_terminal => STARTS_A_PROGRAM,
    ten_thousand_variables_are_all_there => STARTS_A_PROGRAM,
    a_set_uid_program_is_secure_and_works => STARTS_A_PROGRAM,
    a_start_without_an_auxiliary_vector_reads_that_of_proc => TRACES,
    a_start_without_a_vector_and_without_proc_works_and_is_careful => TRACES,
    wiped_random_bytes_are_not_taken_for_random => TRACES,
    a_vector_that_is_wrong_long_or_double_is_read_all_the_same => TRACES,
    a_start_without_arguments_and_without_variables_works => TRACES,
    memory_may_be_laid_out_in_any_way => STARTS_A_PROGRAM,
    there_may_be_no_files_but_the_programs_own => STARTS_A_PROGRAM,
    limits_are_errors_of_the_call_that_meets_them => STARTS_A_PROGRAM,
    a_fork_under_a_filter_has_a_child_that_works,
    stops_do_not_keep_a_wait_from_its_end,
    real_time_threads_of_one_processor_do_not_wait_for_ever => Expect::success()
        .limit(120)
        .alone()
        .native("a spin lock of qemu-user's own may wait for a thread of lower priority"),
    a_program_that_never_profiles_has_no_part_of_the_profiler,
}

/// See `start::a_program_has_no_part_of_what_it_does_not_use`.
fn a_program_that_never_profiles_has_no_part_of_the_profiler() {
    if machine().starts_with(b"ppc") {
        skip("the linker keeps each static that a table of addresses (.toc, .got2) names, used or not");
    }
    // What the vDSO makes bytes with, a pointer, and for calls on all threads two words. The
    // profiler keeps more than that.
    const WORD: usize = size_of::<usize>();
    assert!((WORD..=4 * WORD).contains(&bytes_of_each_thread()), "{}", bytes_of_each_thread());
}

fn everything_that_a_program_relies_on_works(env: Env) {
    env.args().skip(2).for_each(|claim| look_at(claim, env));
    everything_works();
}

fn any_standard_descriptors_may_be_closed() {
    for closed in 0..8 {
        works(&[c"open"], &[], &|| (0..3).filter(|fd| closed >> fd & 1 == 1).for_each(close));
    }
}

fn a_reader_that_is_gone_ends_a_program_that_prints() {
    let into_nowhere = || {
        let ends = files::pipe();
        call(k::__NR_dup3, [ends[1] as usize, 1, 0, 0, 0, 0]).unwrap();
        ends.into_iter().for_each(|fd| close(fd as u32));
    };
    let mut buf = [0; 1024];
    let (text, ended) = start(&[c"print"], &[], &into_nowhere, &mut buf);
    assert_eq!(ended, Ended::Signal(k::SIGPIPE), "{text}");
    let ignored = || {
        into_nowhere();
        // SAFETY: 1. No handler.
        unsafe { sigaction(Signal::SIGPIPE, IGNORE) }.unwrap();
    };
    let (text, ended) = start(&[c"print"], &[], &ignored, &mut buf);
    assert!(text.contains("failed printing to stdout: EPIPE"), "{text}");
    assert_eq!(ended, Ended::Exit(101));
    works(&[], &[], &ignored);
}

fn the_working_folder_may_be_gone_and_the_session_and_the_terminal() {
    works(&[], &[], &|| {
        own_mounts();
        empty(c"/tmp");
        files::make_folder(c"/tmp/gone").unwrap();
        call(k::__NR_chdir, [at(c"/tmp/gone".as_ptr()), 0, 0, 0, 0, 0]).unwrap();
        files::remove_folder(c"/tmp/gone").unwrap();
        call(k::__NR_setsid, [0; 6]).unwrap();
        // SAFETY: 1. No handler.
        unsafe { sigaction(Signal::SIGHUP, IGNORE) }.unwrap();
    });
}

fn ten_thousand_variables_are_all_there() {
    let mut vars = [c"RT0_FILLER=x".as_ptr(); 10_001];
    vars[9_999] = c"RT0_LAST=1".as_ptr();
    vars[10_000] = core::ptr::null();
    let mut buf = [0; 1024];
    let (text, ended) = again(SELF, &arguments(&[c"10,000 variables"]), &vars, NONE, &mut buf);
    assert_eq!(ended, Ended::Exit(0), "{text}");
}

/// A user starts a set-uid program of root or of a third user.
fn a_set_uid_program_is_secure_and_works() {
    const PROGRAM: &CStr = c"/tmp/set-uid";
    need_root();
    own_mounts();
    empty(c"/tmp");
    let mut bytes = [0; 1 << 16];
    let from = sys::open(SELF, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).unwrap();
    let flags = sys::flags::O_WRONLY | sys::flags::O_CREAT | sys::flags::O_CLOEXEC;
    let to = sys::open(PROGRAM, flags, 0o755).unwrap();
    while let count @ 1.. = rt0::io::read(&from, &mut bytes).unwrap() {
        rt0::io::write_all(&to, &bytes[..count]).unwrap();
    }
    drop(to);
    let mut buf = [0; 1024];
    for owner in [0, 1001] {
        let path = at(PROGRAM.as_ptr());
        let here = k::AT_FDCWD as isize as usize;
        call(k::__NR_fchownat, [here, path, owner, owner, 0, 0]).unwrap();
        call(k::__NR_fchmodat, [here, path, 0o6755, 0, 0, 0]).unwrap();
        let other_user = || {
            all_threads::setgroups(&[]).unwrap();
            all_threads::setresgid(1002, 1002, 1002).unwrap();
            all_threads::setresuid(1002, 1002, 1002).unwrap();
        };
        let other_user_without_descriptors = || {
            other_user();
            (0..3).for_each(close);
        };
        let vars = null_ended::<2>(&[c"RT0_VDSO=0"]);
        let claims = arguments(&[c"secure", c"another user's", c"the vDSO stays", c"open"]);
        for before in [&other_user as Before, &other_user_without_descriptors] {
            let (text, ended) = again(PROGRAM, &claims, &vars, before, &mut buf);
            if ended == Ended::Exit(101) && text.contains("secure()") {
                // nosuid, no_new_privs
                skip("programs are not set-uid on a file system of this user's");
            }
            assert_eq!(ended, Ended::Exit(0), "{text}");
        }
    }
    works(&[c"ordinary", c"the vDSO is turned off"], &[c"RT0_VDSO=0"], NONE);
}

fn a_start_without_an_auxiliary_vector_reads_that_of_proc() {
    works_with(&[c"ordinary", c"AT_RANDOM"], NONE, InitialStack::drop_vector);
}

fn a_start_without_a_vector_and_without_proc_works_and_is_careful() {
    let hidden = || {
        own_mounts();
        empty(c"/proc");
    };
    let claims = [c"no /proc", c"no vector", c"secure", c"other random bytes"];
    works_with(&claims, &hidden, InitialStack::drop_vector);
}

fn wiped_random_bytes_are_not_taken_for_random() {
    works_with(&[c"AT_RANDOM"], NONE, |_| ());
    works_with(&[c"other random bytes"], NONE, |stack| {
        let address = *stack.value(auxvec::AT_RANDOM);
        assert_eq!(stack.write(address, &mut [0; 16]), Ok(16));
    });
    works_with(&[c"other random bytes"], NONE, |stack| {
        let address = *stack.value(auxvec::AT_RANDOM);
        assert_eq!(stack.write(address + 8, &mut [0; 8]), Ok(8));
    });
    works_with(&[c"other random bytes"], NONE, |stack| *stack.value(auxvec::AT_RANDOM) = 0);
}

fn a_vector_that_is_wrong_long_or_double_is_read_all_the_same() {
    for wrong in [0, 1, 12_345, usize::MAX] {
        works_with(&[c"ordinary"], NONE, |stack| *stack.value(auxvec::AT_PAGESZ) = wrong);
    }
    works_with(&[c"ordinary", c"AT_RANDOM"], NONE, |stack| {
        stack.prepend((0..300).map(|number| [10_000 + number, usize::MAX - number]));
    });
    works_with(&[c"ordinary", c"AT_RANDOM"], NONE, |stack| {
        let (start, end) = (stack.auxv(), stack.len - 2);
        let mut pairs = [[0; 2]; 64];
        let vector = stack.words[start..end].as_chunks::<2>().0;
        let count = vector.len().min(64);
        pairs[..count].copy_from_slice(&vector[..count]);
        stack.prepend(pairs.into_iter().take(count));
    });
}

fn a_start_without_arguments_and_without_variables_works() {
    works_with(&[], NONE, InitialStack::drop_variables);
    // The variables name the test.
    works_with(&[], NONE, InitialStack::drop_arguments);
    // Without arguments and variables it lists its tests.
    works_with(&[], NONE, |stack| {
        stack.drop_variables();
        stack.drop_arguments();
        stack.drop_vector();
    });
}

fn memory_may_be_laid_out_in_any_way() {
    let unlimited = || limit(k::RLIMIT_STACK, u64::MAX);
    let mut buf = [0; 1024];
    for bits in [0, NO_RANDOMIZE, COMPAT_LAYOUT, READ_IMPLIES_EXEC, ADDR_LIMIT_3GB, NO_RANDOMIZE | COMPAT_LAYOUT] {
        let laid_out = || personality(bits);
        let upside_down = || {
            personality(bits);
            unlimited();
        };
        for before in [&laid_out as Before, &upside_down] {
            works(&[], &[], before);
            let (text, ended) = start(&[c"overflow"], &[], before, &mut buf);
            assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{bits:#x} {text}");
            assert!(text.contains("has overflowed its stack"), "{bits:#x} {text}");
        }
        let (text, ended) = start(&[c"main overflows"], &[], &laid_out, &mut buf);
        assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{bits:#x} {text}");
        assert!(text.contains("has overflowed its stack"), "{bits:#x} {text}");
    }
}

fn there_may_be_no_files_but_the_programs_own() {
    let nothing = || {
        own_mounts();
        [c"/proc", c"/sys", c"/dev"].into_iter().for_each(empty);
    };
    works(&[c"no /proc"], &[], &nothing);
    // Only the root directory can be opened in place of the closed descriptors.
    works(&[c"no /proc", c"open"], &[], &|| {
        nothing();
        (0..3).for_each(close);
    });
    works(&[c"no /proc", c"open"], &[], &|| {
        own_mounts();
        empty(c"/tmp");
        (0..3).for_each(close);
        call(k::__NR_chroot, [at(c"/tmp".as_ptr()), 0, 0, 0, 0, 0]).unwrap();
        call(k::__NR_chdir, [at(c"/".as_ptr()), 0, 0, 0, 0, 0]).unwrap();
    });
}

fn limits_are_errors_of_the_call_that_meets_them() {
    for resource in [k::RLIMIT_NOFILE, k::RLIMIT_CORE, k::RLIMIT_MEMLOCK, k::RLIMIT_MSGQUEUE, k::RLIMIT_NPROC] {
        works(&[c"spawn or an error"], &[], &|| limit(resource, 0));
    }
    works(&[], &[], &|| limit(k::RLIMIT_SIGPENDING, 0));
    works(&[], &[], &|| limit(k::RLIMIT_STACK, 128 << 10));
    // The program's own data takes some pages. Where these are large, 100 KiB are too little.
    let least = 8 * rt0::cpu::page_size() as u64;
    for kib in [100, 1000, 3000, 10_000] {
        works(&[c"spawn or an error"], &[], &|| limit(k::RLIMIT_DATA, (kib << 10).max(least)));
    }
    for mib in [4, 8, 16] {
        let mut buf = [0; 1024];
        let tight = || limit(k::RLIMIT_AS, mib << 20);
        let (text, ended) = start(&[c"spawn or an error"], &[], &tight, &mut buf);
        // The kernel kills a program if there is no room for it.
        assert!([Ended::Exit(0), Ended::Signal(k::SIGKILL), Ended::Signal(k::SIGSEGV)].contains(&ended), "{text}");
    }
    // Closed descriptors, and a limit that does not allow opening them.
    let mut buf = [0; 1024];
    let neither = || {
        close(0);
        limit(k::RLIMIT_NOFILE, 0);
    };
    let (text, ended) = start(&[], &[], &neither, &mut buf);
    assert_eq!(ended, Ended::Signal(k::SIGABRT), "{text}");
    assert!(text.contains("opening a standard descriptor"), "{text}");
}

/// A filter applies to a forked child too. A thread that is not main forks while another thread
/// waits.
fn a_fork_under_a_filter_has_a_child_that_works() {
    let calls = [k::__NR_madvise, k::__NR_getrandom, k::__NR_statx, k::__NR_prlimit64];
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let pid = rt0_tests::fork().unwrap();
        if pid == 0 {
            filter(&calls, Verdict::Refuse(errno), Verdict::Allow);
            let other = spawn(thread::park).unwrap();
            // SAFETY: 1. The child starts threads of its own. 2. It ends by itself.
            let forking = spawn(|| match unsafe { thread::fork() }.unwrap() {
                Fork::Parent { child } => child,
                Fork::Child => {
                    everything_works();
                    sys::exit_group(0)
                }
            });
            assert_eq!(wait_for(forking.unwrap().join()), Ended::Exit(0), "{errno}");
            other.thread().unpark();
            other.join();
            everything_works();
            sys::exit_group(0);
        }
        match wait_for(pid) {
            Ended::Exit(77) => skip("no filters on system calls here"),
            ended => assert_eq!(ended, Ended::Exit(0)),
        }
    }
}

/// Every kind of wait, while the process is stopped and continued.
fn stops_do_not_keep_a_wait_from_its_end() {
    const TIMES: usize = 15;
    let pid = rt0_tests::fork().unwrap();
    if pid == 0 {
        timed_waits(Duration::from_millis(300));
        sys::exit_group(0);
    }
    let kill = |signal: u32| call(k::__NR_kill, [pid as usize, signal as usize, 0, 0, 0, 0]).unwrap();
    for _ in 0..TIMES {
        thread::sleep(Duration::from_millis(7));
        kill(k::SIGSTOP);
        thread::sleep(Duration::from_millis(7));
        kill(k::SIGCONT);
    }
    assert_eq!(wait_for(pid), Ended::Exit(0));
}

/// Threads of several priorities share one processor, and a waiter that spins has the higher
/// one.
fn real_time_threads_of_one_processor_do_not_wait_for_ever() {
    const FIFO: usize = k::SCHED_FIFO as usize;
    fn set_priority(priority: i32) -> Result<usize, Errno> {
        call(k::__NR_sched_setscheduler, [0, FIFO, at(&raw const priority), 0, 0, 0])
    }
    if let Err(errno) = set_priority(1) {
        assert!([Errno::EPERM, Errno::ENOSYS, Errno::EINVAL].contains(&errno), "{errno}");
        skip("no real-time scheduling for this user");
    }
    let here = cpu::affinity().unwrap().iter().next().unwrap();
    let mut one = cpu::CpuSet::new();
    one.insert(here).unwrap();
    cpu::set_affinity(&one).unwrap();
    static LOCK: Mutex<u32> = Mutex::new(0);
    let rounds: u32 = 400;
    let threads = [3, 1, 7, 5].map(|priority| {
        spawn(move || {
            set_priority(priority).unwrap();
            for round in 0..rounds {
                let mut count = LOCK.lock();
                *count += 1;
                if round % 8 == 0 {
                    thread::sleep(Duration::from_micros(20)); // Another thread finds it locked.
                }
                drop(count);
                if round % 16 == 0 {
                    let child = spawn(|| *LOCK.lock() -= 1).unwrap();
                    // SAFETY: 1. It only asks.
                    let asked = unsafe { all_threads::syscall(k::__NR_getppid as usize, [0; 6]) };
                    assert!(!matches!(asked, Err(all_threads::Error::Diverged(_))), "{asked:?}");
                    child.join();
                }
            }
        })
        .unwrap()
    });
    threads.into_iter().for_each(|thread| thread.join());
    assert_eq!(*LOCK.lock(), 4 * (rounds - rounds.div_ceil(16)));
}

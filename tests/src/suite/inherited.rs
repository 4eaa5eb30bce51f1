//! Signals that a parent left blocked or ignored: rt0's own signals still work.
//!
//! Each test runs its scenario twice. One child makes the raw calls and continues, like a program
//! whose parent made them. Another child makes them and executes this program again, which is the
//! real case. (An emulator may lose part of the state over execve(2), so there the second proves
//! less than the first.)

use core::ffi::CStr;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::signal::{self, Action, Handler, How, SigSet, Signal, action_of, mask, sigaction};
use rt0::thread::{report_overflows, spawn};
use rt0::time::ClockId;
use rt0::{Env, Errno, all_threads, profile, sys, thread};
use rt0_tests::{Ended, fork, skip, stderr_of, wait_for, wait_until};

/// The state that a parent leaves.
#[derive(Clone, Copy, Debug)]
struct Left {
    blocked: bool,
    ignored: bool,
}

const LEFT: [Left; 3] = [
    Left { blocked: true, ignored: false },
    Left { blocked: false, ignored: true },
    Left { blocked: true, ignored: true },
];

/// The signals that rt0 relies on; the last is one of the program's.
const SIGNALS: [u32; 6] = [32, 33, k::SIGSEGV, k::SIGBUS, k::SIGPROF, k::SIGUSR1];

impl Left {
    /// Does what a parent may have done, bypassing rt0.
    fn leave(self) {
        if self.blocked {
            raw_mask(k::SIG_SETMASK, &k::kernel_sigset_t { sig: [!0; _] });
        }
        if self.ignored {
            SIGNALS.into_iter().for_each(raw_ignore);
        }
    }
}

/// rt_sigprocmask(2); returns the previous mask.
fn raw_mask(how: u32, set: &k::kernel_sigset_t) -> k::kernel_sigset_t {
    let mut old = *set;
    let (at, out) = ((&raw const *set).expose_provenance(), (&raw mut old).expose_provenance());
    // SAFETY: 1. The kernel reads a set and writes one; unblocked signals have this test's
    // handlers.
    unsafe { sys::syscall(k::__NR_rt_sigprocmask as usize, [how as usize, at, out, size_of_val(set), 0, 0]) }.unwrap();
    old
}

/// rt_sigaction(2), with `SIG_IGN`. An emulator may lack the signal.
fn raw_ignore(number: u32) {
    // The handler is the first word, except on MIPS, where the flags are; SPARC has one argument
    // more.
    let flags_first = cfg!(any(target_arch = "mips", target_arch = "mips64"));
    let mut action = [0usize; 40];
    action[usize::from(flags_first)] = 1;
    let (at, size) = ((&raw const action).expose_provenance(), size_of::<k::kernel_sigset_t>());
    let last = if cfg!(target_arch = "sparc64") { [0, size] } else { [size, 0] };
    let args = [number as usize, at, 0, last[0], last[1], 0];
    // SAFETY: 1. No handler is installed.
    let _ = unsafe { sys::syscall(k::__NR_rt_sigaction as usize, args) };
}

/// Whether this process was executed again.
fn is_again(env: Env) -> bool {
    env.args().nth(2).is_some()
}

/// Executes this program again, with an additional argument; execve(2). Under an emulator that is
/// the emulator: its own command line has this program's.
fn execute_again() -> ! {
    let mut line = [0u8; 4096];
    let file = sys::open(c"/proc/thread-self/cmdline", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).expect("/proc");
    let len = rt0::io::read(&file, &mut line).expect("the command line");
    let mut args = [0usize; 24];
    let mut rest = line.get(..len).expect("a length");
    let mut count = 0;
    while let Ok(arg) = CStr::from_bytes_until_nul(rest) {
        args[count] = arg.as_ptr().expose_provenance();
        rest = &rest[arg.count_bytes() + 1..];
        count += 1;
    }
    args[count] = c"again".as_ptr().expose_provenance();
    let path = c"/proc/thread-self/exe".as_ptr().expose_provenance();
    let (argv, envp) = ((&raw const args).expose_provenance(), (&raw const args[23]).expose_provenance());
    // SAFETY: 1. The kernel reads the path, the arguments and no variables.
    let errno = unsafe { sys::syscall(k::__NR_execve as usize, [path, argv, envp, 0, 0, 0]) }.err();
    panic!("execve: {errno:?}");
}

/// Runs the scenario in children, for each state that a parent may leave, in both ways.
fn however_started(env: Env, scenario: fn()) {
    if is_again(env) {
        return scenario();
    }
    for left in LEFT {
        for executes in [false, true] {
            let pid = fork().expect("fork");
            if pid == 0 {
                left.leave();
                if executes {
                    execute_again();
                }
                scenario();
                sys::exit_group(0);
            }
            match wait_for(pid) {
                Ended::Exit(0) => {}
                Ended::Exit(status) if status == rt0_tests::SKIPPED as u32 => skip("the child says why"),
                ended => panic!("{left:?}, executed again: {executes}: {ended:?}"),
            }
        }
    }
}

/// The scenario ends by SIGSEGV, with a line that begins with `start` (no line if that is empty).
fn dies_saying(env: Env, scenario: fn(), start: &str) {
    if is_again(env) {
        return scenario();
    }
    let mut buf = [0; 512];
    for left in LEFT {
        for executes in [false, true] {
            let child = || {
                left.leave();
                if executes {
                    execute_again();
                }
                scenario();
            };
            let (text, ended) = stderr_of(child, &mut buf);
            assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{left:?}, executed again: {executes}: {text}");
            let line = text.strip_prefix('\n').unwrap_or(text);
            assert!(line.starts_with(start), "{left:?}, executed again: {executes}: {text}");
        }
    }
}

#[allow(unconditional_recursion)]
fn forever(n: usize) -> usize {
    let frame = black_box([n as u8; 256]);
    forever(black_box(n + 1)) + frame[n % 256] as usize
}

/// prctl(2), `PR_SET_KEEPCAPS` to 0, on every thread.
fn call_on_all_threads() -> all_threads::Result<usize> {
    let args = [linux_raw_sys::prctl::PR_SET_KEEPCAPS as usize, 0, 0, 0, 0, 0];
    // SAFETY: 1. It touches no memory.
    unsafe { all_threads::syscall(k::__NR_prctl as usize, args) }
}

fn reached(result: all_threads::Result<usize>) {
    match result {
        Ok(0) => {}
        Err(all_threads::Error::Refused(Errno::EOPNOTSUPP)) => skip("the emulator lacks signal 33"),
        other => panic!("{other:?}"),
    }
}

/// Computes for this long of the calling thread's CPU time, in milliseconds.
fn burn(millis: u64) {
    let now = || {
        let now = ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("clock_gettime");
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    };
    let until = now() + millis;
    while now() < until {
        (0..10_000).for_each(|n| _ = black_box(n));
    }
}

rt0::test_module! {
    a_call_on_all_threads_reaches_main_and_the_others,
    an_interrupt_reaches_main_and_the_others,
    a_reserved_signal_that_is_pending_does_no_harm,
    main_that_overflows_its_stack_says_so,
    a_thread_that_overflows_its_stack_says_so,
    a_thread_of_a_forked_child_says_so_too,
    a_sigsegv_that_the_program_blocks_or_ignores_stays_so,
    a_profile_has_the_samples_of_main_and_of_threads_from_before_and_after,
    a_sigprof_that_a_parent_left_pending_does_no_harm,
    what_rt0_does_not_rely_on_stays_as_it_was_left,
    a_thread_starts_with_the_reserved_signals_unblocked_whatever_its_parent_blocked,
}

fn a_call_on_all_threads_reaches_main_and_the_others(env: Env) {
    however_started(env, || {
        let others = [(); 2].map(|()| spawn(thread::park).unwrap());
        reached(call_on_all_threads());
        spawn(|| reached(call_on_all_threads())).unwrap().join();
        others.into_iter().for_each(|other| {
            other.thread().unpark();
            other.join();
        });
    });
}

fn an_interrupt_reaches_main_and_the_others(env: Env) {
    however_started(env, || {
        static STOP: AtomicBool = AtomicBool::new(false);
        let interrupt = |thread: &thread::Thread| match thread.interrupt() {
            Ok(generation) => wait_until("the interrupt", || thread.has_seen(generation)),
            Err(Errno::EOPNOTSUPP) => skip("the emulator lacks signal 32"),
            Err(errno) => panic!("{errno:?}"),
        };
        let main = thread::current();
        interrupt(&main);
        let other = spawn(|| wait_until("the end", || STOP.load(Relaxed))).unwrap();
        interrupt(other.thread());
        spawn(move || interrupt(&main)).unwrap().join();
        STOP.store(true, Relaxed);
        other.join();
    });
}

fn a_reserved_signal_that_is_pending_does_no_harm(env: Env) {
    however_started(env, || {
        // Blocked or ignored; otherwise it would end the process here.
        for number in [32, 33] {
            // An emulator may lack it.
            let _ = sys::tgkill(sys::getpid(), sys::gettid(), number);
        }
        spawn(|| reached(call_on_all_threads())).unwrap().join();
    });
}

fn main_that_overflows_its_stack_says_so(env: Env) {
    dies_saying(
        env,
        || {
            report_overflows().unwrap();
            forever(0);
        },
        "thread 'main' (tid ",
    );
}

fn a_thread_that_overflows_its_stack_says_so(env: Env) {
    dies_saying(env, || _ = spawn(|| forever(0)).unwrap().join(), "thread '<unnamed>' (tid ");
}

fn a_thread_of_a_forked_child_says_so_too(env: Env) {
    dies_saying(
        env,
        || {
            report_overflows().unwrap();
            let pid = fork().unwrap();
            if pid == 0 {
                _ = spawn(|| forever(0)).unwrap().join();
            }
            assert_eq!(wait_for(pid), Ended::Signal(k::SIGSEGV));
            forever(0);
        },
        "thread '<unnamed>' (tid ",
    );
}

/// The program's own choice, made before it uses rt0's signals.
fn a_sigsegv_that_the_program_blocks_or_ignores_stays_so(env: Env) {
    dies_saying(
        env,
        || {
            mask(How::Block, &SigSet::from_iter([Signal::SIGSEGV]));
            _ = spawn(|| forever(0)).unwrap().join();
        },
        "",
    );
    if !is_again(env) {
        // SAFETY: 1. No handler.
        unsafe { sigaction(Signal::SIGSEGV, Action { handler: Handler::Ignore, ..Action::DEFAULT }) }.unwrap();
        spawn(|| ()).unwrap().join();
        assert!(matches!(action_of(Signal::SIGSEGV).unwrap().handler, Handler::Ignore));
        signal::raise(Signal::SIGSEGV).unwrap();
    }
}

fn a_profile_has_the_samples_of_main_and_of_threads_from_before_and_after(env: Env) {
    /// How many of three threads have more than the one sample that their end adds: main, one
    /// started before the profile and one after. Each computes for this long.
    fn sampled_threads(millis: u64) -> usize {
        let early = spawn(move || {
            thread::park();
            burn(millis);
        })
        .unwrap();
        // From a thread that is not main.
        spawn(|| profile::start(100)).unwrap().join().unwrap();
        early.thread().unpark();
        let late = spawn(move || burn(millis)).unwrap();
        burn(millis);
        early.join();
        late.join();
        profile::stop();
        let mut seen = [(0, 0); 4];
        let _ = profile::drain(|sample| {
            let at = seen.iter().position(|(tid, _)| *tid == sample.tid || *tid == 0).expect("four threads");
            seen[at] = (sample.tid, seen[at].1 + 1);
        })
        .unwrap();
        seen.iter().filter(|(_, samples)| *samples >= 2).count()
    }
    however_started(env, || {
        // On a busy machine the kernel rarely checks a thread's timer.
        let times = [60, 120, 240, 480, 960];
        assert!(times.into_iter().any(|millis| sampled_threads(millis) == 3), "also in a long run");
    });
}

fn a_sigprof_that_a_parent_left_pending_does_no_harm(env: Env) {
    however_started(env, || {
        signal::raise(Signal::SIGPROF).unwrap();
        spawn(|| ()).unwrap().join();
        profile::start(100).unwrap();
        burn(50);
        profile::stop();
    });
}

fn what_rt0_does_not_rely_on_stays_as_it_was_left(env: Env) {
    however_started(env, || {
        let blocked = mask(How::Block, &SigSet::empty()).contains(Signal::SIGUSR1);
        let ignored = matches!(action_of(Signal::SIGUSR1).unwrap().handler, Handler::Ignore);
        assert!(blocked || ignored);
        let inherited = spawn(|| mask(How::Block, &SigSet::empty()).contains(Signal::SIGUSR1)).unwrap().join();
        assert_eq!(inherited, blocked);
    });
}

fn a_thread_starts_with_the_reserved_signals_unblocked_whatever_its_parent_blocked() {
    raw_mask(k::SIG_SETMASK, &k::kernel_sigset_t { sig: [!0; _] });
    spawn(|| ()).unwrap().join(); // First use.
    raw_mask(k::SIG_SETMASK, &k::kernel_sigset_t { sig: [!0; _] });
    let bits = || {
        let now = raw_mask(k::SIG_BLOCK, &k::kernel_sigset_t { sig: [0; _] });
        [31, 32].map(|bit| now.sig[bit / usize::BITS as usize] >> (bit % usize::BITS as usize) & 1 != 0)
    };
    assert_eq!(spawn(bits).unwrap().join(), [false; 2]);
    assert_eq!(bits(), [true; 2], "on the parent it stays its own doing");
}

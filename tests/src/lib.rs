//! The harness of rt0's test programs: static binaries without libc, one per area, each test in a
//! process of its own.
//!
//! `PROGRAM --list` prints one line per test, its name and what it expects of its process
//! (`NAME[\tKEY=VALUE]…`). `PROGRAM NAME` runs one; status 0 is a pass, [`SKIPPED`] with a line
//! `skipped: REASON` a skip. `cargo xtask test` is who calls them.
#![no_std]

pub mod children;
pub mod files;
pub mod launch;
pub mod seccomp;

use core::ffi::CStr;
use core::fmt::Write as _;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::{Env, Errno, println, sys, thread};

/// One test.
pub struct Test {
    /// The sentence that it proves.
    pub name: &'static str,
    /// What it expects of its process, `KEY=VALUE` each: `exit`, `signal`, `stdout`, `stderr`,
    /// `args`, `env`, `stack`, `close`, `native` (a reason why no emulator will do), `alone`,
    /// `limit`.
    pub keys: &'static [&'static str],
    /// The test; it fails by panicking.
    pub run: fn(Env),
}

/// The exit status of a skipped test.
pub const SKIPPED: i32 = 77;

/// Defines a test program: functions, each with the keys it needs, of no argument or of the
/// [`Env`].
#[macro_export]
macro_rules! tests {
    ($($(#[doc = $doc:literal])* $(#[keys($($key:literal),*)])? fn $name:ident($($env:ident)?) $body:block)*) => {
        rt0::entry!(main);

        fn main(env: rt0::Env) -> i32 {
            $crate::run(env, &[$($crate::Test {
                name: stringify!($name),
                keys: &[$($($key),*)?],
                run: $name,
            }),*])
        }

        $($(#[doc = $doc])* fn $name(_env: rt0::Env) {
            $(let $env = _env;)?
            $body
        })*
    };
}

/// Lists the tests or runs one; what a test program's main returns. Where there are no arguments,
/// `RT0_TEST` names it.
pub fn run(env: Env, tests: &[Test]) -> i32 {
    let wanted = env.args().nth(1).or_else(|| env.var("RT0_TEST"));
    let wanted = wanted.and_then(|wanted| wanted.to_str().ok()).unwrap_or("--list");
    if wanted == "--list" {
        for test in tests {
            rt0::print!("{}", test.name);
            test.keys.iter().for_each(|key| rt0::print!("\t{key}"));
            println!();
        }
        return 0;
    }
    match tests.iter().find(|test| test.name == wanted) {
        Some(test) => (test.run)(env),
        None => panic!("no test {wanted:?} in this program"),
    }
    0
}

/// How often to do what proves more the more often it is done: so many times natively, and a
/// twentieth of that where all takes longer and none of rt0's own code runs otherwise for it.
pub fn often(times: usize) -> usize {
    if slow() { times.div_ceil(20) } else { times }
}

/// How many threads show that nothing stays of any. qemu takes up to 5 ms for one of ARM's.
pub fn thousands() -> usize {
    if slow() { 100 } else { 10_000 }
}

/// How long a test goes on that lets everything happen at once: a second (where all is slow, a
/// sixth), or as many as `RT0_STRESS_SECONDS` says. What must have happened meanwhile is waited
/// for, however long that takes.
pub fn stress_time(env: Env) -> Duration {
    let seconds = env.var("RT0_STRESS_SECONDS").and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    seconds.map_or(Duration::from_millis(if slow() { 160 } else { 1000 }), Duration::from_secs)
}

/// Where the vDSO's image lies; empty where there is none. Its length is that of most: 16 KiB, and
/// nothing that runs is behind it.
pub fn vdso_image(env: Env) -> Range<usize> {
    const AT_SYSINFO_EHDR: usize = 33;
    env.auxv().get(AT_SYSINFO_EHDR).map_or(0..0, |start| start..start + (16 << 10))
}

/// Lets SIGALRM come every so often from now on, wherever the process is; stopped by a time of
/// zero. setitimer(2)
pub fn alarm_every(time: Duration) {
    set_alarm(time, time);
}

/// Lets SIGALRM come once, when this time is over. setitimer(2)
pub fn alarm_after(time: Duration) {
    set_alarm(time, Duration::ZERO);
}

fn set_alarm(first: Duration, interval: Duration) {
    let half = |time: Duration| k::__kernel_old_timeval { tv_sec: 0, tv_usec: time.subsec_micros() as _ };
    let timer = k::__kernel_old_itimerval { it_interval: half(interval), it_value: half(first) };
    let args = [k::ITIMER_REAL as usize, (&raw const timer).expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the times; the signal has a handler by then.
    unsafe { sys::syscall(k::__NR_setitimer as usize, args) }.expect("setitimer");
}

/// Ends this test as skipped.
pub fn skip(reason: &str) -> ! {
    println!("skipped: {reason}");
    sys::exit_group(SKIPPED)
}

/// The start of a file, as much as fits; the rest of `buf` is left alone.
pub fn read_file<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let file = sys::open(path, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0)?;
    let mut filled = 0;
    while filled < buf.len() {
        match rt0::io::read(file.as_raw_fd(), &mut buf[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(&buf[..filled])
}

/// Whether valgrind runs this program: its mappings are the process's, and nothing tells them
/// from the program's.
pub fn under_valgrind() -> bool {
    let mut path = [0; 512];
    let args = [k::AT_FDCWD as isize as usize, c"/proc/thread-self/exe".as_ptr().expose_provenance()];
    let args = [args[0], args[1], path.as_mut_ptr().expose_provenance(), path.len(), 0, 0];
    // SAFETY: 1. The kernel reads the path and writes the buffer.
    let filled = unsafe { sys::syscall(k::__NR_readlinkat as usize, args) }.unwrap_or(0);
    path[..filled].windows(8).any(|part| part == b"valgrind")
}

/// How many mappings this process has, without the stacks that are kept for threads to come; each
/// 512 KiB of one count as another, for the kernel makes one of those that lie side by side. (Under
/// an emulator, those of the guest. Under valgrind 0, see [`under_valgrind`]: a test of mappings is
/// then one of the rest.)
pub fn mappings() -> usize {
    thread::trim_stack_cache();
    if under_valgrind() {
        return 0;
    }
    let file = sys::open(c"/proc/self/maps", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).expect("/proc/self/maps");
    let mut buf = [0; 4096];
    let mut mappings = 0;
    // A line begins `START-END `, in hexadecimal.
    let (mut in_range, mut start, mut number) = (true, 0, 0u64);
    loop {
        let count = rt0::io::read(file.as_raw_fd(), &mut buf).expect("reading /proc/self/maps");
        if count == 0 {
            return mappings;
        }
        for &byte in &buf[..count] {
            match byte {
                b'\n' => (in_range, number) = (true, 0),
                _ if !in_range => {}
                b'-' => (start, number) = (number, 0),
                b' ' => {
                    in_range = false;
                    mappings += 1 + ((number - start) >> 19) as usize;
                }
                digit => number = number << 4 | u64::from((digit as char).to_digit(16).expect("an address")),
            }
        }
    }
}

/// This process's address space in KiB, without kept stacks: VmSize. Under an emulator that is the
/// emulator's, and says nothing of ours.
pub fn vm_size_kib() -> usize {
    thread::trim_stack_cache();
    let mut buf = [0; 4096];
    let status = read_file(c"/proc/self/status", &mut buf).expect("/proc/self/status");
    let text = core::str::from_utf8(status).expect("ASCII");
    let line = text.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a VmSize line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether something prints just this.
pub fn prints(arguments: core::fmt::Arguments<'_>, expected: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl core::fmt::Write for Rest<'_> {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            self.0 = self.0.strip_prefix(text).ok_or(core::fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(expected);
    core::fmt::write(&mut rest, arguments).is_ok() && rest.0.is_empty()
}

/// Waits until `done`, for a minute and longer where sleeps are late: a machine may have much else
/// to do. The caller says what it waited for.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("waited a minute in vain: {what}");
}

/// Text of 39 bytes at most, and a 0 behind it; how long it is.
struct Text([u8; 40], usize);

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.0.get_mut(self.1..self.1 + text.len() + 1).ok_or(core::fmt::Error)?;
        room[..text.len()].copy_from_slice(text.as_bytes());
        self.1 += text.len();
        Ok(())
    }
}

/// Waits until a thread of this process sleeps in the kernel: so at five looks, for an emulator's
/// threads also sleep for a moment where one waits for another's turn. proc_pid_stat(5)
pub fn wait_until_asleep(tid: u32) {
    let mut path = Text([0; 40], 0);
    write!(path, "/proc/self/task/{tid}/stat").expect("room for ten digits and an end");
    let path = CStr::from_bytes_until_nul(&path.0).expect("it has an end");
    let mut looks = 0;
    wait_until("a thread to sleep", || {
        let mut buf = [0; 512];
        let stat = read_file(path, &mut buf).expect("the thread is there");
        let state = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at + 2));
        looks = if state == Some(&b'S') { looks + 1 } else { 0 };
        looks == 5
    });
}

/// fork(2), past rt0: 0 in the child, which must not return from the test.
pub fn fork() -> Result<u32, Errno> {
    let before = sys::getpid();
    let [first, second] = clone_arguments(k::SIGCHLD);
    // SAFETY: 1. The child has a copy of everything.
    let pid = unsafe { sys::syscall(k::__NR_clone as usize, [first, second, 0, 0, 0, 0]) }? as u32;
    // sparc64's kernel gives the child its parent's number.
    Ok(if sys::getpid() == before { pid } else { 0 })
}

/// A child of clone(2) with these flags, `CLONE_VFORK` among them, on the same stack, while its
/// parent waits: it does `work`, and ends.
///
/// Both return from the same call, so the child's last one is made from the same place: then what
/// it leaves on the stack is what its parent needs there. All else is static.
#[inline(never)]
pub fn in_raw_child(flags: u32, work: fn()) {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    static CALL: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let set = |call: [usize; 3]| CALL.iter().zip(call).for_each(|(to, word)| to.store(word, Relaxed));
    PARENT.store(sys::gettid(), Relaxed);
    let [first, second] = clone_arguments(flags);
    set([k::__NR_clone as usize, first, second]);
    loop {
        let [nr, first, second] = [0, 1, 2].map(|word: usize| CALL[word].load(Relaxed));
        // SAFETY: 1. The parent waits while the child uses its stack, and nothing there is borrowed
        // at the child's end.
        let done = unsafe { sys::syscall(nr, [first, second, 0, 0, 0, 0]) };
        if sys::gettid() == PARENT.load(Relaxed) {
            assert!(done.is_ok(), "clone: {done:?}");
            return;
        }
        work();
        set([k::__NR_exit as usize, 0, 0]);
    }
}

/// clone(2) is everywhere, but on s390x its first two arguments, flags and stack, change places.
fn clone_arguments(flags: u32) -> [usize; 2] {
    let mut names = [[0u8; 65]; 6]; // struct new_utsname
    let at = (&raw mut names).expose_provenance();
    // SAFETY: 1. The kernel writes the six names.
    unsafe { sys::syscall(k::__NR_uname as usize, [at, 0, 0, 0, 0, 0]) }.expect("uname");
    if names[4].starts_with(b"s390x\0") { [0, flags as usize] } else { [flags as usize, 0] }
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit_group(2), with this status.
    Exit(u32),
    /// By this signal.
    Signal(u32),
}

/// waitid(2) for a child to end.
pub fn wait_for(pid: u32) -> Ended {
    match changed(pid, k::WEXITED) {
        Err(ended) => ended,
        Ok(signal) => panic!("the child stopped by signal {signal}"),
    }
}

/// waitid(2) for a child to stop, by which signal, or else to end.
pub fn stopped_or_ended(pid: u32) -> Result<u32, Ended> {
    changed(pid, k::WEXITED | k::WSTOPPED)
}

fn changed(pid: u32, what: u32) -> Result<u32, Ended> {
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    let at = (&raw mut info).expose_provenance();
    let wait = [k::P_PID as usize, pid as usize, at, what as usize, 0, 0];
    // SAFETY: 1. The kernel writes `info`.
    while let Err(errno) = unsafe { sys::syscall(k::__NR_waitid as usize, wait) } {
        assert_eq!(errno, Errno::EINTR);
    }
    // SAFETY: waitid filled it in.
    let head = unsafe { info.__bindgen_anon_1.__bindgen_anon_1 };
    // SAFETY: as above; this is its part for SIGCHLD.
    let status = unsafe { head._sifields._sigchld }._status as u32;
    match head.si_code as u32 {
        k::CLD_EXITED => Err(Ended::Exit(status)),
        k::CLD_STOPPED | k::CLD_TRAPPED => Ok(status),
        _ => Err(Ended::Signal(status)),
    }
}

/// [`wait_for`], for a minute at most.
pub fn wait_a_minute_for(pid: u32) -> Ended {
    wait_until("a child to end", || seccomp::has_ended(pid));
    wait_for(pid)
}

/// Whether no thread of this process has this id.
pub fn is_gone(tid: u32) -> bool {
    sys::tgkill(sys::getpid(), tid, 0) == Err(Errno::ESRCH)
}

/// What `child`, run in a process of its own, writes to standard error, as much as fits in `buf`;
/// and how it ended. What an emulator says about the end is left out.
pub fn stderr_of(child: impl FnOnce(), buf: &mut [u8]) -> (&str, Ended) {
    let mut fds = [0i32; 2];
    // SAFETY: 1. The kernel writes the two numbers.
    unsafe { sys::syscall(k::__NR_pipe2 as usize, [(&raw mut fds).expose_provenance(), 0, 0, 0, 0, 0]) }
        .expect("pipe2");
    let pid = fork().expect("fork");
    if pid == 0 {
        // SAFETY: 1. Descriptor 2 is the child's own.
        unsafe { sys::syscall(k::__NR_dup3 as usize, [fds[1] as usize, 2, 0, 0, 0, 0]) }.expect("dup3");
        child();
        sys::exit_group(0);
    }
    // SAFETY: 1. It is ours, and nobody uses it again.
    unsafe { sys::syscall(k::__NR_close as usize, [fds[1] as usize, 0, 0, 0, 0, 0]) }.expect("close");
    let mut filled = 0;
    while filled < buf.len() {
        match rt0::io::read(fds[0], &mut buf[filled..]).expect("the pipe") {
            0 => break,
            count => filled += count,
        }
    }
    let text = core::str::from_utf8(&buf[..filled]).expect("text");
    (text.find("qemu: uncaught target signal").map_or(text, |at| &text[..at]), wait_for(pid))
}

/// Whether instructions take many times as long as on a processor: under an emulator of programs,
/// and on a real kernel under an emulator of machines, where the first process says so by a file.
pub fn slow() -> bool {
    let args = [k::AT_FDCWD as isize as usize, c"/slow".as_ptr().expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the path.
    let marked = unsafe { sys::syscall(k::__NR_faccessat as usize, args) };
    marked.is_ok() || emulated()
}

/// Whether what answers this process's calls is an emulator, which shows its own file where it does
/// not pretend.
pub fn emulated() -> bool {
    let link = |path: &CStr, buf: &mut [u8]| {
        let [path, out] = [path.as_ptr().expose_provenance(), buf.as_mut_ptr().expose_provenance()];
        let args = [k::AT_FDCWD as isize as usize, path, out, buf.len(), 0, 0];
        // SAFETY: 1. The kernel reads the path and writes the buffer.
        unsafe { sys::syscall(k::__NR_readlinkat as usize, args) }.expect("/proc")
    };
    let (mut told, mut true_one) = ([0; 4096], [0; 4096]);
    let lengths = (link(c"/proc/self/exe", &mut told), link(c"/proc/thread-self/exe", &mut true_one));
    lengths.0 != lengths.1 || told != true_one
}

/// A program whose TLS image is aligned to `$align`: a program has one image, so each alignment
/// needs its own.
///
/// `#[thread_local]` is not stable; xtask lets these programs use it, for rt0 must honour what
/// others bring.
#[macro_export]
macro_rules! tls_tests {
    ($align:literal) => {
        use core::cell::Cell;

        #[repr(align($align))]
        struct Aligned(Cell<u64>);

        #[thread_local]
        static FIRST: Cell<u8> = Cell::new(0x5A);
        #[thread_local]
        static ALIGNED: Aligned = Aligned(Cell::new(0x0123_4567_89AB_CDEF));
        #[thread_local]
        static ZERO: Cell<[u64; 9]> = Cell::new([0; 9]);
        #[thread_local]
        static ALIGNED_ZERO: Aligned = Aligned(Cell::new(0));
        #[thread_local]
        static LAST: Cell<u16> = Cell::new(0xBEEF);

        /// The initial values, aligned; then others, which must stay this thread's.
        fn check(mark: u64) {
            assert_eq!((FIRST.get(), LAST.get(), ZERO.get()), (0x5A, 0xBEEF, [0; 9]));
            assert_eq!((ALIGNED.0.get(), ALIGNED_ZERO.0.get()), (0x0123_4567_89AB_CDEF, 0));
            for address in [&raw const ALIGNED, &raw const ALIGNED_ZERO] {
                assert_eq!(core::hint::black_box(address).addr() % $align, 0);
            }
            let set = || {
                FIRST.set(mark as u8);
                LAST.set(mark as u16);
                ZERO.set([mark; 9]);
                ALIGNED.0.set(mark);
                ALIGNED_ZERO.0.set(!mark);
            };
            set();
            for _ in 0..20 {
                rt0::thread::yield_now();
                assert_eq!((FIRST.get(), LAST.get(), ZERO.get()), (mark as u8, mark as u16, [mark; 9]));
                assert_eq!((ALIGNED.0.get(), ALIGNED_ZERO.0.get()), (mark, !mark));
            }
            // The block beside the image is still whole.
            assert!(rt0::thread::current().name().is_none_or(|name| name == "main"));
        }

        $crate::tests! {
            fn main_has_its_image() {
                check(1);
            }

            fn every_thread_has_an_image_of_its_own() {
                check(1);
                for round in 0..$crate::often(100) as u64 {
                    let threads = [2, 3, 4, 5].map(|mark| rt0::thread::spawn(move || check(mark + round)).unwrap());
                    threads.into_iter().for_each(|thread| thread.join());
                }
                assert_eq!(ALIGNED.0.get(), 1);
            }
        }
    };
}

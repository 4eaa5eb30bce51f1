//! What rt0's test programs share: static binaries without libc, each test in a process of its own.
//! [`rt0::test`] lists and runs them for `cargo xtask test`.
#![no_std]

pub mod children;
pub mod files;
pub mod launch;
pub mod reports;
pub mod seccomp;

use core::ffi::CStr;
use core::fmt::Write as _;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::{auxvec, general as k};
use rt0::io::BorrowedFd;
use rt0::{Env, Errno, sys, thread};

pub use rt0::test::{SKIPPED, skip};

/// The number of bytes that each thread has beside its block: thread-locals, and what rt0's modules
/// keep of each thread.
pub fn bytes_of_each_thread() -> usize {
    unsafe extern "C" {
        /// Of the linker scripts.
        static __rt0_tls_start: [u8; 0];
        static __rt0_tls_end: [u8; 0];
    }
    (&raw const __rt0_tls_end).addr() - (&raw const __rt0_tls_start).addr()
}

/// The number of repetitions of a step that finds more the more often it runs: `times` natively,
/// and a twentieth of it where everything is slower and rt0's code is the same.
pub fn often(times: usize) -> usize {
    if slow() { times.div_ceil(20) } else { times }
}

/// The number of threads that shows that none leaks. qemu needs up to 5 ms for one on Arm.
pub fn thousands() -> usize {
    if slow() { 100 } else { 10_000 }
}

/// The duration of a stress test: a second (on a slow machine, a sixth), or `RT0_STRESS_SECONDS`.
/// Events that the test requires are awaited, however long that takes.
pub fn stress_time(env: Env) -> Duration {
    let seconds = env.var("RT0_STRESS_SECONDS").and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    seconds.map_or(Duration::from_millis(if slow() { 160 } else { 1000 }), Duration::from_secs)
}

/// The descriptor of this number, which a test has opened, or not, to see what a call returns.
pub fn numbered(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: 1. A test's descriptors are its own, and no value of rt0's owns them.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// The range of the vDSO's image; empty if there is none. It assumes the usual length of 16 KiB; no
/// other code follows the image.
pub fn vdso_image(env: Env) -> Range<usize> {
    const AT_SYSINFO_EHDR: usize = 33;
    env.auxv().get(AT_SYSINFO_EHDR).map_or(0..0, |start| start..start + (16 << 10))
}

/// Makes SIGALRM arrive periodically; a time of zero stops it. setitimer(2)
pub fn alarm_every(time: Duration) {
    set_alarm(time, time);
}

/// Makes SIGALRM arrive once, after this time. setitimer(2)
pub fn alarm_after(time: Duration) {
    set_alarm(time, Duration::ZERO);
}

fn set_alarm(first: Duration, interval: Duration) {
    let half = |time: Duration| k::__kernel_old_timeval { tv_sec: 0, tv_usec: time.subsec_micros() as _ };
    let timer = k::__kernel_old_itimerval { it_interval: half(interval), it_value: half(first) };
    let args = [k::ITIMER_REAL as usize, (&raw const timer).expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the times; the signal has a handler.
    unsafe { sys::syscall(k::__NR_setitimer as usize, args) }.expect("setitimer");
}

/// Reads the start of a file, as much as fits; the rest of `buf` stays unchanged.
pub fn read_file<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let file = sys::open(path, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0)?;
    let mut filled = 0;
    while filled < buf.len() {
        match rt0::io::read(&file, &mut buf[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(&buf[..filled])
}

/// Whether valgrind runs this program. Its mappings are in the same process, and cannot be
/// distinguished from the program's.
pub fn under_valgrind() -> bool {
    let mut path = [0; 512];
    let args = [k::AT_FDCWD as isize as usize, c"/proc/thread-self/exe".as_ptr().expose_provenance()];
    let args = [args[0], args[1], path.as_mut_ptr().expose_provenance(), path.len(), 0, 0];
    // SAFETY: 1. The kernel reads the path and writes the buffer.
    let filled = unsafe { sys::syscall(k::__NR_readlinkat as usize, args) }.unwrap_or(0);
    path[..filled].windows(8).any(|part| part == b"valgrind")
}

/// The number of mappings of this process, without the cached stacks. Each 512 KiB of a mapping
/// count as one, because the kernel merges neighbouring mappings. (Under an emulator: the guest's
/// mappings. Under valgrind 0, see [`under_valgrind`]: a test of mappings then tests only the
/// rest.)
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
        let count = rt0::io::read(&file, &mut buf).expect("reading /proc/self/maps");
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

/// This process's address space in KiB, without cached stacks: VmSize. Under an emulator it is the
/// emulator's, and says nothing about the program.
pub fn vm_size_kib() -> usize {
    thread::trim_stack_cache();
    let mut buf = [0; 4096];
    let status = read_file(c"/proc/self/status", &mut buf).expect("/proc/self/status");
    let text = core::str::from_utf8(status).expect("ASCII");
    let line = text.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a VmSize line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether `arguments` are formatted as `expected`.
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

/// Waits until `done`, for at least a minute, because a machine may be busy. `what` names the event
/// in the message.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("waited a minute in vain: {what}");
}

/// A text of at most 39 bytes with a NUL, and its length.
struct Text([u8; 40], usize);

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.0.get_mut(self.1..self.1 + text.len() + 1).ok_or(core::fmt::Error)?;
        room[..text.len()].copy_from_slice(text.as_bytes());
        self.1 += text.len();
        Ok(())
    }
}

/// Waits until a thread of this process sleeps in the kernel. It must sleep at five looks, because
/// an emulator's threads also sleep briefly while they wait for each other. proc_pid_stat(5)
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

/// fork(2), bypassing rt0: 0 in the child, which must not return from the test.
pub fn fork() -> Result<u32, Errno> {
    let before = sys::getpid();
    let [first, second] = clone_arguments(k::SIGCHLD);
    // SAFETY: 1. The child has a copy of everything.
    let pid = unsafe { sys::syscall(k::__NR_clone as usize, [first, second, 0, 0, 0, 0]) }? as u32;
    // sparc64's kernel gives the child its parent's number.
    Ok(if sys::getpid() == before { pid } else { 0 })
}

/// Runs `work` in a child of clone(2) with these flags, which include `CLONE_VFORK`. The child runs
/// on the same stack, while its parent waits.
///
/// Both return from the same call. The child's last call is made from the same place, so that it
/// leaves the values on the stack that its parent needs. All other data is static.
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
        // SAFETY: 1. The parent waits while the child uses its stack, and at the child's end
        // nothing there is borrowed.
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
    if machine().starts_with(b"s390x\0") { [0, flags as usize] } else { [flags as usize, 0] }
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

/// waitid(2) until a child stops (returns the signal) or ends.
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
    // SAFETY: waitid filled it in; this is its part for SIGCHLD.
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

/// Runs `child` in a process of its own. Returns the start of what it writes to standard error, as
/// much as fits in `buf`, and how it ended. An emulator's own message about the end is removed.
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
    // SAFETY: 1. It belongs to this function, which does not use it again.
    unsafe { sys::syscall(k::__NR_close as usize, [fds[1] as usize, 0, 0, 0, 0, 0]) }.expect("close");
    let mut filled = 0;
    while filled < buf.len() {
        match rt0::io::read(numbered(fds[0]), &mut buf[filled..]).expect("the pipe") {
            0 => break,
            count => filled += count,
        }
    }
    let text = core::str::from_utf8(&buf[..filled]).expect("text");
    (text.find("qemu: uncaught target signal").map_or(text, |at| &text[..at]), wait_for(pid))
}

/// Sets `AT_SECURE` in the auxiliary vector on the main thread's stack, as for a set-uid program.
pub fn make_secure(env: Env) {
    let [secure, page_size, path] = [auxvec::AT_SECURE, auxvec::AT_PAGESZ, auxvec::AT_EXECFN].map(|key| key as usize);
    let vector = env.auxv();
    let (page, end) = (vector.get(page_size).expect("its page size"), vector.get(path).expect("its path"));
    let word = |at: usize| core::ptr::with_exposed_provenance_mut::<usize>(at);
    // SAFETY: the stack from here to the path.
    let read = |at: usize| unsafe { word(at).read_volatile() };
    let step = size_of::<usize>();
    let start = (&raw const vector).expose_provenance().next_multiple_of(step);
    // A function's frame may hold the same two words, but not the other entry near them.
    let pages = (start..end - step).step_by(step).filter(|at| read(*at) == page_size && read(at + step) == page);
    let near = |at: usize| (1..32).flat_map(move |n| [at - 2 * step * n, at + 2 * step * n]);
    let at = pages.flat_map(near).find(|at| read(*at) == secure && read(at + step) == 0).expect("the entry");
    // SAFETY: within the vector, which is this process's; no thread reads it meanwhile.
    unsafe { word(at + step).write_volatile(1) };
    assert!(env.auxv().secure());
}

/// The machine's name, as uname(2) has it.
pub fn machine() -> [u8; 65] {
    let mut names = [[0u8; 65]; 6]; // struct new_utsname
    let at = (&raw mut names).expose_provenance();
    // SAFETY: 1. The kernel writes the six names.
    unsafe { sys::syscall(k::__NR_uname as usize, [at, 0, 0, 0, 0, 0]) }.expect("uname");
    names[4]
}

/// Whether an emulator executes the instructions: an emulator of programs, or one of machines with
/// a real kernel, where the first process creates a file to say so.
pub fn slow() -> bool {
    let args = [k::AT_FDCWD as isize as usize, c"/slow".as_ptr().expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the path.
    let marked = unsafe { sys::syscall(k::__NR_faccessat as usize, args) };
    marked.is_ok() || emulated()
}

/// Whether an emulator answers this process's system calls. It shows its own file as the process's,
/// unless it pretends.
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

/// A program whose TLS image is aligned to `$align`. A program has one image, so each alignment
/// needs its own program.
///
/// `#[thread_local]` is unstable. xtask enables it for these programs, because rt0 must support
/// crates that use it.
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

        /// Checks the aligned initial values; then stores others, which must stay this thread's.
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
            // The block beside the image is intact.
            assert!(rt0::thread::current().name().is_none_or(|name| name == "main"));
        }

        rt0::tests! { main_has_its_image, every_thread_has_an_image_of_its_own }

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
    };
}

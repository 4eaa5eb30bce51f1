//! The adapters for others' crates, each used as its crate's users do.
//!
//! It is a program of its own, because a program has one allocator and one logger.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::hint::black_box;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use critical_section::Mutex as SectionMutex;
use embedded_io::{Error as _, ErrorKind, Read, ReadExactError, Write};
use linux_raw_sys::general as k;
use rt0::adapters::allocator::Allocator;
use rt0::adapters::lock_api::{MutexGuard, RawMutex, RawRwLock, ReentrantMutex, RwLock, RwLockWriteGuard};
use rt0::io::{stderr, stdin, stdout};
use rt0::signal::{self, Action, How, SigSet, Signal};
use rt0::sync::Channel;
use rt0::test::Expect;
use rt0::thread::{self, spawn};
use rt0::time::Instant;
use rt0::{Env, Errno, sys};
use rt0_tests::files::{pipe, pipe_with};
use rt0_tests::seccomp::{Verdict, filter};
use rt0_tests::{Ended, alarm_every, mappings, often, stderr_of, wait_until};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

const TICK: Duration = Duration::from_millis(20);

rt0::tests! {
    a_vector_keeps_its_contents_through_every_way_of_growing_and_shrinking,
    what_is_asked_for_in_zeros_is_zero_and_as_aligned_as_asked_for,
    what_is_large_goes_back_to_the_kernel,
    threads_allocate_at_once_and_free_what_others_allocated,
    memory_that_cannot_be_had_ends_with_101 => Expect::panic("memory allocation of"),
    a_critical_section_excludes_threads_and_nests,
    a_handler_runs_after_the_section_that_a_signal_comes_in,
    handlers_and_threads_count_in_sections_and_lose_nothing,
    what_is_written_for_embedded_io_reads_and_writes_the_standard_descriptors,
    what_is_formatted_for_embedded_io_is_one_write,
    errors_for_embedded_io_have_their_kinds,
    mutexes_of_lock_api_exclude_and_time_out,
    reader_writer_locks_of_lock_api_share_exclude_and_downgrade,
    a_reader_reads_again_while_a_writer_waits_for_it,
    a_reentrant_mutex_is_its_threads_until_the_last_guard,
    each_thread_has_an_id_of_its_own_that_stays,
    records_of_the_level_and_above_are_lines_on_stderr =>
        Expect::success().env(&[("RT0_LOG", "Info")]),
    without_a_level_errors_are_logged,
    a_level_that_is_none_is_told_and_errors_are_logged =>
        Expect::success().env(&[("RT0_LOG", "loud")]),
    a_record_is_one_write_and_a_second_logger_is_refused =>
        Expect::success().env(&[("RT0_LOG", "trace")]),
    the_backend_of_getrandom_fills_what_was_not_initialized,
    the_backend_of_getrandom_passes_errors_on,
    descriptors_and_errors_go_to_rustix_and_back,
}

// The global allocator.

fn a_vector_keeps_its_contents_through_every_way_of_growing_and_shrinking() {
    let mut numbers = Vec::new();
    numbers.extend(0..600_000u32);
    assert!(numbers.iter().copied().eq(0..600_000));
    for len in [400_000, 40_000, 4_000, 40] {
        numbers.truncate(len);
        numbers.shrink_to_fit();
        assert!(numbers.iter().copied().eq(0..len as u32), "{len}");
    }
}

fn what_is_asked_for_in_zeros_is_zero_and_as_aligned_as_asked_for() {
    for size in [1, 100, 5_000, 127 << 10, 128 << 10, 300_000] {
        for align in [1, 8, 64, 4096, 65_536] {
            let layout = Layout::from_size_align(size, align).unwrap();
            for _ in 0..3 {
                // SAFETY: the size is not 0.
                let block = unsafe { ALLOCATOR.alloc_zeroed(layout) };
                assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                // SAFETY: so many bytes are there.
                let bytes = unsafe { core::slice::from_raw_parts_mut(block, size) };
                assert!(bytes.iter().all(|byte| *byte == 0), "{layout:?}");
                bytes.fill(0xA5);
                // SAFETY: from this allocator, with this layout.
                unsafe { ALLOCATOR.dealloc(block, layout) };
            }
        }
    }
}

fn what_is_large_goes_back_to_the_kernel() {
    drop(black_box(vec![1u8; 1000])); // The heap for what is small stays.
    let before = mappings();
    for size in [128 << 10, 1 << 20, 5_000_001] {
        let mut large = vec![7u8; size];
        large.reserve_exact(size);
        assert!(large.iter().all(|byte| *byte == 7));
    }
    assert_eq!(mappings(), before);
}

fn threads_allocate_at_once_and_free_what_others_allocated() {
    static CHANNEL: Channel<(u8, Vec<u8>), 8> = Channel::new();
    let (sender, receiver) = CHANNEL.split();
    let rounds = often(2_000);
    let threads = [1u8, 2, 3].map(|mark| {
        let sender = sender.clone();
        spawn(move || {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            let mut random = u32::from(mark);
            for round in 0..rounds {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let size = match random >> 28 {
                    0 => (random >> 8) as usize % 200_000,
                    _ => (random >> 16) as usize % 700,
                };
                kept.push(vec![mark; size]);
                if round % 3 == 0 {
                    let of_some_age = kept.swap_remove(random as usize % kept.len());
                    assert!(of_some_age.iter().all(|byte| *byte == mark));
                    sender.send((mark, of_some_age)).unwrap();
                }
                if kept.len() == 50 {
                    kept.clear();
                }
            }
            Box::new(mark)
        })
        .unwrap()
    });
    drop(sender);
    let mut received = 0;
    for (mark, vector) in receiver {
        assert!(vector.iter().all(|byte| *byte == mark));
        received += 1;
    }
    assert_eq!(received, 3 * rounds.div_ceil(3));
    assert_eq!(threads.map(|thread| *thread.join()), [1, 2, 3]);
}

fn memory_that_cannot_be_had_ends_with_101() {
    black_box(Vec::<u8>::with_capacity(isize::MAX as usize));
}

// critical-section.

fn a_critical_section_excludes_threads_and_nests() {
    static COUNT: SectionMutex<Cell<u32>> = SectionMutex::new(Cell::new(0));
    let rounds = often(5_000) as u32;
    let add = move || {
        for _ in 0..rounds {
            critical_section::with(|section| {
                let seen = COUNT.borrow(section).get();
                critical_section::with(|inner| assert_eq!(COUNT.borrow(inner).get(), seen));
                COUNT.borrow(section).set(seen + 1);
            });
        }
    };
    let threads = [(); 3].map(|()| spawn(add).unwrap());
    threads.into_iter().for_each(|thread| thread.join());
    assert_eq!(critical_section::with(|section| COUNT.borrow(section).get()), 3 * rounds);
}

fn a_handler_runs_after_the_section_that_a_signal_comes_in() {
    static IN_SECTION: AtomicBool = AtomicBool::new(false);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: i32) {
        critical_section::with(|_| assert!(!IN_SECTION.load(Relaxed)));
        RUNS.fetch_add(1, Relaxed);
    }
    install(Signal::SIGUSR1, handler);
    critical_section::with(|_| {
        IN_SECTION.store(true, Relaxed);
        critical_section::with(|_| signal::raise(Signal::SIGUSR1).unwrap());
        assert_eq!(RUNS.load(Relaxed), 0);
        IN_SECTION.store(false, Relaxed);
    });
    assert_eq!(RUNS.load(Relaxed), 1);
    let before = signal::mask(How::Block, &SigSet::from_iter([Signal::SIGUSR2]));
    assert!(!before.contains(Signal::SIGUSR1) && !before.contains(Signal::SIGUSR2));
    critical_section::with(|_| {});
    let after = signal::mask(How::Block, &SigSet::empty());
    assert!(!after.contains(Signal::SIGUSR1) && after.contains(Signal::SIGUSR2), "as before");
}

fn handlers_and_threads_count_in_sections_and_lose_nothing() {
    static COUNT: SectionMutex<Cell<u32>> = SectionMutex::new(Cell::new(0));
    static ALARMS: AtomicU32 = AtomicU32::new(0);
    fn add() {
        critical_section::with(|section| COUNT.borrow(section).set(COUNT.borrow(section).get() + 1));
    }
    extern "C" fn handler(_: i32) {
        add();
        ALARMS.fetch_add(1, Relaxed);
    }
    install(Signal::SIGALRM, handler);
    alarm_every(Duration::from_millis(1));
    let other = spawn(|| {
        let mut adds = 0;
        while ALARMS.load(Relaxed) < 20 {
            add();
            adds += 1;
        }
        adds
    })
    .unwrap();
    let mut adds = 0;
    wait_until("twenty alarms", || {
        add();
        adds += 1;
        ALARMS.load(Relaxed) >= 20
    });
    adds += other.join();
    alarm_every(Duration::ZERO);
    let counted = critical_section::with(|section| COUNT.borrow(section).get());
    assert_eq!(counted, adds + ALARMS.load(Relaxed));
}

// embedded-io.

fn what_is_written_for_embedded_io_reads_and_writes_the_standard_descriptors() {
    fn double<R: Read, W: Write<Error = R::Error>>(mut from: R, mut to: W) -> Result<(), R::Error> {
        let mut buf = [0; 4];
        loop {
            match from.read(&mut buf)? {
                0 => return to.flush(),
                filled => (0..2).try_for_each(|_| to.write_all(&buf[..filled]))?,
            }
        }
    }
    let ([input, to_input], [from_output, output]) = (pipe(), pipe());
    become_fd(input, 0);
    become_fd(output, 1);
    rt0::io::write_all(rt0_tests::numbered(to_input), b"abcdef").unwrap();
    close(to_input);
    assert_eq!(double(stdin(), stdout()), Ok(()));
    let mut buf = [0; 32];
    let filled = rt0::io::read(rt0_tests::numbered(from_output), &mut buf).unwrap();
    assert_eq!(&buf[..filled], b"abcdabcdefef");
    assert_eq!(Read::read_exact(&mut stdin(), &mut [0; 1]), Err(ReadExactError::UnexpectedEof));
}

fn what_is_formatted_for_embedded_io_is_one_write() {
    let [packets, output] = pipe_with(k::O_DIRECT).unwrap();
    become_fd(output, 1);
    Write::write_fmt(&mut stdout(), format_args!("{} and {:>3}\n", "one", 2)).unwrap();
    Write::write_fmt(&mut stdout(), format_args!("next")).unwrap();
    let mut buf = [0; 64];
    let filled = rt0::io::read(rt0_tests::numbered(packets), &mut buf).unwrap();
    assert_eq!(&buf[..filled], b"one and   2\n");
}

fn errors_for_embedded_io_have_their_kinds() {
    let [reader, writer] = pipe();
    become_fd(writer, 2);
    close(reader);
    // SAFETY: 1. No handler.
    unsafe { signal::sigaction(Signal::SIGPIPE, Action { handler: signal::Handler::Ignore, ..Action::DEFAULT }) }
        .unwrap();
    let error = Write::write(&mut stderr(), b"x").unwrap_err();
    assert_eq!((error, error.kind()), (Errno::EPIPE, ErrorKind::BrokenPipe));
    close(0);
    let error = Read::read(&mut stdin(), &mut [0; 1]).unwrap_err();
    assert_eq!((error, error.kind()), (Errno::EBADF, ErrorKind::Other));
    for (errno, kind) in [
        (Errno::ENOENT, ErrorKind::NotFound),
        (Errno::EACCES, ErrorKind::PermissionDenied),
        (Errno::EEXIST, ErrorKind::AlreadyExists),
        (Errno::ETIMEDOUT, ErrorKind::TimedOut),
        (Errno::ENOSYS, ErrorKind::Unsupported),
    ] {
        assert_eq!(errno.kind(), kind);
    }
}

// lock_api.

fn mutexes_of_lock_api_exclude_and_time_out() {
    static MUTEX: lock_api::Mutex<RawMutex, [u32; 2]> = lock_api::Mutex::new([0; 2]);
    let rounds = often(20_000) as u32;
    let add = move || {
        for _ in 0..rounds {
            *MutexGuard::map(MUTEX.lock(), |both| &mut both[1]) += 1;
        }
    };
    [(); 3].map(|()| spawn(add).unwrap()).into_iter().for_each(|thread| thread.join());
    let mut guard = MUTEX.lock();
    assert_eq!(*guard, [0, 3 * rounds]);
    assert!(MUTEX.is_locked() && MUTEX.try_lock().is_none());
    let start = Instant::now();
    assert!(MUTEX.try_lock_for(TICK).is_none() && MUTEX.try_lock_until(start + TICK).is_none());
    assert!(start.elapsed() >= TICK);
    MutexGuard::unlocked(&mut guard, || assert!(!MUTEX.is_locked() && MUTEX.try_lock_for(TICK).is_some()));
    assert_eq!(guard[1], 3 * rounds);
}

fn reader_writer_locks_of_lock_api_share_exclude_and_downgrade() {
    let lock = lock_api::RwLock::<RawRwLock, _>::new(1);
    {
        let (one, two) = (lock.read(), lock.try_read().unwrap());
        assert_eq!(*one + *two, 2);
        assert!(lock.is_locked() && !lock.is_locked_exclusive());
        assert!(lock.try_write().is_none() && lock.try_write_for(TICK).is_none());
    }
    let mut guard = lock.write();
    assert!(lock.is_locked() && lock.is_locked_exclusive());
    assert!(lock.try_read().is_none() && lock.try_read_for(TICK).is_none());
    assert!(lock.try_read_recursive().is_none() && lock.try_read_recursive_for(TICK).is_none());
    *guard = 2;
    let guard = RwLockWriteGuard::downgrade(guard);
    assert_eq!((*guard, *lock.read()), (2, 2));
    drop(guard);
    assert!(!lock.is_locked());
    assert_eq!(lock.try_write_until(Instant::now()).map(|guard| *guard), Some(2));
}

fn a_reader_reads_again_while_a_writer_waits_for_it() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    let outer = LOCK.read();
    let writer = spawn(|| *LOCK.write() += 1).unwrap();
    wait_until("the writer to wait", || LOCK.try_read().is_none());
    assert_eq!(*LOCK.read_recursive(), 0);
    assert!(LOCK.try_read_recursive().is_some() && LOCK.try_read_recursive_for(TICK).is_some());
    assert!(!writer.is_finished());
    drop(outer);
    writer.join();
    assert_eq!(*LOCK.read_recursive(), 1);
}

fn a_reentrant_mutex_is_its_threads_until_the_last_guard() {
    static MUTEX: ReentrantMutex<Cell<u32>> = ReentrantMutex::new(Cell::new(0));
    let (first, second) = (MUTEX.lock(), MUTEX.lock());
    first.set(second.get() + 1);
    assert!(MUTEX.is_owned_by_current_thread());
    let other = || spawn(|| MUTEX.try_lock_for(TICK).map(|guard| guard.get())).unwrap().join();
    assert_eq!(other(), None);
    drop(first);
    assert_eq!(other(), None);
    drop(second);
    assert_eq!(other(), Some(1));
    assert!(!MUTEX.is_owned_by_current_thread());
}

fn each_thread_has_an_id_of_its_own_that_stays() {
    let main = thread::current_id();
    let other = spawn(|| (thread::current_id(), thread::current().id())).unwrap();
    let id = other.thread().id();
    assert_eq!(other.join(), (id, id));
    assert_ne!(id, main);
    assert_eq!((thread::current_id(), thread::current().id()), (main, main));
}

// log.

fn records_of_the_level_and_above_are_lines_on_stderr(env: Env) {
    let logged = logged_by(env, || {
        log::error!("code {}", 7);
        log::info!(target: "part", "told");
        log::debug!("not told");
    });
    assert_eq!(logged, "ERROR adapters: code 7\nINFO part: told\n");
}

fn without_a_level_errors_are_logged(env: Env) {
    let logged = logged_by(env, || {
        log::error!("told");
        log::warn!("not told");
    });
    assert_eq!(logged, "ERROR adapters: told\n");
}

fn a_level_that_is_none_is_told_and_errors_are_logged(env: Env) {
    let logged = logged_by(env, || log::warn!("not told"));
    assert_eq!(logged, "RT0_LOG: not one of off, error, warn, info, debug, trace; error it is\n");
}

fn a_record_is_one_write_and_a_second_logger_is_refused(env: Env) {
    rt0::adapters::log::init(env).unwrap();
    assert!(rt0::adapters::log::init(env).is_err());
    let [packets, output] = pipe_with(k::O_DIRECT).unwrap();
    become_fd(output, 2);
    log::trace!("{} and {}", 1, 2);
    log::trace!("next");
    let mut buf = [0; 64];
    let filled = rt0::io::read(rt0_tests::numbered(packets), &mut buf).unwrap();
    assert_eq!(&buf[..filled], b"TRACE adapters: 1 and 2\n");
}

// getrandom.

fn the_backend_of_getrandom_fills_what_was_not_initialized() {
    let mut filled = [[MaybeUninit::<u8>::uninit(); 32]; 2];
    for buf in &mut filled {
        // SAFETY: 1. The buffer is a local variable.
        assert!(unsafe { __getrandom_v03_custom(buf.as_mut_ptr().cast(), buf.len()) }.is_ok());
    }
    // SAFETY: 1. Nothing is written.
    assert!(unsafe { __getrandom_v03_custom(filled.as_mut_ptr().cast(), 0) }.is_ok());
    // SAFETY: filled above.
    let [one, two] = filled.map(|buf| buf.map(|byte| unsafe { byte.assume_init() }));
    assert!(one != two && one != [0; 32] && two != [0; 32]);
}

fn the_backend_of_getrandom_passes_errors_on() {
    rt0::vdso::turn_off();
    filter(&[k::__NR_getrandom, k::__NR_openat], Verdict::Refuse(Errno::EACCES), Verdict::Allow);
    let mut byte = 0;
    // SAFETY: 1. The buffer is a local variable.
    let filled = unsafe { __getrandom_v03_custom(&raw mut byte, 1) };
    assert_eq!(filled, Err(getrandom::Error(Errno::EACCES.raw())));
}

// rustix.

fn descriptors_and_errors_go_to_rustix_and_back() {
    with_rustix::test();
}

/// What the macro uses of the crate getrandom. The crate itself is for programs that are built with
/// a flag of its own.
mod getrandom {
    #[derive(Debug, PartialEq, Eq)]
    pub struct Error(pub u16);

    impl Error {
        pub fn new_custom(number: u16) -> Error {
            Error(number)
        }
    }
}
rt0::getrandom_backend!(getrandom);

unsafe extern "Rust" {
    /// How the crate declares it.
    fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), getrandom::Error>;
}

/// What a child writes to standard error that makes rt0's logger its own and does this.
fn logged_by(env: Env, work: fn()) -> String {
    let mut buf = [0; 512];
    let child = || {
        rt0::adapters::log::init(env).unwrap();
        work();
    };
    let (text, ended) = stderr_of(child, &mut buf);
    assert_eq!(ended, Ended::Exit(0));
    String::from(text)
}

fn install(signal: Signal, handler: extern "C" fn(i32)) {
    // SAFETY: 1. The handlers of this file store atomics and enter critical sections.
    unsafe { signal::sigaction(signal, Action::call(handler)) }.unwrap();
}

fn call(nr: u32, args: [usize; 6]) -> usize {
    // SAFETY: 1. Only close and dup3, on descriptors of this test.
    unsafe { sys::syscall(nr as usize, args) }.unwrap()
}

fn close(fd: i32) {
    call(k::__NR_close, [fd as usize, 0, 0, 0, 0, 0]);
}

/// Makes `standard` mean what `fd` does, and closes `fd`.
fn become_fd(fd: i32, standard: i32) {
    call(k::__NR_dup3, [fd as usize, standard as usize, 0, 0, 0, 0]);
    close(fd);
}

/// On the machines where rustix makes system calls itself.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "riscv64"
))]
mod with_rustix {
    use rt0::Errno;
    use rt0::io::{EventFd, stdout};
    use rt0::sys::OwnedFd;
    use rustix::fd::{AsFd, AsRawFd};

    pub fn test() {
        let (reader, writer) = rt0::sys::pipe().unwrap();
        let number = writer.as_raw_fd();
        let writer = rustix::fd::OwnedFd::from(writer);
        assert_eq!(writer.as_raw_fd(), number);
        assert_eq!(rustix::io::write(&writer, b"abc"), Ok(3));
        let writer = OwnedFd::from(writer);
        assert_eq!((writer.as_raw_fd(), rt0::io::write(rt0_tests::numbered(number), b"de")), (number, Ok(2)));
        let mut buf = [0; 8];
        assert_eq!((rustix::io::read(&reader, &mut buf), &buf[..5]), (Ok(5), &b"abcde"[..]));
        let lent = rustix::fd::BorrowedFd::from(rt0::io::AsFd::as_fd(&writer));
        assert_eq!(rustix::io::write(lent, b"f"), Ok(1));
        assert_eq!(rt0::io::write(rt0::io::BorrowedFd::from(lent), b"g"), Ok(1));
        assert_eq!((rustix::io::read(&reader, &mut buf), &buf[..2]), (Ok(2), &b"fg"[..]));
        let counter = EventFd::new().unwrap();
        counter.add(3).unwrap();
        assert_eq!((rustix::io::read(rustix::fd::AsFd::as_fd(&counter), &mut buf), counter.take()), (Ok(8), Ok(0)));
        drop(writer);
        let error: Errno = rustix::io::fcntl_getfd(closed_fd(number)).unwrap_err().into();
        assert_eq!(error, Errno::EBADF, "it was owned to the end");
        assert_eq!(stdout().as_fd().as_raw_fd(), 1);
        for errno in (1..=Errno::MAX).filter_map(Errno::from_raw) {
            let there = rustix::io::Errno::from(errno);
            assert_eq!((there.raw_os_error(), Errno::from(there)), (errno.raw().into(), errno));
        }
    }

    fn closed_fd(number: i32) -> rustix::fd::BorrowedFd<'static> {
        // SAFETY: it is asked about only.
        unsafe { rustix::fd::BorrowedFd::borrow_raw(number) }
    }
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "riscv64"
)))]
mod with_rustix {
    pub fn test() {
        rt0_tests::skip("rustix calls libc on this machine");
    }
}

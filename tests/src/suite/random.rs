//! Random bytes: never twice the same, from whatever source there is.

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::all_threads::FilterStep;
use rt0::random::{Source, fill, startup};
use rt0::signal::{Action, Signal, sigaction};
use rt0::sys::syscall;
use rt0::test::Expect;
use rt0::thread::{Builder, sleep, spawn, yield_now};
use rt0::time::Instant;
use rt0::{Env, Errno, all_threads, println, sys, vdso};
use rt0_tests::files::{mount, own_mounts, pipe};
use rt0_tests::seccomp::{Verdict, filter, need_filters};
use rt0_tests::{
    Ended, SKIPPED, alarm_every, fork, mappings, often, skip, vdso_image, vm_size_kib, wait_for,
    wait_for_mappings_to_go, wait_until,
};

type Bytes = [u8; 16];

fn random() -> Bytes {
    let mut bytes = [0; 16];
    fill(&mut bytes).unwrap();
    bytes
}

/// Checks that no two are equal: with 128 random bits that never happens by chance.
fn all_differ(bytes: &[Bytes]) {
    for (index, one) in bytes.iter().enumerate() {
        assert_ne!(*one, [0; 16], "{index}");
        assert!(!bytes[..index].contains(one), "{index}: {one:?}");
    }
}

/// Skips the test if the kernel's vDSO has no getrandom.
fn need_vdso() {
    if !vdso::in_use().getrandom {
        skip("no getrandom in the vDSO here");
    }
}

/// The calls between a `fill` that must make no call and the test's end.
const LAST_WORDS: &[u32] = &[k::__NR_write, k::__NR_exit_group];

rt0::test_module! {
    no_two_are_the_same,
    any_length_is_filled_and_nothing_beside_it,
    every_byte_of_many_is_random,
    for_no_bytes_no_source_is_asked,
    four_gib_are_filled_to_the_last_byte =>
        Expect::success().native("an emulator keeps its books of every page"),
    a_hundred_requests_make_no_call,
    threads_have_each_their_own,
    hundreds_of_threads_at_once_make_no_call,
    a_thousand_threads_use_the_states_of_those_that_ended,
    threads_that_end_by_a_call_of_their_own_leave_their_states_to_others,
    a_handler_may_interrupt_a_request_with_its_own,
    a_request_that_interrupts_another_within_the_vdso_asks_the_kernel,
    the_first_request_may_be_a_handlers,
    a_forked_child_has_others_than_its_parent,
    without_the_vdso_the_kernel_is_asked,
    without_getrandom_the_device_is_read,
    where_getrandom_is_forbidden_the_device_is_read,
    without_any_source_the_error_says_why,
    without_memory_for_a_state_the_kernel_is_asked,
    the_bytes_for_a_start_are_those_that_the_kernel_gave,
    the_smallest_stack_is_enough,
}

fn no_two_are_the_same() {
    all_differ(&[(); 500].map(|()| random()));
}

fn any_length_is_filled_and_nothing_beside_it() {
    const MARK: u8 = 0xA5;
    let mut buf = [MARK; 1024];
    for len in 0..=600 {
        buf.fill(MARK);
        fill(&mut buf[8..8 + len]).unwrap();
        assert!(buf[..8].iter().chain(&buf[8 + len..]).all(|byte| *byte == MARK), "{len}");
        // About n / 256 of n bytes stay by chance, but never 16 in a row.
        assert!(buf[8..8 + len].as_chunks::<16>().0.iter().all(|chunk| *chunk != [MARK; 16]), "{len}");
    }
}

fn every_byte_of_many_is_random() {
    let mut buf = [0; 1 << 18];
    fill(&mut buf).unwrap();
    let mut counts = [0usize; 256];
    buf.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    // 1024 of each are expected, with a standard deviation of 32.
    assert!(counts.iter().all(|count| (768..1280).contains(count)), "{counts:?}");
    let (words, _) = buf.as_chunks::<8>();
    let ones: u32 = words.iter().map(|word| u64::from_ne_bytes(*word).count_ones()).sum();
    assert!(ones.abs_diff(1 << 20) < 8_000, "{ones}");
}

fn for_no_bytes_no_source_is_asked() {
    filter(LAST_WORDS, Verdict::Allow, Verdict::Kill);
    fill(&mut []).unwrap();
}

/// Longer than any call fills at once, and than 31 and 32 bits can count. A device of zeros
/// replaces the random one, because so many random bytes take ten seconds.
fn four_gib_are_filled_to_the_last_byte() {
    const MARK: u8 = 0xA5;
    let all = four_gib_and_a_page();
    let (first, last) = (64 << 20, all.len() - 4096);
    all[..first].fill(MARK); // All other parts except the last are the same memory.
    all[last..].fill(MARK);
    own_mounts();
    mount(Some(c"/dev/zero"), c"/dev/urandom", None, k::MS_BIND);
    filter(&[k::__NR_getrandom], Verdict::Refuse(Errno::ENOSYS), Verdict::Allow);
    vdso::turn_off();
    let end = all.len() - 1;
    fill(&mut all[..end]).unwrap();
    assert!(all[..first].iter().chain(&all[last..end]).all(|byte| *byte == 0));
    assert_eq!(all[end], MARK);
}

fn a_hundred_requests_make_no_call() {
    need_vdso();
    in_a_child(|| {
        random(); // The thread gets its state, and the state its key.
        filter(LAST_WORDS, Verdict::Allow, Verdict::Kill);
        all_differ(&[(); 100].map(|()| random()));
    });
}

fn threads_have_each_their_own() {
    let threads = [(); 32].map(|()| spawn(|| [(); 8].map(|()| random())).unwrap());
    let results = threads.map(|thread| thread.join());
    all_differ(results.as_flattened());
}

/// More states than one list holds, and none of them may straddle a page: the vDSO would refuse
/// it, and the system call instead is forbidden here.
fn hundreds_of_threads_at_once_make_no_call() {
    need_vdso();
    need_filters();
    static READY: AtomicUsize = AtomicUsize::new(0);
    static GO: AtomicU32 = AtomicU32::new(0);
    in_a_child(|| {
        let threads = [(); 400].map(|()| {
            Builder::new()
                .stack_size(32 << 10)
                .spawn(|| {
                    random();
                    READY.fetch_add(1, Relaxed);
                    while GO.load(Acquire) == 0 {
                        let _ = rt0::futex::wait(&GO, 0);
                    }
                    [(); 4].map(|()| random())
                })
                .unwrap()
        });
        wait_until("every thread to have a state", || READY.load(Relaxed) == 400);
        all_threads::set_no_new_privs().unwrap();
        let step = |code, jt, jf, k| FilterStep { code, jt, jf, k };
        let refuse = 0x5_0000 | Errno::EPERM.raw() as u32;
        let calls = [step(0x15, 1, 0, k::__NR_getrandom), step(0x15, 0, 1, k::__NR_openat)];
        let steps = [step(0x20, 0, 0, 0), calls[0], calls[1], step(6, 0, 0, refuse), step(6, 0, 0, 0x7fff_0000)];
        // SAFETY: 1. The two calls fail, which rt0 must handle.
        if let Err(error) = unsafe { all_threads::seccomp(&steps) } {
            println!("{error:?}");
            skip("filters are not allowed here");
        }
        GO.store(1, Release);
        rt0::futex::wake_all(&GO);
        let results = threads.map(|thread| thread.join());
        all_differ(results.as_flattened());
    });
}

fn a_thousand_threads_use_the_states_of_those_that_ended() {
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    let round = |threads: usize| {
        for started in 1..=threads {
            drop(
                spawn(|| {
                    random();
                    ENDED.fetch_add(1, Relaxed);
                })
                .unwrap(),
            );
            wait_until("threads to end", || ENDED.load(Relaxed) + 50 >= started);
        }
        wait_until("every thread to end", || ENDED.load(Relaxed) == threads);
        ENDED.store(0, Relaxed);
    };
    round(100);
    wait_until("every stack to be gone", || sleep_and_count() == sleep_and_count());
    let before = mappings();
    round(often(1000));
    wait_for_mappings_to_go(before + 2);
}

fn threads_that_end_by_a_call_of_their_own_leave_their_states_to_others() {
    need_vdso();
    let round = |threads: usize| {
        for _ in 0..threads {
            let ended = spawn(|| {
                random();
                // SAFETY: 1. No other thread borrows from this thread's stack.
                let _ = unsafe { syscall(k::__NR_exit as usize, [0; 6]) };
            })
            .unwrap();
            wait_until("its end", || ended.thread().interrupt().err() == Some(Errno::ESRCH));
            drop(ended);
            all_threads::set_no_new_privs().unwrap(); // Finds the dead thread.
        }
    };
    round(1);
    let before = vm_size_kib();
    round(500);
    assert!(vm_size_kib() < before + 32, "no page for new ones, of which one has room for some 20");
}

fn a_handler_may_interrupt_a_request_with_its_own() {
    const MOST: usize = 400;
    static OURS: [[AtomicU32; 4]; MOST] = [const { [const { AtomicU32::new(0) }; 4] }; MOST];
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static FAILED: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn ask(_: i32) {
        let mut bytes = [0; 16];
        if fill(&mut bytes).is_err() {
            FAILED.fetch_add(1, Relaxed);
        }
        let index = HANDLED.fetch_add(1, Relaxed).min(MOST - 1);
        for (word, four) in OURS[index].iter().zip(bytes.as_chunks::<4>().0) {
            word.store(u32::from_ne_bytes(*four), Relaxed);
        }
    }
    // SAFETY: 1. Random bytes and atomics only.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(ask)) }.unwrap();
    let (process, asker) = (sys::getpid(), sys::gettid());
    let sender = spawn(move || {
        while !DONE.load(Relaxed) {
            sys::tgkill(process, asker, Signal::SIGUSR1.raw()).unwrap();
            yield_now();
        }
    })
    .unwrap();
    let mut all = [[0; 16]; 2 * MOST];
    let end = Instant::now() + Duration::from_secs(20);
    let mut buf = [0; 300];
    let mut round = 0;
    while HANDLED.load(Relaxed) < MOST && Instant::now() < end {
        fill(&mut buf).unwrap(); // Long enough to be interrupted.
        all[round % MOST].copy_from_slice(&buf[284..]);
        round += 1;
    }
    DONE.store(true, Relaxed);
    sender.join();
    assert_eq!(FAILED.load(Relaxed), 0);
    let (mine, theirs) = (round.min(MOST), HANDLED.load(Relaxed).min(MOST - 1));
    assert!(theirs > 0);
    for (index, words) in OURS[..theirs].iter().enumerate() {
        let (fours, _) = all[mine + index].as_chunks_mut::<4>();
        fours.iter_mut().zip(words).for_each(|(four, word)| *four = word.load(Relaxed).to_ne_bytes());
    }
    all_differ(&all[..mine + theirs]);
}

fn a_request_that_interrupts_another_within_the_vdso_asks_the_kernel(env: Env) {
    need_vdso();
    static FELL_BACK: AtomicUsize = AtomicUsize::new(0);
    static IMAGE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    let image = vdso_image(env);
    IMAGE[0].store(image.start, Relaxed);
    IMAGE[1].store(image.end, Relaxed);
    let action = Action::info(|info| {
        let [start, end] = IMAGE.each_ref().map(|word| word.load(Relaxed));
        let inside = (start..end).contains(&info.pc());
        FELL_BACK.fetch_add(usize::from(inside && fill(&mut [0; 16]) == Err(Errno::EPERM)), Relaxed);
    });
    // SAFETY: 1. Random bytes and atomics only.
    unsafe { sigaction(Signal::SIGALRM, action) }.unwrap();
    in_a_child(|| {
        let mut buf = [0; 64 << 10];
        fill(&mut buf).unwrap();
        // On this thread every other source fails.
        filter(&[k::__NR_getrandom, k::__NR_openat], Verdict::Refuse(Errno::EPERM), Verdict::Allow);
        alarm_every(Duration::from_micros(500));
        let end = Instant::now() + Duration::from_secs(20);
        let mut refused = Ok(());
        while FELL_BACK.load(Relaxed) < 20 && refused.is_ok() && Instant::now() < end {
            refused = fill(&mut buf);
        }
        alarm_every(Duration::ZERO);
        assert_eq!(refused, Ok(()));
        assert!(FELL_BACK.load(Relaxed) >= 20);
        assert!(buf.as_chunks::<16>().0.iter().all(|chunk| *chunk != [0; 16]));
    });
}

fn the_first_request_may_be_a_handlers() {
    static DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn ask(_: i32) {
        DONE.store(fill(&mut [0; 16]).is_ok(), Relaxed);
    }
    // SAFETY: 1. Random bytes and an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(ask)) }.unwrap();
    rt0::signal::raise(Signal::SIGUSR1).unwrap();
    assert!(DONE.load(Relaxed));
    random();
}

fn a_forked_child_has_others_than_its_parent() {
    let before = random(); // The state buffers bytes that child and parent must not share.
    let [read, write] = pipe();
    let mut all = [before; 12];
    for children in 0..3 {
        if fork().unwrap() == 0 {
            let both = [random(), random()];
            let _ = sys::write(rt0_tests::numbered(write), both.as_flattened());
            sys::exit_group(0);
        }
        let mut both = [[0; 16]; 2];
        assert_eq!(rt0::io::read(rt0_tests::numbered(read), both.as_flattened_mut()), Ok(32));
        all[4 * children..][..4].copy_from_slice(&[both[0], both[1], random(), random()]);
    }
    all_differ(&all);
    assert!(!all.contains(&before));
}

fn without_the_vdso_the_kernel_is_asked() {
    vdso::turn_off();
    all_differ(&[(); 100].map(|()| random()));
}

fn without_getrandom_the_device_is_read() {
    filter(&[k::__NR_getrandom], Verdict::Refuse(Errno::ENOSYS), Verdict::Allow);
    all_differ(&[(); 100].map(|()| random()));
    assert!(!vdso::in_use().getrandom, "a function that only says ENOSYS is given up for good");
}

fn where_getrandom_is_forbidden_the_device_is_read() {
    filter(&[k::__NR_getrandom], Verdict::Refuse(Errno::EPERM), Verdict::Allow);
    all_differ(&[(); 100].map(|()| random()));
}

fn without_any_source_the_error_says_why() {
    filter(&[k::__NR_getrandom, k::__NR_openat], Verdict::Refuse(Errno::EACCES), Verdict::Allow);
    assert_eq!(fill(&mut [0; 16]), Err(Errno::EACCES));
    assert_eq!(fill(&mut []), Ok(()));
}

fn without_memory_for_a_state_the_kernel_is_asked() {
    need_vdso();
    let none = [0u64; 2];
    let at = (&raw const none).expose_provenance();
    // SAFETY: 1. The kernel reads the limit; existing mappings stay.
    unsafe { syscall(k::__NR_prlimit64 as usize, [0, k::RLIMIT_AS as usize, at, 0, 0, 0]) }.unwrap();
    all_differ(&[(); 100].map(|()| random()));
}

fn the_bytes_for_a_start_are_those_that_the_kernel_gave(env: Env) {
    const AT_RANDOM: usize = 25;
    let Some(address) = env.auxv().get(AT_RANDOM) else { skip("no AT_RANDOM here") };
    let given = core::ptr::with_exposed_provenance::<Bytes>(address);
    let start = startup();
    // SAFETY: the kernel says that 16 bytes lie there.
    assert_eq!(start.bytes, unsafe { given.read_unaligned() });
    assert_eq!((start.source, startup()), (Source::Auxv, start));
}

fn the_smallest_stack_is_enough() {
    let asked = Builder::new().stack_size(0).spawn(|| [(); 10].map(|()| random()));
    all_differ(&asked.unwrap().join());
}

fn sleep_and_count() -> usize {
    sleep(Duration::from_millis(20));
    mappings()
}

/// Runs a test without calls in a child, and after a failure in another one, up to five: about once
/// a minute the kernel expires all keys of the vDSO, and fetching a new one is a call.
fn in_a_child(test: impl Fn()) {
    for _ in 0..5 {
        let child = fork().unwrap();
        if child == 0 {
            test();
            sys::exit_group(0);
        }
        match wait_for(child) {
            Ended::Exit(0) => return,
            // It printed the reason.
            Ended::Exit(status) if status == SKIPPED as u32 => sys::exit_group(SKIPPED),
            how => println!("{how:?}"),
        }
    }
    panic!("it makes calls each time");
}

/// 4 GiB of address space over 64 MiB of memory, and a separate page behind.
#[cfg(target_arch = "x86_64")]
fn four_gib_and_a_page() -> &'static mut [u8] {
    const TOTAL: usize = 4 << 30;
    const PART: usize = 64 << 20;
    const PAGE: usize = 4096;
    let mmap = |addr, len, prot: u32, flags: u32, fd: usize| {
        // SAFETY: 1. MAP_FIXED only within the reserved range.
        unsafe { syscall(k::__NR_mmap as usize, [addr, len, prot as usize, flags as usize, fd, 0]) }.unwrap()
    };
    let name = c"four GiB".as_ptr().expose_provenance();
    // SAFETY: 1. The kernel reads the name.
    let fd = unsafe { syscall(k::__NR_memfd_create as usize, [name, 0, 0, 0, 0, 0]) }.unwrap();
    // SAFETY: 1. No memory is touched.
    unsafe { syscall(k::__NR_ftruncate as usize, [fd, PART, 0, 0, 0, 0]) }.unwrap();
    let private = k::MAP_PRIVATE | k::MAP_ANONYMOUS | k::MAP_NORESERVE;
    let base = mmap(0, TOTAL + PAGE, k::PROT_READ | k::PROT_WRITE, private, usize::MAX);
    for part in (base..base + TOTAL).step_by(PART) {
        mmap(part, PART, k::PROT_READ | k::PROT_WRITE, k::MAP_SHARED | k::MAP_FIXED, fd);
    }
    // SAFETY: mapped above. Parts of it are the same memory, but no code here writes one part and
    // reads another.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(base), TOTAL + PAGE) }
}

#[cfg(not(target_arch = "x86_64"))]
fn four_gib_and_a_page() -> &'static mut [u8] {
    skip("written for x86_64 only")
}

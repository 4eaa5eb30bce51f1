//! What language runtimes ask of threads and processors: instructions that they write, threads on
//! chosen processors and on stacks of their own, restartable sequences.

use core::cell::Cell;
use core::hint::black_box;
use core::mem::{forget, size_of};
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{self, Relaxed},
};

use linux_raw_sys::general as k;
use rt0::cpu::{self, CpuSet};
use rt0::mapping::{Mapping, Protection};
use rt0::test::Expect;
use rt0::thread::{self, Builder, report_overflows};
use rt0::{Errno, rseq, signal, sys};
use rt0_tests::seccomp::{self, Verdict};
use rt0_tests::{
    Ended, assert_mappings, emulated, in_raw_child, mappings, often, skip, wait_for, wait_for_mappings_to_go,
    wait_until,
};

rt0::test_module! {
    written_instructions_run_and_rewritten_ones_too,
    written_instructions_run_on_another_thread,
    any_range_can_be_flushed,
    a_thread_runs_on_its_processors_from_the_start,
    processors_that_do_not_exist_are_the_error_of_the_spawn,
    a_refused_thread_leaves_nothing,
    a_refused_thread_leaves_its_scope,
    a_thread_that_is_killed_for_its_processors_is_an_error,
    a_thread_runs_on_the_stack_that_it_is_given,
    a_stack_can_be_used_again_once_its_thread_is_joined,
    a_detached_thread_ends_on_a_stack_that_it_is_given,
    a_given_stack_that_is_too_small_is_refused,
    a_given_stack_is_not_changed_after_the_join,
    a_refused_thread_has_left_the_given_stack,
    a_given_stack_that_overflows_into_its_guard_says_so => Expect::signal(11).stderr("thread 'given' (tid "),
    ids_of_processors_need_no_registration,
    a_registered_thread_knows_its_processor,
    a_registration_is_one_for_each_thread,
    registered_threads_end_and_their_memory_goes,
    a_forked_child_stays_registered,
}

// Instructions.

extern "C" fn one() -> u32 {
    1
}

extern "C" fn two() -> u32 {
    2
}

/// Enough for these functions; what follows them in the program is copied along.
const CODE_LEN: usize = 64;

/// Copies a function that uses nothing but its registers to `to`, and flushes.
fn write_code(function: extern "C" fn() -> u32, to: *mut u8) {
    let from = black_box(function) as *const u8;
    // SAFETY: a function's code is readable, and `to` has room.
    unsafe { to.copy_from_nonoverlapping(from, CODE_LEN) };
    // SAFETY: just written.
    cpu::flush_instructions(unsafe { core::slice::from_raw_parts(to, CODE_LEN) }).unwrap();
}

fn call(code: *mut u8) -> u32 {
    // SAFETY: `write_code` put a function of this type there.
    let function = unsafe { core::mem::transmute::<*mut u8, extern "C" fn() -> u32>(black_box(code)) };
    function()
}

fn executable_memory() -> Mapping {
    let memory = Mapping::new(cpu::page_size()).unwrap();
    memory.protect(.., Protection::READ_WRITE | Protection::EXECUTE).unwrap();
    memory
}

fn written_instructions_run_and_rewritten_ones_too() {
    let memory = executable_memory();
    for _ in 0..often(200) {
        write_code(one, memory.as_ptr());
        assert_eq!(call(memory.as_ptr()), 1);
        write_code(two, memory.as_ptr());
        assert_eq!(call(memory.as_ptr()), 2);
    }
    // Never writable and executable at once.
    for (function, result) in [(one as extern "C" fn() -> u32, 1), (two, 2)] {
        memory.protect(.., Protection::READ_WRITE).unwrap();
        write_code(function, memory.as_ptr());
        memory.protect(.., Protection::READ | Protection::EXECUTE).unwrap();
        assert_eq!(call(memory.as_ptr()), result);
    }
}

fn written_instructions_run_on_another_thread() {
    let memory = executable_memory();
    let (base, places) = (memory.as_ptr().expose_provenance(), cpu::page_size() / CODE_LEN);
    let place = move |number: usize| core::ptr::with_exposed_provenance_mut(base + number * CODE_LEN);
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let reader = thread::spawn(move || {
        for number in 0..places {
            wait_until("code", || WRITTEN.load(Ordering::Acquire) > number);
            assert_eq!(call(place(number)), 1 + number as u32 % 2);
        }
    })
    .unwrap();
    for number in 0..places {
        write_code(if number % 2 == 0 { one } else { two }, place(number));
        WRITTEN.store(number + 1, Ordering::Release);
    }
    reader.join();
}

fn any_range_can_be_flushed() {
    let memory = executable_memory();
    let len = memory.len();
    // SAFETY: committed, and nothing writes to it.
    let bytes = unsafe { core::slice::from_raw_parts(memory.as_ptr(), len) };
    for range in [0..0, 0..1, 1..2, 3..300, len - 1..len, len..len, 63..64, 64..65, 0..len] {
        assert_eq!(cpu::flush_instructions(&bytes[range.clone()]), Ok(()), "{range:?}");
    }
    assert_eq!(cpu::flush_instructions(&[]), Ok(()));
}

// Processors.

/// Each processor of the calling thread, alone.
fn single_processors() -> impl Iterator<Item = CpuSet> {
    let all = cpu::affinity().unwrap();
    (0..2048).filter(move |number| all.contains(*number)).take(4).map(only)
}

fn only(processor: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.insert(processor).unwrap();
    set
}

/// A closure's part: counts how often one is dropped.
struct Counted;

static DROPPED: AtomicU32 = AtomicU32::new(0);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

fn a_thread_runs_on_its_processors_from_the_start() {
    let before = cpu::affinity().unwrap();
    for set in single_processors() {
        let mask = signal::SigSet::full();
        let builder = Builder::new().name("placed").affinity(&set).signal_mask(mask);
        let thread = builder.spawn(|| {
            let name = thread::current().name().map(str::len);
            (cpu::affinity().unwrap(), rseq::cpu_id().unwrap(), name)
        });
        let (affinity, processor, name) = thread.unwrap().join();
        assert_eq!((affinity, name), (only(set.iter().next().unwrap()), Some(6)));
        assert!(emulated() || set.contains(processor as usize), "{processor}");
        // What it starts inherits them.
        let inner = Builder::new().affinity(&set).spawn(|| thread::spawn(|| cpu::affinity().unwrap()).unwrap().join());
        assert_eq!(inner.unwrap().join(), set);
    }
    assert_eq!(cpu::affinity().unwrap(), before, "the parent's own stay");
    // Processors that do not exist are ignored beside one that does.
    let mut large = only(before.iter().next().unwrap());
    large.insert(100_000).unwrap();
    let affinity = Builder::new().affinity(&large).spawn(|| cpu::affinity().unwrap()).unwrap().join();
    assert_eq!(affinity.len(), 1);
}

fn processors_that_do_not_exist_are_the_error_of_the_spawn() {
    static RAN: AtomicBool = AtomicBool::new(false);
    for set in [CpuSet::new(), only(500_000)] {
        let counted = Counted;
        let refused = Builder::new().affinity(&set).spawn(move || {
            RAN.store(true, Relaxed);
            let _counted = counted;
        });
        assert_eq!(refused.err(), Some(Errno::EINVAL));
    }
    assert_eq!((DROPPED.load(Relaxed), RAN.load(Relaxed)), (2, false));
}

fn a_refused_thread_leaves_nothing() {
    let set = CpuSet::new();
    let refused = || {
        let counted = Counted;
        let refused = Builder::new().affinity(&set).spawn(move || _ = &counted);
        assert_eq!(refused.err(), Some(Errno::EINVAL));
    };
    refused(); // What is made once is made.
    let before = mappings();
    let times = often(500) as u32;
    (0..times).for_each(|_| refused());
    assert_eq!(DROPPED.load(Relaxed), times + 1);
    assert_eq!(thread::running(&mut []), 1);
    assert_mappings(before..=before);
    // Afterwards others run as always.
    assert_eq!(thread::spawn(|| 5).unwrap().join(), 5);
}

fn a_refused_thread_leaves_its_scope() {
    let (set, counted) = (CpuSet::new(), Counted);
    thread::scope(|scope| {
        for _ in 0..often(100) {
            let refused = Builder::new().affinity(&set).spawn_scoped(scope, || _ = &counted);
            assert_eq!(refused.err(), Some(Errno::EINVAL));
        }
        let first = single_processors().next().unwrap();
        let placed = Builder::new().affinity(&first).spawn_scoped(scope, || cpu::affinity().unwrap());
        assert!(placed.unwrap().join() == first);
    });
    assert_eq!(DROPPED.load(Relaxed), 0);
}

fn a_thread_that_is_killed_for_its_processors_is_an_error() {
    const SECCOMP_RET_KILL_THREAD: u32 = 0; // Of linux/seccomp.h.

    let first = single_processors().next().unwrap();
    thread::spawn(|| ()).unwrap().join();
    if seccomp::filter_calls(&[k::__NR_sched_setaffinity], SECCOMP_RET_KILL_THREAD).is_err() {
        skip("no filters on system calls here");
    }
    let counted = Counted;
    let killed = Builder::new().affinity(&first).spawn(move || _ = &counted);
    assert_eq!(killed.err(), Some(Errno::ECANCELED));
    assert_eq!(DROPPED.load(Relaxed), 1);
    assert_eq!(thread::spawn(|| 5).unwrap().join(), 5);
}

// Stacks.

/// A stack of the test's, whose lowest page is the guard.
struct Stack {
    memory: Mapping,
    guard: usize,
}

impl Stack {
    fn new(len: usize) -> Stack {
        let guard = 64 << 10; // As `thread` wants where the compiler does not probe.
        let memory = Mapping::new(guard + len).unwrap();
        memory.protect(..guard, Protection::NONE).unwrap();
        Stack { memory, guard }
    }

    fn usable(&self) -> NonNull<[u8]> {
        let len = self.memory.len() - self.guard;
        let base = NonNull::new(self.memory.as_ptr().wrapping_add(self.guard)).unwrap();
        NonNull::slice_from_raw_parts(base, len)
    }

    fn contains(&self, address: usize) -> bool {
        let start = self.memory.as_ptr().addr();
        (start + self.guard..start + self.memory.len()).contains(&address)
    }
}

fn address_of_a_local() -> usize {
    let local = 0u8;
    (&raw const *black_box(&local)).addr()
}

fn a_thread_runs_on_the_stack_that_it_is_given() {
    rt0::thread_local!(static OWN: Cell<u32> = const { Cell::new(7) });
    let stack = Stack::new(256 << 10);
    let usable = stack.usable();
    // Any address will do, and any length.
    for (skipped, cut) in [(0, 0), (1, 0), (0, 1), (13, 27)] {
        let part = NonNull::slice_from_raw_parts(
            // SAFETY: within the stack.
            unsafe { usable.cast::<u8>().add(skipped) },
            usable.len() - skipped - cut,
        );
        // SAFETY: 1. The thread is joined below. 2. The stack has a guard.
        let thread = unsafe {
            Builder::new().name("given").spawn_on(part, move || {
                OWN.set(OWN.get() + 1);
                let own = OWN.with(|own| (own as *const Cell<u32>).addr());
                let range = thread::current().stack().unwrap();
                (address_of_a_local(), own, OWN.get(), range)
            })
        };
        let (local, own, value, range) = thread.unwrap().join();
        assert!(stack.contains(local) && !stack.contains(own) && range.contains(&local));
        assert_eq!(value, 8);
        assert_eq!(range.start, part.cast::<u8>().addr().get());
        assert!(range.end.is_multiple_of(16) && part.cast::<u8>().addr().get() + part.len() - range.end < 16);
    }
    // A closure and a result that need much of it, and a set of processors.
    let first = single_processors().next().unwrap();
    let much = [3u64; 1000];
    // SAFETY: 1. The thread is joined. 2. The stack has a guard.
    let thread = unsafe { Builder::new().affinity(&first).spawn_on(usable, move || much.map(|number| number + 1)) };
    assert_eq!(thread.unwrap().join(), [4; 1000]);
}

fn a_stack_can_be_used_again_once_its_thread_is_joined() {
    let stack = Stack::new(32 << 10);
    thread::spawn(|| ()).unwrap().join();
    let before = mappings();
    for number in 0..often(1000) {
        // SAFETY: 1. The thread is joined. 2. The stack has a guard.
        let thread = unsafe { Builder::new().spawn_on(stack.usable(), move || (number, address_of_a_local())) };
        let (result, local) = thread.unwrap().join();
        assert!(result == number && stack.contains(local));
        // SAFETY: joined, so that no thread runs on it.
        unsafe { stack.usable().cast::<u8>().write_bytes(0xA5, stack.usable().len()) };
    }
    assert_mappings(0..=before);
    // Threads with stacks of rt0's use what those left.
    assert!(!stack.contains(thread::spawn(address_of_a_local).unwrap().join()));
}

fn a_detached_thread_ends_on_a_stack_that_it_is_given() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    // With the cache, and with a thread that unmaps what it has as its last act.
    for kept in [8, 0] {
        thread::limit_stack_cache(kept, 64 << 20);
        for _ in 0..often(40) {
            let stack = Stack::new(32 << 10);
            // SAFETY: 1. It is never freed. 2. The stack has a guard.
            let thread = unsafe { Builder::new().spawn_on(stack.usable(), || _ = ENDED.fetch_add(1, Relaxed)) };
            drop(thread.unwrap());
            forget(stack.memory);
        }
    }
    wait_until("the threads", || ENDED.load(Relaxed) as usize == 2 * often(40));
    wait_until("their ends", || thread::running(&mut []) == 1);
}

fn a_given_stack_that_is_too_small_is_refused() {
    let stack = Stack::new(64 << 10);
    let base = stack.usable().cast::<u8>();
    for len in [0, 1, 16 << 10] {
        let counted = Counted;
        let part = NonNull::slice_from_raw_parts(base, len);
        // SAFETY: 1. and 2. as for the whole stack.
        let refused = unsafe { Builder::new().spawn_on(part, move || _ = &counted) };
        assert_eq!(refused.err(), Some(Errno::EINVAL));
    }
    let much = [0u8; 20 << 10];
    // SAFETY: 1. and 2. as for the whole stack.
    let refused = unsafe { Builder::new().spawn_on(stack.usable(), move || black_box(much)[0]) };
    assert_eq!(refused.err(), Some(Errno::EINVAL));
    assert_eq!(DROPPED.load(Relaxed), 3);
    // SAFETY: 1. The thread is joined. 2. It does not reach the stack's end.
    let least = unsafe { Builder::new().spawn_on(NonNull::slice_from_raw_parts(base, (16 << 10) + 16), || ()) };
    least.unwrap().join();
}

fn a_given_stack_is_not_changed_after_the_join() {
    // Deeper than what a kept stack may hold in memory.
    let stack = Stack::new(256 << 10);
    let usable = stack.usable();
    // SAFETY: no thread runs on it yet.
    unsafe { usable.cast::<u8>().write_bytes(0x5A, usable.len()) };
    // SAFETY: 1. The thread is joined. 2. The stack has a guard.
    unsafe { Builder::new().spawn_on(usable, || ()) }.unwrap().join();
    thread::trim_stack_cache();
    // SAFETY: joined.
    let bytes = unsafe { core::slice::from_raw_parts(usable.as_ptr().cast::<u8>(), usable.len() - (64 << 10)) };
    assert!(bytes.iter().all(|byte| *byte == 0x5A));
}

fn a_refused_thread_has_left_the_given_stack() {
    let set = CpuSet::new();
    for _ in 0..often(200) {
        let stack = Stack::new(32 << 10);
        // SAFETY: 1. The spawn fails, and the stack is there until then. 2. The stack has a guard.
        let refused = unsafe { Builder::new().affinity(&set).spawn_on(stack.usable(), || ()) };
        assert_eq!(refused.err(), Some(Errno::EINVAL));
        drop(stack); // A thread that still runs on it would fault.
    }
}

#[allow(unconditional_recursion)]
fn forever(n: usize) -> usize {
    let frame = black_box([n as u8; 256]);
    forever(black_box(n + 1)) + frame[n % 256] as usize
}

fn a_given_stack_that_overflows_into_its_guard_says_so() {
    report_overflows().unwrap();
    let stack = Stack::new(64 << 10);
    // SAFETY: 1. The thread does not end. 2. The stack has a guard.
    let thread = unsafe { Builder::new().name("given").spawn_on(stack.usable(), || forever(0)) };
    thread.unwrap().join();
}

// Restartable sequences.

/// Registers the calling thread; skips the test where that is impossible.
fn register() {
    match rseq::register(7) {
        Ok(()) => {}
        Err(Errno::ENOSYS) => skip("the kernel or the emulator has no rseq(2)"),
        Err(errno) => panic!("{errno}"),
    }
}

fn ids_of_processors_need_no_registration() {
    assert!(rseq::area().is_none() && rseq::mm_cid().is_none());
    assert_eq!(rseq::unregister(), Err(Errno::EINVAL));
    let (processor, node) = (rseq::cpu_id().unwrap(), rseq::node_id().unwrap());
    assert!(processor < 1 << 19 && node < 1 << 16, "{processor} {node}");
    for set in single_processors() {
        let there = Builder::new().affinity(&set).spawn(|| rseq::cpu_id().unwrap()).unwrap().join();
        assert!(emulated() || set.contains(there as usize));
    }
    // Where there is no call, there is an error, and the ids stay.
    if let Err(errno) = rseq::register(0) {
        assert_eq!(errno, Errno::ENOSYS);
        assert!(rseq::area().is_none() && rseq::cpu_id().is_ok() && rseq::mm_cid().is_none());
    }
}

fn a_registered_thread_knows_its_processor() {
    register();
    let before = cpu::affinity().unwrap();
    let area = rseq::area().unwrap();
    assert!(area.addr().get().is_multiple_of(32));
    for _ in 0..20 {
        for set in single_processors() {
            cpu::set_affinity(&set).unwrap();
            let processor = rseq::cpu_id().unwrap();
            assert!(set.contains(processor as usize), "{processor}");
            // SAFETY: the thread's own area.
            assert_eq!(unsafe { area.as_ref() }.cpu_id_start.load(Relaxed), processor);
        }
    }
    cpu::set_affinity(&before).unwrap();
    let node = rseq::node_id().unwrap();
    assert!(rseq::mm_cid().is_none_or(|id| id < before.len() as u32 && id < 1), "one thread has the number 0");
    rseq::unregister().unwrap();
    assert!(rseq::area().is_none() && rseq::mm_cid().is_none());
    assert_eq!(rseq::node_id(), Ok(node));
    // SAFETY: the thread's own area.
    assert_eq!(unsafe { area.as_ref() }.cpu_id.load(Relaxed), u32::MAX);
}

fn a_registration_is_one_for_each_thread() {
    register();
    assert_eq!(rseq::register(7), Err(Errno::EBUSY));
    assert_eq!(rseq::register(8), Err(Errno::EPERM));
    assert!(thread::spawn(|| rseq::area().is_none()).unwrap().join(), "a new thread is not registered");
    rseq::unregister().unwrap();
    assert_eq!(rseq::unregister(), Err(Errno::EINVAL));
    rseq::register(8).unwrap();
    // Threads at the same time have areas and numbers of their own.
    let areas = [(); 4].map(|()| {
        thread::spawn(|| {
            rseq::register(7).unwrap();
            (rseq::area().unwrap().addr(), thread::current())
        })
    });
    let areas = areas.map(|thread| thread.unwrap().join());
    assert!((0..4).all(|i| (0..i).all(|j| areas[i].0 != areas[j].0)));
    // An area of the program's own is refused, and stays refused.
    let other = [0u64; 8];
    let at = (&raw const other).addr().next_multiple_of(32);
    let args = [at, size_of::<rseq::Area>(), 0, 8, 0, 0];
    // SAFETY: 1. The kernel refuses it.
    assert_eq!(unsafe { sys::syscall(k::__NR_rseq as usize, args) }, Err(Errno::EINVAL));
}

fn registered_threads_end_and_their_memory_goes() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    register();
    thread::spawn(|| rseq::register(7)).unwrap().join().unwrap(); // What is made once is made.
    let before = mappings();
    for kept in [64, 0] {
        thread::limit_stack_cache(kept, 64 << 20);
        for _ in 0..often(300) {
            let start = || {
                thread::spawn(|| {
                    rseq::register(7).unwrap();
                    thread::yield_now(); // The kernel writes to the area.
                    ENDED.fetch_add(1, Relaxed);
                })
            };
            drop(start().unwrap());
            start().unwrap().join();
        }
    }
    wait_until("the threads", || ENDED.load(Relaxed) as usize == 4 * often(300));
    wait_until("their ends", || thread::running(&mut []) == 1);
    wait_for_mappings_to_go(before);
    // Where the call is refused at a thread's end, the memory stays, and the thread ends.
    if !emulated() {
        let thread = thread::spawn(|| {
            rseq::register(7).unwrap();
            seccomp::need_filters();
            seccomp::filter(&[k::__NR_rseq], Verdict::Refuse(Errno::EPERM), Verdict::Allow);
        });
        drop(thread.unwrap());
        wait_until("its end", || thread::running(&mut []) == 1);
    }
}

fn a_forked_child_stays_registered() {
    register();
    // SAFETY: 1. There is one thread. 2. The child only looks.
    match unsafe { thread::fork() }.unwrap() {
        thread::Fork::Parent { child } => assert_eq!(wait_for(child), Ended::Exit(0)),
        thread::Fork::Child => {
            assert_eq!(rseq::register(7), Err(Errno::EBUSY));
            let own = cpu::affinity().unwrap().contains(rseq::cpu_id().unwrap() as usize);
            let another = thread::spawn(|| rseq::register(7)).unwrap().join();
            sys::exit_group(i32::from(!own || another.is_err()));
        }
    }
    // A child that shares memory is not registered, by the kernel.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    in_raw_child(k::CLONE_VM | k::CLONE_VFORK, || {
        let args = [rseq::area().unwrap().addr().get(), size_of::<rseq::Area>(), 1, 7, 0, 0];
        // SAFETY: 1. The kernel refuses it.
        let refused = unsafe { sys::syscall(k::__NR_rseq as usize, args) };
        REFUSED.store(refused == Err(Errno::EINVAL), Relaxed);
    });
    assert!(REFUSED.load(Relaxed));
    assert_eq!(rseq::register(7), Err(Errno::EBUSY), "the parent stays registered");
}

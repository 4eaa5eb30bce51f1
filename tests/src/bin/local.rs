//! Thread-local values. Several of these are what std's own tests of `thread_local!` ask for.
//!
//! It is a program of its own, because every thread of a program has all its thread-locals, large
//! ones here.
#![no_std]
#![no_main]

use core::cell::{Cell, RefCell};
use core::hint::black_box;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use rt0::signal::{self, Action, Signal};
use rt0::sync::Mutex;
use rt0::test::Expect;
use rt0::thread::{AccessError, LocalKey, scope, spawn};
use rt0::{thread, thread_local};
use rt0_tests::{mappings, often, prints, wait_for_mappings_to_go, wait_until};

thread_local! {
    /// Every kind of value, with sizes and alignments that need padding.
    static BYTE: Cell<u8> = const { Cell::new(0x5A) };
    static WORDS: Cell<[u64; 3]> = const { Cell::new([1, 2, 3]) };
    static ALIGNED: Aligned64 = const { Aligned64(Cell::new(7)) };
    static PAGE: Page = const { Page(Cell::new(8)) };
    static MADE: Cell<usize> = Cell::new(next());
    static NOTE: RefCell<Option<u32>> = RefCell::new(None);
    static LARGE: RefCell<[u8; 100_000]> = RefCell::new([3; 100_000]);
    pub(crate) static LAST: Cell<u16> = const { Cell::new(0xBEEF) };
}

#[repr(align(64))]
struct Aligned64(Cell<u32>);
#[repr(align(4096))]
struct Page(Cell<u32>);

static MAKINGS: AtomicUsize = AtomicUsize::new(0);

fn next() -> usize {
    MAKINGS.fetch_add(1, Relaxed) + 1
}

/// Checks the aligned initial values; then stores others, which must stay this thread's.
fn check(mark: u32) {
    assert_eq!((BYTE.get(), WORDS.get(), LAST.get()), (0x5A, [1, 2, 3], 0xBEEF));
    ALIGNED.with(|v| assert_eq!((v.0.get(), black_box(&raw const *v).addr() % 64), (7, 0)));
    PAGE.with(|v| assert_eq!((v.0.get(), black_box(&raw const *v).addr() % 4096), (8, 0)));
    assert!(LARGE.with_borrow(|large| large.iter().all(|byte| *byte == 3)));
    assert_eq!(NOTE.with_borrow(|note| *note), None);
    let made = MADE.get();
    BYTE.set(mark as u8);
    WORDS.set([mark.into(); 3]);
    LAST.set(mark as u16);
    ALIGNED.with(|v| v.0.set(mark));
    PAGE.with(|v| v.0.set(!mark));
    LARGE.with_borrow_mut(|large| large.fill(mark as u8));
    NOTE.with_borrow_mut(|note| *note = Some(mark));
    for _ in 0..20 {
        thread::yield_now();
        assert_eq!((BYTE.get(), WORDS.get(), LAST.get()), (mark as u8, [mark.into(); 3], mark as u16));
        assert_eq!((ALIGNED.with(|v| v.0.get()), PAGE.with(|v| v.0.get())), (mark, !mark));
        assert_eq!(NOTE.with_borrow(|note| *note), Some(mark));
        assert_eq!(MADE.get(), made);
    }
    assert!(LARGE.with_borrow(|large| large.iter().all(|byte| *byte == mark as u8)));
    // The block beside them is intact.
    assert!(thread::current().name().is_none_or(|name| name == "main"));
}

/// The events, in order.
static LOG: Mutex<([&str; 8], usize)> = Mutex::new(([""; 8], 0));

fn log(what: &'static str) {
    let mut log = LOG.lock();
    let (lines, len) = &mut *log;
    lines[*len] = what;
    *len += 1;
}

/// Whether exactly these events happened since the last call.
fn logged(expected: &[&str]) -> bool {
    let mut log = LOG.lock();
    let (lines, len) = core::mem::take(&mut *log);
    if lines[..len] != *expected {
        rt0::eprintln!("what happened: {:?}", &lines[..len]);
    }
    lines[..len] == *expected
}

/// Logs its drop.
struct Says(&'static str);

impl Drop for Says {
    fn drop(&mut self) {
        log(self.0);
    }
}

rt0::tests! {
    each_thread_has_its_own_from_the_start,
    the_compilers_own_kind_is_not_in_the_way,
    cells_have_stds_methods,
    destructors_run_at_a_threads_end_and_join_waits_for_them,
    values_are_destroyed_in_the_reverse_order_of_their_first_use,
    a_value_that_is_being_destroyed_is_an_error,
    with_panics_where_try_with_is_an_error =>
        Expect::panic("a thread-local was used while or after it was destroyed"),
    a_destructor_may_make_other_values_and_they_are_destroyed_next,
    destructors_that_use_each_others_values_come_to_an_end,
    an_initialiser_that_uses_its_own_key_once_ends_with_one_value,
    a_result_is_dropped_before_the_values_of_its_thread,
    a_scope_waits_for_the_destructors_of_its_threads,
    mains_values_are_destroyed_when_it_returns => Expect::exit(3).stdout("goodbye"),
    mains_values_are_not_destroyed_where_the_process_ends_otherwise => Expect::exit(4),
    a_destructor_that_panics_ends_the_process => Expect::panic("boom"),
    a_handler_may_use_a_constant_without_destructor,
    values_of_many_threads_leave_nothing,
}

fn each_thread_has_its_own_from_the_start() {
    check(1);
    for round in 0..10 {
        let threads = [2, 3, 4, 5].map(|mark| spawn(move || check(mark + round)).unwrap());
        threads.into_iter().for_each(|thread| thread.join());
    }
    scope(|s| drop(s.spawn(|| check(6)).unwrap()));
    assert_eq!((BYTE.get(), MADE.get(), MAKINGS.load(Relaxed)), (1, 1, 42));
}

fn the_compilers_own_kind_is_not_in_the_way() {
    // Names that the macro uses or that hide std's.
    #[allow(dead_code, non_camel_case_types)]
    type usize = ();
    #[allow(dead_code)]
    type LocalKey = ();
    thread_local! {
        static A: LocalKey = const {
            let unit: usize = ();
            unit
        };
        static B: usize = ()
    }
    A.with(|unit| *unit);
    B.with(|unit| *unit);
    thread_local!();
    thread_local!(static C: Cell<i32> = Cell::new(1));
    thread_local!(static D: Cell<i32> = const { Cell::new(2) });
    assert_eq!((C.get(), D.get()), (1, 2));
}

fn cells_have_stds_methods() {
    thread_local! {
        static CELL: Cell<u32> = const { Cell::new(1) };
        static LAZY: Cell<u32> = panic!("not asked for");
        static TEXT: RefCell<&'static str> = const { RefCell::new("one") };
        static LAZY_TEXT: RefCell<&'static str> = panic!("not asked for");
    }
    assert_eq!((CELL.replace(2), CELL.take(), CELL.get()), (1, 2, 0));
    CELL.set(5);
    LAZY.set(6);
    LAZY.set(7);
    assert_eq!((CELL.get(), LAZY.get()), (5, 7));
    assert_eq!((TEXT.replace("two"), TEXT.take()), ("one", "two"));
    TEXT.set("three");
    TEXT.with_borrow_mut(|text| *text = &text[1..]);
    LAZY_TEXT.set("four");
    assert_eq!((TEXT.with_borrow(|text| *text), LAZY_TEXT.take()), ("hree", "four"));
    assert!(prints(format_args!("{TEXT:?}"), "LocalKey { .. }"));
}

fn destructors_run_at_a_threads_end_and_join_waits_for_them() {
    thread_local!(static LAZY: RefCell<Option<Says>> = RefCell::new(None));
    thread_local!(static CONST: RefCell<Option<Says>> = const { RefCell::new(None) });
    for key in [&LAZY, &CONST] {
        spawn(|| key.set(Some(Says("gone")))).unwrap().join();
        assert!(logged(&["gone"]));
    }
    // A thread does not destroy values that it did not use.
    spawn(|| ()).unwrap().join();
    assert!(logged(&[]));
}

fn values_are_destroyed_in_the_reverse_order_of_their_first_use() {
    thread_local! {
        static A: Says = const { Says("A") };
        static B: Says = Says("B");
        static C: Says = const { Says("C") };
        static D: Says = { C.with(|_| ()); Says("D") };
    }
    spawn(|| {
        for key in [&B, &A, &B, &D] {
            key.with(|_| ());
        }
        log("closure")
    })
    .unwrap()
    .join();
    // C was made before D.
    assert!(logged(&["closure", "D", "C", "A", "B"]));
}

fn a_value_that_is_being_destroyed_is_an_error() {
    struct Looks(&'static LocalKey<Looks>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let error: AccessError = self.0.try_with(|_| ()).unwrap_err();
            assert!(prints(format_args!("{error} {error:?}"), "already destroyed AccessError"));
            log("looked");
        }
    }
    thread_local!(static LAZY: Looks = Looks(&LAZY));
    thread_local!(static CONST: Looks = const { Looks(&CONST) });
    for key in [&LAZY, &CONST] {
        spawn(move || assert!(key.try_with(|_| ()).is_ok())).unwrap().join();
    }
    assert!(logged(&["looked", "looked"]));
}

fn with_panics_where_try_with_is_an_error() {
    struct Looks;
    impl Drop for Looks {
        fn drop(&mut self) {
            KEY.with(|_| ());
        }
    }
    thread_local!(static KEY: Looks = const { Looks });
    spawn(|| KEY.with(|_| ())).unwrap().join();
}

fn a_destructor_may_make_other_values_and_they_are_destroyed_next() {
    struct Makes(&'static LocalKey<RefCell<Option<Says>>>, &'static str);
    impl Drop for Makes {
        fn drop(&mut self) {
            log(self.1);
            self.0.set(Some(Says("made late")));
            // The current thread is still known.
            assert!(thread::current().name().is_none());
        }
    }
    thread_local! {
        static OLDEST: Says = const { Says("oldest") };
        static MAKER: RefCell<Option<Makes>> = const { RefCell::new(None) };
        static LATE: RefCell<Option<Says>> = RefCell::new(None);
    }
    spawn(|| {
        OLDEST.with(|_| ());
        MAKER.set(Some(Makes(&LATE, "maker")));
    })
    .unwrap()
    .join();
    assert!(logged(&["maker", "made late", "oldest"]));
}

fn destructors_that_use_each_others_values_come_to_an_end() {
    struct First;
    struct Second;
    static HITS: AtomicU32 = AtomicU32::new(0);
    thread_local!(static ONE: RefCell<Option<First>> = const { RefCell::new(None) });
    thread_local!(static TWO: RefCell<Option<Second>> = RefCell::new(None));
    impl Drop for First {
        fn drop(&mut self) {
            if HITS.fetch_add(1, Relaxed) == 0 {
                TWO.set(Some(Second)); // On the thread itself: both values exist.
            } else {
                assert!(TWO.try_with(|_| ()).is_err() && ONE.try_with(|_| ()).is_err());
            }
        }
    }
    impl Drop for Second {
        fn drop(&mut self) {
            assert_eq!(HITS.fetch_add(1, Relaxed), 1);
            ONE.set(Some(First)); // In the destructor of TWO.
        }
    }
    spawn(|| drop(First)).unwrap().join();
    assert_eq!(HITS.load(Relaxed), 3);
}

fn an_initialiser_that_uses_its_own_key_once_ends_with_one_value() {
    thread_local!(static KEY: Says = {
        static DEEPER: AtomicU32 = AtomicU32::new(1);
        if DEEPER.swap(0, Relaxed) == 1 {
            KEY.with(|inner| assert_eq!(inner.0, "inner"));
            Says("outer")
        } else {
            Says("inner")
        }
    });
    spawn(|| KEY.with(|_| ())).unwrap().join();
    assert!(logged(&["inner", "outer"]));
}

fn a_result_is_dropped_before_the_values_of_its_thread() {
    thread_local!(static KEY: Says = const { Says("value") });
    struct Result;
    impl Drop for Result {
        fn drop(&mut self) {
            log("result");
            KEY.with(|_| ());
        }
    }
    static GO: AtomicBool = AtomicBool::new(false);
    drop(spawn(|| {
        wait_until("the handle to be dropped", || GO.load(Acquire));
        Result
    }));
    GO.store(true, Release);
    wait_until("the value to be destroyed", || LOG.lock().1 == 2);
    assert!(logged(&["result", "value"]));
}

fn a_scope_waits_for_the_destructors_of_its_threads() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(core::time::Duration::from_millis(30));
            log("slow");
        }
    }
    thread_local!(static KEY: Slow = const { Slow });
    scope(|s| drop(s.spawn(|| KEY.with(|_| ())).unwrap()));
    assert!(logged(&["slow"]));
}

fn mains_values_are_destroyed_when_it_returns() {
    struct Prints;
    impl Drop for Prints {
        fn drop(&mut self) {
            rt0::println!("goodbye from {}", thread::current().name().unwrap());
            rt0::sys::exit_group(3);
        }
    }
    thread_local!(static KEY: Prints = const { Prints });
    KEY.with(|_| ());
}

fn mains_values_are_not_destroyed_where_the_process_ends_otherwise() {
    struct Never;
    impl Drop for Never {
        fn drop(&mut self) {
            panic!("a destructor");
        }
    }
    thread_local!(static KEY: Never = const { Never });
    KEY.with(|_| ());
    rt0::sys::exit_group(4);
}

fn a_destructor_that_panics_ends_the_process() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    thread_local!(static KEY: Bad = Bad);
    spawn(|| KEY.with(|_| ())).unwrap().join();
}

fn a_handler_may_use_a_constant_without_destructor() {
    thread_local!(static COUNT: AtomicU32 = const { AtomicU32::new(0) });
    extern "C" fn count(_: i32) {
        COUNT.with(|count| count.fetch_add(1, Relaxed));
    }
    // SAFETY: 1. It uses an atomic of its own thread.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(count)) }.unwrap();
    signal::raise(Signal::SIGUSR1).unwrap();
    let other = spawn(|| {
        signal::raise(Signal::SIGUSR1).unwrap();
        signal::raise(Signal::SIGUSR1).unwrap();
        COUNT.with(|count| count.load(Relaxed))
    });
    assert_eq!((other.unwrap().join(), COUNT.with(|count| count.load(Relaxed))), (2, 1));
}

fn values_of_many_threads_leave_nothing() {
    struct Counted;
    static MADE: AtomicUsize = AtomicUsize::new(0);
    static GONE: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Counted {
        fn drop(&mut self) {
            GONE.fetch_add(1, Relaxed);
        }
    }
    thread_local!(static KEY: Counted = {
        MADE.fetch_add(1, Relaxed);
        Counted
    });
    spawn(|| ()).unwrap().join(); // The first one's setup stays.
    let before = mappings();
    let threads = often(500);
    for round in 0..threads {
        let handle = spawn(|| KEY.with(|_| ())).unwrap();
        if round % 2 == 0 {
            handle.join();
        }
    }
    wait_until("every thread to end", || GONE.load(Relaxed) == threads);
    assert_eq!(MADE.load(Relaxed), threads);
    wait_for_mappings_to_go(before + 2);
}

// A test is a function of this type, even with a key among its statics.
const _: fn() = cells_have_stds_methods;

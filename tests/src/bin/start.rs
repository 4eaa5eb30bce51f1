//! From the kernel to main: the program's arguments and environment, and the state before its first
//! line.
//!
//! It is a program of its own, because its constructors run at every start, and because it uses
//! nothing of which rt0 keeps a part for each thread.
#![no_std]
#![no_main]

use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rt0::test::Expect;
use rt0::{Env, sys, thread};
use rt0_tests::{bytes_of_each_thread, machine, prints, read_file, skip};

rt0::tests! {
    arguments_are_those_of_proc_cmdline => Expect::success().args(&["one", "two", "three"]),
    variables_are_those_of_proc_environ =>
        Expect::success().env(&[("RT0_A", "1"), ("RT0_EMPTY", ""), ("RT0_TWICE", "x=y")]),
    the_auxiliary_vector_is_that_of_proc_auxv,
    an_ordinary_program_is_not_secure,
    the_stack_is_aligned_in_main_and_in_threads,
    main_is_the_thread_that_the_process_started_with,
    a_status_of_0_is_handed_on => Expect::exit(0),
    only_the_low_8_bits_of_a_status_are_handed_on => Expect::exit(255),
    starts_without_a_stack_limit => Expect::success().stack_limit(u64::MAX),
    starts_on_a_small_stack => Expect::success().stack_limit(262144),
    closed_standard_descriptors_are_opened =>
        Expect::success().closed(&[0, 1, 2])
            .native("qemu-user opens files of its own as the closed descriptors"),
    one_closed_descriptor_is_opened_and_the_others_stay =>
        Expect::success().closed(&[1])
            .native("qemu-user opens files of its own as the closed descriptors"),
    a_file_opened_first_is_not_a_standard_descriptor,
    constructors_ran_by_priority_with_the_arguments_of_main,
    statics_are_what_they_were_initialised_to,
    a_program_has_no_part_of_what_it_does_not_use,
}

/// Calls on all threads, profiles and random bytes each keep something of every thread.
fn a_program_has_no_part_of_what_it_does_not_use() {
    if machine().starts_with(b"ppc") {
        skip("the linker keeps each static that a table of addresses (.toc, .got2) names, used or not");
    }
    assert_eq!(bytes_of_each_thread(), 0);
}

fn arguments_are_those_of_proc_cmdline(env: Env) {
    let mut buf = [0; 4096];
    let cmdline = read_file(c"/proc/self/cmdline", &mut buf).unwrap();
    let args = env.args().flat_map(|arg| arg.to_bytes_with_nul().iter().copied());
    assert!(args.eq(cmdline.iter().copied()), "{:?}", env.args());
    assert_eq!(env.args().len(), 5);
    assert!(env.args().skip(2).eq([c"one", c"two", c"three"]));
    let mut left = env.args();
    left.nth(1);
    assert!(prints(format_args!("{left:?}"), r#"["one", "two", "three"]"#));
}

fn variables_are_those_of_proc_environ(env: Env) {
    assert_eq!(env.var("RT0_A"), Some(c"1"));
    assert_eq!(env.var("RT0_EMPTY"), Some(c""));
    assert_eq!(env.var("RT0_TWICE"), Some(c"x=y"));
    assert_eq!(env.var("RT0_ABSENT"), None);
    let mut buf = [0; 65536];
    let environ = read_file(c"/proc/self/environ", &mut buf).unwrap();
    for (name, value) in env.vars() {
        let found = environ
            .split(|byte| *byte == 0)
            .any(|entry| entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) == Some(value.to_bytes()));
        assert!(found, "{} is not in /proc/self/environ", name.escape_ascii());
    }
}

fn the_auxiliary_vector_is_that_of_proc_auxv(env: Env) {
    let mut buf = [0; 4096];
    let bytes = read_file(c"/proc/self/auxv", &mut buf).unwrap();
    let (words, _) = bytes.as_chunks::<{ size_of::<usize>() }>();
    let mut words = words.iter().copied().map(usize::from_ne_bytes);
    assert!(env.auxv().iter().count() > 10, "{:?}", env.auxv());
    for (tag, value) in env.auxv().iter() {
        assert_eq!((words.next(), words.next()), (Some(tag), Some(value)));
    }
    assert_eq!(words.next(), Some(0));
}

fn an_ordinary_program_is_not_secure(env: Env) {
    assert!(!env.auxv().secure());
}

fn the_stack_is_aligned_in_main_and_in_threads() {
    fn aligned() -> bool {
        #[repr(align(16))]
        struct Aligned(#[allow(dead_code)] [u8; 16]);
        let local = Aligned([0; 16]);
        core::hint::black_box(&raw const local).addr().is_multiple_of(16)
    }
    assert!(aligned());
    assert!(thread::spawn(aligned).unwrap().join());
}

fn main_is_the_thread_that_the_process_started_with() {
    assert_eq!(sys::getpid(), sys::gettid());
    assert_eq!(thread::current().name(), Some("main"));
}

fn a_status_of_0_is_handed_on() {}

fn only_the_low_8_bits_of_a_status_are_handed_on() {
    sys::exit_group(-1)
}

fn starts_without_a_stack_limit() {
    deep(100);
}

fn starts_on_a_small_stack() {
    deep(10);
    assert_eq!(thread::spawn(|| deep(100)).unwrap().join(), 100);
}

fn closed_standard_descriptors_are_opened() {
    for fd in 0..3 {
        assert!(sys::dup(rt0_tests::numbered(fd)).is_ok(), "descriptor {fd}");
    }
    let next = sys::open(c"/proc/self/maps", sys::flags::O_RDONLY, 0).unwrap();
    assert!(next.as_raw_fd() >= 3);
    assert_eq!(sys::write(rt0_tests::numbered(1), b"lost"), Ok(4));
    assert_eq!(sys::read(rt0_tests::numbered(0), &mut [0; 4]), Ok(0));
}

fn one_closed_descriptor_is_opened_and_the_others_stay() {
    assert!(sys::dup(rt0_tests::numbered(1)).is_ok());
    rt0::println!("lost");
    rt0::eprintln!("kept");
}

fn a_file_opened_first_is_not_a_standard_descriptor() {
    let file = sys::open(c"/proc/self/maps", sys::flags::O_RDONLY, 0).unwrap();
    assert!(file.as_raw_fd() > 2);
}

fn constructors_ran_by_priority_with_the_arguments_of_main(env: Env) {
    let made = MADE.each_ref().map(|word| word.load(Relaxed));
    assert_eq!(made, [1, 2, 3], "each its place in the order");
    assert_eq!(ARGUMENTS.load(Relaxed), env.args().len());
    assert_eq!(VARIABLES.load(Relaxed), env.vars().count());
}

fn statics_are_what_they_were_initialised_to() {
    static DATA: AtomicUsize = AtomicUsize::new(0x1234_5678);
    static ZERO: [AtomicUsize; 1000] = [const { AtomicUsize::new(0) }; 1000];
    assert_eq!(DATA.swap(1, Relaxed), 0x1234_5678);
    assert!(ZERO.iter().all(|word| word.load(Relaxed) == 0));
}

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// When each constructor ran, by priority: the highest, a lower one, none.
static MADE: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
static RAN: AtomicUsize = AtomicUsize::new(0);
static ARGUMENTS: AtomicUsize = AtomicUsize::new(0);
static VARIABLES: AtomicUsize = AtomicUsize::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static LAST: Constructor = made::<2>;
#[used]
#[unsafe(link_section = ".init_array.65000")]
static SECOND: Constructor = made::<1>;
#[used]
#[unsafe(link_section = ".init_array.101")]
static FIRST: Constructor = made::<0>;

/// A constructor may do everything that main may do: the thread is complete.
extern "C" fn made<const I: usize>(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    assert_eq!(thread::current().name(), Some("main"));
    let count = |list: *const *const c_char| {
        (0..)
            .take_while(|i| {
                // SAFETY: the kernel's lists end with a null, and so does this loop.
                let entry = unsafe { *list.wrapping_add(*i) };
                // SAFETY: an entry that is not null is a string.
                !entry.is_null() && unsafe { CStr::from_ptr(entry) }.count_bytes() < usize::MAX
            })
            .count()
    };
    assert_eq!(count(argv), argc as usize);
    ARGUMENTS.store(argc as usize, Relaxed);
    VARIABLES.store(count(envp), Relaxed);
    MADE[I].store(RAN.fetch_add(1, Relaxed) + 1, Relaxed);
}

fn deep(levels: usize) -> usize {
    let page = core::hint::black_box([levels as u8; 1024]);
    if levels == 0 { 0 } else { 1 + deep(levels - 1) + usize::from(page[0] != levels as u8) }
}

//! Each kind of fault: its words, and the signal that it kills by.

use core::hint::black_box;
use core::ptr;

use linux_raw_sys::general as k;
use rt0::signal::{Signal, raise};
use rt0::test::Expect;
use rt0::{Errno, fault, sys};
use rt0_tests::reports::{ROOM, Report, has_frames};
use rt0_tests::{Ended, emulated, machine, skip, stderr_of};

use super::{assert_illegal, code, fault_at, illegal, report, run};

/// A breakpoint.
fn breakpoint() -> u32 {
    let machine = machine();
    let is = |start: &[u8]| machine.starts_with(start);
    match () {
        () if is(b"x86_64") || is(b"i") => 0xcccc_cccc, // int3
        () if is(b"aarch64") => 0xd420_0000u32.to_le(), // brk 0; code is little-endian on each.
        () if is(b"armv") => 0xe7f0_01f0,               // udf 16, which Linux takes for one.
        () if is(b"riscv") => 0x0010_0073,              // ebreak
        () if is(b"loongarch") => 0x002a_0000,          // break 0
        () if is(b"mips") => 0x0000_000d,               // break
        () if is(b"ppc") => 0x7fe0_0008,                // trap
        () if is(b"s390x") => 0x0001_0001,
        () if is(b"sparc64") => 0x91d0_2001, // ta 1
        () => panic!("which machine is this?"),
    }
}

/// A mapping of a file that has nothing there: mmap(2), in the form that the machine has.
fn map_file(fd: usize) -> usize {
    let args = [0, 64 << 10, k::PROT_READ as usize, k::MAP_SHARED as usize, fd, 0];
    #[cfg(target_arch = "s390x")]
    let (nr, args) = (k::__NR_mmap, [(&raw const args).expose_provenance(), 0, 0, 0, 0, 0]);
    #[cfg(all(target_pointer_width = "64", not(target_arch = "s390x")))]
    let nr = k::__NR_mmap;
    #[cfg(target_pointer_width = "32")]
    let nr = k::__NR_mmap2;
    // SAFETY: 1. Fresh memory.
    unsafe { sys::syscall(nr as usize, args) }.unwrap()
}

/// rt_tgsigqueueinfo(2): sends this thread what the kernel would send.
fn queue(signal: Signal, code: i32) -> Result<usize, Errno> {
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    // SAFETY: all signals have this part.
    let head = unsafe { &mut info.__bindgen_anon_1.__bindgen_anon_1 };
    (head.si_signo, head.si_code) = (signal.raw() as i32, code);
    let at = (&raw const info).expose_provenance();
    let args = [sys::getpid() as usize, sys::gettid() as usize, signal.raw() as usize, at, 0, 0];
    // SAFETY: 1. The kernel reads the struct; the signal has a handler.
    unsafe { sys::syscall(k::__NR_rt_tgsigqueueinfo as usize, args) }
}

rt0::test_module! {
    an_access_that_the_page_forbids_says_so,
    memory_beyond_the_end_of_a_file_is_a_bus_error,
    an_illegal_instruction_is_told_and_kills_there,
    a_breakpoint_is_told_and_kills_there,
    a_division_by_zero_is_told_and_kills_there,
    each_code_has_its_words_and_each_signal_kills =>
        Expect::success().native("an emulator takes what is queued for a fault of its own"),
    a_signal_that_was_sent_is_told_as_sent_and_kills,
    a_call_of_a_null_pointer_tells_where_it_was_made,
}

fn an_access_that_the_page_forbids_says_so() {
    let mut buf = [0; ROOM];
    let seen = report(
        || {
            fault::explain().unwrap();
            // SAFETY: none; the test wants the fault.
            unsafe { ptr::with_exposed_provenance_mut::<u32>(code(&[0])).write_volatile(1) };
        },
        Signal::SIGSEGV,
        &mut buf,
    );
    assert!(seen.head().contains("invalid permissions for mapped object (SEGV_ACCERR), address 0x"), "{}", seen.text);
}

fn memory_beyond_the_end_of_a_file_is_a_bus_error() {
    let mut buf = [0; ROOM];
    let child = || {
        fault::explain().unwrap();
        let file = [c"empty".as_ptr().expose_provenance(), 0, 0, 0, 0, 0];
        // SAFETY: 1. The kernel reads the name.
        let file = unsafe { sys::syscall(k::__NR_memfd_create as usize, file) }.unwrap();
        fault_at(map_file(file) + 8);
    };
    let (text, ended) = stderr_of(child, &mut buf);
    if emulated() && ended == Ended::Exit(0) {
        skip("the emulator puts memory behind the end of a file, where its pages are smaller than the machine's");
    }
    assert_eq!(ended, Ended::Signal(k::SIGBUS), "{text}");
    let seen = Report { text };
    assert!(
        seen.head().contains(" got SIGBUS: nonexistent physical address (BUS_ADRERR), address 0x"),
        "{}",
        seen.text
    );
}

fn an_illegal_instruction_is_told_and_kills_there() {
    let mut buf = [0; ROOM];
    let seen = report(
        || {
            fault::explain().unwrap();
            run(code(&[illegal()]));
        },
        Signal::SIGILL,
        &mut buf,
    );
    assert_illegal(seen.head());
}

/// On some machines the pc is behind it: nothing there may run. The kernel of s390x gives SIGTRAP
/// to a traced process only (illegal_op in arch/s390/kernel/traps.c).
fn a_breakpoint_is_told_and_kills_there() {
    let is_illegal = machine().starts_with(b"s390x");
    let (signal, name) = if is_illegal { (Signal::SIGILL, "SIGILL") } else { (Signal::SIGTRAP, "SIGTRAP") };
    let mut buf = [0; ROOM];
    let seen = report(
        || {
            fault::explain().unwrap();
            run(code(&[breakpoint()]));
        },
        signal,
        &mut buf,
    );
    let after = seen.head().split_once(" got ").map_or("", |(_, after)| after);
    assert!(after.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")), "{}", seen.text);
    assert!(!seen.head().contains("sent by"), "{}", seen.text);
}

fn a_division_by_zero_is_told_and_kills_there() {
    let machine = machine();
    let is = |start: &[u8]| machine.starts_with(start);
    let divides = match () {
        () if is(b"x86_64") || is(b"i") => 0xf1f7_c931, // xor ecx, ecx; div ecx
        () if is(b"mips") => 0x0000_01f4,               // teq $zero, $zero, 7
        () => skip("division by zero is no trap on this machine"),
    };
    let mut buf = [0; ROOM];
    let seen = report(
        || {
            fault::explain().unwrap();
            run(code(&[divides]));
        },
        Signal::SIGFPE,
        &mut buf,
    );
    assert!(seen.head().contains(" got SIGFPE: integer divide by zero (FPE_INTDIV), address 0x"), "{}", seen.text);
}

fn each_code_has_its_words_and_each_signal_kills() {
    let mut buf = [0; ROOM];
    for (signal, code, words) in [
        (Signal::SIGFPE, k::FPE_INTDIV, " got SIGFPE: integer divide by zero (FPE_INTDIV)"),
        (Signal::SIGTRAP, k::TRAP_BRKPT, " got SIGTRAP: process breakpoint (TRAP_BRKPT)"),
        (Signal::SIGTRAP, k::SI_KERNEL, " got SIGTRAP: the kernel gives no reason (SI_KERNEL)"),
        (Signal::SIGILL, k::ILL_PRVOPC, " got SIGILL: privileged opcode (ILL_PRVOPC)"),
        (Signal::SIGFPE, 77, " got SIGFPE: code 77"),
        (Signal::SIGSEGV, k::SEGV_MTEAERR, " got SIGSEGV: asynchronous memory tag check fault (SEGV_MTEAERR)"),
    ] {
        let seen = report(
            || {
                fault::explain().unwrap();
                queue(signal, code as i32).unwrap();
                sys::exit_group(1);
            },
            signal,
            &mut buf,
        );
        assert!(seen.head().contains(words), "{}", seen.text);
    }
}

fn a_signal_that_was_sent_is_told_as_sent_and_kills() {
    let mut buf = [0; ROOM];
    for signal in fault::SIGNALS {
        let seen = report(
            || {
                fault::explain().unwrap();
                raise(signal).unwrap();
            },
            signal,
            &mut buf,
        );
        assert!(seen.head().contains(": sent by process "), "{}", seen.text);
        assert!(!seen.head().contains("address"), "{}", seen.text);
    }
}

fn a_call_of_a_null_pointer_tells_where_it_was_made() {
    #[inline(never)]
    fn calls(address: usize) -> usize {
        run(black_box(address));
        black_box(address) + 1
    }
    let mut buf = [0; ROOM];
    let seen = report(
        || {
            fault::explain().unwrap();
            black_box(calls(0));
        },
        Signal::SIGSEGV,
        &mut buf,
    );
    assert_eq!((seen.number_after(", pc 0x"), seen.frames().next()), (0, Some(0)), "{}", seen.text);
    let caller = seen.frames().nth(1).unwrap_or_default();
    let within = |f: usize| (0..1024).contains(&caller.wrapping_sub(f));
    assert!(within(run as *const () as usize) || within(calls as *const () as usize), "{}", seen.text);
    assert!(!has_frames() || seen.leads_to(calls as *const () as usize), "{}", seen.text);
}

//! What a handler is told: the sender or the cause of the signal, and what it interrupted.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::signal::{Action, Info, Signal, raise};
use rt0::{sys, thread};
use rt0_tests::seccomp::filter_calls;
use rt0_tests::wait_until;

use super::{LAST, install, skip_because};

rt0::test_module! {
    a_queued_signal_is_from_a_user_too,
    a_handler_gets_the_sender_of_the_signal,
    a_fault_has_its_address_and_is_not_from_a_user,
    a_sent_sigsegv_is_no_fault,
    a_filter_that_traps_says_so,
    a_handler_sees_where_it_interrupted,
    a_handler_sees_the_stack_and_the_frame_that_it_interrupted,
}

fn a_queued_signal_is_from_a_user_too() {
    install(Signal::SIGUSR1, Action::info(note_info));
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    // SAFETY: all signals have this part.
    let head = unsafe { &mut info.__bindgen_anon_1.__bindgen_anon_1 };
    head.si_code = k::SI_QUEUE;
    head._sifields._kill = k::__sifields__bindgen_ty_1 { _pid: sys::getpid() as i32, _uid: 12345 };
    let at = (&raw const info).expose_provenance();
    let to_process = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, at, 0, 0, 0];
    // SAFETY: 1. The kernel reads the struct; the signal has a handler.
    unsafe { sys::syscall(k::__NR_rt_sigqueueinfo as usize, to_process) }.unwrap();
    assert_eq!((LAST.load(Relaxed), CODE.load(Relaxed)), (Signal::SIGUSR1.raw(), k::SI_QUEUE));
    assert_eq!((SENDER.load(Relaxed), SENDER_UID.load(Relaxed)), (sys::getpid(), 12345));
    assert!(FROM_USER.load(Relaxed));
}

fn a_handler_gets_the_sender_of_the_signal() {
    install(Signal::SIGUSR1, Action::info(note_info));
    // SAFETY: 1. It changes nothing.
    let uid = unsafe { sys::syscall(k::__NR_getuid as usize, [0; 6]) }.unwrap();
    let sent = |code: i32| {
        assert_eq!(LAST.load(Relaxed), Signal::SIGUSR1.raw());
        assert_eq!(CODE.load(Relaxed), code);
        assert_eq!((SENDER.load(Relaxed), SENDER_UID.load(Relaxed)), (sys::getpid(), uid as u32));
        assert!(FROM_USER.load(Relaxed) && ADDRESS.load(Relaxed) == 0);
    };
    raise(Signal::SIGUSR1).unwrap();
    sent(k::SI_TKILL);
    let to_process = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, 0, 0, 0, 0];
    // SAFETY: 1. A signal to this process, with a handler.
    unsafe { sys::syscall(k::__NR_kill as usize, to_process) }.unwrap();
    sent(k::SI_USER as i32);
}

fn a_fault_has_its_address_and_is_not_from_a_user() {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    fn allow(info: &Info) {
        note_info(info);
        let writable = (k::PROT_READ | k::PROT_WRITE) as usize;
        // SAFETY: 1. The page is this test's.
        let _ = unsafe { sys::syscall(k::__NR_mprotect as usize, [PAGE.load(Relaxed), 1, writable, 0, 0, 0]) };
    }
    install(Signal::SIGSEGV, Action::info(allow));
    let page = map_page(k::PROT_READ);
    PAGE.store(page.addr(), Relaxed);
    let word = page.wrapping_add(24).cast::<u32>();
    // SAFETY: the page belongs to this test, and the handler makes it writable.
    unsafe { word.write_volatile(7) };
    // SAFETY: the page is readable now.
    assert_eq!(unsafe { word.read_volatile() }, 7);
    let address = ADDRESS.load(Relaxed);
    // s390x reports only the page.
    assert!(address == word.addr() || address == page.addr(), "{address:#x} for {word:?}");
    // An emulator may not distinguish the two.
    assert!([k::SEGV_ACCERR, k::SEGV_MAPERR].contains(&(CODE.load(Relaxed) as u32)));
    assert!(!FROM_USER.load(Relaxed) && SENDER.load(Relaxed) == 0);
}

fn a_sent_sigsegv_is_no_fault() {
    install(Signal::SIGSEGV, Action::info(note_info));
    raise(Signal::SIGSEGV).unwrap();
    assert!(FROM_USER.load(Relaxed));
    assert_eq!((LAST.load(Relaxed), ADDRESS.load(Relaxed)), (Signal::SIGSEGV.raw(), 0));
}

fn a_filter_that_traps_says_so() {
    install(Signal::SIGSYS, Action::info(note_info));
    let returns = filter_calls(&[k::__NR_getppid], 0x0003_0000); // SECCOMP_RET_TRAP
    if let Err(errno) = returns {
        skip_because(errno, "seccomp filters");
    }
    // SAFETY: 1. It changes nothing.
    let _ = unsafe { sys::syscall(k::__NR_getppid as usize, [0; 6]) };
    assert_eq!(LAST.load(Relaxed), Signal::SIGSYS.raw());
    assert!(FROM_SECCOMP.load(Relaxed) && !FROM_USER.load(Relaxed));
}

fn a_handler_sees_where_it_interrupted() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static TID: AtomicU32 = AtomicU32::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    #[inline(never)]
    fn spin() {
        while !STOP.load(Relaxed) {
            core::hint::spin_loop();
        }
    }
    fn look(info: &Info) {
        let start = spin as fn() as usize;
        // The loop is a handful of instructions.
        INSIDE.fetch_add((start..start + 256).contains(&info.pc()) as u32, Relaxed);
    }
    install(Signal::SIGUSR1, Action::info(look));
    let spinning = thread::spawn(|| {
        TID.store(sys::gettid(), Relaxed);
        spin();
    });
    wait_until("the thread", || TID.load(Relaxed) != 0);
    wait_until("the loop to be interrupted", || {
        sys::tgkill(sys::getpid(), TID.load(Relaxed), Signal::SIGUSR1.raw()).unwrap();
        INSIDE.load(Relaxed) >= 10
    });
    STOP.store(true, Relaxed);
    spinning.unwrap().join();
}

fn a_handler_sees_the_stack_and_the_frame_that_it_interrupted() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static TID: AtomicU32 = AtomicU32::new(0);
    static LOW: AtomicUsize = AtomicUsize::new(0);
    static HIGH: AtomicUsize = AtomicUsize::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static FRAMED: AtomicU32 = AtomicU32::new(0);
    /// A local with a larger alignment than the stack's makes a function use its frame pointer.
    #[repr(align(256))]
    struct Aligned([u8; 256]);
    #[inline(never)]
    fn spin() {
        let local = Aligned([1; 256]);
        LOW.store(black_box(&local).0.as_ptr().addr(), Relaxed);
        while !STOP.load(Relaxed) {
            core::hint::spin_loop();
        }
        black_box(&local);
    }
    #[inline(never)]
    fn caller() {
        let local = [2u8; 64];
        HIGH.store(black_box(&local).as_ptr().addr() + 64, Relaxed);
        spin();
        black_box(&local);
    }
    fn look(info: &Info) {
        let (low, high) = (LOW.load(Relaxed), HIGH.load(Relaxed));
        if low == 0 {
            return;
        }
        // On SPARC the registers hold the address minus 2047.
        let stack = low.saturating_sub(4096)..=high;
        INSIDE.fetch_add(stack.contains(&info.sp()) as u32, Relaxed);
        FRAMED.fetch_add(stack.contains(&info.fp()) as u32, Relaxed);
    }
    install(Signal::SIGUSR1, Action::info(look));
    let spinning = thread::spawn(|| {
        TID.store(sys::gettid(), Relaxed);
        caller();
    });
    wait_until("the thread", || TID.load(Relaxed) != 0);
    wait_until("the loop to be interrupted", || {
        sys::tgkill(sys::getpid(), TID.load(Relaxed), Signal::SIGUSR1.raw()).unwrap();
        INSIDE.load(Relaxed) >= 10 && FRAMED.load(Relaxed) >= 10
    });
    STOP.store(true, Relaxed);
    spinning.unwrap().join();
}

static CODE: AtomicI32 = AtomicI32::new(0);
static SENDER: AtomicU32 = AtomicU32::new(0);
static SENDER_UID: AtomicU32 = AtomicU32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static FROM_USER: AtomicBool = AtomicBool::new(false);
static FROM_SECCOMP: AtomicBool = AtomicBool::new(false);

/// Stores a handler's information.
fn note_info(info: &Info) {
    LAST.store(info.number() as u32, Relaxed);
    CODE.store(info.code(), Relaxed);
    SENDER.store(info.sender().map_or(0, |sender| sender.pid), Relaxed);
    SENDER_UID.store(info.sender().map_or(0, |sender| sender.uid), Relaxed);
    ADDRESS.store(info.address().map_or(0, |address| address.addr()), Relaxed);
    FROM_USER.store(info.from_user(), Relaxed);
    FROM_SECCOMP.store(info.from_seccomp(), Relaxed);
}

fn map_page(prot: u32) -> *mut u8 {
    #[repr(align(65536))] // As large as the largest page.
    struct Page([AtomicU8; 64 << 10]);
    static PAGE: Page = Page([const { AtomicU8::new(0) }; _]);
    let at = PAGE.0[0].as_ptr().expose_provenance();
    // SAFETY: 1. Whole pages that no other code uses.
    unsafe { sys::syscall(k::__NR_mprotect as usize, [at, 64 << 10, prot as usize, 0, 0, 0]) }.unwrap();
    core::ptr::with_exposed_provenance_mut(at)
}

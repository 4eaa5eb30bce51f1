//! Filters on system calls, seccomp(2): for tests of a kernel that lacks a call or refuses it.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl::{PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP};
use rt0::time::Instant;
use rt0::{Errno, sys, thread};

use crate::processes::has_ended;
use crate::{Ended, emulated, fork, skip, under_valgrind, wait_for};

/// The numbers of calls that take a time: of the wide form, and if there is one, the narrow form.
macro_rules! forms {
    ($($name:ident = $narrow:ident, $wide:ident;)*) => { $(
        #[cfg(target_pointer_width = "64")]
        /// The numbers of this call's forms.
        pub const $name: &[u32] = &[k::$narrow];
        #[cfg(all(target_pointer_width = "32", not(target_arch = "riscv32")))]
        /// The numbers of this call's forms.
        pub const $name: &[u32] = &[k::$wide, k::$narrow];
        #[cfg(target_arch = "riscv32")]
        /// The numbers of this call's forms.
        pub const $name: &[u32] = &[k::$wide];
    )* };
}

forms! {
    FUTEX = __NR_futex, __NR_futex_time64;
    CLOCK_GETTIME = __NR_clock_gettime, __NR_clock_gettime64;
    CLOCK_NANOSLEEP = __NR_clock_nanosleep, __NR_clock_nanosleep_time64;
    TIMER_SETTIME = __NR_timer_settime, __NR_timer_settime64;
    PPOLL = __NR_ppoll, __NR_ppoll_time64;
    SIGTIMEDWAIT = __NR_rt_sigtimedwait, __NR_rt_sigtimedwait_time64;
}

/// How long a kernel may take to install a filter.
const LIMIT: Duration = Duration::from_secs(10);

/// Skips the test if the kernel does not return from installing a filter; this was seen after
/// thousands of filters. Such a thread never returns, and the test would hang. So a child tries
/// first.
pub fn need_filters() {
    static COMES_BACK: AtomicBool = AtomicBool::new(false);
    // Emulators refuse by themselves.
    if emulated() || COMES_BACK.load(Relaxed) {
        return;
    }
    // Another child waits for it: waiting reads clocks, and this process may not have used the vDSO
    // yet.
    let waits = fork().expect("fork");
    if waits == 0 {
        let tries = fork().expect("fork");
        if tries == 0 {
            let _ = install(&[Instruction { value: result(Verdict::Allow), ..RETURN_ZERO }]);
            sys::exit_group(0);
        }
        let end = Instant::now() + LIMIT;
        while !has_ended(tries) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        sys::exit_group((Instant::now() >= end) as i32);
    }
    if wait_for(waits) != Ended::Exit(0) {
        skip("this kernel does not come back from installing a filter on system calls");
    }
    COMES_BACK.store(true, Relaxed);
}

/// `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

const RETURN: u16 = 0x06;
const RETURN_ZERO: Instruction = Instruction { code: RETURN, if_true: 0, if_false: 0, value: 0 };

fn result(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => 0x7fff_0000,
        Verdict::Refuse(errno) => 0x0005_0000 | u32::from(errno.raw()),
        Verdict::Kill => 0x8000_0000,
    }
}

/// Installs a filter on this thread. prctl(2)
fn install(instructions: &[Instruction]) -> Result<(), Errno> {
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        instructions: *const Instruction,
    }
    const MODE_FILTER: usize = 2;
    let program = Program { len: instructions.len() as u16, instructions: instructions.as_ptr() };
    let at = (&raw const program).expose_provenance();
    let prctl = |args| {
        // SAFETY: 1. The kernel reads the program; the test expects what it forbids.
        unsafe { sys::syscall(k::__NR_prctl as usize, args) }
    };
    prctl([PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0])?;
    prctl([PR_SET_SECCOMP as usize, MODE_FILTER, at, 0, 0, 0]).map(drop)
}

/// The filter's answer to a call.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// The call is made.
    Allow,
    /// The call fails.
    Refuse(Errno),
    /// The call ends the process, by SIGSYS.
    Kill,
}

/// From now on `calls` get the verdict `these`, and all other calls `others`: on this thread and
/// the threads that it starts. Skips the test if there are no filters, as under qemu-user.
pub fn filter(calls: &[u32], these: Verdict, others: Verdict) {
    if let Err(errno) = answer(calls, result(these), result(others)) {
        skip(if errno == Errno::EINVAL { "no filters on system calls here" } else { "filters are not allowed here" });
    }
}

/// Installs a filter on the calling thread that answers these calls with `action` (a
/// `SECCOMP_RET_*`).
pub fn filter_calls(calls: &[u32], action: u32) -> Result<(), Errno> {
    answer(calls, action, result(Verdict::Allow))
}

/// Installs a filter that answers these calls, and all others.
fn answer(calls: &[u32], these: u32, others: u32) -> Result<(), Errno> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const NUMBER: u32 = 0; // The offset of the call's number in `struct seccomp_data`.

    if under_valgrind() {
        skip("valgrind makes calls of its own on the program's threads, and the filter meets them");
    }
    need_filters();
    let mut program = [RETURN_ZERO; 32];
    let len = calls.len() + 3;
    program[0] = Instruction { code: LOAD_WORD, if_true: 0, if_false: 0, value: NUMBER };
    for (index, &call) in calls.iter().enumerate() {
        let to_end = (calls.len() - index) as u8;
        program[1 + index] = Instruction { code: JUMP_IF_EQUAL, if_true: to_end, if_false: 0, value: call };
    }
    program[len - 2].value = others;
    program[len - 1].value = these;
    install(&program[..len])
}

//! Filters on system calls, seccomp(2): what a test does where a kernel lacks a call, or makes none.

use linux_raw_sys::general as k;
use linux_raw_sys::prctl::{PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP};
use rt0::{Errno, sys};

use crate::skip;

/// What becomes of a call.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It fails.
    Refuse(Errno),
    /// It ends the process, by SIGSYS.
    Kill,
}

/// From now on the calls of these numbers meet one verdict, and all others the other: on this thread and those that it
/// starts. Skips the test where there are no filters, as under qemu-user.
pub fn filter(calls: &[u32], these: Verdict, others: Verdict) {
    /// `struct sock_filter` of linux/filter.h.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Instruction {
        code: u16,
        if_true: u8,
        if_false: u8,
        value: u32,
    }
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        instructions: *const Instruction,
    }
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0; // Where `struct seccomp_data` has the call's number.
    const MODE_FILTER: usize = 2;

    let result = |verdict| match verdict {
        Verdict::Allow => 0x7fff_0000,
        Verdict::Refuse(errno) => 0x0005_0000 | u32::from(errno.raw()),
        Verdict::Kill => 0x8000_0000,
    };
    let mut program = [Instruction { code: RETURN, if_true: 0, if_false: 0, value: 0 }; 32];
    let len = calls.len() + 3;
    program[0] = Instruction { code: LOAD_WORD, if_true: 0, if_false: 0, value: NUMBER };
    for (index, &call) in calls.iter().enumerate() {
        let to_end = (calls.len() - index) as u8;
        program[1 + index] = Instruction { code: JUMP_IF_EQUAL, if_true: to_end, if_false: 0, value: call };
    }
    program[len - 2].value = result(others);
    program[len - 1].value = result(these);
    let program = Program { len: len as u16, instructions: program.as_ptr() };
    let at = (&raw const program).expose_provenance();

    let prctl = |args| {
        // SAFETY: 1. The kernel reads the program; what it forbids is the test's affair.
        unsafe { sys::syscall(k::__NR_prctl as usize, args) }
    };
    let done = prctl([PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0])
        .and_then(|_| prctl([PR_SET_SECCOMP as usize, MODE_FILTER, at, 0, 0, 0]));
    if let Err(errno) = done {
        skip(if errno == Errno::EINVAL { "no filters on system calls here" } else { "filters are not allowed here" });
    }
}

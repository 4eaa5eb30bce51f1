//! futex(2), and its use to find out whether memory can be read.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;

use super::form::{Form, Preference, narrow, timed};
use super::{Timespec, at, call};
use crate::arch::{Arch, Cpu};
use crate::errno::{Errno, Result};

/// futex(2), `FUTEX_WAIT_BITSET`, with an absolute deadline on CLOCK_MONOTONIC. `EAGAIN` if the
/// word does not hold `expected`, `EINTR`, `ETIMEDOUT`; `Ok` may be spurious.
pub(crate) fn futex_wait(
    word: &AtomicU32,
    shared: bool,
    expected: u32,
    deadline: Option<&Timespec>,
    bits: u32,
) -> Result<()> {
    let op = k::FUTEX_WAIT_BITSET | private_flag(shared);
    let nr_and_time = |nr, time| {
        // SAFETY: 1. The kernel reads the word and the deadline.
        unsafe { call!(@ nr, at(word.as_ptr()), op as usize, expected as usize, time, 0, bits as usize) }.map(drop)
    };
    futex(|form, nr| match (form, deadline) {
        (_, None) => nr_and_time(nr, 0),
        (Form::Wide, Some(deadline)) => nr_and_time(nr, at(deadline)),
        (Form::Narrow, Some(deadline)) => nr_and_time(nr, at(&narrow(deadline))),
    })
}

/// Makes futex(2) in the form that answers.
#[inline(always)]
fn futex<T>(call: impl FnMut(Form, usize) -> Result<T>) -> Result<T> {
    static FORM: Preference = Preference::new();
    timed(Cpu::FUTEX, &FORM, call)
}

/// Whether the word at `address` holds `value`. False if nothing can be read there, or the address
/// is not aligned.
///
/// The call is futex(2), `FUTEX_CMP_REQUEUE` of no waiters: it compares, wakes no thread and moves
/// none. (A wait with a deadline in the past would do too, but sets a timer: about 20 µs on a
/// virtual machine.) If a filter refuses that, rt_sigprocmask(2) shows whether it can be read.
pub(crate) fn holds(address: *const AtomicU32, value: u32) -> bool {
    match compare(address, value) {
        Ok(_) => true,
        Err(Errno::EAGAIN | Errno::EFAULT) => false,
        // SAFETY: aligned, and the kernel has just read it.
        Err(_) => address.is_aligned() && can_read_set(address) && unsafe { (*address).load(Relaxed) } == value,
    }
}

/// Whether the kernel can read the word at `address`, a multiple of 4. By the calls of [`holds`].
pub(crate) fn holds_any(address: *const AtomicU32) -> bool {
    match compare(address, 0) {
        Ok(_) | Err(Errno::EAGAIN) => true,
        Err(Errno::EFAULT) => false,
        Err(_) => can_read_set(address),
    }
}

/// futex(2), `FUTEX_CMP_REQUEUE` of no waiters: `EAGAIN` if the word holds another value, `EFAULT`
/// where nothing can be read.
#[inline(always)]
fn compare(address: *const AtomicU32, value: u32) -> Result<usize> {
    let op = (k::FUTEX_CMP_REQUEUE | k::FUTEX_PRIVATE_FLAG) as usize;
    futex(|_, nr| {
        // SAFETY: 1. The kernel reads the word; it says EFAULT where it cannot.
        unsafe { call!(@ nr, at(address), op, 0, 0, at(address), value as usize) }
    })
}

/// Whether rt_sigprocmask(2) can read a set of signals at `address`.
#[inline(always)]
fn can_read_set(address: *const AtomicU32) -> bool {
    const NO_HOW: usize = 0x7fff; // The kernel reads the set first, and then refuses this.
    // SAFETY: 1. The kernel reads a set there, or says EFAULT; it changes nothing.
    let read = unsafe { call!(__NR_rt_sigprocmask, NO_HOW, at(address), 0, size_of::<k::kernel_sigset_t>()) };
    read == Err(Errno::EINVAL)
}

/// The bitset of a waiter or a wake without a bitset of its own.
pub(crate) const FUTEX_ANY: u32 = k::FUTEX_BITSET_MATCH_ANY;

/// futex(2), `FUTEX_WAKE`, or `FUTEX_WAKE_BITSET` for waiters that have one of certain `bits`: how
/// many were woken. `EFAULT` if nothing is mapped there.
///
/// It takes a pointer, not a reference: a waiter that saw the new value may have freed the word
/// meanwhile.
pub(crate) fn futex_wake(word: *const AtomicU32, shared: bool, count: u32, bits: u32) -> Result<usize> {
    futex(|_, nr| {
        if bits == FUTEX_ANY {
            let op = k::FUTEX_WAKE | private_flag(shared);
            // SAFETY: 1. The kernel uses the address as the name of a queue.
            unsafe { call!(@ nr, at(word), op as usize, count as usize) }
        } else {
            let op = k::FUTEX_WAKE_BITSET | private_flag(shared);
            // SAFETY: 1. The kernel uses the address as the name of a queue.
            unsafe { call!(@ nr, at(word), op as usize, count as usize, 0, 0, bits as usize) }
        }
    })
}

/// futex(2), `FUTEX_REQUEUE`, private: moves one thread that waits on `from` to `to`, and wakes
/// none. Returns how many it moved, 0 or 1. `EFAULT` if nothing is mapped there.
pub(crate) fn futex_requeue(from: *const AtomicU32, to: *const AtomicU32) -> Result<usize> {
    let op = k::FUTEX_REQUEUE | private_flag(false);
    // SAFETY: 1. The kernel uses the addresses as names of queues.
    futex(|_, nr| unsafe { call!(@ nr, at(from), op as usize, 0, 1, at(to)) })
}

fn private_flag(shared: bool) -> u32 {
    if shared { 0 } else { k::FUTEX_PRIVATE_FLAG }
}

/// Whether the kernel can read a word at `addr`, a multiple of 4. It says so without a fault.
///
/// The call is futex(2), `FUTEX_CMP_REQUEUE`, which reads the word, wakes no thread and moves none.
/// Any program that joins threads may call futex(2), and every tool that emulates system calls
/// leaves the access to the kernel. (Valgrind writes the old mask of rt_sigprocmask(2) by itself,
/// and died of a fault there.)
///
/// # Safety
///
/// 1. No thread waits on a futex at `addr`.
pub(crate) unsafe fn can_read(addr: *const u8) -> bool {
    let op = k::FUTEX_CMP_REQUEUE | private_flag(false);
    // SAFETY: the caller guarantees 1; the kernel reads the word, or finds that it cannot.
    let asked = futex(|_, nr| unsafe { call!(@ nr, at(addr), op as usize, 0, 0, at(addr), 0) });
    asked != Err(Errno::EFAULT)
}

//! Reports of faults, similar to those of Go's runtime, for programs that ask for them.
//!
//! ```text
//! thread 'w' (tid 4) got SIGSEGV: address not mapped to object (SEGV_MAPERR), address 0x8, pc …
//!     0x2031f4
//!     0x20330b
//! rax 0x0000000000000008  rbx …
//! ```
//!
//! A line that begins with blanks and `0x` is a frame, the innermost one first. The first frame is
//! the instruction itself, the others are the last byte of each caller's call instruction, so that
//! `addr2line -e PROGRAM` and `cargo xtask symbolize PROGRAM` name the line of the call. Callers
//! are known as far as the program was compiled with `-Cforce-frame-pointers=yes`, at most 63 of
//! them. MIPS and s390x have none, as compilers make no chain of frames there.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A fault ends the process as without the report:* for SIGSEGV and SIGBUS, the handler sets
//!    the default action and returns; the instruction runs again and faults again. The other
//!    signals may not come again: after a breakpoint the pc is past its instruction. The handler
//!    sends them again while they are blocked, so the process dies at the interrupted instruction
//!    when the handler returns. A core dump shows that instruction.
//! 2. *A signal that was sent is reported as sent, and ends the process as without the report:* the
//!    first process of a PID namespace survives it, and a later one is reported again. A trap ends
//!    such a process with status 128 plus the signal's number (see [`die_from`]).
//! 3. *A report is safe at any instruction:* it allocates nothing and takes no lock. It reads a
//!    page of the stack only after the kernel has read from it, so a broken chain of frames ends
//!    the walk and does not fault.
//! 4. *A fault within a report ends the process by that fault:* all signals are blocked meanwhile,
//!    and the kernel kills a process for a fault whose signal is blocked. The text so far is lost.
//! 5. *Reports do not mix:* each is one write(2) of up to 4096 bytes, which a pipe takes as a
//!    whole. If several threads fault together, each writes its own report, unless the process dies
//!    before.
//! 6. *A process with more rights than its caller prints no addresses*, registers or frames
//!    ([`Auxv::secure`]).
//! 7. *A fault kills whatever standard error is.* A report waits five seconds at most until its
//!    descriptor takes the write; then it is lost. The SIGPIPE of a pipe without a reader is
//!    dropped. (A terminal that takes a part of the report and then no more can still hold it up.)
//!
//! Limits: a thread that blocks the signal dies of it without a report, because the kernel runs no
//! handler then. A handler blocks every signal unless its [`Action`] says otherwise. So a fault in
//! a handler is reported only if the handler's mask does not contain [`SIGNALS`].
//!
//! [`Auxv::secure`]: crate::Auxv::secure
//! [`die_from`]: signal::die_from

mod dump;
mod frames;
mod words;

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use linux_raw_sys::general as k;

use crate::arch::{Arch, Cpu};
use crate::auxv;
use crate::errno::{Errno, Result};
use crate::io::Line;
use crate::signal::{self, Action, How, Info, SigSet, Signal};
use crate::{sys, thread};

pub use dump::dump_all;
use frames::Frames;

/// The signals by which the kernel reports a fault.
pub const SIGNALS: [Signal; 5] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGTRAP];

/// A report, of the size that a pipe takes as a whole.
type Text = Line<4096, true>;

/// From now on a fault or a panic of any thread is reported on standard error before it ends the
/// process: the thread and its name, the signal, its code in words, address, pc, registers and
/// frames. See [`fault`](self).
///
/// Call it once, best at the start of main. It unblocks [`SIGNALS`] on the calling thread; threads
/// that start later inherit that. A handler of the program's own for one of them stays, and one
/// that is installed later replaces the report. A stack overflow is reported with the text of
/// [`report_overflows`](thread::report_overflows), which this replaces.
///
/// Errors: `ENOMEM`, no memory for the main thread's signal stack; what a filter on system calls
/// returns. If an emulator does not provide signal 33, the report of a panic has no frames.
///
/// ```no_run
/// rt0::fault::explain()?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no.
pub fn explain() -> Result<()> {
    install(&Action::info(report).to_kernel())
}

/// [`explain`], and after each report the frames of all other threads, as [`dump_all`] writes them.
/// That takes at most ten seconds, in which the other threads continue. Threads that fault
/// meanwhile write their own report and wait.
///
/// ```no_run
/// rt0::fault::explain_all()?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no.
pub fn explain_all() -> Result<()> {
    install(&Action::info(report_all).to_kernel())?;
    set_after_panic(frames_of_panic_in_all);
    Ok(())
}

/// From now on `signal` writes the frames of all threads to standard error, as Go does on SIGQUIT,
/// and then ends the process by that signal. The thread that handles it comes first. (The first
/// process of a PID namespace continues.) A program that is to continue calls [`dump_all`] in a
/// handler instead.
///
/// Errors: `EINVAL` for SIGKILL, SIGSTOP and [`SIGNALS`]; `ENOMEM`, no memory for the main thread's
/// signal stack; what a filter on system calls returns.
///
/// ```no_run
/// rt0::fault::dump_on(rt0::signal::Signal::SIGQUIT)?; // By Ctrl-\ on a terminal.
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no.
pub fn dump_on(signal: Signal) -> Result<()> {
    if SIGNALS.contains(&signal) {
        return Err(Errno::EINVAL);
    }
    dump::prepare()?;
    // SAFETY: 1. By property 3 here and property 6 of `dump.rs`.
    unsafe { signal::sigaction(signal, Action::info(dump_and_die)) }.map(drop)
}

fn install(action: &<Cpu as Arch>::Sigaction) -> Result<()> {
    signal::ensure_main_has_stack()?;
    dump::prepare()?;
    for signal in SIGNALS {
        // SAFETY: 1. By property 3. 2. `ensure_main_has_stack` gave it one.
        unsafe { signal::replace_own(signal, action, &thread::overflow_reporter()) }?;
    }
    signal::mask(How::Unblock, &SigSet::from_iter(SIGNALS));
    set_after_panic(frames_of_panic);
    Ok(())
}

/// The handler of [`SIGNALS`].
fn report(info: &Info) {
    let _ = tell(info); // An error cannot be reported anywhere.
    end_by(info, &Action::info(report).to_kernel());
}

/// The handler of [`SIGNALS`] after [`explain_all`].
fn report_all(info: &Info) {
    if tell(info) {
        dump::dump_others();
    }
    end_by(info, &Action::info(report_all).to_kernel());
}

/// The handler of [`dump_on`].
fn dump_and_die(info: &Info) {
    if tell(info) {
        dump::dump_others();
    }
    let Some(signal) = Signal::from_raw(info.number() as u32) else { return };
    if signal::set_default(signal).is_err() {
        signal::die_from(signal);
    }
    signal::unblock_and_raise(signal);
    // A filter may refuse it. Then the next such signal ends the process without a dump.
    // SAFETY: 1. By property 3 here and property 6 of `dump.rs`.
    let _ = unsafe { signal::sigaction(signal, Action::info(dump_and_die)) };
}

/// Writes the report. Returns whether standard error took it.
fn tell(info: &Info) -> bool {
    let mut text = Text::with_room(2);
    let secure = auxv::of_process().secure();
    describe(&mut text, info, secure);
    if !secure {
        Frames::of(info).write(&mut text);
        write_registers(&mut text, info);
    }
    text.flush()
}

/// The first line: which thread, which signal, and why.
fn describe(text: &mut Text, info: &Info, secure: bool) {
    let block = thread::block_in_report();
    let overflow = block.and_then(|block| Some((block, thread::overflowed(block, info)?)));
    if let Some((block, (address, stack))) = overflow {
        thread::describe_overflow(text, block, address, stack, secure);
        return;
    }
    text.text("\n");
    dump::write_name(text, block, sys::gettid());
    let name = Signal::from_raw(info.number() as u32).and_then(Signal::name).unwrap_or("a signal");
    text.text(" got ").text(name).text(": ");
    match (info.sender(), words::of(info.number() as u32, info.code())) {
        (Some(sender), _) => {
            text.text("sent by process ").number(sender.pid as usize, false);
            text.text(" of user ").number(sender.uid as usize, false);
        }
        (None, Some((words, name))) => _ = text.text(words).text(" (").text(name).text(")"),
        (None, None) => {
            text.text(if info.code() < 0 { "code -" } else { "code " });
            text.number(info.code().unsigned_abs() as usize, false);
        }
    }
    if !secure {
        if let Some(address) = info.address() {
            text.text(", address 0x").number(address.addr(), true);
        }
        text.text(", pc 0x").number(info.pc(), true);
    }
    text.text("\n");
}

/// Writes the registers, four to a line, with leading zeros.
fn write_registers(text: &mut Text, info: &Info) {
    const DIGITS: usize = 2 * size_of::<usize>();
    let mut column = 0;
    info.for_each_register(|name, value| {
        text.text(match column % 4 {
            _ if column == 0 => "",
            0 => "\n",
            _ => "  ",
        });
        column += 1;
        text.text(name).text(" 0x");
        let mut digits = [b'0'; DIGITS];
        let first = sys::digits(value, true, &mut digits);
        digits[..first].fill(b'0');
        text.bytes(&digits);
    });
    text.text("\n");
}

/// Makes the process die of the signal in `info` (1, 2).
fn end_by(info: &Info, reporter: &<Cpu as Arch>::Sigaction) {
    let Some(signal) = Signal::from_raw(info.number() as u32) else { return };
    let faults_again = match signal {
        // An asynchronous tag check is reported at a later instruction, which does not fault.
        Signal::SIGSEGV => info.code() != k::SEGV_MTEAERR as i32,
        Signal::SIGBUS => true,
        _ => false,
    };
    if faults_again || thread::is_sent(info) {
        thread::end_by(info, reporter);
    } else if signal::set_default(signal).is_err() || sys::getpid() == 1 || signal::raise(signal).is_err() {
        signal::die_from(signal);
    }
}

/// What the panic handler calls after its message: a `fn()`, or 0.
static AFTER_PANIC: AtomicUsize = AtomicUsize::new(0);

fn set_after_panic(function: fn()) {
    // Relaxed, here and below: the function's code does not depend on other stores.
    AFTER_PANIC.store(function as usize, Relaxed);
}

/// Called by the panic handler. It does nothing in a program that never asks for reports.
#[cfg(feature = "panic-handler")]
pub(crate) fn after_panic() {
    let function = AFTER_PANIC.load(Relaxed);
    if function != 0 {
        // SAFETY: not 0, so `set_after_panic` stored a function of this type.
        unsafe { core::mem::transmute::<usize, fn()>(function)() };
    }
}

fn frames_of_panic() {
    if !auxv::of_process().secure()
        && let Some(frames) = dump::own_frames()
    {
        let mut text = Text::with_room(2);
        frames.write(&mut text);
        text.flush(); // An error cannot be reported anywhere.
    }
}

fn frames_of_panic_in_all() {
    frames_of_panic();
    dump::dump_others();
}

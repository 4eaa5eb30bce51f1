//! Children that fork past rt0, how they end, and what the kernel says of processes.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::{Errno, sys};

use crate::files::{numbered, pipe, read_file};
use crate::runner::machine;
use crate::text::Text;
use crate::waiting::wait_until;

/// fork(2), bypassing rt0: 0 in the child, which must not return from the test.
pub fn fork() -> Result<u32, Errno> {
    let before = sys::getpid();
    let [first, second] = clone_arguments(k::SIGCHLD);
    // SAFETY: 1. The child has a copy of everything.
    let pid = unsafe { sys::syscall(k::__NR_clone as usize, [first, second, 0, 0, 0, 0]) }? as u32;
    // sparc64's kernel gives the child its parent's number.
    Ok(if sys::getpid() == before { pid } else { 0 })
}

/// Runs `work` in a child of clone(2) with these flags, which include `CLONE_VFORK`. The child runs
/// on the same stack, while its parent waits.
///
/// Both return from the same call. The child's last call is made from the same place, so that it
/// leaves the values on the stack that its parent needs. All other data is static.
#[inline(never)]
pub fn in_raw_child(flags: u32, work: fn()) {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    static CALL: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let set = |call: [usize; 3]| CALL.iter().zip(call).for_each(|(to, word)| to.store(word, Relaxed));
    PARENT.store(sys::gettid(), Relaxed);
    let [first, second] = clone_arguments(flags);
    set([k::__NR_clone as usize, first, second]);
    loop {
        let [nr, first, second] = [0, 1, 2].map(|word: usize| CALL[word].load(Relaxed));
        // SAFETY: 1. The parent waits while the child uses its stack, and at the child's end
        // nothing there is borrowed.
        let done = unsafe { sys::syscall(nr, [first, second, 0, 0, 0, 0]) };
        if sys::gettid() == PARENT.load(Relaxed) {
            assert!(done.is_ok(), "clone: {done:?}");
            return;
        }
        work();
        set([k::__NR_exit as usize, 0, 0]);
    }
}

/// clone(2) is everywhere, but on s390x its first two arguments, flags and stack, change places.
fn clone_arguments(flags: u32) -> [usize; 2] {
    if machine().starts_with(b"s390x\0") { [0, flags as usize] } else { [flags as usize, 0] }
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit_group(2), with this status.
    Exit(u32),
    /// By this signal.
    Signal(u32),
}

/// waitid(2) for a child to end.
pub fn wait_for(pid: u32) -> Ended {
    match changed(pid, k::WEXITED) {
        Err(ended) => ended,
        Ok(signal) => panic!("the child stopped by signal {signal}"),
    }
}

/// waitid(2) until a child stops (returns the signal) or ends.
pub fn stopped_or_ended(pid: u32) -> Result<u32, Ended> {
    changed(pid, k::WEXITED | k::WSTOPPED)
}

fn changed(pid: u32, what: u32) -> Result<u32, Ended> {
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    let at = (&raw mut info).expose_provenance();
    let wait = [k::P_PID as usize, pid as usize, at, what as usize, 0, 0];
    // SAFETY: 1. The kernel writes `info`.
    while let Err(errno) = unsafe { sys::syscall(k::__NR_waitid as usize, wait) } {
        assert_eq!(errno, Errno::EINTR);
    }
    // SAFETY: waitid filled it in.
    let head = unsafe { info.__bindgen_anon_1.__bindgen_anon_1 };
    // SAFETY: waitid filled it in; this is its part for SIGCHLD.
    let status = unsafe { head._sifields._sigchld }._status as u32;
    match head.si_code as u32 {
        k::CLD_EXITED => Err(Ended::Exit(status)),
        k::CLD_STOPPED | k::CLD_TRAPPED => Ok(status),
        _ => Err(Ended::Signal(status)),
    }
}

/// waitid(2) without waiting and without reaping.
pub(crate) fn has_ended(child: u32) -> bool {
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    let at = (&raw mut info).expose_provenance();
    let wait = [k::P_PID as usize, child as usize, at, (k::WEXITED | k::WNOHANG | k::WNOWAIT) as usize, 0, 0];
    // SAFETY: 1. The kernel writes `info`.
    unsafe { sys::syscall(k::__NR_waitid as usize, wait) }.expect("waitid");
    // SAFETY: waitid filled it in, with zeros if the child has not ended.
    unsafe { info.__bindgen_anon_1.__bindgen_anon_1 }.si_signo != 0
}

/// [`wait_for`], for a minute at most.
pub fn wait_a_minute_for(pid: u32) -> Ended {
    wait_until("a child to end", || has_ended(pid));
    wait_for(pid)
}

/// Runs `child` in a process of its own. Returns the start of what it writes to standard error, as
/// much as fits in `buf`, and how it ended. An emulator's own message about the end is removed.
pub fn stderr_of(child: impl FnOnce(), buf: &mut [u8]) -> (&str, Ended) {
    let mut child = Some(child);
    written_by(&mut || child.take().expect("one call")(), buf)
}

/// [`stderr_of`], compiled once: dozens of tests call it with a closure of their own.
fn written_by<'a>(child: &mut dyn FnMut(), buf: &'a mut [u8]) -> (&'a str, Ended) {
    let [read, write] = pipe();
    let pid = fork().expect("fork");
    if pid == 0 {
        // SAFETY: 1. Descriptor 2 is the child's own.
        unsafe { sys::syscall(k::__NR_dup3 as usize, [write as usize, 2, 0, 0, 0, 0]) }.expect("dup3");
        child();
        sys::exit_group(0);
    }
    // SAFETY: 1. It belongs to this function, which does not use it again.
    unsafe { sys::syscall(k::__NR_close as usize, [write as usize, 0, 0, 0, 0, 0]) }.expect("close");
    let mut filled = 0;
    while filled < buf.len() {
        match rt0::io::read(numbered(read), &mut buf[filled..]).expect("the pipe") {
            0 => break,
            count => filled += count,
        }
    }
    let text = core::str::from_utf8(&buf[..filled]).expect("text");
    (text.find("qemu: uncaught target signal").map_or(text, |at| &text[..at]), wait_for(pid))
}

/// The letter of a process's or thread's state, of which `stat` is the file; none if that is gone.
/// proc_pid_stat(5)
pub fn state_of(stat: &Text) -> Option<u8> {
    let mut buf = [0; 512];
    from_state_on(read_file(stat.as_c(), &mut buf).ok()?)?.first().copied()
}

/// [`state_of`] a process.
pub fn state_of_process(pid: u32) -> Option<u8> {
    state_of(&Text::of(format_args!("/proc/{pid}/stat")))
}

/// A process's or thread's `stat` from the field of its state on, the third. proc_pid_stat(5)
pub fn from_state_on(stat: &[u8]) -> Option<&[u8]> {
    // The name before it may contain any byte.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2..)
}

/// Whether this process's user is root. geteuid(2)
pub fn is_root() -> bool {
    // SAFETY: 1. It only asks.
    let user = unsafe { sys::syscall(k::__NR_geteuid as usize, [0; 6]) };
    user == Ok(0)
}

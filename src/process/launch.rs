//! The child's steps from clone(2) to execve(2), and how its error gets to the parent. Numbers in
//! parentheses are the properties in `process`.
//!
//! ```text
//!     low                                                            high
//!     │ guard │ stack ◄──── grows down │ argv │ envp │ descriptors to copy │
//! ```

use core::cell::Cell;
use core::convert::Infallible;
use core::ffi::c_char;
use core::ptr::{from_mut, null_mut};
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use linux_raw_sys::general as k;

use super::command::{Command, Group};
use super::search;
use crate::arch::CloneArgs;
use crate::auxv;
use crate::errno::{Errno, Result};
use crate::guard::{self, Guarded};
use crate::io;
use crate::signal::{self, How};
use crate::sys::{self, BorrowedFd, OwnedFd, RawFd, Which};

/// The child's stack in bytes: for a hook, and a path of 4 KiB.
const STACK: usize = 64 << 10;

/// The input of a child's steps. A child that does not share memory has a copy.
pub(super) struct Launch<'a> {
    command: &'a Command<'a>,
    argv: *const *const c_char,
    envp: *const *const c_char,
    copies: &'a [Copy],
    /// The pipe to which the child writes an error, if there is one.
    report: Cell<Option<RawFd>>,
    /// `UNTOUCHED` until the child has begun, then `BEGUN`, or the errno with which it failed.
    said: AtomicU32,
}

const UNTOUCHED: u32 = 0;
const BEGUN: u32 = u32::MAX; // No errno.

/// A descriptor for the child.
struct Copy {
    from: Cell<RawFd>,
    to: RawFd,
    /// Whether `from` was moved to a free number, because its own one is wanted for another.
    moved: Cell<bool>,
}

/// Whether a child was seen to share memory (4).
static MEMORY_IS_SHARED: AtomicBool = AtomicBool::new(false);

/// The exit status of a child that could not execute its program: a shell's.
const NOT_EXECUTED: i32 = 127;

/// Prepares the input of a child of `command`, and calls `f` with it and with the high end of the
/// child's stack.
pub(super) fn with<T>(
    command: &Command,
    standard: &[Option<RawFd>; 3],
    f: impl FnOnce(&Launch, *mut u8) -> Result<T>,
) -> Result<T> {
    let own = auxv::envp();
    let entries = || {
        // SAFETY: 1. It is on the initial stack, which stays, or is an empty array.
        unsafe { command.environment.entries(own) }
    };
    let inherited = command.environment.is_inherited();
    let variables = if inherited { 0 } else { entries().count() };
    let copies = standard.iter().flatten().count() + command.descriptors.len();
    let passed_on = command.passed_on.0;
    let others = 3; // The first argument, and two nulls.
    let pointers = [command.args.len(), passed_on.len(), variables].into_iter().fold(others, usize::saturating_add);

    let guard = guard::size();
    let low = guard + STACK;
    let bytes = pointers.checked_mul(size_of::<*const c_char>()).ok_or(Errno::E2BIG)?;
    let len = copies.checked_mul(size_of::<Copy>()).and_then(|copies| copies.checked_add(bytes)?.checked_add(low));
    let len = len.and_then(|len| len.checked_next_multiple_of(auxv::page_size())).ok_or(Errno::E2BIG)?;
    let mapping = Guarded::map(len, &[0])?;
    let stack = mapping.base().wrapping_add(low);

    // SAFETY: the mapping is fresh, has space for them and outlives the slice; zeros are null
    // pointers.
    let room = unsafe { core::slice::from_raw_parts_mut(stack.cast::<*const c_char>(), pointers) };
    let args = [command.arg0].into_iter().chain(command.args.iter().copied()).map(|arg| arg.as_ptr());
    let (argv, room) = search::fill(room, args.chain(passed_on.iter().copied()))?;
    let envp = if inherited { own } else { search::fill(room, entries())?.0.as_ptr() };

    let list = stack.wrapping_add(bytes).cast::<Copy>();
    let standard = (0..).zip(standard).filter_map(|(to, from)| Some(((*from)?, to)));
    let others = command.descriptors.iter().map(|(from, to)| (from.as_raw_fd(), *to));
    for (index, (from, to)) in standard.chain(others).enumerate() {
        let copy = Copy { from: Cell::new(from), to, moved: Cell::new(false) };
        // SAFETY: there is space for as many as were counted. It begins behind the pointers, whose
        // alignment is not less.
        unsafe { list.wrapping_add(index).write(copy) };
    }
    // SAFETY: just written; the mapping outlives the slice.
    let copies = unsafe { core::slice::from_raw_parts(list, copies) };
    let (report, said) = (Cell::new(None), AtomicU32::new(UNTOUCHED));
    f(&Launch { command, argv: argv.as_ptr(), envp, copies, report, said }, stack)
}

impl Launch<'_> {
    /// Starts the child on `stack`. Returns its id, and its descriptor if the kernel has these.
    pub(super) fn start(&self, stack: *mut u8) -> Result<(u32, Option<OwnedFd>)> {
        let Command { hook, uid, gid, groups, .. } = self.command;
        // Property 3.
        let own_memory = hook.is_some() || uid.is_some() || gid.is_some() || groups.is_some();
        // Relaxed: it only saves a pipe.
        let pipe = if own_memory || !MEMORY_IS_SHARED.load(Relaxed) { Some(sys::pipe()?) } else { None };
        self.report.set(pipe.as_ref().map(|(_, write)| write.as_raw_fd()));

        let flags = k::SIGCHLD | if own_memory { 0 } else { k::CLONE_VM | k::CLONE_VFORK };
        let before = signal::block_everything();
        let cloned = match self.clone(flags | k::CLONE_PIDFD, stack) {
            // qemu before 9 knows no CLONE_PIDFD. The child cannot be reaped before this opens it,
            // unless SIGCHLD is ignored.
            Err(Errno::EINVAL) => self.clone(flags, stack).map(|(pid, _)| (pid, sys::pidfd_open(pid).ok())),
            cloned => cloned,
        };
        before.restore();
        let (pid, pidfd) = cloned?;

        // Acquire pairs with the child's releases.
        let error = match (self.said.load(Acquire), pipe) {
            // No shared memory, or the child was killed before it began; then the pipe says
            // nothing.
            (UNTOUCHED, Some((read, write))) => {
                drop(write);
                error_of_child(&read)
            }
            (UNTOUCHED, None) => None,
            (BEGUN, _) => {
                MEMORY_IS_SHARED.store(true, Relaxed);
                None
            }
            (number, _) => Errno::from_raw(number as u16),
        };
        let Some(errno) = error else { return Ok((pid, pidfd)) };
        // It ends now. ECHILD: something else has reaped it.
        while sys::waitid(Which::Pid(pid), 0) == Err(Errno::EINTR) {}
        Err(errno)
    }

    /// clone(2) with `flags`, with all signals blocked (1).
    fn clone(&self, flags: u32, stack: *mut u8) -> Result<(u32, Option<OwnedFd>)> {
        let mut pidfd: RawFd = -1; // Stays so before Linux 5.2, which does not know the flag.
        let args = CloneArgs {
            flags: flags as usize,
            stack,
            tid: from_mut(&mut pidfd).cast(),
            tls: null_mut(),
            start: null_mut(),
        };
        // SAFETY: 1. `with` aligned the stack. 2. `pidfd` outlives the call, and no thread pointer
        // is set; the caller has blocked all signals. 3. `self` outlives the child's use of it:
        // with CLONE_VFORK this call returns after that, and without CLONE_VM the child has a copy.
        let pid = unsafe { sys::clone(args, enter, core::ptr::from_ref(self).cast_mut().cast()) }?;
        // If qemu could not open one it stores 0, which is the number of another file.
        let opened = pidfd > 0 || pidfd == 0 && sys::pidfd_send_signal(0, 0).is_ok();
        // SAFETY: 1. The kernel has just opened it for this process.
        Ok((pid, opened.then(|| unsafe { OwnedFd::from_raw_fd(pidfd) })))
    }

    /// Replaces this process's program. After an error, signals are as before.
    pub(super) fn exec(&self) -> Result<Infallible> {
        let changed = signal::reset_actions(&self.command.defaults, false)?;
        let before = signal::mask(How::Block, &signal::SigSet::empty());
        let executed = self.execute();
        signal::mask(How::Set, &before);
        signal::ignore_again(&changed);
        executed
    }

    /// Sets the attributes of the command, and executes the program.
    fn execute(&self) -> Result<Infallible> {
        let command = self.command;
        self.copy_descriptors()?;
        match command.group {
            Group::Parents => {}
            Group::Of(group) => sys::setpgid(group)?,
            Group::NewSession => sys::setsid()?,
        }
        match command.groups {
            Some(groups) => sys::setgroups(groups)?,
            None if command.uid.is_some() && sys::is_root() => sys::setgroups(&[])?,
            None => {}
        }
        command.gid.map_or(Ok(()), sys::setgid)?;
        command.uid.map_or(Ok(()), sys::setuid)?;
        command.current_dir.map_or(Ok(()), sys::chdir)?;
        if command.no_new_privs {
            sys::set_no_new_privs()?;
        }
        signal::mask(How::Set, &command.mask);
        command.hook.map_or(Ok(()), |hook| hook())?;
        // SAFETY: 1. `with` or the kernel made the array.
        let path = unsafe { search::path_of(self.envp) };
        Err(search::execute(command.program, path, |path| {
            // SAFETY: 1. `with` or the kernel made both arrays. 2. A child has one thread. For
            // `Command::exec`, its caller asked to replace this process.
            match unsafe { sys::execve(path, self.argv, self.envp) } {
                Err(errno) => errno,
            }
        }))
    }

    /// Copies each descriptor to its number. If a wanted number is the source of another copy, or
    /// the pipe, that descriptor is moved first.
    fn copy_descriptors(&self) -> Result<()> {
        if let Some(report) = self.report.get().filter(|report| self.is_wanted(*report)) {
            self.report.set(Some(self.out_of_the_way(report)?));
        }
        for copy in self.copies.iter().filter(|copy| self.is_wanted(copy.from.get())) {
            copy.from.set(self.out_of_the_way(copy.from.get())?);
            copy.moved.set(true);
        }
        for Copy { from, to, moved } in self.copies {
            // SAFETY: 1. The command asks for this number. The descriptor that it replaces is
            // closed in this process only.
            unsafe { sys::dup3(from.get(), *to, 0) }?;
            if moved.get() {
                // SAFETY: 1. It was made above, and no other code uses it.
                drop(unsafe { OwnedFd::from_raw_fd(from.get()) });
            }
        }
        Ok(())
    }

    fn is_wanted(&self, number: RawFd) -> bool {
        self.copies.iter().any(|copy| copy.to == number)
    }

    /// A copy of `fd`, close-on-exec, under a number that is not wanted. (By dup(2), which takes
    /// the lowest free number: fcntl(2), which could start higher, has two names, and fails where
    /// no number is above the wanted ones.)
    fn out_of_the_way(&self, fd: RawFd) -> Result<RawFd> {
        loop {
            // SAFETY: 1. The parent keeps it open while it waits; if it is closed, dup(2) fails.
            let original = unsafe { BorrowedFd::borrow_raw(fd) };
            // If its number is wanted, a later copy replaces it.
            let copy = sys::dup(original)?.into_raw_fd();
            if !self.is_wanted(copy) {
                // SAFETY: 1. It was opened above.
                unsafe { sys::dup3(fd, copy, k::O_CLOEXEC) }?;
                return Ok(copy);
            }
        }
    }
}

/// The child's first function.
///
/// # Safety
///
/// 1. `launch` is a [`Launch`]: the parent's, or a copy of it.
/// 2. This is a new process, and all signals are blocked.
unsafe extern "C" fn enter(launch: *mut u8) -> ! {
    // SAFETY: it is a `Launch`, and outlives this process's use of it (1).
    let launch = unsafe { &*launch.cast::<Launch>() };
    // Release, here and below, pairs with the parent's acquire.
    launch.said.store(BEGUN, Release);
    let executed = signal::reset_actions(&launch.command.defaults, true).and_then(|_| launch.execute());
    let Err(errno) = executed;
    launch.said.store(errno.raw().into(), Release);
    if let Some(report) = launch.report.get() {
        // The parent reads from the other end. If the write fails, the error cannot be reported.
        // SAFETY: 1. It is the child's copy, and stays open.
        let report = unsafe { BorrowedFd::borrow_raw(report) };
        let _ = sys::write(report, &errno.raw().to_ne_bytes());
    }
    sys::exit_group(NOT_EXECUTED)
}

/// The errno that a child wrote to the pipe; `None` if it wrote nothing. (Only a filter can make
/// the read fail. Then the child's status shows the failure.)
fn error_of_child(read: &OwnedFd) -> Option<Errno> {
    let mut number = [0; 2];
    match io::read(read, &mut number) {
        Ok(2) => Errno::from_raw(u16::from_ne_bytes(number)),
        _ => None,
    }
}

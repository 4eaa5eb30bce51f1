//! What to start, and how.

use core::ffi::CStr;
use core::fmt;

use linux_raw_sys::general as k;
use static_assertions::assert_impl_all;

use super::launch;
use super::search::Environment;
use super::{Child, ExitStatus};
use crate::auxv::{Args, Pointers};
use crate::errno::{Errno, Result};
use crate::signal::{SigSet, Signal};
use crate::sys::{self, OwnedFd, RawFd};

/// A program to start, with all that it gets. Everything is borrowed; it can be started several
/// times.
///
/// ```no_run
/// use rt0::process::{Command, Stdio};
///
/// let mut child = Command::new(c"wc").args(&[c"-l"]).stdin(Stdio::Piped).spawn()?;
/// if let Some(pipe) = child.stdin.take() {
///     rt0::io::write_all(&pipe, b"one\ntwo\n")?;
/// } // Closed here, so that wc sees the end.
/// assert!(child.wait()?.success());
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy)]
#[must_use = "no process starts before it is spawned"]
pub struct Command<'a> {
    pub(super) program: &'a CStr,
    pub(super) arg0: &'a CStr,
    pub(super) args: &'a [&'a CStr],
    pub(super) passed_on: Pointers,
    pub(super) environment: Environment<'a>,
    pub(super) current_dir: Option<&'a CStr>,
    stdio: [Stdio<'a>; 3],
    pub(super) descriptors: &'a [(&'a OwnedFd, RawFd)],
    pub(super) group: Group,
    pub(super) mask: SigSet,
    pub(super) defaults: SigSet,
    pub(super) no_new_privs: bool,
    pub(super) groups: Option<&'a [u32]>,
    pub(super) gid: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) hook: Option<&'a Hook<'a>>,
}

assert_impl_all!(Command: Send, Sync, Copy);

/// See [`Command::pre_exec`].
type Hook<'a> = dyn Fn() -> Result<()> + Sync + 'a;

/// The process group of a child.
#[derive(Clone, Copy, Debug)]
pub(super) enum Group {
    Parents,
    /// 0 for one of its own.
    Of(u32),
    /// In a session of its own.
    NewSession,
}

/// What becomes of a standard descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub enum Stdio<'a> {
    /// The parent's; closed if that is.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// A pipe, whose other end is in [`Child`].
    Piped,
    /// A copy of this descriptor, which stays the caller's.
    Fd(&'a OwnedFd),
}

impl<'a> Command<'a> {
    /// A command without arguments, with this process's environment, working directory and standard
    /// descriptors; no signal blocked, and `SIGPIPE` not ignored.
    ///
    /// A `program` without a slash is looked for in the folders of the child's `PATH`, and without
    /// one in `/bin` and `/usr/bin`, as execvp(3) does: an empty folder is the working directory. A
    /// file that the kernel cannot execute is `ENOEXEC`: no shell is tried. A relative path is
    /// relative to [`current_dir`](Command::current_dir).
    ///
    /// In handlers: no.
    pub const fn new(program: &'a CStr) -> Command<'a> {
        let mut defaults = SigSet::empty();
        defaults.insert(Signal::SIGPIPE);
        Command {
            program,
            arg0: program,
            args: &[],
            passed_on: Pointers(&[]),
            environment: Environment { clear: false, remove: &[], set: &[] },
            current_dir: None,
            stdio: [Stdio::Inherit; 3],
            descriptors: &[],
            group: Group::Parents,
            mask: SigSet::empty(),
            defaults,
            no_new_privs: false,
            groups: None,
            gid: None,
            uid: None,
            hook: None,
        }
    }

    /// The arguments after the first.
    ///
    /// In handlers: no.
    pub const fn args(self, args: &'a [&'a CStr]) -> Command<'a> {
        Command { args, ..self }
    }

    /// Arguments after those of [`args`](Command::args): what is left of this process's own.
    ///
    /// ```no_run
    /// # use rt0::{Env, Errno, process::Command};
    /// # fn run(env: Env) -> Errno {
    /// let mut own = env.args();
    /// let (_, program) = (own.next(), own.next());
    /// Command::new(program.unwrap_or(c"sh")).pass_on(own).exec()
    /// # }
    /// ```
    ///
    /// In handlers: no.
    pub fn pass_on(self, own: Args) -> Command<'a> {
        Command { passed_on: own.pointers(), ..self }
    }

    /// The first argument, by which the program is told its name, where it is not the program's
    /// path.
    ///
    /// In handlers: no.
    pub const fn arg0(self, arg0: &'a CStr) -> Command<'a> {
        Command { arg0, ..self }
    }

    /// Entries of the form `NAME=VALUE` that the environment has besides, or instead of those of
    /// the same name.
    ///
    /// In handlers: no.
    pub const fn envs(self, entries: &'a [&'a CStr]) -> Command<'a> {
        Command { environment: Environment { set: entries, ..self.environment }, ..self }
    }

    /// Names that the child does not inherit.
    ///
    /// In handlers: no.
    pub const fn env_remove(self, names: &'a [&'a CStr]) -> Command<'a> {
        Command { environment: Environment { remove: names, ..self.environment }, ..self }
    }

    /// Nothing is inherited of the environment: it has the entries of [`envs`](Command::envs)
    /// alone.
    ///
    /// In handlers: no.
    pub const fn env_clear(self) -> Command<'a> {
        Command { environment: Environment { clear: true, ..self.environment }, ..self }
    }

    /// The child's working directory.
    ///
    /// In handlers: no.
    pub const fn current_dir(self, folder: &'a CStr) -> Command<'a> {
        Command { current_dir: Some(folder), ..self }
    }

    /// The child's standard input.
    ///
    /// In handlers: no.
    pub const fn stdin(mut self, stdin: Stdio<'a>) -> Command<'a> {
        self.stdio[0] = stdin;
        self
    }

    /// The child's standard output.
    ///
    /// In handlers: no.
    pub const fn stdout(mut self, stdout: Stdio<'a>) -> Command<'a> {
        self.stdio[1] = stdout;
        self
    }

    /// The child's standard error.
    ///
    /// In handlers: no.
    pub const fn stderr(mut self, stderr: Stdio<'a>) -> Command<'a> {
        self.stdio[2] = stderr;
        self
    }

    /// Descriptors that the child has under the numbers beside them: copies, not close-on-exec. In
    /// any order, also where numbers change places; of two with one number the later counts, and
    /// these are later than the standard ones.
    ///
    /// In handlers: no.
    pub const fn descriptors(self, descriptors: &'a [(&'a OwnedFd, RawFd)]) -> Command<'a> {
        Command { descriptors, ..self }
    }

    /// The child's process group; 0 for one of its own, of which it is the leader. setpgid(2)
    ///
    /// In handlers: no.
    pub const fn process_group(self, group: u32) -> Command<'a> {
        Command { group: Group::Of(group), ..self }
    }

    /// A session of its own, without a controlling terminal: setsid(2). It replaces
    /// [`process_group`](Command::process_group).
    ///
    /// In handlers: no.
    pub const fn setsid(self) -> Command<'a> {
        Command { group: Group::NewSession, ..self }
    }

    /// The signals that are blocked when the program starts; none if this is not called.
    ///
    /// In handlers: no.
    pub const fn signal_mask(self, mask: SigSet) -> Command<'a> {
        Command { mask, ..self }
    }

    /// The signals that do what is their default when the program starts, if they are ignored here.
    /// `SIGPIPE` alone if this is not called, as in std; other ignored signals stay ignored, as
    /// nohup(1) relies on. (Caught ones do what is their default in any case.)
    ///
    /// In handlers: no.
    pub const fn default_signals(self, defaults: SigSet) -> Command<'a> {
        Command { defaults, ..self }
    }

    /// No execve(2) gives the child more rights than it has, for good: `PR_SET_NO_NEW_PRIVS`.
    ///
    /// In handlers: no.
    pub const fn no_new_privs(self) -> Command<'a> {
        Command { no_new_privs: true, ..self }
    }

    /// The child's user: setuid(2). Without [`groups`](Command::groups) a child of root has no
    /// supplementary ones.
    ///
    /// In handlers: no.
    pub const fn uid(self, uid: u32) -> Command<'a> {
        Command { uid: Some(uid), ..self }
    }

    /// The child's group: setgid(2).
    ///
    /// In handlers: no.
    pub const fn gid(self, gid: u32) -> Command<'a> {
        Command { gid: Some(gid), ..self }
    }

    /// The child's supplementary groups: setgroups(2).
    ///
    /// In handlers: no.
    pub const fn groups(self, groups: &'a [u32]) -> Command<'a> {
        Command { groups: Some(groups), ..self }
    }

    /// A function that the child calls right before it executes the program, when all else is as
    /// the program will find it: for namespaces, Landlock, seccomp, limits. What it returns as an
    /// error is the error of [`spawn`](Command::spawn). The child is a fork(2) then: the function
    /// sees a copy of the memory, and what it changes there is seen by nothing else.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// The child has one thread, and the copy was made while others may have been anywhere. So
    /// `hook`
    ///
    /// 1. takes no lock that another thread may hold, an allocator's for example, and waits for no
    ///    thread;
    /// 2. starts no thread, and makes no call on all threads ([`all_threads`](crate::all_threads));
    /// 3. closes no descriptor that it did not open, and leaves execve(2), exit_group(2), write(2)
    ///    and rt_sigprocmask(2) possible: a filter on system calls must allow these.
    ///
    /// A panic ends the child; [`spawn`](Command::spawn) succeeds then, and the status is the
    /// panic's.
    pub const unsafe fn pre_exec(self, hook: &'a (dyn Fn() -> Result<()> + Sync + 'a)) -> Command<'a> {
        Command { hook: Some(hook), ..self }
    }

    /// Starts the program, and returns when it was executed: the kernel has replaced the child's
    /// program.
    ///
    /// Errors, after which nothing is left behind:
    /// - of execve(2): `ENOENT`, no such program, or no interpreter for it; `EACCES`, no
    ///   permission, or a folder; `ENOEXEC`, no program, or one for another machine; `E2BIG`,
    ///   arguments and environment are too large; `ETXTBSY`, `ELOOP`, `ENAMETOOLONG`, `ENOTDIR`,
    ///   `ENOMEM`, `EPERM`, …
    /// - of the other steps: `ENOENT`, `ENOTDIR`, `EACCES` for the working directory; `EPERM` for
    ///   credentials and groups; `EBADF` for a descriptor's new number that is negative or above
    ///   the limit; the hook's.
    /// - `EAGAIN`, a limit on processes is reached (`RLIMIT_NPROC`, pids.max); `ENOMEM`; `EMFILE`
    ///   and `ENFILE`.
    ///
    /// It waits as long as the child needs to get there: for a file system that does not answer, or
    /// while the child is stopped, without end.
    ///
    /// In handlers: no.
    pub fn spawn(&self) -> Result<Child> {
        let standard = Standard::open(&self.stdio)?;
        let (pid, pidfd) = launch::with(self, &standard.numbers, |launch, stack| launch.start(stack))?;
        Ok(Child::new(pid, pidfd, standard.parents))
    }

    /// [`spawn`](Command::spawn) and [`wait`](Child::wait).
    ///
    /// In handlers: no.
    pub fn status(&self) -> Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Replaces the program of this process, and with it all its threads; returns only if that
    /// failed, with the errors of [`spawn`](Command::spawn), or `EINVAL` for [`Stdio::Piped`],
    /// which would have no other end.
    ///
    /// Then signals are as before; what else was asked for may be in force already: descriptors,
    /// group, credentials, working directory. What the process has that execve(2) keeps is the new
    /// program's: a profile by `ITIMER_PROF`, for example, must be stopped before.
    ///
    /// In handlers: no.
    #[must_use]
    pub fn exec(&self) -> Errno {
        let executed = || {
            if self.stdio.iter().any(|stdio| matches!(stdio, Stdio::Piped)) {
                return Err(Errno::EINVAL);
            }
            let standard = Standard::open(&self.stdio)?;
            launch::with(self, &standard.numbers, |launch, _| launch.exec())
        };
        match executed() {
            Err(errno) => errno,
        }
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("program", &self.program).field("args", &self.args).finish_non_exhaustive()
    }
}

/// The standard descriptors of a child to come.
struct Standard {
    /// What the child copies, by number; `None` for what it inherits.
    numbers: [Option<RawFd>; 3],
    /// The ends of pipes that the parent keeps.
    parents: [Option<OwnedFd>; 3],
    /// What the child alone needs: closed here when it has its copies.
    _childs: [Option<OwnedFd>; 3],
}

impl Standard {
    fn open(stdio: &[Stdio; 3]) -> Result<Standard> {
        let mut standard = Standard { numbers: [None; 3], parents: [const { None }; 3], _childs: [const { None }; 3] };
        for (fd, stdio) in stdio.iter().enumerate() {
            let opened = match stdio {
                Stdio::Inherit => continue,
                Stdio::Fd(fd) => Err(fd.as_raw_fd()),
                Stdio::Null => Ok(sys::open(c"/dev/null", k::O_RDWR | k::O_CLOEXEC, 0)?),
                Stdio::Piped => {
                    let (read, write) = sys::pipe()?;
                    let (childs, parents) = if fd == 0 { (read, write) } else { (write, read) };
                    standard.parents[fd] = Some(parents);
                    Ok(childs)
                }
            };
            standard.numbers[fd] = Some(opened.as_ref().map_or_else(|number| *number, OwnedFd::as_raw_fd));
            standard._childs[fd] = opened.ok();
        }
        Ok(standard)
    }
}

//! The description of a program to start.

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

/// A program to start, with its arguments, environment and attributes. It borrows all of them, and
/// can be started several times.
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
    /// The group with this id; 0 for a new one.
    Of(u32),
    /// A new group in a new session.
    NewSession,
}

/// What a child gets as a standard descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub enum Stdio<'a> {
    /// The parent's descriptor; closed if that one is closed.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// A pipe; its other end is in [`Child`].
    Piped,
    /// A copy of this descriptor.
    Fd(&'a OwnedFd),
}

impl<'a> Command<'a> {
    /// A command without arguments, with this process's environment, working directory and standard
    /// descriptors. In the child no signal is blocked, and `SIGPIPE` is not ignored.
    ///
    /// As in execvp(3), a `program` without a slash is searched in the folders of the child's
    /// `PATH`, or in `/bin` and `/usr/bin` if it has no `PATH`; an empty folder is the working
    /// directory. If the kernel cannot execute the file, the error is `ENOEXEC`: no shell is tried.
    /// A relative path is relative to [`current_dir`](Command::current_dir).
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

    /// Arguments after those of [`args`](Command::args): the rest of this process's own.
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

    /// The first argument, which by convention is the program's name. Without this it is `program`.
    ///
    /// In handlers: no.
    pub const fn arg0(self, arg0: &'a CStr) -> Command<'a> {
        Command { arg0, ..self }
    }

    /// Entries of the form `NAME=VALUE` to add to the environment. They replace inherited ones of
    /// the same name.
    ///
    /// In handlers: no.
    pub const fn envs(self, entries: &'a [&'a CStr]) -> Command<'a> {
        Command { environment: Environment { set: entries, ..self.environment }, ..self }
    }

    /// Names of variables that the child does not inherit.
    ///
    /// In handlers: no.
    pub const fn env_remove(self, names: &'a [&'a CStr]) -> Command<'a> {
        Command { environment: Environment { remove: names, ..self.environment }, ..self }
    }

    /// The child inherits no variables: it has only the entries of [`envs`](Command::envs).
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

    /// Descriptors, and the numbers under which the child gets copies of them, not close-on-exec.
    /// The order does not matter, even if two descriptors exchange their numbers. If a number
    /// occurs twice, the later entry counts; all of these count more than the standard descriptors.
    ///
    /// In handlers: no.
    pub const fn descriptors(self, descriptors: &'a [(&'a OwnedFd, RawFd)]) -> Command<'a> {
        Command { descriptors, ..self }
    }

    /// setpgid(2): the child's process group; 0 for a new one, which the child leads.
    ///
    /// In handlers: no.
    pub const fn process_group(self, group: u32) -> Command<'a> {
        Command { group: Group::Of(group), ..self }
    }

    /// setsid(2): the child leads a new session, without a controlling terminal. It replaces
    /// [`process_group`](Command::process_group).
    ///
    /// In handlers: no.
    pub const fn setsid(self) -> Command<'a> {
        Command { group: Group::NewSession, ..self }
    }

    /// The signals that are blocked when the program starts. Without this, none.
    ///
    /// In handlers: no.
    pub const fn signal_mask(self, mask: SigSet) -> Command<'a> {
        Command { mask, ..self }
    }

    /// Ignored signals that get their default action in the child. Without this, as in std, only
    /// `SIGPIPE`; other ignored signals stay ignored, which nohup(1) relies on. (A signal with a
    /// handler gets its default action in any case.)
    ///
    /// In handlers: no.
    pub const fn default_signals(self, defaults: SigSet) -> Command<'a> {
        Command { defaults, ..self }
    }

    /// `PR_SET_NO_NEW_PRIVS`: no execve(2) ever gives the child more rights than it has.
    ///
    /// In handlers: no.
    pub const fn no_new_privs(self) -> Command<'a> {
        Command { no_new_privs: true, ..self }
    }

    /// setuid(2): the child's user. Without [`groups`](Command::groups), a child of root has no
    /// supplementary groups.
    ///
    /// In handlers: no.
    pub const fn uid(self, uid: u32) -> Command<'a> {
        Command { uid: Some(uid), ..self }
    }

    /// setgid(2): the child's group.
    ///
    /// In handlers: no.
    pub const fn gid(self, gid: u32) -> Command<'a> {
        Command { gid: Some(gid), ..self }
    }

    /// setgroups(2): the child's supplementary groups.
    ///
    /// ```no_run
    /// use rt0::process::{Command, Stdio};
    /// use rt0::signal::{SigSet, Signal};
    ///
    /// // A login shell of another user.
    /// let shell = Command::new(c"/bin/sh")
    ///     .arg0(c"-sh")
    ///     .env_clear()
    ///     .envs(&[c"HOME=/home/user", c"PATH=/bin"])
    ///     .stderr(Stdio::Null)
    ///     .setsid()
    ///     .groups(&[1000])
    ///     .gid(1000)
    ///     .uid(1000)
    ///     .signal_mask(SigSet::empty())
    ///     .default_signals(SigSet::from_iter([Signal::SIGPIPE]));
    /// rt0::println!("{}", shell.status()?);
    /// // One that does not get a variable, and gets a descriptor as its number 3.
    /// let (read, _write) = rt0::sys::pipe()?;
    /// Command::new(c"env").env_remove(&[c"SECRET"]).descriptors(&[(&read, 3)]).status()?;
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: no.
    pub const fn groups(self, groups: &'a [u32]) -> Command<'a> {
        Command { groups: Some(groups), ..self }
    }

    /// A function that the child calls right before it executes the program, after all other
    /// attributes are set: for namespaces, Landlock, seccomp, limits. If it fails,
    /// [`spawn`](Command::spawn) returns its error. The child is made as by fork(2), so the
    /// function runs on a copy of the memory, and its changes there are lost.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// The child has one thread, and other threads may have been in the middle of any change when
    /// the memory was copied. So `hook`
    ///
    /// 1. takes no lock that another thread may hold, for example an allocator's, and waits for no
    ///    thread;
    /// 2. starts no thread, and makes no call on all threads ([`all_threads`](crate::all_threads));
    /// 3. closes no descriptor that it did not open, and installs no filter that forbids execve(2),
    ///    exit_group(2), write(2) or rt_sigprocmask(2).
    ///
    /// A panic ends the child. Then [`spawn`](Command::spawn) succeeds, and the child's status is
    /// that of a panic.
    pub const unsafe fn pre_exec(self, hook: &'a (dyn Fn() -> Result<()> + Sync + 'a)) -> Command<'a> {
        Command { hook: Some(hook), ..self }
    }

    /// Starts the program, and returns when the child has executed it (execve(2)).
    ///
    /// Errors, after which nothing remains allocated and no child is left:
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
    /// It waits until the child has executed the program. That may take without limit if a file
    /// system does not answer, or the child is stopped.
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

    /// Replaces the program of this process, and ends all its other threads. It returns only if
    /// that failed, with the errors of [`spawn`](Command::spawn), or `EINVAL` for
    /// [`Stdio::Piped`], whose other end would belong to no process.
    ///
    /// After an error, signals are as before, but other attributes may have changed: descriptors,
    /// group, credentials, working directory. The new program inherits what execve(2) keeps. So a
    /// profile that uses `ITIMER_PROF` must be stopped before.
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

/// The standard descriptors of a child that is about to start.
struct Standard {
    /// The descriptors that the child copies; `None` where it inherits one.
    numbers: [Option<RawFd>; 3],
    /// The ends of pipes that the parent keeps.
    parents: [Option<OwnedFd>; 3],
    /// Descriptors that only the child needs. They are closed here when it has its copies.
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

//! Starts this program again in an environment that the test prepares: a child changes it and calls
//! execveat(2).

use core::ffi::{CStr, c_char};
use core::ptr::null;

use linux_raw_sys::general as k;
use rt0::{Errno, sys};

use crate::text::Text;
use crate::{Ended, fork, read_file, stderr_of, stopped_or_ended};

/// This program's file, natively. An emulator would start itself.
pub const SELF: &CStr = c"/proc/self/exe";

/// The exit status of a child that cannot start the program.
pub const NOT_STARTED: u32 = 126;

/// Opens a program's file, while there is a path to it.
fn open(program: &CStr) -> sys::OwnedFd {
    sys::open(program, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).expect("the program's file")
}

/// execveat(2) of an open file, which needs no path. Returns only if it fails.
fn execute(file: &sys::OwnedFd, args: &[*const c_char], vars: &[*const c_char]) -> Errno {
    let [empty, args, vars] = [c"".as_ptr().expose_provenance(), list(args), list(vars)];
    let args = [file.as_raw_fd() as usize, empty, args, vars, k::AT_EMPTY_PATH as usize, 0];
    // SAFETY: 1. The kernel reads the lists and their strings; then this program is gone.
    unsafe { sys::syscall(k::__NR_execveat as usize, args) }.expect_err("execveat returned")
}

/// The address of a list of strings for the kernel, which ends with a null.
fn list(strings: &[*const c_char]) -> usize {
    assert!(strings.last().is_some_and(|last| last.is_null()));
    strings.iter().for_each(|string| _ = string.expose_provenance());
    strings.as_ptr().expose_provenance()
}

/// A list of strings with its null.
pub fn null_ended<const N: usize>(strings: &[&CStr]) -> [*const c_char; N] {
    assert!(strings.len() < N, "room for the null");
    let mut list = [null(); N];
    strings.iter().zip(&mut list).for_each(|(string, entry)| *entry = string.as_ptr());
    list
}

/// A child calls this before it executes the program.
pub type Before<'a> = &'a dyn Fn();

/// Starts a program, usually [`SELF`], in a child after it has called `before`. Returns how it
/// ended, and what it wrote to standard error (nothing if `before` closed it).
pub fn again<'a>(
    program: &CStr,
    args: &[*const c_char],
    vars: &[*const c_char],
    before: Before,
    buf: &'a mut [u8],
) -> (&'a str, Ended) {
    stderr_of(|| start(program, args, vars, before), buf)
}

/// Calls `before` and executes a program; exits with [`NOT_STARTED`] if that fails.
fn start(program: &CStr, args: &[*const c_char], vars: &[*const c_char], before: Before) -> ! {
    let file = open(program);
    before();
    let errno = execute(&file, args, vars);
    rt0::eprintln!("execveat: {errno}");
    sys::exit_group(NOT_STARTED as i32)
}

/// The words of an initial stack that are read.
const WORDS: usize = 2048;

/// The words of an initial stack: the count of arguments, then pointers, then the auxiliary vector.
pub struct InitialStack {
    /// The words, up to and including the vector's end.
    pub words: [usize; WORDS],
    /// The number of words.
    pub len: usize,
    /// The number of words for which there is room.
    room: usize,
    pid: u32,
}

impl InitialStack {
    /// The index of the auxiliary vector.
    pub fn auxv(&self) -> usize {
        let first_var = 2 + self.words[0];
        first_var + self.words[first_var..].iter().position(|word| *word == 0).expect("the variables end") + 1
    }

    /// The tags and values of the auxiliary vector, without its end.
    pub fn vector(&mut self) -> &mut [[usize; 2]] {
        let (start, end) = (self.auxv(), self.len - 2);
        self.words[start..end].as_chunks_mut().0
    }

    /// The value of a tag.
    pub fn value(&mut self, tag: u32) -> &mut usize {
        let found = self.vector().iter_mut().find(|pair| pair[0] == tag as usize);
        &mut found.expect("the kernel gives this tag")[1]
    }

    /// Makes the vector empty.
    pub fn drop_vector(&mut self) {
        self.len = self.auxv() + 2;
        self.words[self.len - 2..self.len].fill(0);
    }

    /// Puts pairs in front of the vector, in place of all variables.
    pub fn prepend(&mut self, pairs: impl Iterator<Item = [usize; 2]>) {
        self.drop_variables();
        let start = self.auxv();
        let count = pairs
            .map(|pair| {
                self.words.copy_within(start..self.len, start + 2);
                self.words[start..start + 2].copy_from_slice(&pair);
                self.len += 2;
            })
            .count();
        assert!(self.len <= self.room, "more variables are needed to make room for {count} pairs");
    }

    /// Writes to the program's memory.
    pub fn write(&self, address: usize, bytes: &mut [u8]) -> Result<usize, Errno> {
        copy_memory(k::__NR_process_vm_writev, self.pid, bytes.as_mut_ptr(), address, bytes.len())
    }

    /// Removes the variables.
    pub fn drop_variables(&mut self) {
        let (start, end) = (2 + self.words[0], self.auxv() - 1);
        self.words.copy_within(end..self.len, start);
        self.len -= end - start;
    }

    /// Removes the arguments, including the program's name.
    pub fn drop_arguments(&mut self) {
        let end = 1 + self.words[0];
        self.words.copy_within(end..self.len, 1);
        self.len -= end - 1;
        self.words[0] = 0;
    }
}

/// Starts this program with `args` and `vars`, which end with a null, calls `change` with its
/// initial stack before its first instruction, and returns how it ended. `ENOSYS` or `EPERM` if
/// processes cannot be traced. ptrace(2)
pub fn run_changed(
    args: &[*const c_char],
    vars: &[*const c_char],
    before: Before,
    change: impl FnOnce(&mut InitialStack),
) -> Result<Ended, Errno> {
    const TRACEME: usize = 0; // These are the same on every machine: linux/ptrace.h.
    const CONT: usize = 7;
    const SIGTRAP: u32 = 5;
    let trace = |request, pid: u32, signal: u32| {
        // SAFETY: 1. It changes nothing of this process.
        unsafe { sys::syscall(k::__NR_ptrace as usize, [request, pid as usize, 1, signal as usize, 0, 0]) }
    };
    let pid = fork().expect("fork");
    if pid == 0 {
        let file = open(SELF);
        before();
        if trace(TRACEME, 0, 0).is_ok() {
            let errno = execute(&file, args, vars);
            rt0::eprintln!("execveat: {errno}");
        }
        sys::exit_group(NOT_STARTED as i32);
    }
    let mut change = Some(change);
    loop {
        match stopped_or_ended(pid) {
            Err(Ended::Exit(NOT_STARTED)) => return Err(Errno::EPERM),
            Err(ended) => return Ok(ended),
            Ok(signal) => {
                let mut pass_on = signal;
                if signal == SIGTRAP
                    && let Some(change) = change.take()
                {
                    rewrite(pid, change)?;
                    pass_on = 0;
                }
                trace(CONT, pid, pass_on)?;
            }
        }
    }
}

fn rewrite(pid: u32, change: impl FnOnce(&mut InitialStack)) -> Result<(), Errno> {
    let mut buf = [0; 1024];
    let stat = read_file(Text::of(format_args!("/proc/{pid}/stat")).as_c(), &mut buf)?;
    // Field 28 of proc_pid_stat(5); the second may have blanks, and ends with the last parenthesis.
    let text = core::str::from_utf8(stat).expect("ASCII").rsplit_once(')').expect("a name").1;
    let start: usize = text.split_whitespace().nth(25).and_then(|field| field.parse().ok()).expect("a number");
    assert_ne!(start, 0, "the kernel does not say where the stack is");
    let mut stack = InitialStack { words: [0; WORDS], len: 0, room: 0, pid };
    // Up to the stack's end, if that comes first.
    copy_memory(k::__NR_process_vm_readv, pid, stack.words.as_mut_ptr().cast(), start, size_of::<[usize; WORDS]>())?;
    let auxv = stack.auxv();
    let pairs = stack.words[auxv..].as_chunks::<2>().0.iter().position(|pair| pair[0] == 0).expect("the vector ends");
    stack.len = auxv + 2 * (pairs + 1);
    stack.room = stack.len;
    change(&mut stack);
    let bytes = stack.len * size_of::<usize>();
    let written = copy_memory(k::__NR_process_vm_writev, pid, stack.words.as_mut_ptr().cast(), start, bytes)?;
    if written == bytes { Ok(()) } else { Err(Errno::EFAULT) }
}

/// process_vm_readv(2) or process_vm_writev(2) of one range: how many bytes were copied.
fn copy_memory(nr: u32, pid: u32, here: *mut u8, there: usize, len: usize) -> Result<usize, Errno> {
    let (here, there) = ([here.expose_provenance(), len], [there, len]); // struct iovec
    let [here, there] = [&here, &there].map(|range| range.as_ptr().expose_provenance());
    // SAFETY: 1. In this process the kernel accesses only `here..here + len`, which is the
    // caller's.
    unsafe { sys::syscall(nr as usize, [pid as usize, here, 1, there, 1, 0]) }
}

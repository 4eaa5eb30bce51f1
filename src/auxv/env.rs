//! The initial stack: arguments, environment, and the place of the auxiliary vector.

use core::ffi::{CStr, c_char, c_int};
use core::fmt;
use core::slice;

use static_assertions::assert_impl_all;

use super::{Auxv, count_until, of_process};

/// The program's arguments, environment and auxiliary vector. They lie on the initial stack, which
/// stays mapped until the process ends.
///
/// ```no_run
/// fn run(env: rt0::Env) -> i32 {
///     for argument in env.args().skip(1) {
///         rt0::println!("{argument:?}");
///     }
///     if env.var("HOME").is_some() && !env.auxv().secure() { 0 } else { 1 }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Env {
    /// The stack pointer at the program's first instruction.
    pub(super) start: *const usize,
}

// SAFETY: rt0 never writes to the initial stack, and the strings there are the program's to read
// from any thread.
unsafe impl Send for Env {}
// SAFETY: by reference it gives out the same.
unsafe impl Sync for Env {}

assert_impl_all!(Env: Send, Sync, Copy);

impl Env {
    /// Reads the initial stack.
    ///
    /// # Safety
    ///
    /// 1. `sp` points at a stack as the kernel lays it out, down to the null after the environment.
    /// 2. Behind that null lies an auxiliary vector that ends with `AT_NULL`, or a single
    ///    `AT_NULL`.
    /// 3. Nothing writes to it or to its strings again, and it stays mapped until the process ends.
    pub(crate) unsafe fn from_stack(sp: *const usize) -> Env {
        Env { start: sp }
    }

    /// The argument pointers; the first word is their number.
    fn argv(&self) -> &'static [*const c_char] {
        // SAFETY: it is the first word (`from_stack`, 1).
        let argc = unsafe { *self.start };
        // SAFETY: they lie behind it, and stay mapped (`from_stack`, 1 and 3).
        unsafe { slice::from_raw_parts(self.start.wrapping_add(1).cast(), argc) }
    }

    /// The first of the environment's pointers, which end with a null.
    pub(super) fn envp(&self) -> *const *const c_char {
        let argv = self.argv();
        argv.as_ptr().wrapping_add(argv.len() + 1) // A null ends argv.
    }

    fn environ(&self) -> &'static [*const c_char] {
        // SAFETY: 1. They end with a null (`from_stack`, 1).
        let count = unsafe { count_until(self.envp(), |entry| entry.is_null()) };
        // SAFETY: these pointers were counted above, and stay mapped (`from_stack`, 1 and 3).
        unsafe { slice::from_raw_parts(self.envp(), count) }
    }

    /// argc, argv and envp, for C.
    #[inline(always)]
    pub(crate) fn as_c(&self) -> (c_int, *const *const c_char, *const *const c_char) {
        (self.argv().len() as c_int, self.argv().as_ptr(), self.envp())
    }

    /// The arguments. The first, if there is one, is the name by which the program was started.
    ///
    /// In handlers: yes.
    pub fn args(&self) -> Args {
        Args { left: self.argv().iter() }
    }

    /// The environment's variables. As in std, an entry without `=` after its first byte is
    /// skipped.
    ///
    /// In handlers: yes.
    pub fn vars(&self) -> Vars {
        Vars { left: self.environ().iter() }
    }

    /// The value of the first variable of this name.
    ///
    /// In handlers: yes.
    pub fn var(&self, name: &str) -> Option<&'static CStr> {
        // Byte by byte: LLVM 22 for s390x inlines the comparison of slices wrongly, and treats a
        // greater one as equal.
        self.vars().find(|(key, _)| key.iter().eq(name.as_bytes())).map(|(_, value)| value)
    }

    /// The auxiliary vector.
    ///
    /// In handlers: yes.
    pub fn auxv(&self) -> Auxv {
        let on_stack = self.auxv_on_stack();
        if on_stack.is_empty() { of_process() } else { on_stack }
    }

    /// The auxiliary vector on the stack; empty if the loader left it out.
    pub(super) fn auxv_on_stack(&self) -> Auxv {
        let environ = self.environ();
        // SAFETY: 1. The vector follows the null that ends the environment, ends with AT_NULL, and
        // stays mapped (`from_stack`, 2 and 3).
        unsafe { Auxv::until_null(environ.as_ptr().wrapping_add(environ.len() + 1).cast()) }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("args", &self.args())
            .field("vars", &self.environ().len())
            .field("auxv", &self.auxv())
            .finish()
    }
}

fn c_str(pointer: &'static *const c_char) -> &'static CStr {
    // SAFETY: the kernel's strings end with NUL and stay mapped. The counted pointers are not null:
    // argc counts those of argv, and those of the environment end before the first null.
    unsafe { CStr::from_ptr(*pointer) }
}

/// The arguments: an iterator, from [`Env::args`].
#[derive(Clone)]
pub struct Args {
    left: slice::Iter<'static, *const c_char>,
}

// SAFETY: it reads the initial stack, which rt0 never writes.
unsafe impl Send for Args {}
// SAFETY: it reads the initial stack, which rt0 never writes.
unsafe impl Sync for Args {}

impl Args {
    /// The arguments that are left, as pointers for the kernel.
    pub(crate) fn pointers(&self) -> Pointers {
        Pointers(self.left.as_slice())
    }
}

/// Pointers to some of the arguments.
#[derive(Clone, Copy)]
pub(crate) struct Pointers(pub &'static [*const c_char]);

// SAFETY: it reads the initial stack, which rt0 never writes.
unsafe impl Send for Pointers {}
// SAFETY: it reads the initial stack, which rt0 never writes.
unsafe impl Sync for Pointers {}

impl Iterator for Args {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        self.left.next().map(c_str)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for Args {
    fn next_back(&mut self) -> Option<&'static CStr> {
        self.left.next_back().map(c_str)
    }
}

impl ExactSizeIterator for Args {}

impl fmt::Debug for Args {
    /// The texts of the arguments that are left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// The environment's variables, as names and values: an iterator, from [`Env::vars`].
///
/// ```no_run
/// fn run(env: rt0::Env) -> i32 {
///     let vars: rt0::Vars = env.vars();
///     let of_cargo = vars.filter(|(name, _)| name.starts_with(b"CARGO_"));
///     of_cargo.for_each(|(_, value)| rt0::println!("{value:?}"));
///     0
/// }
/// ```
#[derive(Clone)]
pub struct Vars {
    left: slice::Iter<'static, *const c_char>,
}

// SAFETY: it reads the initial stack, which rt0 never writes.
unsafe impl Send for Vars {}
// SAFETY: it reads the initial stack, which rt0 never writes.
unsafe impl Sync for Vars {}

impl Iterator for Vars {
    type Item = (&'static [u8], &'static CStr);

    fn next(&mut self) -> Option<Self::Item> {
        self.left.find_map(|entry| split_var(c_str(entry)))
    }
}

impl fmt::Debug for Vars {
    /// The texts of the variables that are left, `NAME=VALUE` each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.left.clone().map(c_str)).finish()
    }
}

/// A name may begin with `=` but is not empty; the value is what follows the next one.
pub(super) fn split_var(entry: &'static CStr) -> Option<(&'static [u8], &'static CStr)> {
    let bytes = entry.to_bytes_with_nul();
    let equals = 1 + bytes.get(1..)?.iter().position(|&byte| byte == b'=')?;
    Some((&bytes[..equals], CStr::from_bytes_with_nul(&bytes[equals + 1..]).ok()?))
}

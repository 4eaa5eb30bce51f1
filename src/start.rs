//! From the first Rust instruction to the user's main, and back to exit_group(2).
//!
//! What holds, and how:
//!
//! 1. *Nothing of rt0 runs before main that can wait.* On x86_64 the thread pointer is set (one
//!    call) and the standard descriptors are looked at (one call).
//! 2. *Until the thread pointer is set, nothing locks, panics or asks for the current thread*:
//!    [`rust_start`] calls only what does not, and what may comes after, in a function of its own
//!    ([`run`]).
//! 3. *No code of the program runs before descriptors 0, 1 and 2 are open.*
//! 4. *The program's constructors run once, before main, on a main thread that is whole*, in the
//!    order of the linker.
//! 5. *The main thread's thread-locals are destroyed when main has returned*, before the process
//!    ends.

use core::ffi::{c_char, c_int};

use linux_raw_sys::general as k;

use crate::auxv::{self, Env};
use crate::errno::{Errno, Result};
use crate::{sys, thread};

unsafe extern "Rust" {
    /// The user's main, defined by [`entry!`](crate::entry!). Where that is missing the linker
    /// shows the name.
    safe fn __rt0_entry_is_missing(env: Env) -> i32;
}

/// What C objects and crates that collect things at startup (`ctor`, `inventory`) put into
/// `.init_array`. They get main's arguments, as from every libc for Linux: argc, argv, envp.
type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

unsafe extern "C" {
    /// The first one, and the end behind the last: the linker script. The first has the name that
    /// tells what is wrong with a program that was linked without it. No elements, so that the
    /// compiler does not take them for two places.
    static __rt0_ld_is_missing: [Constructor; 0];
    static __rt0_constructors_end: [Constructor; 0];
}

/// The door from `_start`.
///
/// # Safety
///
/// 1. `sp` is the stack pointer as the kernel or a loader left it at the program's first
///    instruction.
/// 2. This is the first call of the process into Rust.
pub(crate) unsafe extern "C" fn rust_start(sp: *const usize) -> ! {
    // SAFETY: 1. The kernel lays the stack out so; a loader without a vector leaves AT_NULL. 3. The
    // stack's top is never given back, and rt0 does not write there.
    let env = unsafe { Env::from_stack(sp) };
    auxv::keep(env);
    // SAFETY: 1. by 2. above.
    unsafe { thread::adopt_main() };
    open_standard_descriptors();
    run(env)
}

/// Not inlined: a compiler may compute the address of a thread's own variable anywhere in a
/// function, and at first in [`rust_start`] there is no thread pointer yet.
#[inline(never)]
fn run(env: Env) -> ! {
    let (argc, argv, envp) = env.as_c();
    let mut next = (&raw const __rt0_ld_is_missing).cast::<Constructor>();
    while next < (&raw const __rt0_constructors_end).cast() {
        // SAFETY: before the end, so it is there.
        let constructor = unsafe { *next };
        // SAFETY: who put it there wanted it to be called now, with these.
        unsafe { constructor(argc, argv, envp) };
        next = next.wrapping_add(1);
    }
    let status = __rt0_entry_is_missing(env);
    thread::end_main();
    sys::exit_group(status)
}

/// Sees to it that descriptors 0, 1 and 2 are open: else the next file that the program opens
/// becomes its standard output.
///
/// What is closed is opened as `/dev/null`; where that cannot be (no /dev yet, as for the first
/// process of a machine), as the root directory, which holds the number and refuses to be read or
/// written.
fn open_standard_descriptors() {
    let entry = |fd| k::pollfd { fd, events: 0, revents: 0 };
    if sys::poll_now(&mut [entry(0), entry(1), entry(2)]) != Ok(0) {
        open_what_is_closed();
    }
}

/// For when there is something to report of one, which it may be of an open one too, or no poll.
#[cold]
fn open_what_is_closed() {
    for fd in 0..3 {
        if sys::dup(fd).err() == Some(Errno::EBADF)
            && let Err(errno) = hold(fd)
        {
            sys::die("opening a standard descriptor", errno);
        }
    }
}

/// Opens something harmless as `fd`, the lowest number that is free.
fn hold(fd: sys::RawFd) -> Result<()> {
    let file = sys::open(c"/dev/null", k::O_RDWR, 0).or_else(|_| sys::open(c"/", k::O_RDONLY | k::O_DIRECTORY, 0))?;
    // It stays open for the life of the process. If it is another number somebody shares our table
    // and opened that first, or a filter lies to us.
    if file.into_raw_fd() == fd { Ok(()) } else { Err(Errno::EBADF) }
}

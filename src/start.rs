//! From the first Rust instruction to the user's main, and back to exit_group(2).
//!
//! Properties, and how they are achieved:
//!
//! 1. *No part of rt0 that may wait runs before main.* It makes one call for the standard
//!    descriptors and, on x86_64, one to set the thread pointer.
//! 2. *No use of the current thread before the thread pointer is set*, also not by a lock or a
//!    panic. [`rust_start`] calls only functions that do not use it. All others are called by a
//!    function of its own, [`run`].
//! 3. *Descriptors 0, 1 and 2 are open before any code of the program runs.*
//! 4. *The program's constructors run once, before main*, in the linker's order, when the main
//!    thread is complete.
//! 5. *The main thread's thread-locals are destroyed after main returns* and before the process
//!    ends.

use core::ffi::{c_char, c_int};

use linux_raw_sys::general as k;

use crate::auxv::{self, Env};
use crate::errno::{Errno, Result};
use crate::{sys, thread};

unsafe extern "Rust" {
    /// The user's main, defined by [`entry!`](crate::entry!). If it is missing, the linker's
    /// message shows this name.
    safe fn __rt0_entry_is_missing(env: Env) -> i32;
}

/// An entry of `.init_array`, where C objects and crates that collect things at startup (`ctor`,
/// `inventory`) put functions. It gets main's arguments, as from every libc for Linux: argc, argv,
/// envp.
pub type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

unsafe extern "C" {
    /// The first constructor, and the end behind the last; the linker script defines both. The
    /// first one's name explains what is wrong with a program that was linked without the script.
    /// Zero-sized: the two may share an address, and the compiler assumes that distinct non-empty
    /// statics do not.
    #[link_name = "__rt0_ld_is_missing__call_rt0_build_program_in_build_rs"]
    pub static __rt0_ld_is_missing: [Constructor; 0];
    static __rt0_constructors_end: [Constructor; 0];
}

/// Called by `_start`.
///
/// # Safety
///
/// 1. `sp` is the stack pointer as the kernel or a loader left it at the program's first
///    instruction.
/// 2. This is the first call of the process into Rust.
pub(crate) unsafe extern "C" fn rust_start(sp: *const usize) -> ! {
    // SAFETY: 1. The kernel lays out the stack in this way; a loader without a vector leaves
    // AT_NULL. 3. The top of the stack stays mapped, and rt0 does not write there.
    let env = unsafe { Env::from_stack(sp) };
    auxv::keep(env);
    // SAFETY: 1. By 2. of this function.
    unsafe { thread::set_up_main() };
    open_standard_descriptors();
    run(env)
}

/// Not inlined: a compiler may compute the address of a thread-local variable anywhere in a
/// function, and at the start of [`rust_start`] there is no thread pointer.
#[inline(never)]
fn run(env: Env) -> ! {
    let (argc, argv, envp) = env.as_c();
    let mut next = (&raw const __rt0_ld_is_missing).cast::<Constructor>();
    while next < (&raw const __rt0_constructors_end).cast() {
        // SAFETY: `next` is before the end, so it is a constructor.
        let constructor = unsafe { *next };
        // SAFETY: the program asked for this call, at this time and with these arguments.
        unsafe { constructor(argc, argv, envp) };
        next = next.wrapping_add(1);
    }
    let status = __rt0_entry_is_missing(env);
    thread::end_main();
    sys::exit_group(status)
}

/// Makes sure that descriptors 0, 1 and 2 are open: otherwise the next file that the program opens
/// becomes its standard output.
///
/// A closed descriptor is opened as `/dev/null`. If that fails (no /dev yet, as for the first
/// process of a machine), it is opened as the root directory, which occupies the number and refuses
/// reads and writes.
fn open_standard_descriptors() {
    let entry = |fd| k::pollfd { fd, events: 0, revents: 0 };
    if sys::poll_now(&mut [entry(0), entry(1), entry(2)]) != Ok(0) {
        open_what_is_closed();
    }
}

/// Called if poll(2) reports an event or fails. An event may also be of an open descriptor.
#[cold]
fn open_what_is_closed() {
    for fd in 0..3 {
        // SAFETY: 1. It is only asked about.
        let standard = unsafe { sys::BorrowedFd::borrow_raw(fd) };
        if sys::dup(standard).err() == Some(Errno::EBADF)
            && let Err(errno) = hold(fd)
        {
            sys::die("opening a standard descriptor", errno);
        }
    }
}

/// Opens a harmless file as `fd`, the lowest free number.
fn hold(fd: sys::RawFd) -> Result<()> {
    let file = sys::open(c"/dev/null", k::O_RDWR, 0).or_else(|_| sys::open(c"/", k::O_RDONLY | k::O_DIRECTORY, 0))?;
    // It stays open until the process ends. Another number means that a process which shares the
    // descriptor table opened `fd` first, or that a filter returns wrong results.
    if file.into_raw_fd() == fd { Ok(()) } else { Err(Errno::EBADF) }
}

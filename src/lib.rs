//! A `no_std`, no-libc, raw-syscall runtime core for Linux.
//!
//! A program built on rt0 is a static file with nothing between it and the kernel:
//!
//! ```ignore
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! # Architecture
//!
//! ```text
//!      programs, tests
//!           │
//!   L4   entry  tests!  adapters  panic                 safe, std's names and shapes
//!        stack_protector  sync  test
//!           │
//!   L3   thread  all_threads  profile  fault  random  rseq      know about threads
//!           │
//!   L2   auxv  cpu  futex  guard  io  mapping  parker     know one kernel facility each
//!        process  signal  time  tls  vdso  start*
//!           │
//!   L1   sys ── errno                                     typed, man-2 names
//!           │
//!   L0   arch.rs ── arch/<machine>.rs  intrinsics         registers, numbers, bytes
//!        once_word
//! ```
//!
//! A module names only modules of its own layer and below, and none that names it, directly or
//! through others. `start` (*) sequences everything once and may name any module; only assembly
//! names it. Assembly stands only in `arch/`, and in `src/intrinsics.rs` for loops that must stay
//! loops; names of machines stand only in `src/arch.rs`. `cargo xtask check` enforces all of this,
//! and that the picture shows each module in its layer. Each difference between machines is a
//! member of the trait in `src/arch.rs`.
//!
//! # The flows
//!
//! 1. **Start**: `_start` ends the frame chain and passes the stack pointer → `start::rust_start` →
//!    [`Env`], a view of the initial stack → the main thread's TLS, block and thread pointer → the
//!    standard descriptors → the constructors → main → `exit_group`.
//! 2. **Thread**: [`thread::spawn`] makes one mapping for everything that a thread needs, blocks
//!    signals and clones → the child sets its signal stack, unblocks signals, runs the closure,
//!    stores the result, blocks signals, leaves the list of threads and drops its reference. The
//!    numbered properties are in [`thread`].
//! 3. **Signal**: [`signal::sigaction`] → the machine's kernel layout and restorer → the handler,
//!    on the thread's signal stack → back through the restorer.
//! 4. **All threads**: [`all_threads::syscall`] closes the list → makes the call on the calling
//!    thread → sends one signal to each other thread, whose handler makes the call → the last
//!    handler wakes the caller → results are compared. The numbered properties are in
//!    [`all_threads`].
//! 5. **A profile**: [`profile::start`] sets a timer on each thread's CPU-time clock, and spawn
//!    sets one for each new thread → one signal per tick, whose handler writes the stack to the
//!    thread's ring → [`profile::drain`] passes the samples to the program. The numbered properties
//!    are in [`profile`].
//! 6. **A clock's time, random bytes**: [`time`], [`random`] → [`vdso`], which looked up the
//!    function in the kernel's image when it was first needed → the function, without a system
//!    call; if there is none, the system call.
//! 7. **A program**: [`process::Command`] makes one mapping for arguments, environment and a stack,
//!    blocks signals and clones → the child, in the parent's memory, sets its attributes and
//!    executes the program → the parent continues with the result of execve(2). The numbered
//!    properties are in [`process`].
//! 8. **A fault**: [`fault::explain`] installs a handler → a fault, or a panic → the handler writes
//!    thread, signal, registers and frames → the process dies by the same signal. The numbered
//!    properties are in [`fault`].
//!
//! # Features
//!
//! [`adapters`] has the optional ones, for other crates. [`coming_from_std`] lists what a port from
//! std meets. [`for_static_tools`], [`for_runtimes`] and [`for_cross_tests`] are a page for each
//! kind of user.
//!
//! `panic-handler` (default): the `#[panic_handler]`, which prints the message and exits with
//! status 101. A program without this feature defines its own.

#![cfg_attr(not(any(test, fuzzing)), no_std)]
// The unit tests start by std: rt0's entry points are not called.
#![cfg_attr(test, allow(dead_code))]
// The only line for single machines outside their arch files: inline assembly for MIPS and SPARC is
// not stable yet, and crate attributes belong in the root.
#![cfg_attr(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64"), feature(asm_experimental_arch))]

pub mod adapters;
pub mod all_threads;
mod arch;
pub mod auxv;
pub mod cpu;
mod entry;
mod errno;
pub mod fault;
pub mod futex;
mod guard;
#[doc(hidden)]
pub mod intrinsics;
pub mod io;
pub mod mapping;
mod once_word;
#[cfg(feature = "panic-handler")]
#[doc(hidden)]
pub mod panic;
mod parker;
pub mod process;
pub mod profile;
pub mod random;
pub mod rseq;
pub mod signal;
#[doc(hidden)]
pub mod stack_protector;
mod start;
pub mod sync;
pub mod sys;
pub mod test;
pub mod thread;
pub mod time;
mod tls;
pub mod vdso;

#[doc = include_str!("../docs/coming-from-std.md")]
pub mod coming_from_std {}

#[doc = include_str!("../docs/for-cross-tests.md")]
pub mod for_cross_tests {}

#[doc = include_str!("../docs/for-runtimes.md")]
pub mod for_runtimes {}

#[doc = include_str!("../docs/for-static-tools.md")]
pub mod for_static_tools {}

/// What the targets in `fuzz/` call: the library's own parsers, on any bytes.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::cpu::fuzz as cgroups;
    pub use crate::sys::fuzz as release;
    pub use crate::vdso::fuzz as vdso;
}

#[cfg(doctest)]
#[doc = include_str!("../tests/must-not-compile.md")]
mod must_not_compile {}

pub use auxv::{Args, Auxv, Env, Vars};
#[doc(hidden)]
pub use entry::refuse_unit_tests;
pub use errno::{Errno, Result};
#[doc(hidden)]
pub use start::{__rt0_ld_is_missing, Constructor};

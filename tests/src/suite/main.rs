//! rt0's tests, one module for each area, in one program: it is linked once for each machine. Each
//! test runs in a process of its own.
//!
//! A program of its own, in `src/bin`, is only what cannot be part of this one; it says why at its
//! top.
#![no_std]
#![no_main]

mod all_threads;
mod before_exec;
mod channel;
mod cpu;
mod credentials;
mod death;
mod dump;
mod fault;
mod fork;
mod futex;
mod gone;
mod handlers;
mod inherited;
mod interrupt;
mod intrinsics;
mod io;
mod limits;
mod mapping;
mod once;
mod overflow;
mod pprof;
mod process;
mod profile;
mod random;
mod refused;
mod runtimes;
mod scope;
mod signal;
mod stack_cache;
mod stopped;
mod sync;
mod sys;
mod thread;
mod time;
mod upgradable;
mod vdso;
mod wait;
mod wait_group;

rt0::tests! {
    all_threads::*,
    before_exec::*,
    channel::*,
    cpu::*,
    credentials::*,
    death::*,
    dump::*,
    fault::*,
    fork::*,
    futex::*,
    gone::*,
    handlers::*,
    inherited::*,
    interrupt::*,
    intrinsics::*,
    io::*,
    limits::*,
    mapping::*,
    once::*,
    overflow::*,
    pprof::*,
    process::*,
    profile::*,
    random::*,
    refused::*,
    runtimes::*,
    scope::*,
    signal::*,
    stack_cache::*,
    stopped::*,
    sync::*,
    sys::*,
    thread::*,
    time::*,
    upgradable::*,
    vdso::*,
    wait::*,
    wait_group::*,
}

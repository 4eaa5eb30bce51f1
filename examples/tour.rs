//! A tour of rt0: the process's start, and rt0's functions.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use rt0::sync::Mutex;
use rt0::thread::Builder;
use rt0::time::Instant;
use rt0::{Env, Errno, futex, println, sys, thread};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    match tour(env) {
        Ok(()) => 0,
        Err(errno) => {
            println!("the tour ends early: {errno}");
            1
        }
    }
}

fn tour(env: Env) -> Result<(), Errno> {
    println!("Started: process {}, no libc, no interpreter, no allocator.", sys::getpid());
    println!("\nArguments and environment, as the kernel left them on the stack:");
    for (index, arg) in env.args().enumerate() {
        println!("  argument {index}: {arg:?}");
    }
    println!(
        "  {} variables, PATH {}",
        env.vars().count(),
        if env.var("PATH").is_some() { "among them" } else { "not set" }
    );

    println!("\nAuxiliary vector:");
    println!("  {:?}", env.auxv());
    println!("  secure mode: {}", if env.auxv().secure() { "on" } else { "off" });

    println!("\nThreads, each with its stack, closure and result in one mapping:");
    let start = Instant::now();
    let workers = ["anna", "bela", "carl", "dora"].map(|name| Builder::new().name(name).spawn(work));
    for worker in workers {
        let worker = worker?;
        let this = worker.thread().clone();
        println!("  {} was thread {} of the kernel", this.name().unwrap_or("?"), worker.join());
    }
    println!("  under one lock they counted to {} (4 x 10,000) in {:?}", COUNTER.lock(), start.elapsed());

    println!("\nA futex: one thread waits for a word to change, another changes it:");
    static DOOR: AtomicU32 = AtomicU32::new(0);
    let waiter = thread::spawn(|| {
        let start = Instant::now();
        while DOOR.load(Relaxed) == 0 {
            let _ = futex::wait(&DOOR, 0); // Look again, whatever it returns.
        }
        start.elapsed()
    })?;
    thread::sleep(Duration::from_millis(20));
    DOOR.store(1, Relaxed);
    let woken = futex::wake_all(&DOOR);
    println!("  woke {woken} after {:?}", waiter.join());

    println!("\nWhat the kernel refuses comes back as an error:");
    refused("opening /no/such/file", sys::open(c"/no/such/file", sys::flags::O_RDONLY, 0));
    refused("a thread with half of all memory as its stack", Builder::new().stack_size(usize::MAX / 2).spawn(|| ()));
    println!("\nmain returns 0, and the process ends: no other thread, no mapping left behind.");
    Ok(())
}

static COUNTER: Mutex<u32> = Mutex::new(0);

fn work() -> u32 {
    for _ in 0..10_000 {
        *COUNTER.lock() += 1;
    }
    sys::gettid()
}

fn refused<T>(what: &str, result: Result<T, Errno>) {
    match result {
        Err(errno) => println!("  {what}: {errno}"),
        Ok(_) => println!("  {what}: allowed here"),
    }
}

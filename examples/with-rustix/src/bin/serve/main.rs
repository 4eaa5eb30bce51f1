//! A server of static files over HTTP/1.1, on several threads.
//!
//! ```text
//! serve [--threads N] [--idle SECONDS] [--connections N] ADDRESS:PORT FOLDER
//! ```
//!
//! GET and HEAD, ranges, connections that are kept alive, requests in a row without waiting. Each
//! thread has an epoll(7) of its own with the connections that it accepted; the listening socket is
//! in all of them. A connection has a buffer of 8 KiB, which a request's head must fit in, and is
//! closed after so many seconds without progress (10 if not said otherwise). A thread that has as
//! many connections as it may (256) accepts none until one ends.
//!
//! No path leads out of the folder: openat2(2) with `RESOLVE_BENEATH`, by `..` or by symbolic links
//! alike (Linux 5.6).
//!
//! SIGTERM and SIGINT end it: the main thread takes them by `signal::wait` and wakes all others by
//! one `EventFd`. Nothing is accepted then; answers on their way are finished, for 10 seconds at
//! most. The status is 0; 1 if it could not begin.

#![no_std]
#![no_main]

mod answer;
mod request;
mod worker;

use core::ffi::CStr;
use core::net::SocketAddr;
use core::time::Duration;

use rt0::io::EventFd;
use rt0::signal::{self, How, SigSet, Signal};
use rt0::{Env, eprintln, println, thread};
use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, Mode, OFlags, ResolveFlags};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use worker::{MOST_CONNECTIONS, Worker};

rt0::entry!(main);

/// Threads that can be asked for.
const MOST_THREADS: usize = 64;

/// What a thread's connections, which lie on its stack, and its calls need.
const STACK_SIZE: usize = 256 << 10;

/// What all threads share.
pub struct Server {
    listener: OwnedFd,
    folder: OwnedFd,
    stop: EventFd,
    idle: Duration,
    connections: usize,
}

struct Options {
    threads: usize,
    idle: Duration,
    connections: usize,
    address: SocketAddr,
    folder: &'static CStr,
}

fn main(env: Env) -> i32 {
    let Some(options) = read_options(env) else {
        eprintln!("usage: serve [--threads N] [--idle SECONDS] [--connections N] ADDRESS:PORT FOLDER");
        return 1;
    };
    // Before the first thread: all inherit it.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGPIPE]);
    signal::mask(How::Block, &signals);
    let server = match open(&options) {
        Ok(server) => server,
        Err(what) => {
            eprintln!("serve: {what}");
            return 1;
        }
    };
    let mut all_well = true;
    thread::scope(|scope| {
        for _ in 0..options.threads {
            let worker = || {
                if let Err((what, errno)) = Worker::run(&server) {
                    eprintln!("serve: {what}: {errno}");
                    signal::die_from(Signal::SIGABRT);
                }
            };
            if let Err(errno) = thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, worker) {
                eprintln!("serve: a thread: {errno}");
                all_well = false;
                break;
            }
        }
        // SIGPIPE stays pending where it is blocked: a write to a closed connection is an error.
        let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        while all_well && signal::wait(&ends).is_err() {} // EINTR: stopped and continued.
        let _ = server.stop.add(1); // It stays readable, for all threads.
    });
    i32::from(!all_well)
}

fn open(options: &Options) -> Result<Server, &'static str> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = options.folder;
    let folder = fs::openat(CWD, folder, flags, Mode::empty()).map_err(|_| "no such folder")?;
    let here = OFlags::PATH | OFlags::CLOEXEC;
    fs::openat2(&folder, ".", here, Mode::empty(), ResolveFlags::BENEATH)
        .map_err(|_| "this kernel has no openat2(2), which keeps paths in the folder")?;
    let family = if options.address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = net::socket_with(family, SocketType::STREAM, flags, None).map_err(|_| "no socket")?;
    sockopt::set_socket_reuseaddr(&listener, true).map_err(|_| "no socket")?;
    net::bind(&listener, &options.address).map_err(|_| "the address cannot be had")?;
    net::listen(&listener, 1024).map_err(|_| "the address cannot be had")?;
    let address = net::getsockname(&listener).map_err(|_| "no address")?;
    let address = SocketAddr::try_from(address).map_err(|_| "no address")?;
    let stop = EventFd::new().map_err(|_| "no eventfd")?;
    println!("serve: http://{address}");
    Ok(Server { listener, folder, stop, idle: options.idle, connections: options.connections })
}

fn read_options(env: Env) -> Option<Options> {
    let mut args = env.args();
    args.next();
    let (mut threads, mut idle, mut connections) =
        (thread::available_parallelism().map_or(1, usize::from), 10, MOST_CONNECTIONS);
    let address = loop {
        let arg = args.next()?;
        let mut number = || args.next()?.to_str().ok()?.parse::<usize>().ok().filter(|number| *number > 0);
        match arg.to_bytes() {
            b"--threads" => threads = number()?,
            b"--idle" => idle = number()?,
            b"--connections" => connections = number()?,
            _ => break arg.to_str().ok()?.parse().ok()?,
        }
    };
    let folder = args.next()?;
    let options = Options {
        threads: threads.min(MOST_THREADS),
        idle: Duration::from_secs(idle as u64),
        connections: connections.min(MOST_CONNECTIONS),
        address,
        folder,
    };
    args.next().is_none().then_some(options)
}

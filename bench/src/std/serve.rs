//! The server of examples/with-rustix on std: the same loop, compiled from the same files. What
//! differs is what rt0 would give it, which here comes from std, and rustix, which calls libc.
//!
//! ```text
//! std-serve THREADS FOLDER
//! ```
//!
//! It prints its address as the example does, and serves until it is killed.

// The files of the example name it.
extern crate self as rt0;

#[path = "../../../examples/with-rustix/src/bin/serve/answer.rs"]
mod answer;
#[path = "../../../examples/with-rustix/src/bin/serve/request.rs"]
mod request;
#[path = "../../../examples/with-rustix/src/bin/serve/worker.rs"]
mod worker;

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::{env, thread};

use worker::{MOST_CONNECTIONS, Worker};

/// As in the example: what all threads share.
struct Server {
    listener: OwnedFd,
    folder: OwnedFd,
    stop: io::EventFd,
    idle: time::Duration,
    connections: usize,
}

/// The example's stacks.
const STACK_SIZE: usize = 256 << 10;

fn main() {
    let mut args = env::args().skip(1);
    let threads = args.next().and_then(|threads| threads.parse().ok()).expect("a number of threads");
    let folder = File::open(args.next().expect("a folder")).expect("the folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    listener.set_nonblocking(true).expect("a listener that does not block");
    let address = listener.local_addr().expect("its address");
    let server = Server {
        listener: listener.into(),
        folder: folder.into(),
        stop: io::EventFd::new(),
        idle: time::Duration::from_secs(10),
        connections: MOST_CONNECTIONS,
    };
    println!("serve: http://{address}");
    thread::scope(|scope| {
        for _ in 0..threads {
            let worker = || Worker::run(&server).expect("a thread that serves");
            thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, worker).expect("a thread");
        }
    });
}

/// An error's number.
#[derive(Clone, Copy, Debug)]
struct Errno(#[expect(dead_code, reason = "for Debug")] u16);

impl Errno {
    const EIO: Errno = Errno(5);

    fn from_raw(number: u16) -> Option<Errno> {
        Some(Errno(number))
    }
}

mod time {
    pub use std::time::{Duration, Instant, SystemTime};
}

mod io {
    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::event::{EventfdFlags, eventfd};

    /// What would wake the threads.
    pub struct EventFd(OwnedFd);

    impl EventFd {
        pub fn new() -> EventFd {
            EventFd(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"))
        }

        pub fn as_fd(&self) -> Raw {
            Raw(self.0.as_raw_fd())
        }
    }

    /// The number of a descriptor.
    pub struct Raw(i32);

    impl Raw {
        pub fn as_raw_fd(&self) -> i32 {
            self.0
        }
    }
}

mod mapping {
    use super::Errno;

    /// Zeros from the heap, never freed.
    pub struct Mapping(*mut u8);

    impl Mapping {
        pub fn new(len: usize) -> Result<Mapping, Errno> {
            Ok(Mapping(Box::leak(vec![0; len].into_boxed_slice()).as_mut_ptr()))
        }

        pub fn as_ptr(&self) -> *mut u8 {
            self.0
        }
    }
}

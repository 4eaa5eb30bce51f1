//! Checksums of files, by a pool of threads that steal work from each other: the output is that of
//! `LC_ALL=C sha256sum`.
//!
//! A file that cannot be read gives a message and the exit status 1; the others are still
//! processed. Without files, or for `-`, standard input is read.
//!
//! Nothing is allocated. Files are numbered, and each thread has a range of numbers in one word: it
//! takes numbers from the front, and a thread without numbers takes the back half of another's.
//! Each result is set once. The main thread takes part, then prints the results in order and waits
//! for missing ones.
#![no_std]
#![no_main]

use core::ffi::CStr;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Release},
};

use rt0::io::{self, stdout};
use rt0::sync::OnceLock;
use rt0::sys::{self, AsFd};
use rt0::thread::{self, Builder, Scope};
use rt0::{Env, Errno, eprintln, print};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    let mut files = env.args().skip(1);
    if files.len() == 0 {
        return report(c"-", sum_of(c"-"));
    }
    let mut status = 0;
    while files.len() != 0 {
        let mut window = [c""; WINDOW];
        let count = window.iter_mut().zip(&mut files).map(|(slot, file)| *slot = file).count();
        status |= sum_all(&window[..count]);
    }
    status
}

/// Files whose sums are remembered at a time.
const WINDOW: usize = 512;

const MOST_THREADS: usize = 64;

/// A file's sum, or the error that prevents reading it.
type Found = Result<[u32; 8], Errno>;

/// Prints the sums of these files; returns 1 if one could not be read.
fn sum_all(files: &[&'static CStr]) -> i32 {
    let found = [const { OnceLock::<Found>::new() }; WINDOW];
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(files.len());
    let queues: [Queue; MOST_THREADS] = core::array::from_fn(|number| match number {
        0 => Queue::new(0..files.len()), // The other threads take their parts.
        _ => Queue::new(0..0),
    });
    let work = |me: usize| {
        while let Some(number) = queues[me].pop().or_else(|| steal(&queues[..threads], me)) {
            let _ = found[number].set(sum_of(files[number])); // No other thread has this number.
        }
    };
    thread::scope(|scope| {
        (1..threads).for_each(|me| start(scope, me, &work));
        work(0);
        files.iter().zip(&found).map(|(file, found)| report(file, *found.wait())).fold(0, |all, one| all | one)
    })
}

fn start<'scope>(scope: &'scope Scope<'scope, '_>, me: usize, work: &'scope (impl Fn(usize) + Sync)) {
    // If no thread can be started, the existing threads do all the work.
    let _ = Builder::new().name("pool").stack_size(256 << 10).spawn_scoped(scope, move || work(me));
}

/// Takes work from another thread that has some: returns one number, and keeps the rest.
fn steal(queues: &[Queue], me: usize) -> Option<usize> {
    let others = (1..queues.len()).map(|step| &queues[(me + step) % queues.len()]);
    let mut stolen = others.filter_map(Queue::take_half).next()?;
    let now = stolen.next();
    queues[me].fill(stolen);
    now
}

/// The numbers of the files that a thread will process.
///
/// ```text
/// │ end … 16 bits │ start … 16 bits │
/// ```
///
/// A range never recurs, because numbers taken from its front are done. So if a compare-exchange
/// finds the value that was read, the word has not changed meanwhile.
struct Queue(AtomicU32);

const _: () = assert!(WINDOW <= u16::MAX as usize);

impl Queue {
    fn new(range: Range<usize>) -> Queue {
        Queue(AtomicU32::new(Queue::word(range)))
    }

    fn word(range: Range<usize>) -> u32 {
        (range.end as u32) << 16 | range.start as u32
    }

    fn range(word: u32) -> Range<usize> {
        (word & 0xFFFF) as usize..(word >> 16) as usize
    }

    /// Takes the first number, for the queue's own thread.
    fn pop(&self) -> Option<usize> {
        self.split(|range| (range.start..range.start + 1, range.start + 1..range.end))?.next()
    }

    /// Takes the back half, for another thread.
    fn take_half(&self) -> Option<Range<usize>> {
        self.split(|range| {
            let middle = range.start + range.len() / 2;
            (middle..range.end, range.start..middle)
        })
    }

    /// Takes one part and leaves the other, if the range is not empty.
    fn split(&self, parts: impl Fn(Range<usize>) -> (Range<usize>, Range<usize>)) -> Option<Range<usize>> {
        let mut word = self.0.load(Acquire);
        loop {
            let range = Queue::range(word);
            if range.is_empty() {
                return None;
            }
            let (taken, left) = parts(range);
            match self.0.compare_exchange(word, Queue::word(left), AcqRel, Acquire) {
                Ok(_) => return Some(taken),
                Err(changed) => word = changed,
            }
        }
    }

    /// Refills an empty queue; called by its own thread only.
    fn fill(&self, range: Range<usize>) {
        self.0.store(Queue::word(range), Release);
    }
}

/// Prints a line or a message; returns 1 for a message.
fn report(file: &CStr, found: Found) -> i32 {
    match found {
        Ok(words) => {
            words.iter().for_each(|word| print!("{word:08x}"));
            // A name is bytes, not text.
            let parts = [b"  ", file.to_bytes(), b"\n"];
            parts.iter().try_for_each(|part| stdout().write_all(part)).expect("writing to stdout");
            0
        }
        Err(errno) => {
            eprintln!("sha256sum: {}: {}", file.to_bytes().escape_ascii(), Message(errno));
            1
        }
    }
}

/// An error in the usual words.
struct Message(Errno);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::ENOENT => f.write_str("No such file or directory"),
            Errno::EISDIR => f.write_str("Is a directory"),
            Errno::EACCES => f.write_str("Permission denied"),
            Errno::ENOTDIR => f.write_str("Not a directory"),
            other => write!(f, "{other}"),
        }
    }
}

fn sum_of(file: &CStr) -> Found {
    if file == c"-" {
        return sum(io::stdin());
    }
    let file = sys::open(file, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0)?;
    sum(file)
}

fn sum(file: impl AsFd) -> Found {
    let mut sum = Sha256::new();
    let mut buf = [0; 64 << 10];
    let mut filled = 0;
    loop {
        match io::read(&file, &mut buf[filled..])? {
            0 => return Ok(sum.finish(&buf[..filled])),
            len => filled += len,
        }
        // An incomplete block is kept for the next round.
        let whole = filled / BLOCK * BLOCK;
        sum.add(&buf[..whole]);
        buf.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// SHA-256: names as in FIPS 180-4.
struct Sha256 {
    hash: [u32; 8],
    bytes: u64,
}

/// The block size in bytes.
const BLOCK: usize = 64;

impl Sha256 {
    fn new() -> Sha256 {
        Sha256 { hash: const { fractions_of_roots(2) }, bytes: 0 }
    }

    /// Adds whole blocks.
    fn add(&mut self, blocks: &[u8]) {
        self.bytes += blocks.len() as u64;
        for block in blocks.chunks_exact(BLOCK) {
            self.hash = compress(&self.hash, block);
        }
    }

    /// Adds the rest with padding, and returns the sum.
    fn finish(mut self, rest: &[u8]) -> [u32; 8] {
        let bits = (self.bytes + rest.len() as u64) * 8;
        let mut last = [0; 2 * BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        last[rest.len()] = 0x80;
        let len = (rest.len() + 1 + size_of_val(&bits)).next_multiple_of(BLOCK);
        last[len - size_of_val(&bits)..len].copy_from_slice(&bits.to_be_bytes());
        self.add(&last[..len]);
        self.hash
    }
}

fn compress(hash: &[u32; 8], block: &[u8]) -> [u32; 8] {
    const K: [u32; 64] = fractions_of_roots(3);
    let mut w = [0; 64];
    for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for t in 16..64 {
        let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ w[t - 15] >> 3;
        let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ w[t - 2] >> 10;
        w[t] = u32::wrapping_add(w[t - 16], s0).wrapping_add(w[t - 7]).wrapping_add(s1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *hash;
    for (k, w) in K.iter().zip(w) {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t1 = h.wrapping_add(s1).wrapping_add(e & f ^ !e & g).wrapping_add(*k).wrapping_add(w);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t2 = s0.wrapping_add(a & b ^ a & c ^ b & c);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    let mut sum = [a, b, c, d, e, f, g, h];
    sum.iter_mut().zip(hash).for_each(|(new, old)| *new = new.wrapping_add(*old));
    sum
}

/// The first 32 fractional bits of the square or cube roots of the first primes: SHA-256's
/// constants.
const fn fractions_of_roots<const N: usize>(degree: u32) -> [u32; N] {
    let mut found = [0; N];
    let (mut prime, mut count) = (2u128, 0);
    while count < N {
        let mut divisor = 2;
        while divisor * divisor <= prime && prime % divisor != 0 {
            divisor += 1;
        }
        if divisor * divisor > prime {
            // The root of prime × 2^(32 × degree), bit by bit from the highest.
            let (mut root, mut bit) = (0u128, 1u128 << 36);
            while bit != 0 {
                if (root | bit).pow(degree) <= prime << (32 * degree) {
                    root |= bit;
                }
                bit >>= 1;
            }
            found[count] = root as u32;
            count += 1;
        }
        prime += 1;
    }
    found
}

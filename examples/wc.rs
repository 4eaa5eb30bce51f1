//! Counts lines, words and bytes of files, several at a time, with the output of `LC_ALL=C wc`.
//!
//! A file that cannot be read gives a message and the exit status 1; the others are still
//! processed. Without files, or for `-`, standard input is read.
#![no_std]
#![no_main]

use core::ffi::CStr;
use core::mem::MaybeUninit;

use linux_raw_sys::general as k;
use rt0::io::{self, stdout};
use rt0::sys::{self, AsFd, OwnedFd};
use rt0::thread::{Builder, JoinHandle};
use rt0::{Env, Errno, eprintln, println};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    let files = env.args().skip(1);
    // Without files, as if standard input had been named.
    let width = if files.len() == 0 { number_width([c"-"].into_iter()) } else { number_width(files.clone()) };
    let mut sums = Totals { width, sum: Counts::default(), status: 0 };
    match files.len() {
        0 => sums.add(None, count_file(None)),
        1 => files.for_each(|file| sums.add(Some(file), count_file(Some(file)))),
        _ => {
            count_on_threads(files, &mut sums);
            print(width, sums.sum, Some(c"total"));
        }
    }
    sums.status
}

/// The number of files counted at a time.
const AT_ONCE: usize = 8;

/// Counts each file on its own thread, up to [`AT_ONCE`] files ahead of the one to print.
fn count_on_threads(files: impl Iterator<Item = &'static CStr>, sums: &mut Totals) {
    let mut ring: [Option<(&'static CStr, JoinHandle<Counted>)>; AT_ONCE] = [const { None }; AT_ONCE];
    let mut turn = 0;
    for file in files {
        if let Some((file, counting)) = ring[turn].take() {
            sums.add(Some(file), counting.join());
        }
        match Builder::new().name("wc").stack_size(256 << 10).spawn(move || count_file(Some(file))) {
            Ok(counting) => ring[turn] = Some((file, counting)),
            // No thread: count it here, after the earlier files.
            Err(_) => {
                drain(&mut ring, turn, sums);
                sums.add(Some(file), count_file(Some(file)));
            }
        }
        turn = (turn + 1) % AT_ONCE;
    }
    drain(&mut ring, turn, sums);
}

fn drain(ring: &mut [Option<(&'static CStr, JoinHandle<Counted>)>; AT_ONCE], turn: usize, sums: &mut Totals) {
    let (later, first) = ring.split_at_mut(turn);
    for (file, counting) in first.iter_mut().chain(later).filter_map(Option::take) {
        sums.add(Some(file), counting.join());
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
}

/// A file's counts, and the error that ended counting. Without counts, the file could not be
/// opened.
type Counted = (Option<Counts>, Result<(), Errno>);

struct Totals {
    width: usize,
    sum: Counts,
    status: i32,
}

impl Totals {
    fn add(&mut self, file: Option<&CStr>, (counts, done): Counted) {
        if let Err(errno) = done {
            eprintln!("wc: {}: {errno}", file.unwrap_or(c"standard input").to_bytes().escape_ascii());
            self.status = 1;
        }
        if let Some(counts) = counts {
            self.sum.lines += counts.lines;
            self.sum.words += counts.words;
            self.sum.bytes += counts.bytes;
            print(self.width, counts, file);
        }
    }
}

fn print(width: usize, counts: Counts, file: Option<&CStr>) {
    let Counts { lines, words, bytes } = counts;
    match file {
        None => println!("{lines:width$} {words:width$} {bytes:width$}"),
        // A name is bytes, not text.
        Some(file) => {
            rt0::print!("{lines:width$} {words:width$} {bytes:width$} ");
            let written = stdout().write_all(file.to_bytes()).and_then(|()| stdout().write_all(b"\n"));
            written.expect("writing a name to stdout");
        }
    }
}

fn count_file(file: Option<&CStr>) -> Counted {
    match open(file) {
        Ok(None) => count(io::stdin()),
        Ok(Some(fd)) => count(fd),
        Err(errno) => (None, Err(errno)),
    }
}

/// `None` is standard input.
fn open(file: Option<&CStr>) -> Result<Option<OwnedFd>, Errno> {
    match file {
        None => Ok(None),
        Some(file) if file == c"-" => Ok(None),
        Some(file) => sys::open(file, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).map(Some),
    }
}

fn count(file: impl AsFd) -> Counted {
    let mut counts = Counts::default();
    let mut in_word = false;
    let mut buf = [0; 64 << 10];
    loop {
        let chunk = match io::read(&file, &mut buf) {
            Ok(0) => return (Some(counts), Ok(())),
            Ok(len) => &buf[..len],
            Err(errno) => return (Some(counts), Err(errno)),
        };
        counts.bytes += chunk.len() as u64;
        for &byte in chunk {
            counts.lines += u64::from(byte == b'\n');
            // A printable byte begins or continues a word. Other bytes do neither, and only white
            // space ends a word.
            let printable = byte.is_ascii_graphic();
            counts.words += u64::from(printable && !in_word);
            in_word = (in_word || printable) && !matches!(byte, b' ' | b'\t'..=b'\r');
        }
    }
}

/// The number of digits of the sum of the files' sizes; at least 7 if one is not a regular file.
fn number_width(files: impl Iterator<Item = &'static CStr>) -> usize {
    let (mut total, mut least) = (0, 1);
    for stat in files.filter_map(|file| stat(file).ok()) {
        match u32::from(stat.stx_mode) & k::S_IFMT {
            k::S_IFREG => total += stat.stx_size,
            _ => least = 7,
        }
    }
    least.max(total.checked_ilog10().unwrap_or(0) as usize + 1)
}

fn stat(file: &CStr) -> Result<k::statx, Errno> {
    let mut stat = MaybeUninit::<k::statx>::zeroed();
    let (dir, path, flags) = match file {
        _ if file == c"-" => (0, c"", k::AT_EMPTY_PATH),
        _ => (k::AT_FDCWD, file, 0),
    };
    let (path, out) = (path.as_ptr().expose_provenance(), stat.as_mut_ptr().expose_provenance());
    let mask = k::STATX_BASIC_STATS as usize;
    // SAFETY: 1. The kernel reads the path and writes the struct.
    unsafe { sys::syscall(k::__NR_statx as usize, [dir as isize as usize, path, flags as usize, mask, out, 0]) }?;
    // SAFETY: zeroed is valid for a struct of integers, and the kernel filled it in.
    Ok(unsafe { stat.assume_init() })
}

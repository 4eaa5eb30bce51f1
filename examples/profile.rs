//! Profiles itself: a known mix of work on several threads, written as a pprof file and as folded
//! stacks.
//!
//! ```text
//! profile [PPROF-FILE [FOLDED-FILE [ROUNDS]]]     default: profile.pb, profile.folded, 40 rounds
//! go tool pprof -top PROGRAM profile.pb           the functions and their shares
//! flamegraph.pl profile.folded > profile.svg      or inferno-flamegraph
//! ```
//!
//! Samples are written as they arrive: nothing is allocated, and a profile may be larger than
//! memory. Callers are shown if the program was compiled with `-Cforce-frame-pointers=yes` and the
//! machine has a frame chain.
#![no_std]
#![no_main]

#[path = "profile/symbols.rs"]
mod symbols;

use core::ffi::CStr;
use core::fmt::{self, Write as _};
use core::hint::black_box;
use core::time::Duration;

use rt0::profile::{Drained, drain, pprof, start, stop};
use rt0::thread::Builder;
use rt0::{Env, Errno, eprintln, io, println, sys};

rt0::entry!(main);

const HZ: u32 = 250;

fn main(env: Env) -> i32 {
    let mut names = env.args().skip(1);
    let pprof = names.next().unwrap_or(c"profile.pb");
    let folded = names.next().unwrap_or(c"profile.folded");
    let rounds = names.next().map_or(Some(40), |rounds| rounds.to_str().ok()?.parse().ok());
    let Some(rounds) = rounds else {
        eprintln!("profile: the third argument is no number of rounds");
        return 2;
    };
    match run(pprof, folded, rounds) {
        Ok(drained) => {
            println!("{} samples, {} lost, in {pprof:?} and {folded:?}", drained.samples, drained.lost);
            0
        }
        Err(errno) => {
            eprintln!("profile: {errno}");
            1
        }
    }
}

fn run(pprof: &CStr, folded: &CStr, rounds: u32) -> Result<Drained, Errno> {
    let mut pprof = pprof::Writer::new(create(pprof)?, HZ)?;
    let mut folded = Text::create(folded)?;
    let symbols = symbols::of_program(); // None if the program was stripped: print addresses.
    let mut collect = || {
        let mut result = Ok(());
        let drained = drain(|sample| {
            let both = pprof.sample(&sample).and_then(|()| fold(&mut folded, symbols, &sample));
            result = result.and(both);
        })?;
        result.map(|()| drained)
    };

    start(HZ)?;
    let workers = ["anna", "bela", "carl"].map(|name| Builder::new().name(name).spawn(move || work(rounds)));
    let (mut samples, mut lost) = (0, 0);
    let mut add = |drained: Drained| {
        samples += drained.samples;
        lost += drained.lost;
    };
    while workers.iter().flatten().any(|worker| !worker.is_finished()) {
        add(collect()?);
        rt0::thread::sleep(Duration::from_millis(50));
    }
    for worker in workers {
        worker?.join();
    }
    stop();
    add(collect()?);
    pprof.finish()?;
    folded.finish()?;
    let mut drained = Drained::default();
    (drained.samples, drained.lost) = (samples, lost);
    Ok(drained)
}

/// Three functions with the same loop, which take six, three and one tenths of the time.
#[inline(never)]
fn work(rounds: u32) {
    for _ in 0..rounds {
        six_tenths();
        three_tenths();
        one_tenth();
    }
}

#[inline(never)]
fn six_tenths() {
    black_box(turn(6, 1));
}

#[inline(never)]
fn three_tenths() {
    black_box(turn(3, 2));
}

#[inline(never)]
fn one_tenth() {
    black_box(turn(1, 3));
}

#[inline(always)]
fn turn(units: u32, seed: u32) -> u32 {
    (0..units * 1_000_000).fold(seed, |x, i| black_box(x.wrapping_mul(1664525).wrapping_add(i)))
}

/// Writes one line, from the outermost function to the innermost: `work;six_tenths 1`.
fn fold(text: &mut Text, symbols: Option<&symbols::Symbols>, sample: &rt0::profile::Sample) -> Result<(), Errno> {
    for (depth, address) in sample.stack.iter().enumerate().rev() {
        // A return address is behind the call, which may be a function's last instruction.
        let inside = address - (depth != 0) as usize;
        let separator = if depth == 0 { ' ' } else { ';' };
        let written = match symbols.and_then(|symbols| symbols.name(inside)) {
            Some(name) => write!(text, "{name}{separator}"),
            None => write!(text, "{address:#x}{separator}"),
        };
        written.map_err(|fmt::Error| Errno::EIO)?;
    }
    writeln!(text, "{}", sample.weight).map_err(|fmt::Error| Errno::EIO)
}

/// A text file, written in pieces.
struct Text {
    file: sys::OwnedFd,
    piece: heapless::Vec<u8, 4096>,
}

impl Text {
    fn create(path: &CStr) -> Result<Text, Errno> {
        Ok(Text { file: create(path)?, piece: heapless::Vec::new() })
    }

    fn finish(&mut self) -> Result<(), Errno> {
        io::write_all(&self.file, &self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.as_bytes().chunks(512) {
            if self.piece.len() + part.len() > self.piece.capacity() {
                self.finish().map_err(|_| fmt::Error)?;
            }
            self.piece.extend_from_slice(part).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

fn create(path: &CStr) -> Result<sys::OwnedFd, Errno> {
    use sys::flags::{O_CLOEXEC, O_CREAT, O_TRUNC, O_WRONLY};
    sys::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
}

//! Parses reports of faults and dumps of threads, and starts threads that can be dumped.

use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::signal::{SigSet, Signal};
use rt0::sys;
use rt0::thread::{self, Builder};

use crate::files::pipe;
use crate::{emulated, machine, wait_until};

/// Room for a report or a dump.
pub const ROOM: usize = 4 * 4096;

/// A parsed report.
pub struct Report<'a> {
    /// All of it.
    pub text: &'a str,
}

impl<'a> Report<'a> {
    /// The line that says what happened.
    pub fn head(&self) -> &'a str {
        let head = self.text.strip_prefix('\n').and_then(|text| text.lines().next());
        head.unwrap_or_else(|| panic!("no report: {:?}", self.text))
    }

    /// The hexadecimal number behind `word` in that line.
    pub fn number_after(&self, word: &str) -> usize {
        let rest = self.head().split_once(word).unwrap_or_else(|| panic!("no {word:?}: {}", self.text)).1;
        hexadecimal(rest.split([',', ' ']).next().expect("a number"))
    }

    /// The addresses of its frames.
    pub fn frames(&self) -> impl Iterator<Item = usize> {
        self.text.lines().filter_map(|line| Some(hexadecimal(line.strip_prefix("    0x")?)))
    }

    /// Names and values of its registers.
    pub fn registers(&self) -> impl Iterator<Item = (&'a str, usize)> {
        let lines =
            self.text.lines().filter(|line| !line.starts_with(' ') && line.contains(" 0x") && !line.contains(','));
        let pairs = lines.flat_map(|line| line.split("  "));
        pairs.filter_map(|pair| pair.split_once(" 0x")).map(|(name, value)| (name, hexadecimal(value)))
    }

    /// Whether a frame lies in `function`, which is small.
    pub fn leads_to(&self, function: usize) -> bool {
        self.leads_past(0, function)
    }

    /// Whether the frame of a caller lies in `function`, which is small.
    pub fn is_called_by(&self, function: usize) -> bool {
        self.leads_past(1, function)
    }

    fn leads_past(&self, frames: usize, function: usize) -> bool {
        self.frames().skip(frames).any(|address| (0..1024).contains(&address.wrapping_sub(function)))
    }
}

fn hexadecimal(digits: &str) -> usize {
    usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no number: {digits:?}"))
}

/// Whether compilers make a chain of frames on this machine, and the emulator keeps it.
pub fn has_frames() -> bool {
    let machine = machine();
    let is = |start: &[u8]| machine.starts_with(start);
    // qemu-sparc64 stores no window for a handler to see.
    !(is(b"mips") || is(b"s390x") || is(b"sparc64") && emulated())
}

/// How many threads have called [`ready`].
static READY: AtomicU32 = AtomicU32::new(0);

/// Counts the calling thread as ready, and waits for ever.
pub fn ready() {
    READY.fetch_add(1, Relaxed);
    loop {
        thread::park();
    }
}

/// Waits until so many threads have called [`ready`].
pub fn wait_for_ready(threads: u32) {
    wait_until("threads to be ready", || READY.load(Relaxed) >= threads);
}

/// Starts a thread with a name.
pub fn named(name: &str, f: fn()) -> thread::JoinHandle<()> {
    Builder::new().name(name).spawn(f).unwrap()
}

/// Blocks signal 33 on this thread, by a raw call, as no program should.
pub fn block_33() {
    let mut set = SigSet::empty();
    set.insert(Signal::SIGHUP);
    let mut words = [0u8; size_of::<SigSet>()];
    words.copy_from_slice(set.as_bytes());
    // Signal 1 is the first bit of the first word, so 33 is the first of the second half, or word.
    let first = words.iter().position(|byte| *byte == 1).expect("one bit");
    words[first] = 0;
    let at = if size_of::<usize>() == 4 {
        first + 4
    } else if first == 0 {
        4
    } else {
        3
    };
    words[at] = 1;
    let args = [k::SIG_BLOCK as usize, (&raw const words).expose_provenance(), 0, words.len(), 0, 0];
    // SAFETY: 1. The kernel reads the set.
    unsafe { sys::syscall(k::__NR_rt_sigprocmask as usize, args) }.unwrap();
}

#[inline(never)]
fn spins() {
    READY.fetch_add(1, Relaxed);
    loop {
        thread::yield_now();
    }
}

#[inline(never)]
fn parks() {
    ready();
}

#[inline(never)]
fn reads() {
    let [read, _write] = pipe();
    READY.fetch_add(1, Relaxed);
    black_box(rt0::io::read(crate::numbered(read), &mut [0])).unwrap();
}

const OTHERS: [(&str, fn()); 3] = [("spinning", spins), ("parked", parks), ("reading", reads)];

/// Calls `f` while there are threads that wait in several ways, and ends.
pub fn with_others(f: impl FnOnce()) {
    let before = READY.load(Relaxed);
    let _others = OTHERS.map(|(name, f)| named(name, f));
    wait_for_ready(before + OTHERS.len() as u32);
    f();
    sys::exit_group(0);
}

/// A thread's part of a dump.
pub fn part<'a>(text: &'a str, name: &str) -> Report<'a> {
    let mut parts = text.split("\nthread '");
    let part = parts.find(|part| part.strip_prefix(name).is_some_and(|rest| rest.starts_with("' (tid ")));
    Report { text: part.unwrap_or_else(|| panic!("{name} is missing: {text}")) }
}

/// Whether a dump has a part of each thread of [`with_others`], with its frames.
pub fn has_parts_of_others(text: &str) {
    for (name, function) in OTHERS {
        let part = part(text, name);
        assert!(part.frames().count() > 0, "{name}: {text}");
        assert!(!has_frames() || part.leads_to(function as usize), "{name}: {text}");
    }
}

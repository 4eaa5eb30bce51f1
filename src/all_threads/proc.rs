//! The kernel's own list of this process's threads, /proc/self/task, against rt0's.

use core::ffi::CStr;
use core::fmt::Write as _;
use core::time::Duration;

use linux_raw_sys::general as k;

use super::FirstOf;
use crate::errno::Result;
use crate::time::Instant;
use crate::{io, sys, thread};

/// The threads that are there and not listed, of which `listed` are.
///
/// A thread that has left the list may still be in exit(2): as long as such threads become fewer they are given time.
/// What stays is a thread that rt0 did not start. Nothing if /proc is not there to tell.
pub(super) fn unlisted(is_listed: impl Fn(u32) -> bool, listed: usize) -> FirstOf<u32> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let (mut fewest, mut since) = (usize::MAX, Instant::now());
    loop {
        let found = look(&is_listed, listed).unwrap_or_default();
        if found.total() < fewest {
            (fewest, since) = (found.total(), Instant::now());
        }
        if found.total() == 0 || since.elapsed() > PATIENCE {
            return found;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn look(is_listed: impl Fn(u32) -> bool, listed: usize) -> Result<FirstOf<u32>> {
    let mut found = FirstOf::default();
    if count_tasks()? != listed {
        let emulator = emulator();
        for_each_task(|tid| {
            if !is_listed(tid) && !emulator.as_ref().is_some_and(|own| own.has_thread(tid)) {
                found.add(tid);
            }
        })?;
    }
    Ok(found)
}

/// How many threads this process has. The folder's links are its own two and one per thread, so one call tells; reading
/// the folder takes three, and a while for each thread.
fn count_tasks() -> Result<usize> {
    const OWN_LINKS: usize = 2;
    if let Ok(links @ OWN_LINKS..) = sys::statx_links(c"/proc/self/task") {
        return Ok(links - OWN_LINKS);
    }
    let mut count = 0;
    for_each_task(|_| count += 1)?;
    Ok(count)
}

/// Calls `f` with the id of each thread of this process.
fn for_each_task(mut f: impl FnMut(u32)) -> Result<()> {
    let folder = sys::open(c"/proc/self/task", k::O_RDONLY | k::O_DIRECTORY | k::O_CLOEXEC, 0)?;
    let mut buf = [0; 2048];
    loop {
        let filled = sys::getdents64(folder.as_raw_fd(), &mut buf)?;
        if filled == 0 {
            return Ok(());
        }
        sys::dirents(&buf[..filled]).filter_map(|name| name.to_str().ok()?.parse().ok()).for_each(&mut f);
    }
}

type Path = heapless::String<128>;

/// An emulator that this program runs in. It has threads of its own, which are no threads of the program.
struct Emulator {
    /// The program, as the emulator shows it.
    program: Path,
}

/// The emulator, if there is one. A kernel shows a process one executable by all names; an emulator shows the
/// program's in the name that it knows, /proc/self/exe, and not in the others.
fn emulator() -> Option<Emulator> {
    let program = link(c"/proc/self/exe")?;
    let kernels = link(&of_task(sys::gettid(), "exe")?)?;
    (program != kernels).then_some(Emulator { program })
}

impl Emulator {
    /// Whether this thread is the emulator's: it is not the program's file that it runs, as with all threads here,
    /// and it lets no signal through, as the program's threads do whatever they block: the emulator keeps that to
    /// itself.
    fn has_thread(&self, tid: u32) -> bool {
        let runs = of_task(tid, "exe").and_then(|path| link(&path));
        runs.is_some_and(|runs| runs != self.program) && blocked_signals(tid).is_some_and(|count| count >= 32)
    }
}

/// How many signals a thread blocks, as the kernel sees it.
fn blocked_signals(tid: u32) -> Option<u32> {
    let file = sys::open(&of_task(tid, "status")?, k::O_RDONLY | k::O_CLOEXEC, 0).ok()?;
    let mut buf = [0; 2048];
    let filled = io::read(file.as_raw_fd(), &mut buf).ok()?;
    let text = core::str::from_utf8(&buf[..filled]).ok()?;
    let set = text.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    Some(set.trim().chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum())
}

/// The path of a file about a thread of this process.
fn of_task(tid: u32, file: &str) -> Option<heapless::CString<65>> {
    let mut path = heapless::String::<64>::new();
    write!(path, "/proc/self/task/{tid}/{file}").ok()?;
    let mut c_path = heapless::CString::new();
    c_path.extend_from_bytes(path.as_bytes()).ok()?;
    Some(c_path)
}

fn link(path: &CStr) -> Option<Path> {
    let mut buf = [0; 128];
    let filled = sys::readlink(path, &mut buf).ok()?;
    Path::try_from(core::str::from_utf8(&buf[..filled]).ok()?).ok()
}

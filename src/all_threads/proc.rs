//! Compares rt0's list of threads with the kernel's, /proc/self/task.

use core::ffi::CStr;
use core::fmt::Write as _;
use core::time::Duration;

use linux_raw_sys::general as k;

use super::outcome::FirstOf;
use crate::errno::Result;
use crate::thread::List;
use crate::time::Instant;
use crate::{io, signal, sys, thread};

/// The program's threads that are not listed; `listed` is the number of those that are. Empty if
/// /proc is not mounted.
///
/// A task that is not listed is one of these:
///
/// 1. *A worker of the kernel's*, as io_uring and vhost start them in a process: it runs no code of
///    the program.
/// 2. *A thread that has ended*: the kernel is about to remove it, or keeps it until the process
///    ends, as a main thread that called exit(2).
/// 3. *A thread of rt0's between leaving the list and exit(2)*: it blocks every signal. This
///    function waits while their number falls, and for two seconds after it last fell.
/// 4. *A thread of an emulator.* Under an emulator the kernel shows the emulator's masks, so 3 and
///    5 cannot be told apart there.
/// 5. *A thread that rt0 did not start.* It does not block every signal, so no time is spent. Under
///    gVisor, which shows no masks, it takes the two seconds of 3.
pub(super) fn unlisted(is_listed: impl Fn(u32) -> bool, listed: usize, list: &List<'_>) -> FirstOf<u32> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let (mut fewest, mut since) = (usize::MAX, None);
    loop {
        let (found, leaving) = look(&is_listed, listed).unwrap_or_default();
        if leaving == 0 {
            return found;
        }
        let now = Instant::now();
        let start = *since.get_or_insert(now);
        if leaving < fewest {
            (fewest, since) = (leaving, Some(now));
        } else if now.saturating_duration_since(start) > PATIENCE {
            return found;
        }
        list.let_signals_through();
        thread::sleep(Duration::from_millis(1));
    }
}

/// The threads of the program that are not listed; and how many of them may be leaving.
fn look(is_listed: impl Fn(u32) -> bool, listed: usize) -> Result<(FirstOf<u32>, usize)> {
    let mut found = FirstOf::default();
    let mut leaving = 0;
    // If rt0's list has only the caller, one system call shows whether it is alone: the call fails
    // if the process has any other task (also of kind 1 or 2). It takes 0.2 µs; a path in /proc
    // takes 3 to 5 µs.
    if listed == 1 && sys::unshare_thread_group().is_ok() {
        return Ok((found, leaving));
    }
    if count_tasks()? != listed {
        let emulator = emulator();
        for_each_task(|tid| {
            if is_listed(tid) {
                return;
            }
            // The mask is read before the flags. If the thread exits before the first read, the
            // mask is empty, and then its flags say that it is exiting.
            let Some(blocked) = blocked_signals(tid) else { return };
            let blocks_everything = blocked >= signal::COUNT - 2; // Two cannot be blocked.
            if !runs_the_program(tid, blocks_everything) {
                return;
            }
            match &emulator {
                Some(own) if own.has_thread(tid) => return,
                Some(_) => leaving += 1,
                None => leaving += usize::from(blocks_everything),
            }
            found.add(tid);
        })?;
    }
    Ok((found, leaving))
}

/// Whether a task is neither gone nor a worker of the kernel's (1, 2).
fn runs_the_program(tid: u32, blocks_everything: bool) -> bool {
    /// It is in exit(2), or past it. These are the flags of include/linux/sched.h.
    const PF_EXITING: u32 = 0x4;
    // Since Linux 5.12; before, `PF_VCPU`, of a thread while it runs a guest.
    const PF_IO_WORKER: u32 = 0x10;
    const PF_USER_WORKER: u32 = 0x4000; // Since Linux 6.4.
    const PF_KTHREAD: u32 = 0x20_0000;
    let mut buf = [0; 512];
    let Some(stat) = read_of_task(tid, "stat", &mut buf) else { return false };
    // `TID (NAME) STATE PPID PGRP SESSION TTY TPGID FLAGS …`; a name may hold anything.
    let Some(end_of_name) = stat.iter().rposition(|byte| *byte == b')') else { return false };
    let mut fields = stat[end_of_name + 1..].split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let is_dead = matches!(fields.next(), Some(b"X" | b"Z"));
    let flags = fields.nth(5).and_then(|flags| core::str::from_utf8(flags).ok()?.parse().ok()).unwrap_or(0u32);
    // A worker blocks every signal that can be blocked.
    let is_worker = flags & (PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD) != 0 && blocks_everything;
    !(is_dead || flags & PF_EXITING != 0 || is_worker)
}

/// How many threads this process has. The directory has two links of its own and one per thread, so
/// one system call is enough. Reading the directory takes three, and time for each thread.
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

/// An emulator that this program runs in. It has threads of its own, which do not belong to the
/// program.
struct Emulator {
    /// The path of the program's file, as the emulator shows it.
    program: Path,
}

/// The emulator, if there is one. A kernel shows the same executable in /proc/self/exe and in
/// /proc/self/task/TID/exe. An emulator replaces only the first, by the program's file.
fn emulator() -> Option<Emulator> {
    let program = link(c"/proc/self/exe")?;
    let kernels = link(&of_task(sys::gettid(), "exe")?)?;
    (program != kernels).then_some(Emulator { program })
}

impl Emulator {
    /// Whether this thread is the emulator's own. It blocks all signals. The program's threads do
    /// not, whatever the program blocks: the emulator does not pass their masks on to the kernel.
    fn has_thread(&self, tid: u32) -> bool {
        let runs = of_task(tid, "exe").and_then(|path| link(&path));
        runs.is_some_and(|runs| runs != self.program) && blocked_signals(tid).is_some_and(|count| count >= 32)
    }
}

/// How many signals a thread blocks, as the kernel shows it. `None` if the thread has ended.
///
/// The line of groups comes first and has up to 65,536, so this takes lines of any length. A kernel
/// that does not show the mask (gVisor) leaves open what is blocked: then it is the most.
fn blocked_signals(tid: u32) -> Option<u32> {
    let file = sys::open(&of_task(tid, "status")?, k::O_RDONLY | k::O_CLOEXEC, 0).ok()?;
    let mut start_of_line = heapless::Vec::<u8, 64>::new();
    let mut buf = [0; 1024];
    loop {
        let filled = io::read(&file, &mut buf).ok()?;
        if filled == 0 {
            return Some(u32::MAX);
        }
        for byte in &buf[..filled] {
            if *byte != b'\n' {
                let _ = start_of_line.push(*byte); // The rest of a longer line is left out.
            } else if let Some(set) = start_of_line.strip_prefix(b"SigBlk:") {
                return Some(set.iter().filter_map(|digit| char::from(*digit).to_digit(16)).map(u32::count_ones).sum());
            } else {
                start_of_line.clear();
            }
        }
    }
}

/// The start of a file about a thread of this process. `None` if the thread has ended.
fn read_of_task<'a>(tid: u32, file: &str, buf: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = sys::open(&of_task(tid, file)?, k::O_RDONLY | k::O_CLOEXEC, 0).ok()?;
    let filled = io::read(&file, buf).ok()?;
    buf.get(..filled)
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

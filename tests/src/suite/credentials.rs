//! setuid(2) and related calls: all threads have the same users and groups, also while threads
//! start and end.
//!
//! The cases are those of Go's test (TestSetuidEtc of its package syscall). They check each
//! thread's /proc/self/task/*/status after the call; its lines list the real, effective, saved and
//! file system ids.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::all_threads::{
    self, Result, setegid, seteuid, setgid, setgroups, setregid, setresgid, setresuid, setreuid, setuid,
};
use rt0::thread::{Builder, spawn};
use rt0::{Errno, sys, thread};
use rt0_tests::processes::{from_state_on, is_root};
use rt0_tests::text::Text;
use rt0_tests::{emulated, often, read_file, skip, wait_until};

/// Leaves an id unchanged.
const SAME: u32 = u32::MAX;

/// A call, and the line in every thread's status after it.
type Case = (fn() -> Result<()>, &'static str);

/// After the last of each kind the process is root again.
const CASES: [Case; 21] = [
    (|| setegid(1), "Gid:\t0\t1\t0\t1"),
    (|| setegid(0), "Gid:\t0\t0\t0\t0"),
    (|| seteuid(1), "Uid:\t0\t1\t0\t1"),
    (|| setuid(0), "Uid:\t0\t0\t0\t0"),
    (|| setgid(1), "Gid:\t1\t1\t1\t1"),
    (|| setgid(0), "Gid:\t0\t0\t0\t0"),
    (|| setgroups(&[0, 1, 2, 3]), "Groups:\t0 1 2 3"),
    (|| setgroups(&[]), "Groups:\t"),
    (|| setgroups(&[0]), "Groups:\t0"),
    (|| setregid(101, 0), "Gid:\t101\t0\t0\t0"),
    (|| setregid(0, 102), "Gid:\t0\t102\t102\t102"),
    (|| setregid(0, 0), "Gid:\t0\t0\t0\t0"),
    (|| setreuid(1, 0), "Uid:\t1\t0\t0\t0"),
    (|| setreuid(0, 2), "Uid:\t0\t2\t2\t2"),
    (|| setreuid(0, 0), "Uid:\t0\t0\t0\t0"),
    (|| setresgid(1, 0, 2), "Gid:\t1\t0\t2\t0"),
    (|| setresgid(0, 2, 1), "Gid:\t0\t2\t1\t2"),
    (|| setresgid(0, 0, 0), "Gid:\t0\t0\t0\t0"),
    (|| setresuid(1, 0, 2), "Uid:\t1\t0\t2\t0"),
    (|| setresuid(0, 2, 1), "Uid:\t0\t2\t1\t2"),
    (|| setresuid(0, 0, 0), "Uid:\t0\t0\t0\t0"),
];

/// Skips the test if the process may not change its user and become root again.
fn need_users() {
    if !is_root() {
        skip("only root becomes another user and root again");
    }
    for result in [setgroups(&[0]), setresuid(SAME, 1, SAME), setuid(0)] {
        match result {
            Err(all_threads::Error::Refused(errno)) => {
                assert!([Errno::EPERM, Errno::EINVAL].contains(&errno), "{errno}");
                skip("a namespace of users without other users");
            }
            result => result.unwrap(),
        }
    }
}

/// Whether a thread is in exit(2), or past it: it makes no more calls. Its state is that of a
/// thread that runs until the kernel is nearly done with it. proc_pid_stat(5), field 9
fn is_exiting(tid: u32) -> bool {
    const PF_EXITING: u32 = 0x4; // include/linux/sched.h
    let mut buf = [0; 512];
    let Ok(stat) = read_file(Text::of(format_args!("/proc/self/task/{tid}/stat")).as_c(), &mut buf) else {
        return true;
    };
    let fields = core::str::from_utf8(from_state_on(stat).expect("a state")).unwrap();
    let flags = fields.split_whitespace().nth(6).unwrap();
    flags.parse::<u32>().unwrap() & PF_EXITING != 0
}

/// Checks a thread's line; returns whether the thread still exists.
fn has_line(tid: u32, expected: &str) -> bool {
    // This comes first: a thread that is not exiting after the call made it, or descends from one
    // that did.
    if is_exiting(tid) {
        return false;
    }
    let path = Text::of(format_args!("/proc/self/task/{tid}/status"));
    let mut buf = [0; 4096];
    let status = match read_file(path.as_c(), &mut buf) {
        Err(Errno::ENOENT | Errno::ESRCH) => return false, // It ended.
        status => core::str::from_utf8(status.unwrap()).unwrap(),
    };
    let field = |name| status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    // A thread that has ended but still exists makes no more calls.
    if ["X", "Z"].iter().any(|state| field("State:").contains(state)) {
        return false;
    }
    let name = &expected[..=expected.find(':').unwrap()];
    assert_eq!(field(name).trim_end(), expected.trim_end(), "thread {tid}");
    true
}

/// Checks every thread of the process; returns their number.
fn all_have_line(expected: &str) -> usize {
    let folder = sys::open(c"/proc/self/task", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).unwrap();
    let mut buf = [0u8; 4096];
    let mut count = 0;
    loop {
        let args = [folder.as_raw_fd() as usize, buf.as_mut_ptr().expose_provenance(), buf.len(), 0, 0, 0];
        // SAFETY: 1. The kernel writes the buffer.
        let filled = unsafe { sys::syscall(k::__NR_getdents64 as usize, args) }.unwrap();
        if filled == 0 {
            return count;
        }
        let mut rest = &buf[..filled];
        while !rest.is_empty() {
            const NAME: usize = 19; // struct linux_dirent64
            let (entry, next) = rest.split_at(u16::from_ne_bytes([rest[16], rest[17]]).into());
            let name = entry[NAME..].split(|byte| *byte == 0).next().unwrap();
            if let Some(tid) = core::str::from_utf8(name).ok().and_then(|name| name.parse().ok()) {
                count += usize::from(has_line(tid, expected));
            }
            rest = next;
        }
    }
}

/// Starts short-lived threads until told to stop: also threads of threads, and detached ones.
fn churn() -> (&'static AtomicBool, [thread::JoinHandle<usize>; 2]) {
    static STOP: AtomicBool = AtomicBool::new(false);
    let storms = [(); 2].map(|()| {
        spawn(|| {
            let mut started = 0;
            while !STOP.load(Relaxed) {
                let start = || Builder::new().stack_size(0).spawn(|| spawn(|| ()).map(|child| child.join()));
                drop(start().unwrap());
                start().unwrap().join().unwrap();
                started += 2;
            }
            started
        })
        .unwrap()
    });
    (&STOP, storms)
}

rt0::test_module! {
    each_call_reaches_every_thread_while_threads_start_and_end,
    calls_of_several_threads_at_once_leave_all_threads_alike,
    no_id_is_no_effective_id,
    what_is_given_up_stays_given_up_in_every_thread,
}

fn each_call_reaches_every_thread_while_threads_start_and_end() {
    /// The number of threads that stay and check themselves after each call.
    const STAYING: usize = 6;
    static CASE: AtomicUsize = AtomicUsize::new(0);
    static TIDS: [AtomicU32; STAYING] = [const { AtomicU32::new(0) }; STAYING];
    need_users();
    let staying: [_; STAYING] = core::array::from_fn(|index| {
        spawn(move || {
            TIDS[index].store(sys::gettid(), Relaxed);
            while CASE.load(Relaxed) != usize::MAX {
                thread::sleep(Duration::from_millis(5));
            }
        })
        .unwrap()
    });
    wait_until("the threads to run", || TIDS.iter().all(|tid| tid.load(Relaxed) != 0));
    let (stop, storms) = churn();
    for _ in 0..often(60) {
        for (call, line) in CASES {
            call().unwrap();
            // An emulator's own threads are among the process's, and do not make the call.
            let mine = TIDS.iter().map(|tid| tid.load(Relaxed)).chain([sys::getpid()]);
            mine.for_each(|tid| assert!(has_line(tid, line), "thread {tid} ended"));
            assert!(emulated() || all_have_line(line) > STAYING);
        }
    }
    stop.store(true, Relaxed);
    CASE.store(usize::MAX, Relaxed);
    assert!(storms.into_iter().all(|storm| storm.join() > 0));
    staying.into_iter().for_each(|thread| thread.join());
}

/// Several threads call at the same time. Each call completes before the next begins, so all
/// threads have the same ids.
fn calls_of_several_threads_at_once_leave_all_threads_alike() {
    need_users();
    let callers = [1, 2, 3].map(|id| {
        spawn(move || {
            for _ in 0..often(100) {
                setresgid(SAME, id, SAME).unwrap();
                setgroups(&[id, 10 + id]).unwrap();
            }
        })
        .unwrap()
    });
    callers.into_iter().for_each(|caller| caller.join());
    let mut buf = [0; 4096];
    let status = core::str::from_utf8(read_file(c"/proc/self/status", &mut buf).unwrap()).unwrap();
    for name in ["Gid:", "Groups:"] {
        let mine = status.lines().find(|line| line.starts_with(name)).unwrap();
        let others = [(); 3].map(|()| spawn(|| has_line(sys::gettid(), "Uid:\t0\t0\t0\t0")).unwrap());
        assert!(has_line(sys::gettid(), mine) && others.into_iter().all(|other| other.join()));
    }
}

fn no_id_is_no_effective_id() {
    for result in [seteuid(u32::MAX), setegid(u32::MAX)] {
        assert!(matches!(result, Err(all_threads::Error::Refused(Errno::EINVAL))), "{result:?}");
    }
}

/// After root is given up permanently, no thread has it, not even one that starts later.
fn what_is_given_up_stays_given_up_in_every_thread() {
    need_users();
    let (stop, storms) = churn();
    setgroups(&[1000]).unwrap();
    setresgid(1000, 1000, 1000).unwrap();
    setresuid(1000, 1000, 1000).unwrap();
    for _ in 0..often(100) {
        assert!(matches!(setuid(0), Err(all_threads::Error::Refused(Errno::EPERM))));
        assert!(emulated() || all_have_line("Uid:\t1000\t1000\t1000\t1000") > 0);
        assert!(spawn(|| has_line(sys::gettid(), "Groups:\t1000")).unwrap().join());
    }
    stop.store(true, Relaxed);
    storms.into_iter().for_each(|storm| _ = storm.join());
}

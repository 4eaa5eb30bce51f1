//! Credentials, seccomp filters and Landlock: what a process has, and the kernel keeps per thread.

use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use linux_raw_sys::{general as k, prctl};
use rt0::all_threads::{self, Error, FilterStep};
use rt0::thread::{self, spawn};
use rt0::{Errno, sys};
use rt0_tests::processes::is_root;
use rt0_tests::seccomp::{filter_calls, need_filters};
use rt0_tests::{emulated, skip, wait_until};

use super::skip_without;

rt0::test_module! {
    credentials_are_the_processs,
    ids_at_the_end_of_their_range_are_ids,
    no_new_privs_and_filters_are_the_processs,
    a_thread_with_a_filter_of_its_own_stands_in_the_way_of_one_for_all,
    landlock_is_the_processs,
}

fn credentials_are_the_processs() {
    const NOBODY: u32 = 54321;
    fn ids(nr: u32) -> Option<[u32; 3]> {
        let mut ids = [0u32; 3];
        let at = ids.each_mut().map(|id| (id as *mut u32).expose_provenance());
        // SAFETY: 1. The kernel writes the three.
        unsafe { sys::syscall(nr as usize, [at[0], at[1], at[2], 0, 0, 0]) }.ok()?;
        Some(ids)
    }
    static STEP: AtomicU32 = AtomicU32::new(0);
    static RIGHT: AtomicU32 = AtomicU32::new(0);
    if !is_root() {
        skip("only root can change its ids");
    }
    let threads = [(); 4].map(|()| {
        spawn(|| {
            wait_until("the change", || STEP.load(Acquire) == 1);
            // The 16-bit calls would truncate larger ids.
            let user = ids(k::__NR_getresuid).unwrap();
            let group = ids(k::__NR_getresgid).unwrap();
            RIGHT.fetch_add((user == [NOBODY; 3] && group == [NOBODY + 1; 3]) as u32, Relaxed);
        })
        .unwrap()
    });
    if let Err(error) = all_threads::setgroups(&[1, NOBODY]) {
        assert!(matches!(error, Error::Refused(Errno::EPERM)), "{error}");
        skip("a namespace without setgroups");
    }
    all_threads::setresgid(NOBODY + 1, NOBODY + 1, u32::MAX).unwrap();
    all_threads::setgid(NOBODY + 1).unwrap();
    all_threads::setresuid(u32::MAX, u32::MAX, u32::MAX).unwrap();
    all_threads::setuid(NOBODY).unwrap();
    STEP.store(1, Release);
    threads.into_iter().for_each(|thread| thread.join());
    assert_eq!(RIGHT.load(Relaxed), 4);
    assert!(matches!(all_threads::setuid(0), Err(Error::Refused(Errno::EPERM))));
    assert!(matches!(all_threads::setgroups(&[]), Err(Error::Refused(Errno::EPERM))));
}

/// The 4095 largest ids look like errors on 32-bit machines.
fn ids_at_the_end_of_their_range_are_ids() {
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    use k::{__NR_getegid as GETEGID, __NR_geteuid as GETEUID, __NR_setfsuid as SETFSUID};
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    use k::{__NR_getegid32 as GETEGID, __NR_geteuid32 as GETEUID, __NR_setfsuid32 as SETFSUID};
    // SAFETY: 1. It only asks, or sets the ids for opening files.
    let call = |nr: u32, id: u32| unsafe { sys::syscall(nr as usize, [id as usize, 0, 0, 0, 0, 0]) };
    if call(GETEUID, 0) != Ok(0) {
        skip("only root can change its ids");
    }
    let last = u32::MAX - 1;
    match all_threads::setresgid(last, last, last) {
        Err(Error::Refused(Errno::EINVAL)) => skip("a namespace without this group"),
        done => done.unwrap(),
    }
    all_threads::setresuid(0, last, 0).unwrap();
    if emulated() && usize::BITS == 64 && call(GETEUID, 0) == Err(Errno::ENOENT) {
        skip("qemu-user extends an id of 32 bits by its sign");
    }
    assert_eq!((call(GETEUID, 0), call(GETEGID, 0)), (Ok(last as usize), Ok(last as usize)));
    // The previous id: the same on each thread, so the calls agree.
    let _other = spawn(thread::park).unwrap();
    // SAFETY: 1. It touches no memory.
    let on_all = |nr: u32, id: u32| unsafe { all_threads::syscall(nr as usize, [id as usize, 0, 0, 0, 0, 0]) };
    assert_eq!(on_all(GETEUID, 0).unwrap(), last as usize);
    assert_eq!(on_all(SETFSUID, 0).unwrap(), last as usize);
    assert_eq!(on_all(SETFSUID, u32::MAX).unwrap(), 0);
}

fn no_new_privs_and_filters_are_the_processs() {
    static STEP: AtomicU32 = AtomicU32::new(0);
    let threads = [(); 4].map(|()| {
        spawn(|| {
            wait_until("the filter", || STEP.load(Acquire) == 1);
            // SAFETY: 1. They only ask.
            let parent = unsafe { sys::syscall(k::__NR_getppid as usize, [0; 6]) };
            let args = [prctl::PR_GET_NO_NEW_PRIVS as usize, 0, 0, 0, 0, 0];
            // SAFETY: 1. It only asks.
            (parent, unsafe { sys::syscall(k::__NR_prctl as usize, args) })
        })
        .unwrap()
    });
    all_threads::set_no_new_privs().unwrap();
    need_filters();
    let step = |code, jf, k| FilterStep { code, jt: 0, jf, k };
    let refuse = 0x5_0000 | Errno::EXDEV.raw() as u32;
    let filter = [step(0x20, 0, 0), step(0x15, 1, k::__NR_getppid), step(6, 0, refuse), step(6, 0, 0x7fff_0000)];
    // SAFETY: 1. The filter makes getppid fail, and no code relies on getppid.
    if let Err(Error::Refused(errno)) = unsafe { all_threads::seccomp(&filter) } {
        skip_without(errno, "no seccomp filters here");
        panic!("{errno}");
    }
    STEP.store(1, Release);
    for thread in threads {
        assert_eq!(thread.join(), (Err(Errno::EXDEV), Ok(1)));
    }
    // SAFETY: 1. Refused.
    assert!(matches!(unsafe { all_threads::seccomp(&[]) }, Err(Error::Refused(Errno::EINVAL))));
}

fn a_thread_with_a_filter_of_its_own_stands_in_the_way_of_one_for_all() {
    static READY: AtomicBool = AtomicBool::new(false);
    static END: AtomicBool = AtomicBool::new(false);
    let other = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_getppid], 0x5_0000 | 1) {
            skip_without(errno, "no seccomp filters here");
        }
        READY.store(true, Relaxed);
        wait_until("the end", || END.load(Relaxed));
    })
    .unwrap();
    wait_until("the filter", || READY.load(Relaxed));
    all_threads::set_no_new_privs().unwrap();
    let allow = [FilterStep { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];
    // SAFETY: 1. It allows everything.
    assert!(matches!(unsafe { all_threads::seccomp(&allow) }, Err(Error::Refused(Errno::ESRCH))));
    END.store(true, Relaxed);
    other.join();
}

fn landlock_is_the_processs() {
    static STEP: AtomicU32 = AtomicU32::new(0);
    let open = || sys::open(c"/proc/self/exe", sys::flags::O_RDONLY, 0).map(drop);
    let threads = [(); 3].map(|()| {
        spawn(move || {
            wait_until("the rules", || STEP.load(Acquire) == 1);
            open()
        })
        .unwrap()
    });
    let handled: u64 = 1 << 2; // LANDLOCK_ACCESS_FS_READ_FILE: none is allowed.
    let args = [(&raw const handled).expose_provenance(), 8, 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the rights.
    let rules = match unsafe { sys::syscall(k::__NR_landlock_create_ruleset as usize, args) } {
        Ok(rules) => rules as i32,
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => skip("no Landlock here"),
        Err(errno) => panic!("{errno}"),
    };
    all_threads::set_no_new_privs().unwrap();
    all_threads::landlock_restrict_self(rt0_tests::numbered(rules), 0).unwrap();
    assert_eq!(open(), Err(Errno::EACCES));
    STEP.store(1, Release);
    threads.into_iter().for_each(|thread| assert_eq!(thread.join(), Err(Errno::EACCES)));
    assert!(matches!(
        all_threads::landlock_restrict_self(rt0_tests::numbered(-1), 0),
        Err(Error::Refused(Errno::EBADF))
    ));
}

//! The seam: calls reach the kernel with their arguments, and failures come back as errors, on
//! every machine.

use core::ptr::null;

use linux_raw_sys::general as k;
use rt0::Errno;
use rt0::sys::{self, syscall};
use rt0_tests::files::pipe;

/// A descriptor that is never open.
const BAD: usize = -1isize as usize;

/// A system call by number.
fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: 1. Each test's call is refused, or accesses only its arguments.
    unsafe { syscall(nr as usize, args) }
}

rt0::test_module! {
    an_unknown_number_is_enosys,
    enosys_has_this_machines_number,
    read_and_write_of_a_bad_descriptor_are_ebadf,
    write_from_nowhere_is_efault,
    opening_what_is_not_there_is_enoent,
    memory_calls_refuse_bad_arguments,
    signal_calls_refuse_bad_arguments,
    process_calls_refuse_bad_arguments,
    six_arguments_reach_the_kernel_each_in_its_place,
    pointers_results_survive_the_error_check,
    a_timer_reads_no_more_than_64_bytes_of_its_event,
    a_null_path_is_efault,
    sc_agrees_on_numbers_and_results,
}

fn an_unknown_number_is_enosys() {
    assert_eq!(call(0x7fff, [0; 6]), Err(Errno::ENOSYS));
}

fn enosys_has_this_machines_number() {
    assert_eq!(Errno::ENOSYS.raw() as u32, linux_raw_sys::errno::ENOSYS);
}

fn read_and_write_of_a_bad_descriptor_are_ebadf() {
    assert_eq!(sys::read(rt0_tests::numbered(-1), &mut [0; 1]), Err(Errno::EBADF));
    assert_eq!(sys::write(rt0_tests::numbered(-1), &[0; 1]), Err(Errno::EBADF));
    assert_eq!(sys::dup(rt0_tests::numbered(-1)).err(), Some(Errno::EBADF));
}

fn write_from_nowhere_is_efault() {
    let [read, write] = pipe();
    assert_eq!(call(k::__NR_write, [write as usize, 8, 16, 0, 0, 0]), Err(Errno::EFAULT));
    close(read);
    close(write);
}

fn opening_what_is_not_there_is_enoent() {
    assert_eq!(sys::open(c"/nowhere/at/all", sys::flags::O_RDONLY, 0).err(), Some(Errno::ENOENT));
}

fn memory_calls_refuse_bad_arguments() {
    let page = 4096;
    assert_eq!(call(k::__NR_munmap, [1, page, 0, 0, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(call(k::__NR_mprotect, [1, page, 0, 0, 0, 0]), Err(Errno::EINVAL));
    let mut resident = [0u8; 16];
    let out = resident.as_mut_ptr().expose_provenance();
    assert_eq!(call(k::__NR_mincore, [out | 1, 1, out, 0, 0, 0]), Err(Errno::EINVAL));
}

fn signal_calls_refuse_bad_arguments() {
    assert_eq!(sys::tgkill(sys::getpid(), sys::gettid(), 1000), Err(Errno::EINVAL));
    assert_eq!(sys::tgkill(sys::getpid(), i32::MAX as u32, 0), Err(Errno::ESRCH));
    let size = size_of::<k::kernel_sigset_t>();
    assert_eq!(call(k::__NR_rt_sigaction, [0, 0, 0, size, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(call(k::__NR_rt_sigprocmask, [0, 0, 0, size + 4, 0, 0]), Err(Errno::EINVAL));
}

fn process_calls_refuse_bad_arguments() {
    assert_eq!(call(k::__NR_prctl, [0x7fff_0000, 0, 0, 0, 0, 0]), Err(Errno::EINVAL));
    let mut fds = [0i32; 2];
    assert_eq!(call(k::__NR_pipe2, [(&raw mut fds).expose_provenance(), BAD, 0, 0, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(call(k::__NR_timer_delete, [BAD, 0, 0, 0, 0, 0]), Err(Errno::EINVAL));
    let event = [0u64; 2];
    let at = (&raw const event).expose_provenance();
    assert_eq!(call(k::__NR_epoll_ctl, [BAD, k::EPOLL_CTL_ADD as usize, BAD, at, 0, 0]), Err(Errno::EBADF));
}

fn six_arguments_reach_the_kernel_each_in_its_place() {
    // splice(2) moves `len` bytes from one pipe to another; its offsets must be null for pipes,
    // its flags known.
    let [a_read, a_write] = pipe();
    let [b_read, b_write] = pipe();
    assert_eq!(sys::write(rt0_tests::numbered(a_write), b"0123456789"), Ok(10));
    let (from, to) = (a_read as usize, b_write as usize);
    let moved = call(k::__NR_splice, [from, 0, to, 0, 7, k::SPLICE_F_NONBLOCK as usize]);
    assert_eq!(moved, Ok(7));
    let mut buf = [0; 16];
    assert_eq!(sys::read(rt0_tests::numbered(b_read), &mut buf), Ok(7));
    assert_eq!(&buf[..7], b"0123456");
    // The second and fourth arguments: an offset for a pipe is refused.
    let offset = 0u64;
    let at = (&raw const offset).expose_provenance();
    assert_eq!(call(k::__NR_splice, [from, at, to, 0, 1, 0]), Err(Errno::ESPIPE));
    assert_eq!(call(k::__NR_splice, [from, 0, to, at, 1, 0]), Err(Errno::ESPIPE));
    // The sixth argument: unknown flags are refused.
    assert_eq!(call(k::__NR_splice, [from, 0, to, 0, 1, 0x1000]), Err(Errno::EINVAL));
    [a_read, a_write, b_read, b_write].into_iter().for_each(close);
}

fn pointers_results_survive_the_error_check() {
    // mmap's results are high on some machines; only values above -4096 are errors.
    for _ in 0..64 {
        rt0::thread::spawn(|| ()).unwrap().join();
    }
    assert_eq!(call(k::__NR_getpid, [0; 6]), Ok(sys::getpid() as usize));
}

/// The struct that rt0 passes to timer_create(2) has exactly this size (`const` in
/// sys/time.rs).
fn a_timer_reads_no_more_than_64_bytes_of_its_event() {
    let page = rt0::cpu::page_size();
    let memory = rt0::mapping::Mapping::new(2 * page).unwrap();
    memory.protect(page.., rt0::mapping::Protection::NONE).unwrap();
    let end = memory.as_ptr().wrapping_add(page);
    let notify = end.wrapping_sub(64).wrapping_add(size_of::<usize>() + 4).cast::<i32>();
    // SAFETY: within the first page, which no other code has; `sigev_notify` follows a pointer
    // and an int.
    unsafe { notify.write(k::SIGEV_NONE as i32) };
    let mut timer = 0i32;
    let at = (&raw mut timer).expose_provenance();
    let create = |event: *mut u8| {
        call(k::__NR_timer_create, [k::CLOCK_MONOTONIC as usize, event.expose_provenance(), at, 0, 0, 0])
    };
    assert_eq!(create(end.wrapping_sub(64)), Ok(0));
    assert_eq!(call(k::__NR_timer_delete, [timer as usize, 0, 0, 0, 0, 0]), Ok(0));
}

fn a_null_path_is_efault() {
    let here = k::AT_FDCWD as isize as usize;
    assert_eq!(call(k::__NR_openat, [here, null::<u8>().addr(), 0, 0, 0, 0]), Err(Errno::EFAULT));
}

fn sc_agrees_on_numbers_and_results() {
    second_opinion();
}

fn close(fd: i32) {
    call(k::__NR_close, [fd as usize, 0, 0, 0, 0, 0]).unwrap();
}

/// Compares the stubs and numbers of the crate sc with rt0's, where sc compiles.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn second_opinion() {
    macro_rules! same_numbers {
        ($($theirs:ident $ours:ident)*) => {
            $(assert_eq!(sc::nr::$theirs, k::$ours as usize, stringify!($ours));)*
        };
    }
    same_numbers! {
        CLONE __NR_clone CLOCK_GETTIME __NR_clock_gettime CLOCK_NANOSLEEP __NR_clock_nanosleep CLOSE __NR_close DUP __NR_dup
        EXIT __NR_exit EXIT_GROUP __NR_exit_group FUTEX __NR_futex GETPID __NR_getpid GETTID __NR_gettid
        MINCORE __NR_mincore MMAP __NR_mmap MPROTECT __NR_mprotect MUNMAP __NR_munmap OPENAT __NR_openat PPOLL __NR_ppoll
        PRCTL __NR_prctl READ __NR_read RT_SIGACTION __NR_rt_sigaction RT_SIGPROCMASK __NR_rt_sigprocmask
        RT_SIGRETURN __NR_rt_sigreturn SCHED_YIELD __NR_sched_yield SET_TID_ADDRESS __NR_set_tid_address
        TGKILL __NR_tgkill UNAME __NR_uname WRITE __NR_write
    }
    /// One call of sc's, in a function of its own: sc says that the number's register survives, so
    /// the compiler may set it once for several calls, which the ELF facts refuse.
    #[inline(never)]
    fn theirs(nr: u32, [a, b, c, d, e, f]: [usize; 6]) -> isize {
        // SAFETY: 1. The call accesses only its arguments.
        unsafe { sc::platform::syscall6(nr as usize, a, b, c, d, e, f) as isize }
    }
    fn same(nr: u32, args: [usize; 6]) {
        let theirs = theirs(nr, args);
        let ours = call(nr, args);
        assert_eq!(ours.map_or_else(|errno| -(errno.raw() as isize), |value| value as isize), theirs, "{nr}");
    }
    same(k::__NR_getpid, [0; 6]);
    same(k::__NR_gettid, [0; 6]);
    same(k::__NR_read, [BAD, 0, 0, 0, 0, 0]);
    same(k::__NR_openat, [BAD, 8, 0, 0, 0, 0]);
    same(k::__NR_munmap, [1, 1, 0, 0, 0, 0]);
    same(0x7fff, [1, 2, 3, 4, 5, 6]);
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn second_opinion() {
    rt0_tests::skip("sc does not compile for this machine");
}

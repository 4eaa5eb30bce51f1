//! What a program in the sandbox may not ask the kernel for: seccomp(2).
//!
//! Namespaces and missing capabilities refuse most of it already. The filter keeps the program from
//! parts of the kernel that have had many faults (bpf, io_uring, userfaultfd, keys), from making
//! namespaces of its own, and from typing into the terminal.

use linux_raw_sys::general as k;
use linux_raw_sys::ioctl;
use rt0::Errno;
use rt0::all_threads::{self, Error, FilterStep};

/// Calls that fail with `EPERM`.
const REFUSED: &[u32] = &[
    k::__NR_acct,
    k::__NR_add_key,
    k::__NR_adjtimex,
    k::__NR_bpf,
    k::__NR_clock_adjtime,
    k::__NR_clock_settime,
    k::__NR_delete_module,
    k::__NR_finit_module,
    k::__NR_fsconfig,
    k::__NR_fsmount,
    k::__NR_fsopen,
    k::__NR_fspick,
    k::__NR_init_module,
    k::__NR_io_uring_enter,
    k::__NR_io_uring_register,
    k::__NR_io_uring_setup,
    k::__NR_kexec_load,
    k::__NR_keyctl,
    k::__NR_lookup_dcookie,
    k::__NR_mount,
    k::__NR_mount_setattr,
    k::__NR_move_mount,
    k::__NR_open_by_handle_at,
    k::__NR_open_tree,
    k::__NR_perf_event_open,
    k::__NR_pivot_root,
    k::__NR_process_vm_readv,
    k::__NR_process_vm_writev,
    k::__NR_ptrace,
    k::__NR_quotactl,
    k::__NR_reboot,
    k::__NR_request_key,
    k::__NR_setns,
    k::__NR_settimeofday,
    k::__NR_swapoff,
    k::__NR_swapon,
    k::__NR_syslog,
    k::__NR_umount2,
    k::__NR_unshare,
    k::__NR_userfaultfd,
];

/// Flags of clone(2) that make namespaces.
const NEW_SPACES: u32 = k::CLONE_NEWCGROUP
    | k::CLONE_NEWIPC
    | k::CLONE_NEWNET
    | k::CLONE_NEWNS
    | k::CLONE_NEWPID
    | k::CLONE_NEWUSER
    | k::CLONE_NEWUTS;

/// Requests of ioctl(2) that type into a terminal or paste there. The second is in linux/tiocl.h.
const TYPING: [u32; 2] = [ioctl::TIOCSTI, 0x541c];

/// `AUDIT_ARCH_…` of linux/audit.h: other machines' numbers mean other calls. And from which number
/// on there are calls of another kind, x32's.
const MACHINE: (u32, u32) = core::cfg_select! {
    target_arch = "x86_64" => { (0xc000_003e, 0x4000_0000) }
    target_arch = "aarch64" => { (0xc000_00b7, u32::MAX) }
    target_arch = "riscv64" => { (0xc000_00f3, u32::MAX) }
};

const ALLOW: FilterStep = give(0x7fff_0000);
const KILL: FilterStep = give(0x8000_0000);
const EPERM: FilterStep = refuse(Errno::EPERM);
const ENOSYS: FilterStep = refuse(Errno::ENOSYS);

// Where `struct seccomp_data` has the number, the machine and the low words of the arguments, on a
// little-endian machine.
const NUMBER: FilterStep = load(0);
const THE_MACHINE: FilterStep = load(4);
const FIRST: FilterStep = load(16);
const SECOND: FilterStep = load(24);

const fn load(at: u32) -> FilterStep {
    FilterStep { code: 0x20, jt: 0, jf: 0, k: at } // BPF_LD | BPF_W | BPF_ABS
}

const fn give(action: u32) -> FilterStep {
    FilterStep { code: 0x06, jt: 0, jf: 0, k: action } // BPF_RET | BPF_K
}

const fn refuse(errno: Errno) -> FilterStep {
    give(0x0005_0000 | errno.raw() as u32)
}

/// Goes on if what was loaded is `value`, else skips some.
const fn unless_skip(value: u32, skip: u8) -> FilterStep {
    FilterStep { code: 0x15, jt: 0, jf: skip, k: value } // BPF_JMP | BPF_JEQ | BPF_K
}

/// Goes on if what was loaded is as large, else skips some.
const fn unless_large_skip(value: u32, skip: u8) -> FilterStep {
    FilterStep { code: 0x35, jt: 0, jf: skip, k: value } // BPF_JMP | BPF_JGE | BPF_K
}

/// Goes on if what was loaded has one of these bits, else skips some.
const fn unless_has_skip(bits: u32, skip: u8) -> FilterStep {
    FilterStep { code: 0x45, jt: 0, jf: skip, k: bits } // BPF_JMP | BPF_JSET | BPF_K
}

/// Skips one if what was loaded is `value`.
const fn skip_if(value: u32) -> FilterStep {
    FilterStep { code: 0x15, jt: 1, jf: 0, k: value }
}

const HEAD: [FilterStep; 19] = [
    THE_MACHINE,
    skip_if(MACHINE.0),
    KILL,
    NUMBER,
    unless_large_skip(MACHINE.1, 1),
    ENOSYS,
    unless_skip(k::__NR_clone3, 1), // Its flags lie in memory; libraries fall back to clone.
    ENOSYS,
    unless_skip(k::__NR_clone, 4),
    FIRST,
    unless_has_skip(NEW_SPACES, 1),
    EPERM,
    ALLOW,
    unless_skip(k::__NR_ioctl, 5),
    SECOND,
    skip_if(TYPING[0]),
    unless_skip(TYPING[1], 1),
    EPERM,
    ALLOW,
];

/// All of it: the head, two steps for each call that is refused, and the end.
const FILTER: [FilterStep; HEAD.len() + 2 * REFUSED.len() + 1] = {
    let mut filter = [ALLOW; _];
    let mut at = 0;
    while at < HEAD.len() {
        filter[at] = HEAD[at];
        at += 1;
    }
    let mut call = 0;
    while call < REFUSED.len() {
        filter[at] = unless_skip(REFUSED[call], 1);
        filter[at + 1] = EPERM;
        (at, call) = (at + 2, call + 1);
    }
    filter
};

/// Puts it on this process, which has `no_new_privs`.
pub fn install() -> rt0::Result<()> {
    // SAFETY: 1. What it refuses fails with an error that the kernel could give.
    unsafe { all_threads::seccomp(&FILTER) }.map_err(|error| match error {
        Error::Refused(errno) => errno,
        _ => Errno::EINVAL,
    })
}

//! Permissions of memory, and advice about it.

use core::ops::BitOr;

use linux_raw_sys::general as k;

use super::READ_WRITE;

/// Permissions of memory: none, or several combined by `|`.
///
/// These are the permissions that all machines have. mprotect(2) has others for a few machines and
/// for stacks that grow.
///
/// ```no_run
/// use rt0::mapping::{Mapping, Protection};
///
/// let code = Mapping::new(1 << 16)?;
/// // … machine code is written to it …
/// code.protect(.., Protection::READ | Protection::EXECUTE)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection(pub(super) u32);

impl Protection {
    /// No access: any access is a `SIGSEGV`.
    pub const NONE: Protection = Protection(k::PROT_NONE);
    /// Reading.
    pub const READ: Protection = Protection(k::PROT_READ);
    /// Writing; on most machines this includes reading.
    pub const WRITE: Protection = Protection(k::PROT_WRITE);
    /// Executing; on some machines this includes reading.
    pub const EXECUTE: Protection = Protection(k::PROT_EXEC);
    /// Reading and writing.
    pub const READ_WRITE: Protection = Protection(READ_WRITE);
}

impl BitOr for Protection {
    type Output = Protection;

    fn bitor(self, other: Protection) -> Protection {
        Protection(self.0 | other.0)
    }
}

/// Advice for the kernel about memory, as in madvise(2).
///
/// This is all advice for memory like that of a mapping, which is private and has no file, up to
/// Linux 6.12: not `MADV_REMOVE`, which is for shared memory, nor `MADV_HWPOISON` and
/// `MADV_SOFT_OFFLINE`, which damage memory to test the kernel.
///
/// ```no_run
/// use rt0::mapping::{Advice, Mapping};
///
/// let mut heap = Mapping::new(1 << 30)?;
/// heap.set_name(c"heap")?; // In /proc/self/maps.
/// heap.advise(.., Advice::HUGE_PAGE)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice(pub(super) u32);

impl Advice {
    /// No special treatment.
    pub const NORMAL: Advice = Advice(k::MADV_NORMAL);
    /// Accesses are in no order: a single access does not count as a sign that more will follow.
    pub const RANDOM: Advice = Advice(k::MADV_RANDOM);
    /// Accesses run from the start to the end, once.
    pub const SEQUENTIAL: Advice = Advice(k::MADV_SEQUENTIAL);
    /// It will be needed soon.
    pub const WILL_NEED: Advice = Advice(k::MADV_WILLNEED);
    /// Its contents are not needed: it reads as zeros from now on and stays committed. `EINVAL` on
    /// locked pages.
    pub const DONT_NEED: Advice = Advice(k::MADV_DONTNEED);
    /// As [`Advice::DONT_NEED`], on locked pages too. Since Linux 5.18.
    pub const DONT_NEED_LOCKED: Advice = Advice(k::MADV_DONTNEED_LOCKED);
    /// Its contents are not needed: until it is next written it may turn to zeros at any time.
    /// Until then it counts as the process's memory. Since Linux 4.5.
    pub const FREE: Advice = Advice(k::MADV_FREE);
    /// It will not be needed soon: when memory is short, the kernel takes it first. The contents
    /// stay. Since Linux 5.4.
    pub const COLD: Advice = Advice(k::MADV_COLD);
    /// Write it to swap now; the contents stay. Since Linux 5.4.
    pub const PAGE_OUT: Advice = Advice(k::MADV_PAGEOUT);
    /// Use huge pages, see [`cpu::huge_page_size`](crate::cpu::huge_page_size). The first access to
    /// each may then wait until the kernel finds one. `EINVAL` from a kernel without them.
    pub const HUGE_PAGE: Advice = Advice(k::MADV_HUGEPAGE);
    /// Do not use huge pages. No advice restores the system's default.
    pub const NO_HUGE_PAGE: Advice = Advice(k::MADV_NOHUGEPAGE);
    /// Use huge pages now, as far as possible: `EAGAIN`, `EBUSY` or `ENOMEM` if that fails. Since
    /// Linux 6.1.
    pub const COLLAPSE: Advice = Advice(k::MADV_COLLAPSE);
    /// Leave it out of core dumps.
    pub const DONT_DUMP: Advice = Advice(k::MADV_DONTDUMP);
    /// Undo [`Advice::DONT_DUMP`].
    pub const DO_DUMP: Advice = Advice(k::MADV_DODUMP);
    /// A child of fork(2) does not have it.
    pub const DONT_FORK: Advice = Advice(k::MADV_DONTFORK);
    /// Undo [`Advice::DONT_FORK`].
    pub const DO_FORK: Advice = Advice(k::MADV_DOFORK);
    /// A child of fork(2) finds zeros there. Since Linux 4.14.
    pub const WIPE_ON_FORK: Advice = Advice(k::MADV_WIPEONFORK);
    /// Undo [`Advice::WIPE_ON_FORK`]. Since Linux 4.14.
    pub const KEEP_ON_FORK: Advice = Advice(k::MADV_KEEPONFORK);
    /// Share pages with the same contents, until one is written: ksmd does so in the background.
    /// `EINVAL` from a kernel without it.
    pub const MERGEABLE: Advice = Advice(k::MADV_MERGEABLE);
    /// Undo [`Advice::MERGEABLE`]: pages that are shared become separate again.
    pub const UNMERGEABLE: Advice = Advice(k::MADV_UNMERGEABLE);
    /// Make all pages present and readable now; `ENOMEM` if there is not enough memory. Since Linux
    /// 5.14.
    pub const POPULATE_READ: Advice = Advice(k::MADV_POPULATE_READ);
    /// Make all pages present and writable now; `ENOMEM` if there is not enough memory. Since Linux
    /// 5.14.
    pub const POPULATE_WRITE: Advice = Advice(k::MADV_POPULATE_WRITE);
}

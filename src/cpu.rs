//! Processors and pages: how many and which processors a program may use, the page sizes, and
//! instructions that a program writes.
//!
//! [`count`] is the number of processors in the calling thread's affinity, or fewer if a control
//! group allows less processor time. Each call asks the kernel: one system call, and one or two for
//! each control group of the process.
//!
//! Sources: sched_setaffinity(2), cgroups(7), proc_pid_mountinfo(5), the kernel's
//! admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst, admin-guide/mm/transhuge.rst.

mod cgroup;
mod parse;
mod set;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use cgroup::fuzz::fuzz;

use core::num::NonZeroUsize;
use core::time::Duration;

use crate::cpu::cgroup::{Files, Kernel};
pub use crate::cpu::set::CpuSet;
use crate::errno::Result;
use crate::once_word::OnceWord;
use crate::{auxv, sys};

/// How many threads with the calling thread's affinity can run at once: the number of its
/// processors, or [`quota`] rounded up to whole processors, if that is fewer. At least 1, even if
/// the kernel refuses to say.
///
/// It is rounded up, because one thread cannot use a quota of 1.5 processors. Two threads may be
/// throttled now and then; a program that wants to avoid this uses [`Quota::floor`].
///
/// Each call asks the kernel anew, so it sees changes of the affinity and the quotas.
///
/// ```no_run
/// let threads = rt0::cpu::count().get();
/// rt0::println!("{threads} processors for this process");
/// ```
///
/// In handlers: yes.
pub fn count() -> NonZeroUsize {
    at_most(affinity(), quota())
}

fn at_most(affinity: Result<CpuSet>, quota: Option<Quota>) -> NonZeroUsize {
    // If a filter refuses the call, only the current processor is known.
    let processors = affinity.map_or(1, |set| set.len());
    let allowed = quota.map_or(usize::MAX, |quota| quota.ceil());
    NonZeroUsize::new(processors.min(allowed)).unwrap_or(NonZeroUsize::MIN)
}

/// The processors that the calling thread may run on. `ENOMEM` if there is no memory for a set of
/// more than 1,024 processors; `ENOSYS` or another errno from a filter.
///
/// In handlers: yes.
pub fn affinity() -> Result<CpuSet> {
    CpuSet::read(|mask| sys::sched_getaffinity(0, mask))
}

/// Restricts the calling thread, and the threads that it starts afterwards, to these processors.
/// Processors that do not exist, or that the thread may not use, are ignored; `EINVAL` if none is
/// left.
///
/// ```no_run
/// use rt0::cpu::{self, CpuSet};
///
/// let before = cpu::affinity()?;
/// let mut first = CpuSet::new();
/// first.insert(before.iter().next().unwrap_or(0))?;
/// cpu::set_affinity(&first)?; // This thread stays on one processor.
/// cpu::set_affinity(&before)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn set_affinity(set: &CpuSet) -> Result<()> {
    sys::sched_setaffinity(0, set.words())
}

/// The tightest limit of processor time that control groups set for this process: of its own group
/// or any visible group above it, of version 1 or 2. `None` if there is no limit, or it cannot be
/// known.
///
/// The first call finds the groups' files (`/proc/self/cgroup`, `/proc/self/mountinfo`; it uses 80
/// KiB of memory meanwhile) and keeps them open: one descriptor per group for version 2, two for
/// version 1. So later calls see changed limits. A process that moves to another group still reads
/// the old group's limits, and a process that closes descriptors it did not open gets no quota. A
/// file that cannot be read, or has a malformed text, is no limit. If `/proc` is missing, or
/// descriptors or memory have run out, nothing is kept, and the next call tries again.
///
/// It takes no lock, so a signal handler may call it.
///
/// In handlers: yes.
pub fn quota() -> Option<Quota> {
    cgroup::quota()
}

/// A control group's limit: an amount of processor time in each period.
///
/// ```no_run
/// use rt0::cpu::{self, Quota};
///
/// let quota: Option<Quota> = cpu::quota();
/// if let Some(quota) = quota {
///     rt0::println!("{:?} in each {:?}", quota.time(), quota.period());
///     rt0::println!("between {} and {} processors", quota.floor(), quota.ceil());
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    quota_us: u64,
    period_us: u32,
}

impl Quota {
    /// The processor time that all threads of the group together may use in each [`Quota::period`].
    ///
    /// In handlers: yes.
    pub const fn time(&self) -> Duration {
        Duration::from_micros(self.quota_us)
    }

    /// The length of a period; never 0.
    ///
    /// In handlers: yes.
    pub const fn period(&self) -> Duration {
        Duration::from_micros(self.period_us as u64)
    }

    /// The limit in processors, rounded up: all but one of them can be busy all the time.
    ///
    /// In handlers: yes.
    pub fn ceil(&self) -> usize {
        saturated(self.quota_us.div_ceil(u64::from(self.period_us)))
    }

    /// The limit in processors, rounded down, so it may be 0: all of them can be busy all the time.
    ///
    /// In handlers: yes.
    pub fn floor(&self) -> usize {
        saturated(self.quota_us / u64::from(self.period_us))
    }

    /// The quota that allows less.
    fn tighter(self, other: Quota) -> Quota {
        // Whole processors, then the rest in fractions of both periods; the product of two 32-bit
        // numbers fits.
        let parts = |one: Quota, period_us: u32| {
            let own = u64::from(one.period_us);
            (one.quota_us / own, one.quota_us % own * u64::from(period_us))
        };
        if parts(other, self.period_us) < parts(self, other.period_us) { other } else { self }
    }
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Lets the instructions that a program has stored to `code` be executed: what GCC's
/// `__builtin___clear_cache` does. To be called after the last store to them and before the first
/// jump there, at the addresses where they are executed.
///
/// ```no_run
/// # use rt0::{cpu, mapping::{Mapping, Protection}};
/// # fn compile() -> &'static [u8] { &[] }
/// let code = compile();
/// let memory = Mapping::new(4096)?;
/// // SAFETY: the first page is committed, and no other code has its address.
/// unsafe { memory.as_ptr().copy_from(code.as_ptr(), code.len()) };
/// memory.protect(.., Protection::READ | Protection::EXECUTE)?;
/// // SAFETY: written above, and not written to any more.
/// cpu::flush_instructions(unsafe { core::slice::from_raw_parts(memory.as_ptr(), code.len()) })?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// Afterwards the calling thread executes them, and so does each other thread that learns of them
/// after that (by an atomic, a lock) and has not executed anything at these addresses before. A
/// thread that has, because the code was changed in place, must in between pass an instruction that
/// makes its processor fetch anew; membarrier(2) with `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE`
/// does it to all threads.
///
/// x86, s390x and LoongArch need at most one instruction, aarch64, PowerPC and SPARC some for each
/// line of the cache, ARM, MIPS and RISC-V a system call. Errors: those that a filter gives for it.
/// (On RISC-V `ENOSYS` is none, because it is qemu-user's answer, which needs no flush; a filter
/// that gives it leaves old instructions to other processors.)
///
/// In handlers: yes.
pub fn flush_instructions(code: &[u8]) -> Result<()> {
    sys::flush_instructions(code)
}

/// Bytes in a page: from `AT_PAGESZ` (getauxval(3)), else as probed.
///
/// In handlers: yes.
pub fn page_size() -> usize {
    auxv::page_size()
}

/// Bytes in a transparent huge page; `None` if the kernel does not make them, or `/sys` is missing.
/// Read at the first call; if descriptors have run out, the next call tries again.
///
/// ```no_run
/// use rt0::cpu;
/// use rt0::mapping::Mapping;
///
/// let size = cpu::huge_page_size().unwrap_or(cpu::page_size());
/// let arena = Mapping::reserve_aligned(64 * size, size)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn huge_page_size() -> Option<usize> {
    const NONE: usize = 1; // No size: less than a page.
    static SIZE: OnceWord = OnceWord::new();
    let size = SIZE.try_get(|| read_huge_page_size(&mut Kernel).map(|size| size.unwrap_or(NONE)));
    size.ok().filter(|size| *size != NONE)
}

/// Reads the size. Errors are only temporary ones.
fn read_huge_page_size(files: &mut impl Files) -> Result<Option<usize>> {
    let file = match files.open(c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") {
        Ok(file) => file,
        Err(errno) if cgroup::is_temporary(errno) => return Err(errno),
        Err(_) => return Ok(None),
    };
    let mut text = [0; 32];
    Ok(files.read_at(&file, &mut text, 0).ok().and_then(|len| parse::huge_page_size(text.get(..len)?)))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::cgroup::fake::Tree;
    use super::*;
    use crate::errno::Errno;

    fn quota(quota_us: u64, period_us: u32) -> Quota {
        Quota { quota_us, period_us }
    }

    fn processors(count: usize) -> Result<CpuSet> {
        CpuSet::read(|mask| {
            mask[0] = (1 << count) - 1;
            Ok(size_of::<usize>())
        })
    }

    #[test]
    fn the_count_is_the_affinity_or_the_quota_rounded_up() {
        for (hundredths, count) in [(50, 1), (100, 1), (150, 2), (200, 2), (201, 3), (250, 3), (800, 8), (900, 8)] {
            assert_eq!(at_most(processors(8), Some(quota(hundredths * 1000, 100_000))).get(), count, "{hundredths} %");
        }
        assert_eq!(at_most(processors(8), Some(quota(200_001, 100_000))).get(), 3);
        assert_eq!(at_most(processors(8), None).get(), 8);
        assert_eq!(at_most(processors(2), Some(quota(300_000, 100_000))).get(), 2);
    }

    #[test]
    fn the_count_is_never_0() {
        assert_eq!(at_most(processors(0), None).get(), 1);
        assert_eq!(at_most(processors(8), Some(quota(0, 100_000))).get(), 1);
        for errno in [Errno::ENOSYS, Errno::EPERM, Errno::EINVAL, Errno::ENOMEM] {
            assert_eq!(at_most(Err(errno), None).get(), 1);
            assert_eq!(at_most(Err(errno), Some(quota(400_000, 100_000))).get(), 1);
        }
    }

    #[test]
    fn quotas_are_compared_as_fractions() {
        let half = quota(50_000, 100_000);
        for less in [quota(49_999, 100_000), quota(1, 3), quota(0, u32::MAX), quota(499_999, 1_000_000)] {
            assert_eq!(half.tighter(less), less);
            assert_eq!(less.tighter(half), less);
        }
        let most = quota(u64::MAX, 1);
        assert_eq!(most.tighter(half), half);
        assert_eq!(quota(u64::MAX, u32::MAX).tighter(quota(u64::MAX, u32::MAX - 1)), quota(u64::MAX, u32::MAX));
        assert_eq!((most.ceil(), most.floor()), (u64::MAX as usize, u64::MAX as usize));
    }

    #[test]
    fn rounding_down_may_be_none() {
        assert_eq!((quota(99_999, 100_000).floor(), quota(99_999, 100_000).ceil()), (0, 1));
        assert_eq!((quota(250_000, 100_000).floor(), quota(250_000, 100_000).ceil()), (2, 3));
        assert_eq!(quota(150_000, 100_000).time(), Duration::from_millis(150));
        assert_eq!(quota(150_000, 100_000).period(), Duration::from_millis(100));
    }

    #[test]
    fn the_huge_page_size_is_what_sys_says_or_none() {
        const FILE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
        let read = |text: &str| read_huge_page_size(&mut Tree::new(&[(FILE, text)]));
        assert_eq!(read("2097152\n"), Ok(Some(2 << 20)));
        assert_eq!(read("0\n"), Ok(None));
        assert_eq!(read_huge_page_size(&mut Tree::new(&[])), Ok(None));
        let mut short = Tree::new(&[(FILE, "2097152\n")]);
        short.refuse_open(Errno::EMFILE);
        assert_eq!(read_huge_page_size(&mut short), Err(Errno::EMFILE));
    }

    #[test]
    fn the_kernel_tells() {
        let set = affinity().unwrap();
        assert!(!set.is_empty());
        assert!(count().get() <= set.len());
        assert!(huge_page_size().is_none_or(usize::is_power_of_two));
    }
}

//! The process's control groups, from its own up to the highest that is mounted, and their limits
//! of processor time.
//!
//! ```text
//!     /proc/self/cgroup        0::/a/b                            the group
//!     /proc/self/mountinfo     … / /sys/fs/cgroup … - cgroup2 …   where it is mounted
//!
//!     /sys/fs/cgroup/a/b/cpu.max ┐
//!     /sys/fs/cgroup/a/cpu.max   ├ kept open; the tightest limit counts
//!     /sys/fs/cgroup/cpu.max     ┘
//! ```
//!
//! The first thread that finds them publishes them all at once. A thread that searches at the same
//! time drops its own result. So there is no lock, and the published result never changes.

mod search;

use core::ffi::CStr;
use core::ptr;
use core::slice;

use linux_raw_sys::general as k;
use static_assertions::assert_impl_all;

use super::Quota;
use super::parse::{self, Text, Version};
use crate::errno::{Errno, Result};
use crate::mapping::Mapping;
use crate::once_word::OncePtr;
use crate::sys::{self, OwnedFd};
pub(super) use search::{SCRATCH, find};

/// The tightest limit.
pub(super) fn quota() -> Option<Quota> {
    let found = match FOUND.get() {
        unknown if unknown.is_null() => find_and_publish().ok()?,
        found => found,
    };
    // SAFETY: a published result is complete, shared and never freed.
    tightest(&mut Kernel, unsafe { &*found }.levels)
}

/// The published result.
static FOUND: OncePtr<Found> = OncePtr::new();

struct Found {
    levels: &'static [Level<OwnedFd>],
}

assert_impl_all!(Found: Sync);

/// The published result if no group can limit the process.
static NOTHING: Found = Found { levels: &[] };

#[cold]
fn find_and_publish() -> Result<*const Found> {
    let scratch = Mapping::new(SCRATCH)?;
    // SAFETY: the mapping is committed, only this thread has its address, and nothing made from
    // `text` outlives it.
    let text = unsafe { slice::from_raw_parts_mut(scratch.as_ptr(), scratch.len()) };
    let Some(walk) = find(&mut Kernel, text)? else {
        return Ok(FOUND.publish(&raw const NOTHING));
    };
    let mut opened = Opened::with_room(walk.levels())?;
    walk.open_all(&mut Kernel, |level| opened.push(level))?;
    Ok(opened.publish())
}

/// Levels before they are published, in the mapping where they will stay. Dropping closes them.
///
/// ```text
///     │ Found │ Level │ Level │ …
/// ```
struct Opened {
    mapping: Mapping,
    count: usize,
}

impl Opened {
    const FIRST: usize = size_of::<Found>().next_multiple_of(align_of::<Level<OwnedFd>>());

    fn with_room(levels: usize) -> Result<Opened> {
        let len = levels.checked_mul(size_of::<Level<OwnedFd>>()).and_then(|len| len.checked_add(Self::FIRST));
        Ok(Opened { mapping: Mapping::new(len.ok_or(Errno::ENOMEM)?)?, count: 0 })
    }

    fn levels(&self) -> *mut Level<OwnedFd> {
        self.mapping.as_ptr().wrapping_add(Self::FIRST).cast()
    }

    fn push(&mut self, level: Level<OwnedFd>) {
        let end = self.levels().wrapping_add(self.count + 1);
        assert!(end.addr() <= self.mapping.as_ptr().addr() + self.mapping.len(), "more groups than names in the path");
        // SAFETY: within the mapping, by the assertion; aligned, by FIRST; and not shared yet.
        unsafe { self.levels().wrapping_add(self.count).write(level) };
        self.count += 1;
    }

    fn publish(self) -> *const Found {
        let found = self.mapping.as_ptr().cast::<Found>();
        // SAFETY: `count` levels were written and are not written again. They stay if they are
        // published; if not, this reference is not used.
        let levels = unsafe { slice::from_raw_parts(self.levels(), self.count) };
        // SAFETY: the mapping's start is reserved for it, page-aligned and not shared yet.
        unsafe { found.write(Found { levels }) };
        let published = FOUND.publish(found);
        if published == found.cast_const() {
            core::mem::forget(self);
        }
        published
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: `count` levels were written, and they are not used again.
        unsafe { ptr::slice_from_raw_parts_mut(self.levels(), self.count).drop_in_place() };
    }
}

/// The process's files. The unit tests replace them.
pub(super) trait Files {
    /// An open file.
    type File;
    /// Opens a file for reading.
    fn open(&mut self, path: &CStr) -> Result<Self::File>;
    /// Reads at an offset, as pread(2).
    fn read_at(&mut self, file: &Self::File, buf: &mut [u8], offset: u64) -> Result<usize>;
}

/// The kernel's files.
pub(super) struct Kernel;

impl Files for Kernel {
    type File = OwnedFd;

    fn open(&mut self, path: &CStr) -> Result<OwnedFd> {
        sys::open(path, k::O_RDONLY | k::O_CLOEXEC, 0)
    }

    fn read_at(&mut self, file: &OwnedFd, buf: &mut [u8], offset: u64) -> Result<usize> {
        loop {
            match sys::pread(file, buf, offset) {
                Err(Errno::EINTR) => {} // A signal handler ran; nothing was read.
                done => return done,
            }
        }
    }
}

/// Whether an error is temporary and says nothing about the file.
pub(super) fn is_temporary(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EINTR)
}

/// The open files of a group.
#[derive(Debug)]
pub(super) enum Level<F> {
    V1 { quota: F, period: F },
    V2 { max: F },
}

impl<F> Level<F> {
    /// The group's current limit. A file that cannot be read is no limit: a group may have been
    /// removed.
    fn quota(&self, files: &mut impl Files<File = F>) -> Option<Quota> {
        // Two numbers of 20 digits fit. A text that fills the buffer was truncated, and is ignored.
        let mut text = [[0; 64]; 2];
        let [first, second] = &mut text;
        let mut read = |file, text: &mut [u8]| files.read_at(file, text, 0).ok().filter(|len| *len < text.len());
        match self {
            Level::V1 { quota, period } => {
                let quota_len = read(quota, first)?;
                // Most groups have no limit, and then the other file need not be read.
                parse::number(&first[..quota_len])?;
                let period_len = read(period, second)?;
                parse::v1_quota(&first[..quota_len], &second[..period_len])
            }
            Level::V2 { max } => {
                let len = read(max, first)?;
                parse::v2_quota(&first[..len])
            }
        }
    }
}

/// The tightest limit of all levels: each also limits the groups below it.
pub(super) fn tightest<S: Files>(files: &mut S, levels: &[Level<S::File>]) -> Option<Quota> {
    levels.iter().filter_map(|level| level.quota(files)).reduce(Quota::tighter)
}

/// The path from the process's own group up to the mount point.
pub(super) struct Walk<'a> {
    version: Version,
    path: Text<'a>,
    /// The length of the mount point's path.
    top: usize,
}

impl Walk<'_> {
    /// The number of groups on the path.
    pub(super) fn levels(&self) -> usize {
        1 + slashes(&self.path.bytes()[self.top..])
    }

    /// Opens the files of each group. Files that cannot be opened are skipped: the root group of
    /// version 2 has none. Returns only temporary errors.
    pub(super) fn open_all<S: Files>(mut self, files: &mut S, mut keep: impl FnMut(Level<S::File>)) -> Result<()> {
        loop {
            let mut open = |name| self.path.open(files, name);
            let level = match self.version {
                Version::V1 => match (open(b"/cpu.cfs_quota_us\0")?, open(b"/cpu.cfs_period_us\0")?) {
                    (Some(quota), Some(period)) => Some(Level::V1 { quota, period }),
                    _ => None,
                },
                Version::V2 => open(b"/cpu.max\0")?.map(|max| Level::V2 { max }),
            };
            level.into_iter().for_each(&mut keep);
            match self.path.bytes()[self.top..].iter().rposition(|byte| *byte == b'/') {
                Some(slash) => self.path.truncate(self.top + slash),
                None => return Ok(()),
            }
        }
    }
}

impl Text<'_> {
    /// Opens the file `name`, which begins with a slash and ends with NUL, in the folder that the
    /// text names.
    fn open<S: Files>(&mut self, files: &mut S, name: &[u8]) -> Result<Option<S::File>> {
        let folder = self.bytes().len();
        let path = self.push(name).and_then(|()| CStr::from_bytes_with_nul(self.bytes()).ok());
        let file = path.map(|path| files.open(path));
        self.truncate(folder);
        match file {
            Some(Ok(file)) => Ok(Some(file)),
            Some(Err(errno)) if is_temporary(errno) => Err(errno),
            _ => Ok(None),
        }
    }
}

fn slashes(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

#[cfg(test)]
pub(super) mod fake;
#[cfg(fuzzing)]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;

//! The search for the process's group and for the mount that shows it.

use linux_raw_sys::general as k;

use super::{Files, Walk, slashes};
use crate::cpu::parse::{self, Below, Lines, Mount, Text, Version};
use crate::errno::{Errno, Result};

/// The longest path in the files of /proc and in open(2), with its NUL.
pub(super) const PATH_MAX: usize = k::PATH_MAX as usize;

/// Memory for the search: lines (those of mounts have long lists of options) and paths.
pub(in crate::cpu) const SCRATCH: usize = (56 << 10) + 8 * PATH_MAX;

/// Finds the process's group and the mount that shows most of the groups above it. `None` if no
/// group can limit processor time or no mount shows the group. An error if a file of /proc cannot
/// be read.
pub(in crate::cpu) fn find<'a, S: Files>(files: &mut S, scratch: &'a mut [u8]) -> Result<Option<Walk<'a>>> {
    // The last buffer holds a mount point, the path below it and a file's name.
    let mut sizes = [1, 1, 1, 1, 1, 3].map(|paths| paths * PATH_MAX).into_iter();
    let mut rest = scratch;
    let mut next_buffer = || {
        let (buffer, others) = core::mem::take(&mut rest).split_at_mut_checked(sizes.next()?)?;
        rest = others;
        Some(Text::new(buffer))
    };
    let (Some(mut group), Some(root), Some(point), Some(at), Some(above), Some(mut best)) =
        (next_buffer(), next_buffer(), next_buffer(), next_buffer(), next_buffer(), next_buffer())
    else {
        return Err(Errno::ENOMEM);
    };
    let Some(version) = own_group(files, rest, &mut group)? else {
        return Ok(None);
    };
    let mut mounts = Mounts { buf: rest, root, point, at, above };
    let mut hidden = None;
    while let Some(candidate) = mounts.best_after(hidden, files, version, &group, &mut best)? {
        if mounts.is_visible(&candidate, files, &best)? {
            let top = best.bytes().len();
            let path = &group.bytes()[group.bytes().len() - candidate.below..];
            return Ok(best.push(path).map(|()| Walk { version, path: best, top }));
        }
        hidden = Some(candidate);
    }
    Ok(None)
}

/// A mount that shows the process's group.
struct Candidate {
    id: u64,
    parent: u64,
    /// How many groups the mount shows, from the process's own up.
    groups: usize,
    /// How many bytes of the group's path, counted from its end, lie below the mount.
    below: usize,
    /// The number of the mount's line in the file.
    line: usize,
}

impl Candidate {
    /// A mount that shows more groups comes first; of two equal ones, the earlier line.
    fn comes_before(&self, other: &Candidate) -> bool {
        (other.groups, self.line) < (self.groups, other.line)
    }
}

/// The process's mounts, read from the file as often as needed, and buffers for paths and lines.
struct Mounts<'a> {
    buf: &'a mut [u8],
    root: Text<'a>,
    point: Text<'a>,
    at: Text<'a>,
    above: Text<'a>,
}

impl Mounts<'_> {
    /// Calls `f` for each mount that can be parsed, with its line number and mount point.
    fn each<S: Files>(
        &mut self,
        files: &mut S,
        mut f: impl FnMut(usize, &Mount<'_>, &[u8], &mut Text<'_>, &mut Text<'_>, &mut Text<'_>),
    ) -> Result<()> {
        let file = files.open(c"/proc/self/mountinfo")?;
        let mut lines = lines(files, &file, self.buf);
        let mut number = 0;
        while let Some(line) = lines.next()? {
            number += 1;
            let mount = parse::mount_line(line);
            if let Some(mount) = mount.filter(|mount| parse::unescape(mount.point, &mut self.point).is_some()) {
                f(number, &mount, self.point.bytes(), &mut self.root, &mut self.at, &mut self.above);
            }
        }
        Ok(())
    }

    /// The best candidate after `before`; its mount point is stored in `best`.
    fn best_after<S: Files>(
        &mut self,
        before: Option<Candidate>,
        files: &mut S,
        version: Version,
        group: &Text<'_>,
        best: &mut Text<'_>,
    ) -> Result<Option<Candidate>> {
        let mut found: Option<Candidate> = None;
        self.each(files, |line, mount, point, root, _, _| {
            if mount.version != Some(version) || parse::unescape(mount.root, root).is_none() {
                return;
            }
            let (groups, below) = match parse::below(root.bytes(), group.bytes()) {
                Some(Below::At(path)) => (1 + slashes(path), path.len()),
                Some(Below::Somewhere) => (0, 0),
                None => return,
            };
            let this = Candidate { id: mount.id, parent: mount.parent, groups, below, line };
            if before.as_ref().is_none_or(|before| before.comes_before(&this))
                && found.as_ref().is_none_or(|found| this.comes_before(found))
            {
                best.truncate(0);
                found = best.push(point).map(|()| this);
            }
        })?;
        Ok(found)
    }

    /// Whether the candidate's mount point leads to it, and not to a mount that covers it.
    ///
    /// The kernel resolves a path from the process's root down. At each name it enters the mount
    /// that lies there on the current mount. So a mount is covered by a mount on its root, by a
    /// mount on the same parent at a folder on the path to its mount point, and whenever its parent
    /// is covered. The order of the lines does not matter. The process's root itself stays visible,
    /// even if something was mounted on it later. (A mount whose parent is not listed lies on the
    /// mount that contains the root.)
    fn is_visible<S: Files>(&mut self, candidate: &Candidate, files: &mut S, point: &Text<'_>) -> Result<bool> {
        /// No tree of mounts is this high, and the kernel's file has no cycle.
        const HIGHEST: usize = 256;
        let (mut id, mut parent, mut covered) = (candidate.id, candidate.parent, false);
        self.at.truncate(0);
        if self.at.push(point.bytes()).is_none() {
            return Ok(false);
        }
        for height in 0..HIGHEST {
            let mut parents = None;
            self.each(files, |_, mount, point, _, at, above| {
                if mount.id == id {
                    return;
                }
                let lies_on_it = height == 0 && mount.parent == id && point == at.bytes();
                let lies_before_it = mount.parent == parent && point != b"/" && is_within(at.bytes(), point);
                covered |= lies_on_it || lies_before_it;
                if mount.id == parent {
                    above.truncate(0);
                    parents = above.push(point).map(|()| mount.parent);
                }
            })?;
            match parents {
                _ if covered => return Ok(false),
                None => return Ok(true),
                // It lies on the root, and the process is below.
                Some(_) if self.at.bytes() == b"/" => return Ok(false),
                Some(above) => (id, parent) = (parent, above),
            }
            core::mem::swap(&mut self.at, &mut self.above);
        }
        Ok(false)
    }
}

/// Whether `path` is `folder` or lies in it.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Stores the path of the process's own group in `path`.
fn own_group<S: Files>(files: &mut S, buf: &mut [u8], path: &mut Text<'_>) -> Result<Option<Version>> {
    let file = files.open(c"/proc/self/cgroup")?;
    let mut lines = lines(files, &file, buf);
    let mut own = None;
    while let Some(line) = lines.next()? {
        let Some((version, group)) = parse::cgroup_line(line) else {
            continue;
        };
        path.truncate(0);
        own = path.push(group).map(|()| version);
        if version == Version::V1 {
            // The hierarchies share no controller, so the other version does not limit processor
            // time.
            break;
        }
    }
    Ok(own)
}

/// The lines of a file.
fn lines<'a, S: Files>(
    files: &'a mut S,
    file: &'a S::File,
    buf: &'a mut [u8],
) -> Lines<'a, impl FnMut(&mut [u8]) -> Result<usize> + 'a> {
    let mut offset = 0;
    Lines::new(buf, move |room| {
        let count = files.read_at(file, room, offset)?;
        offset += count as u64;
        Ok(count)
    })
}

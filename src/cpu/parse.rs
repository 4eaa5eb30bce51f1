//! Parsers for the files under /proc, /sys and the control groups. All are total: they return on
//! any bytes.

use super::Quota;
use crate::errno::Result;

/// The two kinds of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// A line of /proc/self/cgroup whose group may limit processor time: the group's path within its
/// hierarchy.
///
/// ```text
///     4:cpu,cpuacct:/docker/c0ffee          version 1: the controller `cpu` among others
///     0::/user.slice/session.scope          version 2: the only hierarchy without a name
/// ```
pub(super) fn cgroup_line(line: &[u8]) -> Option<(Version, &[u8])> {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    if !path.starts_with(b"/") {
        return None;
    }
    if has_item(controllers, b"cpu") {
        return Some((Version::V1, path));
    }
    (hierarchy == b"0" && controllers.is_empty()).then_some((Version::V2, path))
}

/// Whether the comma-separated list contains the item.
fn has_item(list: &[u8], item: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|each| each == item)
}

/// A line of /proc/self/mountinfo.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount<'a> {
    /// The mount's number, and that of the mount that it lies on.
    pub id: u64,
    pub parent: u64,
    /// The part of the file system that the mount shows; escaped.
    pub root: &'a [u8],
    /// The mount point; escaped.
    pub point: &'a [u8],
    /// The version of the control groups that it shows, if they can limit processor time.
    pub version: Option<Version>,
}

/// ```text
///     36 35 98:0 /root /point rw,noatime master:1 - type source rw,options
/// ```
///
/// Any number of fields, even none, precedes the dash.
pub(super) fn mount_line(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (id, parent) = (decimal(fields.next()?)?, decimal(fields.next()?)?);
    let root = fields.nth(1)?;
    let point = fields.next()?;
    fields.next()?;
    fields.find(|field| *field == b"-")?;
    let (fs_type, options) = (fields.next()?, fields.nth(1)?);
    let version = match fs_type {
        b"cgroup2" => Some(Version::V2),
        b"cgroup" if has_item(options, b"cpu") => Some(Version::V1),
        _ => None,
    };
    Some(Mount { id, parent, root, point, version })
}

/// Decodes the escapes of mountinfo into `text`: a backslash and three octal digits are a byte.
/// `None` if a backslash is not followed by three octal digits, for a NUL or a number above 255,
/// and if `text` is too small.
pub(super) fn unescape(escaped: &[u8], text: &mut Text<'_>) -> Option<()> {
    text.truncate(0);
    let mut rest = escaped;
    while let [byte, after @ ..] = rest {
        let (byte, after) = match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            (b'\\', _) => return None,
            _ => (*byte, after),
        };
        if byte == 0 {
            return None;
        }
        text.push(&[byte])?;
        rest = after;
    }
    Some(())
}

/// The place of a group below a mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Below<'a> {
    /// At this path below the mount point: empty, or with a slash in front.
    At(&'a [u8]),
    /// Somewhere: the mount shows a group above the namespace's, and the names from there down are
    /// unknown.
    Somewhere,
}

/// The place of the group `path` below a mount whose root is `root`. Both are relative to the group
/// of the process's namespace, so paths outside it begin with `/..`.
pub(super) fn below<'a>(root: &[u8], path: &'a [u8]) -> Option<Below<'a>> {
    fn ups(mut path: &[u8]) -> (usize, &[u8]) {
        let mut count = 0;
        while let Some(rest) = path.strip_prefix(b"/..").filter(|rest| rest.is_empty() || rest.starts_with(b"/")) {
            (path, count) = (rest, count + 1);
        }
        (count, if path == b"/" { b"" } else { path })
    }
    let ((root_ups, root), (path_ups, path)) = (ups(root), ups(path));
    if root_ups > path_ups && root.is_empty() {
        return Some(Below::Somewhere);
    }
    let rest = path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))?;
    (root_ups == path_ups).then_some(Below::At(rest))
}

/// `cpu.max`: `QUOTA PERIOD` in microseconds. `None` for `max`, which is no limit, and for
/// malformed text.
pub(super) fn v2_quota(text: &[u8]) -> Option<Quota> {
    let mut words = line(text).split(|byte| *byte == b' ');
    let (quota, period) = (words.next()?, words.next()?);
    words.next().is_none().then(|| of(decimal(quota), decimal(period)))?
}

/// `cpu.cfs_quota_us` and `cpu.cfs_period_us`. `None` for a quota of -1, which is no limit, and for
/// malformed text.
pub(super) fn v1_quota(quota: &[u8], period: &[u8]) -> Option<Quota> {
    of(number(quota), number(period))
}

fn of(quota: Option<u64>, period: Option<u64>) -> Option<Quota> {
    let period_us = u32::try_from(period?).ok().filter(|period| *period > 0)?;
    Some(Quota { quota_us: quota?, period_us })
}

/// `hpage_pmd_size`: bytes; `None` if it is not a power of two above 1.
pub(super) fn huge_page_size(text: &[u8]) -> Option<usize> {
    let size = usize::try_from(number(text)?).ok()?;
    (size.is_power_of_two() && size > 1).then_some(size)
}

/// A file with one number: digits and an optional newline.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    decimal(line(text))
}

/// The text without a final newline.
fn line(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}

/// A number of digits only.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Bytes in a borrowed buffer.
pub(super) struct Text<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Text<'a> {
    /// An empty text that uses this buffer.
    pub fn new(buf: &'a mut [u8]) -> Text<'a> {
        Text { buf, len: 0 }
    }

    /// Appends `bytes`; if they do not fit, returns `None` and changes nothing.
    pub fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.buf.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

/// The lines of a file, read through a buffer of any size. A line that does not fit is skipped.
pub(super) struct Lines<'a, R> {
    /// Reads the next bytes of the file into the start of a buffer and returns how many; 0 at the
    /// end.
    read: R,
    buf: &'a mut [u8],
    /// The bytes in the buffer that were not returned yet.
    start: usize,
    end: usize,
    /// The buffer has no newline before this index.
    searched: usize,
    /// The file has ended.
    ended: bool,
    /// The buffer begins inside a line that did not fit.
    skipping: bool,
}

impl<'a, R: FnMut(&mut [u8]) -> Result<usize>> Lines<'a, R> {
    /// Reads lines from the current position of `read`.
    pub fn new(buf: &'a mut [u8], read: R) -> Lines<'a, R> {
        Lines { read, buf, start: 0, end: 0, searched: 0, ended: false, skipping: false }
    }

    /// The next line without its newline, which the last line may lack. `None` at the end. Errors:
    /// those of `read`.
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let newline = self.buf[self.searched..self.end].iter().position(|byte| *byte == b'\n');
            if newline.is_some() || self.ended {
                let line = self.start..newline.map_or(self.end, |ahead| self.searched + ahead);
                self.start = newline.map_or(self.end, |_| line.end + 1);
                self.searched = self.start;
                let skipped = core::mem::take(&mut self.skipping);
                if !skipped && (newline.is_some() || !line.is_empty()) {
                    return Ok(Some(&self.buf[line]));
                }
                if newline.is_none() {
                    return Ok(None);
                }
                continue;
            }
            if self.start > 0 {
                self.buf.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end == self.buf.len() {
                (self.skipping, self.end) = (true, 0);
            }
            self.searched = self.end;
            let count = (self.read)(&mut self.buf[self.end..])?.min(self.buf.len() - self.end);
            self.ended = count == 0;
            self.end += count;
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::Random;

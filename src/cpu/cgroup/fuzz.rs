//! The search and all parsers of what the files say, on any bytes: no panic, an end, and no result
//! that cannot be a quota.

use core::ffi::CStr;

use super::{Files, SCRATCH, find, tightest};
use crate::cpu::parse;
use crate::errno::{Errno, Result};

/// One input: the size of reads, then the texts of the files with NULs between: /proc/self/cgroup,
/// /proc/self/mountinfo, those of the groups.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Some((at_once, texts)) = bytes.split_first() else { return };
    let parts: Vec<&[u8]> = texts.split(|byte| *byte == 0).collect();
    let mut files = Texts { parts: &parts, at_once: usize::from(*at_once).max(1) };
    // For every second input as little room as there can be, so that lines and paths do not fit.
    let mut scratch = vec![0; SCRATCH - usize::from(*at_once % 2) * (55 << 10)];
    if let Ok(Some(walk)) = find(&mut files, &mut scratch) {
        let (most, mut levels) = (walk.levels(), Vec::new());
        let _ = walk.open_all(&mut files, |level| levels.push(level));
        assert!(levels.len() <= most);
        if let Some(quota) = tightest(&mut files, &levels) {
            assert!(!quota.period().is_zero());
        }
    }
    for part in &parts {
        let _ = (parse::huge_page_size(part), parse::v2_quota(part));
        let mut room = [0; 16];
        let _ = parse::unescape(part, &mut parse::Text::new(&mut room));
    }
}

/// The input's texts, as files.
struct Texts<'a> {
    parts: &'a [&'a [u8]],
    at_once: usize,
}

impl<'a> Files for Texts<'a> {
    type File = &'a [u8];

    fn open(&mut self, path: &CStr) -> Result<&'a [u8]> {
        let part = match path.to_bytes() {
            b"/proc/self/cgroup" => self.parts.first(),
            b"/proc/self/mountinfo" => self.parts.get(1),
            other => self.parts.get(2 + other.len() % 5),
        };
        part.copied().ok_or(Errno::ENOENT)
    }

    fn read_at(&mut self, file: &&'a [u8], buf: &mut [u8], offset: u64) -> Result<usize> {
        let rest = file.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buf.len()).min(self.at_once);
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

//! Files for the tests: a tree of texts that counts open files.

extern crate std;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

use super::search::PATH_MAX;
use super::*;

/// Paths and contents.
pub struct Tree {
    texts: BTreeMap<String, Vec<u8>>,
    open: Rc<()>,
    /// Fails with this errno after so many more opens.
    refuse: Option<(usize, Errno)>,
    /// The most bytes that a read of a file in /proc returns. Other files are returned whole, as by
    /// the kernel.
    at_once: usize,
}

/// An open file.
pub struct Open(String, #[allow(dead_code)] Rc<()>);

impl Tree {
    pub fn new(texts: &[(&str, &str)]) -> Tree {
        let texts = texts.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect();
        Tree { texts, open: Rc::new(()), refuse: None, at_once: usize::MAX }
    }

    pub fn write(&mut self, path: &str, text: &[u8]) {
        self.texts.insert(path.to_string(), text.to_vec());
    }

    pub fn remove(&mut self, path: &str) {
        self.texts.remove(path);
    }

    pub fn refuse_open(&mut self, errno: Errno) {
        self.refuse_open_after(0, errno);
    }

    pub fn refuse_open_after(&mut self, count: usize, errno: Errno) {
        self.refuse = Some((count, errno));
    }

    pub fn read_at_once(&mut self, bytes: usize) {
        self.at_once = bytes;
    }

    pub fn open_files(&self) -> usize {
        Rc::strong_count(&self.open) - 1
    }
}

impl Files for Tree {
    type File = Open;

    fn open(&mut self, path: &CStr) -> Result<Open> {
        match &mut self.refuse {
            Some((0, errno)) => return Err(*errno),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        let path = path.to_str().map_err(|_| Errno::ENOENT)?;
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.texts.get(path).ok_or(Errno::ENOENT)?;
        Ok(Open(path.to_string(), self.open.clone()))
    }

    fn read_at(&mut self, file: &Open, buf: &mut [u8], offset: u64) -> Result<usize> {
        // As in a group that was removed.
        let text = self.texts.get(&file.0).ok_or(Errno::ENODEV)?;
        let rest = text.get(offset as usize..).unwrap_or_default();
        let at_once = if file.0.starts_with("/proc/") { self.at_once } else { usize::MAX };
        let count = rest.len().min(buf.len()).min(at_once);
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

//! The lock of all runs that share a cache.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use crate::say;

/// The locks in a folder.
pub(super) struct Locks {
    folder: PathBuf,
    held: RefCell<Weak<File>>,
}

impl Locks {
    pub(super) fn new(folder: &Path) -> Locks {
        Locks { folder: folder.to_path_buf(), held: RefCell::default() }
    }

    /// The lock for short work. It may be acquired again while this process holds it.
    pub(super) fn lock(&self) -> Option<Rc<File>> {
        if let Some(held) = self.held.borrow().upgrade() {
            return Some(held);
        }
        let lock = Rc::new(self.lock_of("lock")?);
        *self.held.borrow_mut() = Rc::downgrade(&lock);
        Some(lock)
    }

    /// Another lock.
    pub(super) fn lock_of(&self, name: &str) -> Option<File> {
        let lock = File::create(self.folder.join(name)).and_then(|file| {
            if file.try_lock().is_err() {
                say!("waiting for another run, which holds {}", self.folder.join(name).display());
                file.lock()?;
            }
            Ok(file)
        });
        if let Err(error) = &lock {
            say!("no lock on {}, so another run may disturb this one: {error}", self.folder.display());
        }
        lock.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_acquired_again_by_its_process_and_by_no_other() {
        let folder = std::env::temp_dir().join(format!("rt0-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let is_free = || File::create(folder.join("lock")).expect("a file").try_lock().is_ok();
        let locks = Locks::new(&folder);
        let (first, second) = (locks.lock().expect("it is free"), locks.lock().expect("it is ours"));
        drop(first);
        assert!(!is_free(), "one holder is left");
        drop(second);
        assert!(is_free());
        std::fs::remove_dir_all(&folder).expect("ours");
        assert!(locks.lock().is_none(), "without a folder there is no lock");
    }
}

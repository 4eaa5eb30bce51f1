//! Files and mounts that a test puts in place of the kernel's own.

use core::ffi::CStr;
use core::fmt::{self, Write as _};
use core::ptr::null;

use linux_raw_sys::general as k;
use rt0::{Errno, sys};

use crate::skip;

/// Enters a mount namespace of its own; skips the test if that is not possible.
pub fn own_mounts() {
    let unshare = |flags: u32| {
        // SAFETY: 1. The process has one thread, and keeps everything that it has.
        unsafe { sys::syscall(k::__NR_unshare as usize, [flags as usize, 0, 0, 0, 0, 0]) }
    };
    // SAFETY: 1. It only asks.
    let [user, group] = [k::__NR_geteuid, k::__NR_getegid].map(|nr| unsafe { sys::syscall(nr as usize, [0; 6]) });
    if unshare(k::CLONE_NEWNS).is_err() {
        if unshare(k::CLONE_NEWUSER | k::CLONE_NEWNS).is_err() {
            skip("neither namespaces of mounts nor of users are to be had");
        }
        // A user without a mapping in the new namespace cannot create files there.
        let map = |path: &CStr, id: usize| {
            let line = Text::of(format_args!("0 {id} 1"));
            write(path, line.as_str().as_bytes())
        };
        let mapped = write(c"/proc/self/setgroups", b"deny")
            .and_then(|()| map(c"/proc/self/uid_map", user?))
            .and_then(|()| map(c"/proc/self/gid_map", group?));
        if mapped.is_err() {
            skip("user namespaces are not allowed here");
        }
    }
    // Later mounts stay in this namespace.
    mount(None, c"/", Some(c"none"), k::MS_REC | k::MS_PRIVATE); // A type that memcheck can read.
}

/// mount(2), after [`own_mounts`].
pub fn mount(source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: u32) {
    let [source, kind] = [source, kind].map(|text| text.map_or(null(), |text| text.as_ptr()).expose_provenance());
    let args = [source, target.as_ptr().expose_provenance(), kind, flags as usize, 0, 0];
    // SAFETY: 1. In this process's own namespace; the kernel reads the strings.
    if let Err(errno) = unsafe { sys::syscall(k::__NR_mount as usize, args) } {
        assert!([Errno::EPERM, Errno::EACCES, Errno::ENOSYS].contains(&errno), "mounting on {target:?}: {errno}");
        skip("mounting is not allowed");
    }
}

/// Hides the contents of a folder.
pub fn empty(folder: &CStr) {
    mount(Some(c"none"), folder, Some(c"tmpfs"), 0);
}

/// mkdirat(2).
pub fn make_folder(path: &CStr) -> Result<(), Errno> {
    let args = [k::AT_FDCWD as isize as usize, path.as_ptr().expose_provenance(), 0o755, 0, 0, 0];
    // SAFETY: 1. The kernel reads the path.
    unsafe { sys::syscall(k::__NR_mkdirat as usize, args) }.map(drop)
}

/// unlinkat(2) of a folder.
pub fn remove_folder(path: &CStr) -> Result<(), Errno> {
    let flags = k::AT_REMOVEDIR as usize;
    let args = [k::AT_FDCWD as isize as usize, path.as_ptr().expose_provenance(), flags, 0, 0, 0];
    // SAFETY: 1. The kernel reads the path.
    unsafe { sys::syscall(k::__NR_unlinkat as usize, args) }.map(drop)
}

/// Creates a file, or replaces its contents.
pub fn write(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let flags = sys::flags::O_WRONLY | sys::flags::O_CREAT | sys::flags::O_TRUNC | sys::flags::O_CLOEXEC;
    let file = sys::open(path, flags, 0o644)?;
    rt0::io::write_all(&file, text)
}

/// A short text: a path, or the contents of a file.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; 128],
    len: usize,
}

impl Text {
    /// Formats the arguments.
    pub fn of(arguments: fmt::Arguments<'_>) -> Text {
        let mut text = Text { bytes: [0; 128], len: 0 };
        text.write_fmt(arguments).expect("a short text");
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).expect("it was a str")
    }

    /// The text as a path.
    pub fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).expect("room for a NUL")
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        if end >= self.bytes.len() {
            return Err(fmt::Error);
        }
        self.bytes[self.len..end].copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

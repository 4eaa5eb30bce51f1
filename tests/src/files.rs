//! Files and mounts: what a test puts in place of the kernel's own.

use core::ffi::CStr;
use core::ptr::null;

use linux_raw_sys::general as k;
use rt0::{Errno, sys};

use crate::skip;

/// A namespace of mounts that only this process sees; skips the test where none is to be had.
pub fn own_mounts() {
    let unshare = |flags: u32| {
        // SAFETY: 1. The process has one thread, and loses nothing that it has.
        unsafe { sys::syscall(k::__NR_unshare as usize, [flags as usize, 0, 0, 0, 0, 0]) }
    };
    if unshare(k::CLONE_NEWNS).or_else(|_| unshare(k::CLONE_NEWUSER | k::CLONE_NEWNS)).is_err() {
        skip("neither namespaces of mounts nor of users are to be had");
    }
    // What is mounted from now on stays here.
    mount(None, c"/", None, k::MS_REC | k::MS_PRIVATE);
}

/// mount(2), after [`own_mounts`].
pub fn mount(source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: u32) {
    let [source, kind] = [source, kind].map(|text| text.map_or(null(), |text| text.as_ptr()).expose_provenance());
    let args = [source, target.as_ptr().expose_provenance(), kind, flags as usize, 0, 0];
    // SAFETY: 1. In a namespace of our own; the kernel reads the strings.
    if let Err(errno) = unsafe { sys::syscall(k::__NR_mount as usize, args) } {
        assert!([Errno::EPERM, Errno::EACCES, Errno::ENOSYS].contains(&errno), "mounting on {target:?}: {errno}");
        skip("mounting is not allowed");
    }
}

/// Hides what is in a folder.
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

/// Makes a file, or replaces what is in it.
pub fn write(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let flags = sys::flags::O_WRONLY | sys::flags::O_CREAT | sys::flags::O_TRUNC | sys::flags::O_CLOEXEC;
    let file = sys::open(path, flags, 0o644)?;
    rt0::io::write_all(file.as_raw_fd(), text)
}

//! Files, pipes, and mounts that a test puts in place of the kernel's own.

use core::ffi::CStr;
use core::ptr::null;

use linux_raw_sys::general as k;
use rt0::io::BorrowedFd;
use rt0::{Errno, sys};

use crate::skip;
use crate::text::Text;

/// The descriptor of this number, which a test has opened, or not, to see what a call returns.
pub fn numbered(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: 1. A test's descriptors are its own, and no value of rt0's owns them.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Reads the start of a file, as much as fits; the rest of `buf` stays unchanged.
pub fn read_file<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let file = sys::open(path, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0)?;
    let mut filled = 0;
    while filled < buf.len() {
        match rt0::io::read(&file, &mut buf[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(&buf[..filled])
}

/// Reads a symbolic link, as much of it as fits. readlinkat(2)
pub fn read_link<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let [path, to] = [path.as_ptr().expose_provenance(), buf.as_mut_ptr().expose_provenance()];
    let args = [k::AT_FDCWD as isize as usize, path, to, buf.len(), 0, 0];
    // SAFETY: 1. The kernel reads the path and writes the buffer.
    let filled = unsafe { sys::syscall(k::__NR_readlinkat as usize, args) }?;
    Ok(&buf[..filled])
}

/// Both ends of a new pipe: the one to read from, and the one to write to. pipe2(2)
pub fn pipe() -> [i32; 2] {
    pipe_with(0).expect("pipe2")
}

/// [`pipe`] with flags, which a kernel may lack.
pub fn pipe_with(flags: u32) -> Result<[i32; 2], Errno> {
    let mut fds = [0i32; 2];
    // SAFETY: 1. The kernel writes the two numbers.
    unsafe { sys::syscall(k::__NR_pipe2 as usize, [(&raw mut fds).expose_provenance(), flags as usize, 0, 0, 0, 0]) }?;
    Ok(fds)
}

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

//! The sandbox's root: an empty file system in memory, into which what is shown of the host is
//! bound.
//!
//! 1. *What is shown is what the host's user meant by the path.* It is opened first, on the host's
//!    root with its symbolic links, and bound by its descriptor.
//! 2. *Nothing of the host stays reachable*: the old root is taken away with all that is mounted on
//!    it, and nothing that is mounted later outside comes in, or the other way round.
//! 3. *What is read-only is so with all that is mounted below it*: mount_setattr(2) with
//!    `AT_RECURSIVE`, which takes no flag away that the host has set.

use core::fmt::Write;

use linux_raw_sys::general as k;
use rt0::{Errno, sys};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{self, CWD, FileType, Mode, OFlags};
use rustix::io::Errno as Theirs;
use rustix::mount::{self, MountFlags, MountPropagationFlags, UnmountFlags};

use crate::options::{MOST, Options, Show};
use crate::{Refused, Text};

/// A folder that every host has: the root is mounted there until it is the root.
const PLACE: &str = "/tmp";

/// Files of /dev that say nothing of the host.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

const READ_ONLY: u64 = k::MOUNT_ATTR_RDONLY as u64;
const NO_DEVICES: u64 = k::MOUNT_ATTR_NODEV as u64;
const NO_SET_UID: u64 = k::MOUNT_ATTR_NOSUID as u64;

/// Makes it the root of this process, whose mount namespace is its own.
pub fn change<'a>(options: &Options<'a>) -> Result<(), Refused<'a>> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount::mount_change("/", private).map_err(Refused::at("separating mounts", ""))?;
    let mut sources: [Option<(OwnedFd, Show, u64)>; MOST + DEVICES.len()] = [const { None }; _];
    let devices = DEVICES.iter().map(|path| (Show { source: path, target: &path[1..], writable: true }, NO_SET_UID));
    let shown = options.shows().map(|show| (show, NO_SET_UID | NO_DEVICES | if show.writable { 0 } else { READ_ONLY }));
    for (room, (show, attributes)) in sources.iter_mut().zip(devices.chain(shown)) {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let source = fs::openat(CWD, show.source, flags, Mode::empty()).map_err(Refused::at("opening", show.source))?;
        *room = Some((source, show, attributes));
    }

    file_system("tmpfs", PLACE, c"mode=755")?;
    rustix::process::chdir(PLACE).map_err(Refused::at("entering the new root", ""))?;
    folder("tmp")?;
    file_system("tmpfs", "tmp", c"mode=1777")?;
    for (source, show, attributes) in sources.iter().flatten() {
        bind(source, show)?;
        set_attributes(show.target, *attributes, true).map_err(Refused::at("protecting", show.target))?;
    }
    folder("proc")?;
    file_system("proc", "proc", c"")?;
    set_attributes(".", READ_ONLY, false).map_err(Refused::at("protecting", "the new root"))?;

    // The old root comes to lie on the new one, and goes.
    rustix::process::pivot_root(".", ".").map_err(Refused::at("changing the root", ""))?;
    mount::unmount(".", UnmountFlags::DETACH).map_err(Refused::at("leaving the old root", ""))?;
    rustix::process::chdir("/").map_err(Refused::at("entering the new root", ""))
}

fn file_system(kind: &'static str, at: &'static str, data: &core::ffi::CStr) -> Result<(), Refused<'static>> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount::mount(kind, at, kind, flags, data).map_err(Refused::at("mounting", kind))
}

/// Makes what is shown appear at its target, which is made.
fn bind<'a>(source: &OwnedFd, show: &Show<'a>) -> Result<(), Refused<'a>> {
    let is = |errno| Refused::at("showing", show.target)(errno);
    let kind = FileType::from_raw_mode(fs::fstat(source).map_err(is)?.st_mode);
    if kind == FileType::Directory {
        folder(show.target)?;
    } else {
        if let Some((above, _)) = show.target.rsplit_once('/') {
            folder(above)?;
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        fs::openat(CWD, show.target, flags, Mode::from_raw_mode(0o644)).map_err(is)?;
    }
    let mut path = Text { bytes: [0; 64], len: 0 };
    let _ = write!(path, "/proc/self/fd/{}", source.as_raw_fd()); // Room for every number.
    mount::mount_bind_recursive(&path.bytes[..path.len], show.target).map_err(is)
}

/// A folder, with those above it.
fn folder(path: &str) -> Result<(), Refused<'_>> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        match fs::mkdirat(CWD, &path[..end], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Theirs::EXIST) => {}
            Err(errno) => return Err(Refused::at("making", path)(errno)),
        }
    }
    Ok(())
}

/// mount_setattr(2) of what is mounted at `path`, relative to the working directory. Linux 5.12.
fn set_attributes(path: &str, attributes: u64, all_below: bool) -> rt0::Result<()> {
    let mut name = [0; 256];
    name.get_mut(..path.len())
        .filter(|_| path.len() < 256)
        .ok_or(Errno::ENAMETOOLONG)?
        .copy_from_slice(path.as_bytes());
    let set = k::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let [name, set] = [name.as_ptr().expose_provenance(), (&raw const set).expose_provenance()];
    let flags = if all_below { k::AT_RECURSIVE as usize } else { 0 };
    let args = [k::AT_FDCWD as isize as usize, name, flags, set, size_of::<k::mount_attr>(), 0];
    // SAFETY: 1. The kernel reads the path and the structure.
    unsafe { sys::syscall(k::__NR_mount_setattr as usize, args) }.map(drop)
}

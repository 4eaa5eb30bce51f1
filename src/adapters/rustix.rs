//! rustix: conversions of descriptors and error numbers between the two crates.
//!
//! It is for rustix without its feature `std`, on the machines where rustix makes system calls
//! itself (its `linux_raw` backend: x86_64, x86, aarch64, arm, riscv64). Elsewhere rustix calls
//! libc, which a program on rt0 does not have.

use ::rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd as RustixFd};

use crate::errno::Errno;
use crate::io::{EventFd, Stderr, Stdin, Stdout};
use crate::sys::{self, OwnedFd};

impl From<OwnedFd> for RustixFd {
    fn from(fd: OwnedFd) -> RustixFd {
        // SAFETY: it is open, and rt0 no longer owns it.
        unsafe { RustixFd::from_raw_fd(fd.into_raw_fd()) }
    }
}

impl From<RustixFd> for OwnedFd {
    fn from(fd: RustixFd) -> OwnedFd {
        // SAFETY: 1. It is open, and rustix no longer owns it.
        unsafe { OwnedFd::from_raw_fd(fd.into_raw_fd()) }
    }
}

impl<'fd> From<sys::BorrowedFd<'fd>> for BorrowedFd<'fd> {
    fn from(fd: sys::BorrowedFd<'fd>) -> BorrowedFd<'fd> {
        // SAFETY: it is open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
    }
}

impl<'fd> From<BorrowedFd<'fd>> for sys::BorrowedFd<'fd> {
    fn from(fd: BorrowedFd<'fd>) -> sys::BorrowedFd<'fd> {
        // SAFETY: 1. It is open for as long as it is borrowed.
        unsafe { sys::BorrowedFd::borrow_raw(fd.as_raw_fd()) }
    }
}

macro_rules! lends {
    ($($name:ident)*) => {$(
        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                sys::AsFd::as_fd(self).into()
            }
        }
    )*};
}
lends!(OwnedFd EventFd Stdin Stdout Stderr);

impl From<Errno> for ::rustix::io::Errno {
    fn from(errno: Errno) -> ::rustix::io::Errno {
        ::rustix::io::Errno::from_raw_os_error(errno.raw().into())
    }
}

impl From<::rustix::io::Errno> for Errno {
    /// A number that the kernel does not use becomes `EIO`; rustix makes no such number.
    fn from(errno: ::rustix::io::Errno) -> Errno {
        u16::try_from(errno.raw_os_error()).ok().and_then(Errno::from_raw).unwrap_or(Errno::EIO)
    }
}

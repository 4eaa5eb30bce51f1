//! File descriptors, owned and borrowed: std's I/O safety. The type says which code may use
//! a number; a bare number becomes a descriptor by an unsafe function only.

use core::marker::PhantomData;

use linux_raw_sys::general as k;
use static_assertions::{assert_eq_size, assert_impl_all};

use super::{RawFd, call};
use crate::arch::{Arch, Cpu};
use crate::errno::Errno;

/// An open file, closed when dropped.
///
/// ```no_run
/// use rt0::sys::{self, OwnedFd, RawFd};
///
/// let copy: OwnedFd = sys::dup(&rt0::io::stdin())?;
/// let raw: RawFd = copy.into_raw_fd(); // It stays open.
/// // SAFETY: 1. The line above gave it up.
/// let again = unsafe { OwnedFd::from_raw_fd(raw) };
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Debug)]
pub struct OwnedFd(RawFd);

impl OwnedFd {
    /// Takes over an open descriptor.
    ///
    /// In handlers: yes.
    ///
    /// # Safety
    ///
    /// 1. `fd` is open, and no other code will close it.
    pub const unsafe fn from_raw_fd(fd: RawFd) -> OwnedFd {
        OwnedFd(fd)
    }

    /// Its number, for a call; it stays open and owned.
    ///
    /// In handlers: yes.
    pub const fn as_raw_fd(&self) -> RawFd {
        self.0
    }

    /// Its number, no longer owned.
    ///
    /// In handlers: yes.
    pub const fn into_raw_fd(self) -> RawFd {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        // The descriptor is closed whatever close(2) returns; its errors are those of earlier
        // writes.
        // SAFETY: 1. close(2) accesses no memory, and this value owns the descriptor.
        let _ = unsafe { call!(__NR_close, self.0 as usize) };
    }
}

/// An open file that the caller may use for `'fd`; std's type of this name.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedFd<'fd> {
    fd: RawFd,
    borrows: PhantomData<&'fd OwnedFd>,
}

assert_eq_size!(BorrowedFd<'static>, RawFd);
assert_impl_all!(BorrowedFd<'static>: Send, Sync, Copy);

impl BorrowedFd<'_> {
    /// The descriptor of this number.
    ///
    /// In handlers: yes.
    ///
    /// # Safety
    ///
    /// 1. It is the caller's to use for `'fd`, and it stays open as long.
    pub const unsafe fn borrow_raw<'fd>(fd: RawFd) -> BorrowedFd<'fd> {
        BorrowedFd { fd, borrows: PhantomData }
    }

    /// Its number.
    ///
    /// In handlers: yes.
    pub const fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// What has a descriptor to lend; std's trait of this name.
pub trait AsFd {
    /// The descriptor.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

/// What has the number of a descriptor; std's trait of this name.
pub trait AsRawFd {
    /// The number.
    fn as_raw_fd(&self) -> RawFd;
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: 1. It is open for as long as this is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl AsFd for BorrowedFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self
    }
}

impl<T: AsFd + ?Sized> AsFd for &T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        T::as_fd(self)
    }
}

impl<T: AsFd + ?Sized> AsFd for &mut T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        T::as_fd(self)
    }
}

impl AsRawFd for OwnedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl AsRawFd for BorrowedFd<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl AsRawFd for RawFd {
    fn as_raw_fd(&self) -> RawFd {
        *self
    }
}

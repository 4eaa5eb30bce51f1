//! The kernel's error numbers: errno(3).
//!
//! The values differ between machines (`ENOSYS` is 89 on MIPS, 38 elsewhere), so every constant
//! comes from the machine's own table in linux-raw-sys.

use core::fmt;
use core::num::NonZeroIsize;

use static_assertions::{assert_eq_size, assert_impl_all};

/// A system call's result.
pub type Result<T> = core::result::Result<T, Errno>;

/// An error number of the kernel; errno(3).
///
/// A wrapper instead of an enum: numbers that this version does not know must stay representable.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(NonZeroIsize); // -4095..=-1, as the kernel returns it: no conversion.

assert_eq_size!(Errno, Option<Errno>, Result<()>, isize);
assert_impl_all!(Errno: Send, Sync, Copy, core::error::Error);

impl Errno {
    /// The largest number that a system call can fail with (`MAX_ERRNO` of the kernel's err.h).
    pub const MAX: u16 = 4095;

    /// The error with this number; `None` if it is not an error number (0, or above
    /// [`Errno::MAX`]).
    ///
    /// In handlers: yes.
    pub const fn from_raw(number: u16) -> Option<Errno> {
        match NonZeroIsize::new(-(number as isize)) {
            Some(nonzero) if number <= Errno::MAX => Some(Errno(nonzero)),
            _ => None,
        }
    }

    /// The number, as the kernel defines it on this machine.
    ///
    /// In handlers: yes.
    pub const fn raw(self) -> u16 {
        -self.0.get() as u16
    }

    /// Splits the raw result of a system call: -4095..=-1 is a failure on every machine, anything
    /// else a value.
    #[inline(always)]
    pub(crate) fn check(ret: isize) -> Result<usize> {
        if ret as usize > -(Errno::MAX as isize + 1) as usize {
            // SAFETY: not 0, by the comparison.
            Err(Errno(unsafe { NonZeroIsize::new_unchecked(ret) }))
        } else {
            Ok(ret as usize)
        }
    }
}

impl fmt::Debug for Errno {
    /// `ENOSYS (38)`; a number without a name is `errno 4000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.raw()),
            None => write!(f, "errno {}", self.raw()),
        }
    }
}

impl fmt::Display for Errno {
    /// As `Debug`: man pages are searched by the symbolic name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

macro_rules! names {
    ($($name:ident)*) => {
        /// The numbers of errno(3), by name.
        #[allow(missing_docs)] // Each is its own name; errno(3) says what it means.
        impl Errno {
            $(pub const $name: Errno = Errno::from_raw(linux_raw_sys::errno::$name as u16).unwrap();)*
        }

        impl Errno {
            /// The symbolic name, or `None` for a number that errno(3) does not list.
            ///
            /// In handlers: yes.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Errno::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

// No aliases (EWOULDBLOCK, or EDEADLK where it equals EDEADLOCK): one name per number.
names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
    ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT
    EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT
    ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC
    EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
    ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH
    EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY
    EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_minus_4095_to_minus_1_is_a_failure() {
        for (ret, want) in [(0, Ok(0)), (1, Ok(1)), (isize::MAX, Ok(isize::MAX as usize))] {
            assert_eq!(Errno::check(ret), want);
        }
        assert_eq!(Errno::check(-4096), Ok(-4096isize as usize));
        assert_eq!(Errno::check(isize::MIN), Ok(isize::MIN as usize));
        for number in 1..=Errno::MAX {
            assert_eq!(Errno::check(-(number as isize)), Err(Errno::from_raw(number).unwrap()));
        }
    }

    #[test]
    fn numbers_outside_the_range_are_no_errors() {
        assert_eq!(Errno::from_raw(0), None);
        assert_eq!(Errno::from_raw(4096), None);
        assert_eq!(Errno::from_raw(4095).map(Errno::raw), Some(4095));
    }

    #[test]
    fn debug_shows_name_and_number() {
        extern crate std;
        use std::format;
        assert_eq!(format!("{:?}", Errno::EPERM), "EPERM (1)");
        assert_eq!(format!("{}", Errno::from_raw(4000).unwrap()), "errno 4000");
    }
}

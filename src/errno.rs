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
///
/// ```
/// use rt0::Errno;
///
/// assert_eq!(Errno::from_raw(2), Some(Errno::ENOENT));
/// assert_eq!(Errno::ENOENT.name(), Some("ENOENT"));
/// ```
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
    ($($name:ident $sentence:literal,)*) => {
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

            /// What it means, in the words of strerror(3); `None` for a number that errno(3) does
            /// not list.
            ///
            /// `Display` shows the name and not this, so that only programs that call this have
            /// the sentences in them: some 6 KiB.
            ///
            /// ```
            /// assert_eq!(rt0::Errno::ENOENT.description(), Some("No such file or directory"));
            /// ```
            ///
            /// In handlers: yes.
            pub const fn description(self) -> Option<&'static str> {
                match self {
                    $(Errno::$name => Some($sentence),)*
                    _ => None,
                }
            }
        }
    };
}

// No aliases (EWOULDBLOCK, or EDEADLK where it equals EDEADLOCK): one name per number.
names! {
    EPERM "Operation not permitted",
    ENOENT "No such file or directory",
    ESRCH "No such process",
    EINTR "Interrupted system call",
    EIO "Input/output error",
    ENXIO "No such device or address",
    E2BIG "Argument list too long",
    ENOEXEC "Exec format error",
    EBADF "Bad file descriptor",
    ECHILD "No child processes",
    EAGAIN "Resource temporarily unavailable",
    ENOMEM "Cannot allocate memory",
    EACCES "Permission denied",
    EFAULT "Bad address",
    ENOTBLK "Block device required",
    EBUSY "Device or resource busy",
    EEXIST "File exists",
    EXDEV "Invalid cross-device link",
    ENODEV "No such device",
    ENOTDIR "Not a directory",
    EISDIR "Is a directory",
    EINVAL "Invalid argument",
    ENFILE "Too many open files in system",
    EMFILE "Too many open files",
    ENOTTY "Inappropriate ioctl for device",
    ETXTBSY "Text file busy",
    EFBIG "File too large",
    ENOSPC "No space left on device",
    ESPIPE "Illegal seek",
    EROFS "Read-only file system",
    EMLINK "Too many links",
    EPIPE "Broken pipe",
    EDOM "Numerical argument out of domain",
    ERANGE "Numerical result out of range",
    EDEADLK "Resource deadlock avoided",
    ENAMETOOLONG "File name too long",
    ENOLCK "No locks available",
    ENOSYS "Function not implemented",
    ENOTEMPTY "Directory not empty",
    ELOOP "Too many levels of symbolic links",
    ENOMSG "No message of desired type",
    EIDRM "Identifier removed",
    ECHRNG "Channel number out of range",
    EL2NSYNC "Level 2 not synchronized",
    EL3HLT "Level 3 halted",
    EL3RST "Level 3 reset",
    ELNRNG "Link number out of range",
    EUNATCH "Protocol driver not attached",
    ENOCSI "No CSI structure available",
    EL2HLT "Level 2 halted",
    EBADE "Invalid exchange",
    EBADR "Invalid request descriptor",
    EXFULL "Exchange full",
    ENOANO "No anode",
    EBADRQC "Invalid request code",
    EBADSLT "Invalid slot",
    EBFONT "Bad font file format",
    ENOSTR "Device not a stream",
    ENODATA "No data available",
    ETIME "Timer expired",
    ENOSR "Out of streams resources",
    ENONET "Machine is not on the network",
    ENOPKG "Package not installed",
    EREMOTE "Object is remote",
    ENOLINK "Link has been severed",
    EADV "Advertise error",
    ESRMNT "Srmount error",
    ECOMM "Communication error on send",
    EPROTO "Protocol error",
    EMULTIHOP "Multihop attempted",
    EDOTDOT "RFS specific error",
    EBADMSG "Bad message",
    EOVERFLOW "Value too large for defined data type",
    ENOTUNIQ "Name not unique on network",
    EBADFD "File descriptor in bad state",
    EREMCHG "Remote address changed",
    ELIBACC "Can not access a needed shared library",
    ELIBBAD "Accessing a corrupted shared library",
    ELIBSCN ".lib section in a.out corrupted",
    ELIBMAX "Attempting to link in too many shared libraries",
    ELIBEXEC "Cannot exec a shared library directly",
    EILSEQ "Invalid or incomplete multibyte or wide character",
    ERESTART "Interrupted system call should be restarted",
    ESTRPIPE "Streams pipe error",
    EUSERS "Too many users",
    ENOTSOCK "Socket operation on non-socket",
    EDESTADDRREQ "Destination address required",
    EMSGSIZE "Message too long",
    EPROTOTYPE "Protocol wrong type for socket",
    ENOPROTOOPT "Protocol not available",
    EPROTONOSUPPORT "Protocol not supported",
    ESOCKTNOSUPPORT "Socket type not supported",
    EOPNOTSUPP "Operation not supported",
    EPFNOSUPPORT "Protocol family not supported",
    EAFNOSUPPORT "Address family not supported by protocol",
    EADDRINUSE "Address already in use",
    EADDRNOTAVAIL "Cannot assign requested address",
    ENETDOWN "Network is down",
    ENETUNREACH "Network is unreachable",
    ENETRESET "Network dropped connection on reset",
    ECONNABORTED "Software caused connection abort",
    ECONNRESET "Connection reset by peer",
    ENOBUFS "No buffer space available",
    EISCONN "Transport endpoint is already connected",
    ENOTCONN "Transport endpoint is not connected",
    ESHUTDOWN "Cannot send after transport endpoint shutdown",
    ETOOMANYREFS "Too many references: cannot splice",
    ETIMEDOUT "Connection timed out",
    ECONNREFUSED "Connection refused",
    EHOSTDOWN "Host is down",
    EHOSTUNREACH "No route to host",
    EALREADY "Operation already in progress",
    EINPROGRESS "Operation now in progress",
    ESTALE "Stale file handle",
    EUCLEAN "Structure needs cleaning",
    ENOTNAM "Not a XENIX named type file",
    ENAVAIL "No XENIX semaphores available",
    EISNAM "Is a named type file",
    EREMOTEIO "Remote I/O error",
    EDQUOT "Disk quota exceeded",
    ENOMEDIUM "No medium found",
    EMEDIUMTYPE "Wrong medium type",
    ECANCELED "Operation canceled",
    ENOKEY "Required key not available",
    EKEYEXPIRED "Key has expired",
    EKEYREVOKED "Key has been revoked",
    EKEYREJECTED "Key was rejected by service",
    EOWNERDEAD "Owner died",
    ENOTRECOVERABLE "State not recoverable",
    ERFKILL "Operation not possible due to RF-kill",
    EHWPOISON "Memory page has hardware error",
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

    /// std's come from the host's strerror(3).
    #[test]
    fn sentences_are_those_of_strerror() {
        extern crate std;
        for errno in (1..=Errno::MAX).filter_map(Errno::from_raw) {
            let theirs = std::io::Error::from_raw_os_error(errno.raw().into());
            match errno.description() {
                Some(ours) => assert_eq!(std::format!("{ours} (os error {})", errno.raw()), std::format!("{theirs}")),
                None => assert_eq!(errno.name(), None),
            }
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

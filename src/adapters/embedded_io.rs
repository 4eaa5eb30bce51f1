//! embedded-io: `Read` and `Write` for standard input, output and error.

use core::fmt::Arguments;

use ::embedded_io::{Error, ErrorKind, ErrorType, Read, Write, WriteFmtError};

use crate::errno::Errno;
use crate::io::{Stderr, Stdin, Stdout};

impl Error for Errno {
    /// The result of std's `io::Error::kind`, if embedded-io has that kind.
    fn kind(&self) -> ErrorKind {
        match *self {
            Errno::ENOENT => ErrorKind::NotFound,
            Errno::EPERM | Errno::EACCES => ErrorKind::PermissionDenied,
            Errno::ECONNREFUSED => ErrorKind::ConnectionRefused,
            Errno::ECONNRESET => ErrorKind::ConnectionReset,
            Errno::ECONNABORTED => ErrorKind::ConnectionAborted,
            Errno::ENOTCONN => ErrorKind::NotConnected,
            Errno::EADDRINUSE => ErrorKind::AddrInUse,
            Errno::EADDRNOTAVAIL => ErrorKind::AddrNotAvailable,
            Errno::EPIPE => ErrorKind::BrokenPipe,
            Errno::EEXIST => ErrorKind::AlreadyExists,
            Errno::EINVAL => ErrorKind::InvalidInput,
            Errno::ETIMEDOUT => ErrorKind::TimedOut,
            Errno::EINTR => ErrorKind::Interrupted,
            Errno::EOPNOTSUPP | Errno::ENOSYS => ErrorKind::Unsupported,
            Errno::ENOMEM => ErrorKind::OutOfMemory,
            _ => ErrorKind::Other,
        }
    }
}

impl ErrorType for Stdin {
    type Error = Errno;
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        Stdin::read(self, buf)
    }
}

macro_rules! writer {
    ($($name:ident)*) => {$(
        impl ErrorType for $name {
            type Error = Errno;
        }

        impl Write for $name {
            /// `EIO` if write(2) accepts nothing: the trait allows 0 only for an empty buffer.
            fn write(&mut self, buf: &[u8]) -> Result<usize, Errno> {
                match $name::write(self, buf)? {
                    0 if !buf.is_empty() => Err(Errno::EIO),
                    written => Ok(written),
                }
            }

            fn flush(&mut self) -> Result<(), Errno> {
                $name::flush(self)
            }

            fn write_all(&mut self, buf: &[u8]) -> Result<(), Errno> {
                $name::write_all(self, buf)
            }

            /// Up to 512 bytes are one write(2).
            fn write_fmt(&mut self, text: Arguments<'_>) -> Result<(), WriteFmtError<Errno>> {
                crate::io::write_fmt(self.as_raw_fd(), text).map_err(|error| match error {
                    Some(errno) => WriteFmtError::Other(errno),
                    None => WriteFmtError::FmtError,
                })
            }
        }
    )*};
}
writer!(Stdout Stderr);

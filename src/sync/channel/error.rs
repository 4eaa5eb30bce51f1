//! The errors of a channel's ends, as std's.

use core::fmt;

/// There is no receiver; the value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// Why a value was not sent at once; the value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The queue has no room.
    Full(T),
    /// There is no receiver.
    Disconnected(T),
}

/// Why a value was not sent in time; the value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// The queue had no room in time.
    Timeout(T),
    /// There is no receiver.
    Disconnected(T),
}

/// There is no value and no sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

/// Why nothing was received at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is no value now.
    Empty,
    /// There is no value and no sender.
    Disconnected,
}

/// Why nothing was received in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// No value came in time.
    Timeout,
    /// There is no value and no sender.
    Disconnected,
}

impl<T> SendTimeoutError<T> {
    /// The value.
    ///
    /// In handlers: yes.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(value) | SendTimeoutError::Disconnected(value) => value,
        }
    }
}

impl<T> From<SendError<T>> for TrySendError<T> {
    fn from(SendError(value): SendError<T>) -> TrySendError<T> {
        TrySendError::Disconnected(value)
    }
}

impl<T> From<SendError<T>> for SendTimeoutError<T> {
    fn from(SendError(value): SendError<T>) -> SendTimeoutError<T> {
        SendTimeoutError::Disconnected(value)
    }
}

impl From<RecvError> for TryRecvError {
    fn from(RecvError: RecvError) -> TryRecvError {
        TryRecvError::Disconnected
    }
}

impl From<RecvError> for RecvTimeoutError {
    fn from(RecvError: RecvError) -> RecvTimeoutError {
        RecvTimeoutError::Disconnected
    }
}

/// The messages are std's.
macro_rules! messages {
    ($([$($generics:tt)*] $name:ty { $($kind:pat => $message:literal,)* })*) => {$(
        impl<$($generics)*> fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($kind => $message,)* })
            }
        }

        impl<$($generics)*> core::error::Error for $name {}
    )*};
}
messages! {
    [T] SendError<T> {
        SendError(_) => "sending on a closed channel",
    }
    [T] TrySendError<T> {
        TrySendError::Full(_) => "sending on a full channel",
        TrySendError::Disconnected(_) => "sending on a closed channel",
    }
    [T] SendTimeoutError<T> {
        SendTimeoutError::Timeout(_) => "timed out waiting on send operation",
        SendTimeoutError::Disconnected(_) => "sending on a disconnected channel",
    }
    [] RecvError {
        RecvError => "receiving on a closed channel",
    }
    [] TryRecvError {
        TryRecvError::Empty => "receiving on an empty channel",
        TryRecvError::Disconnected => "receiving on a closed channel",
    }
    [] RecvTimeoutError {
        RecvTimeoutError::Timeout => "timed out waiting on channel",
        RecvTimeoutError::Disconnected => "channel is empty and sending half is closed",
    }
}

/// Omits the value, which need not implement Debug.
macro_rules! debug {
    ($($name:ident { $($kind:pat => $text:literal,)* })*) => {$(
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($kind => $text,)* })
            }
        }
    )*};
}
debug! {
    SendError {
        SendError(_) => "SendError { .. }",
    }
    TrySendError {
        TrySendError::Full(_) => "TrySendError::Full(..)",
        TrySendError::Disconnected(_) => "TrySendError::Disconnected(..)",
    }
    SendTimeoutError {
        _ => "SendTimeoutError(..)",
    }
}

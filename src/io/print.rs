//! `print!` and its relatives.

use core::fmt;

use super::{FORMATTING_FAILED, RawFd, write_fmt};
use crate::errno::Errno;

/// Where `print!` and its relatives write.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Standard {
    Output = 1,
    Error = 2,
}

impl Standard {
    fn name(self) -> &'static str {
        match self {
            Standard::Output => "stdout",
            Standard::Error => "stderr",
        }
    }
}

/// The expansion of `print!`.
#[doc(hidden)]
pub fn print(to: Standard, args: fmt::Arguments<'_>) {
    match write_fmt(to as RawFd, args) {
        // As in std: printing to a closed descriptor is ignored.
        Ok(()) | Err(Some(Errno::EBADF)) => {}
        Err(Some(errno)) => panic!("failed printing to {}: {errno}", to.name()),
        Err(None) => panic!("{FORMATTING_FAILED}"),
    }
}

/// Prints to standard output, as std's. Panics if that fails, but not if descriptor 1 is closed.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::print($crate::io::Standard::Output, ::core::format_args!($($arg)*)) };
}

/// Prints a line to standard output, as std's; see [`print!`](crate::print!).
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Prints to standard error, as std's. Panics if that fails, but not if descriptor 2 is closed.
#[macro_export]
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::io::print($crate::io::Standard::Error, ::core::format_args!($($arg)*)) };
}

/// Prints a line to standard error, as std's; see [`eprint!`](crate::eprint!).
#[macro_export]
macro_rules! eprintln {
    () => { $crate::eprint!("\n") };
    ($($arg:tt)*) => { $crate::eprint!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Prints file, line, text and value of an expression to standard error, and is that value: std's.
/// Without an expression, prints the place; with several, makes a tuple of them.
#[macro_export]
macro_rules! dbg {
    () => {
        $crate::eprintln!("[{}:{}:{}]", ::core::file!(), ::core::line!(), ::core::column!())
    };
    ($value:expr $(,)?) => {
        // A match, so that temporaries of the expression live until its value is used.
        match $value {
            value => {
                $crate::eprintln!(
                    "[{}:{}:{}] {} = {:#?}",
                    ::core::file!(),
                    ::core::line!(),
                    ::core::column!(),
                    ::core::stringify!($value),
                    &value
                );
                value
            }
        }
    };
    ($($value:expr),+ $(,)?) => { ($($crate::dbg!($value)),+,) };
}

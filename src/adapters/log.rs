//! log: a logger to standard error.
//!
//! A record is one line, `WARN program::module: what it says`, and a line of up to 512 bytes is one
//! write(2): lines of several threads do not mix.

use core::fmt::Write as _;

use ::log::{LevelFilter, Log, Metadata, Record, SetLoggerError};

use crate::auxv::Env;
use crate::io::Line;

/// The environment variable of the level.
const VARIABLE: &str = "RT0_LOG";

/// Writes records of the level and above to standard error.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true // The level is checked by the macros, before this is asked.
    }

    fn log(&self, record: &Record<'_>) {
        let mut line = Line::new(2);
        // Errors, here and below: a logger cannot report them.
        let _ = writeln!(line, "{} {}: {}", record.level(), record.target(), record.args());
        let _ = line.finish();
    }

    fn flush(&self) {}
}

/// Makes this the program's logger, at the level that the variable `RT0_LOG` gives: `off`, `error`,
/// `warn`, `info`, `debug` or `trace`, in upper or lower case; `error` where it is not set. Another
/// value counts as `error`, and a line on standard error says so.
///
/// A program with rights that its user does not have ([`secure`](crate::Auxv::secure)) ignores the
/// variable.
///
/// An error if the program has a logger already; that one stays.
///
/// In handlers: no. What is logged in a handler is written, if its arguments may be formatted
/// there.
///
/// ```no_run
/// # fn start(env: rt0::Env) {
/// # let free = 1;
/// rt0::adapters::log::init(env).expect("the first logger");
/// log::warn!("{free} bytes left");
/// # }
/// ```
pub fn init(env: Env) -> Result<(), SetLoggerError> {
    ::log::set_logger(&Stderr)?;
    let wanted = if env.auxv().secure() { None } else { env.var(VARIABLE) };
    let level = match wanted.map(|wanted| wanted.to_str().ok().and_then(|wanted| wanted.parse().ok())) {
        Some(Some(level)) => level,
        None => LevelFilter::Error,
        Some(None) => {
            let mut line = Line::new(2);
            let _ = writeln!(line, "{VARIABLE}: not one of off, error, warn, info, debug, trace; error it is");
            let _ = line.finish();
            LevelFilter::Error
        }
    };
    ::log::set_max_level(level);
    Ok(())
}

//! Short texts without an allocator.

use core::ffi::CStr;
use core::fmt::{self, Write as _};

/// A short text: a path, or the contents of a file.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; 128],
    len: usize,
}

impl Text {
    /// Formats the arguments.
    pub fn of(arguments: fmt::Arguments<'_>) -> Text {
        let mut text = Text { bytes: [0; 128], len: 0 };
        text.write_fmt(arguments).expect("a short text");
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).expect("it was a str")
    }

    /// The text as a path.
    pub fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).expect("room for a NUL")
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        if end >= self.bytes.len() {
            return Err(fmt::Error);
        }
        self.bytes[self.len..end].copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Whether `arguments` are formatted as `expected`.
pub fn prints(arguments: fmt::Arguments<'_>, expected: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(expected);
    fmt::write(&mut rest, arguments).is_ok() && rest.0.is_empty()
}

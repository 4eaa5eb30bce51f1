//! An answer's head, and which bytes of a file follow it.

use core::fmt::{self, Write};

use rt0::time::SystemTime;

/// The largest head that is sent.
pub const HEAD: usize = 1024;

/// Text in a buffer.
pub struct Head<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Head<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.buffer.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// What the head says.
pub struct Answer<'a> {
    /// `200 OK`
    pub status: &'static str,
    /// The length of what follows.
    pub len: u64,
    /// Its type.
    pub kind: &'static str,
    /// Another field, whole.
    pub field: fmt::Arguments<'a>,
    /// Whether the connection goes on.
    pub keep_alive: bool,
}

impl Answer<'_> {
    /// Writes the head; its length, or 0 if there is no room.
    pub fn write(&self, buffer: &mut [u8]) -> usize {
        let mut head = Head { buffer, len: 0 };
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let written = write!(
            head,
            "HTTP/1.1 {}\r\nServer: rt0\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: {}\r\n\r\n",
            self.status,
            Date::now(),
            self.kind,
            self.len,
            self.field,
            connection
        );
        if written.is_ok() { head.len } else { 0 }
    }
}

/// The first byte and the count that a range asks for of a file of `len` bytes; `None` if it has
/// none of them.
pub fn part(range: (Option<u64>, Option<u64>), len: u64) -> Option<(u64, u64)> {
    let (first, end) = match range {
        (Some(first), last) => (first, last.map_or(len, |last| last.saturating_add(1).min(len))),
        (None, last) => (len - last.unwrap_or(0).min(len), len), // The last so many.
    };
    (first < end).then(|| (first, end - first))
}

/// The type of a file by its name.
pub fn kind(path: &[u8]) -> &'static str {
    match path.rsplit(|byte| *byte == b'.').next().unwrap_or_default() {
        b"html" | b"htm" => "text/html; charset=utf-8",
        b"txt" | b"md" => "text/plain; charset=utf-8",
        b"css" => "text/css",
        b"js" => "text/javascript",
        b"json" => "application/json",
        b"svg" => "image/svg+xml",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

/// A moment as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub struct Date(u64);

impl Date {
    /// This moment.
    fn now() -> Date {
        Date(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // If years begin with March, the leap day is the last day of a year, and every 400 years
        // have the same number of days.
        let from_march = days + 719_468;
        let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, next_year) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
        let year = era * 400 + year_of_era + next_year;
        write!(
            f,
            "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
            DAYS[(days % 7) as usize],
            MONTHS[month as usize],
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

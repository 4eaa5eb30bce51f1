//! A request's head: RFC 9112, read strictly, for what two readers of a request understand in two
//! ways is how one is smuggled past the other.

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whether only the head of the answer is wanted.
    pub head_only: bool,
    /// The path as it was sent, without the query.
    pub target: &'a [u8],
    /// The first and the last byte that are wanted: `bytes=FIRST-LAST`, each may be left out.
    pub range: Option<(Option<u64>, Option<u64>)>,
    /// Whether the connection goes on after the answer.
    pub keep_alive: bool,
}

/// Why there is no answer but an error, after which the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// 400
    Request,
    /// 405
    Method,
    /// 413: no request that has content is served, and it is not read.
    Content,
    /// 505
    Version,
}

/// The number of bytes of the head that the buffer begins with, with its empty line; `None` if it
/// is not all there.
pub fn head_len(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head, of the length that [`head_len`] says.
pub fn parse(head: &[u8]) -> Result<Request<'_>, Bad> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or(Bad::Request)?;
    let (line, mut rest) = split_line(text);
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Bad::Request);
    };
    let mut keep_alive = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(Bad::Version),
        _ => return Err(Bad::Request),
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Bad::Request);
    }
    let (mut hosts, mut range, mut if_range, mut content) = (0, None, false, false);
    while !rest.is_empty() {
        let line;
        (line, rest) = split_line(rest);
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Bad::Request)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // A blank in front of the colon, or a line that goes on with a blank, is no field.
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || value.iter().any(|byte| is_control(*byte)) {
            return Err(Bad::Request);
        }
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"connection") {
            for word in value.split(|byte| *byte == b',') {
                let word = word.trim_ascii();
                keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                if word.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                    break;
                }
            }
        } else if name.eq_ignore_ascii_case(b"content-length") && value != b"0"
            || name.eq_ignore_ascii_case(b"transfer-encoding")
        {
            content = true;
        } else if name.eq_ignore_ascii_case(b"range") {
            range = self::range(value);
        } else if name.eq_ignore_ascii_case(b"if-range") {
            if_range = true; // Nothing here has a validator that it could name.
        }
    }
    if hosts > 1 || hosts == 0 && version == b"HTTP/1.1" {
        return Err(Bad::Request);
    }
    let head_only = match method {
        b"GET" => false,
        b"HEAD" => true,
        _ => return Err(Bad::Method),
    };
    if content {
        return Err(Bad::Content);
    }
    let target = path_of(target).ok_or(Bad::Request)?;
    Ok(Request { head_only, target, range: range.filter(|_| !if_range), keep_alive })
}

/// A line, and what comes after it.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.windows(2).position(|end| end == b"\r\n") {
        Some(at) => (&text[..at], &text[at + 2..]),
        None => (text, &[]),
    }
}

/// The path of a target, which may be a whole URL, without the query.
fn path_of(target: &[u8]) -> Option<&[u8]> {
    let path = match target {
        [b'/', ..] => target,
        _ => {
            let rest = target.strip_prefix(b"http://")?;
            &rest[rest.iter().position(|byte| *byte == b'/')?..]
        }
    };
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    path.iter().all(|byte| byte.is_ascii_graphic()).then_some(&path[..end])
}

/// `bytes=FIRST-LAST`; several ranges, and other units, are not looked at: then all is sent.
fn range(value: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = core::str::from_utf8(value).ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| match text {
        "" => Some(None),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok().map(Some),
        _ => None,
    };
    match (number(first)?, number(last)?) {
        (None, None) => None,
        (Some(first), Some(last)) if first > last => None,
        range => Some(range),
    }
}

/// The bytes of a path, with `%XX` decoded, for the folder that is served: without the slashes in
/// front. `None` if it is no path of a file: too long, a NUL in it, or a `%` that is no escape.
pub fn decode<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut len = 0;
    let mut at = 0;
    while at < path.len() {
        let byte = match path[at] {
            b'%' => {
                let digit = |offset: usize| (*path.get(at + offset)? as char).to_digit(16);
                let byte = digit(1)? * 16 + digit(2)?;
                at += 2;
                byte as u8
            }
            byte => byte,
        };
        at += 1;
        if byte == 0 {
            return None;
        }
        if len > 0 || byte != b'/' {
            *buffer.get_mut(len)? = byte;
            len += 1;
        }
    }
    Some(&buffer[..len])
}

/// A byte of a method or a field's name: RFC 9110, `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

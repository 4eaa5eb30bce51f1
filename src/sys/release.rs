//! What uname(2) says of the kernel's version.

/// `5.15.0-91-generic` is (5, 15): digits, a dot, digits, and whatever comes after.
pub(super) fn parse(release: &[u8]) -> Option<(u32, u32)> {
    fn number(text: &[u8]) -> Option<(u32, &[u8])> {
        let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
        let (number, rest) = text.split_at(digits);
        Some((core::str::from_utf8(number).ok()?.parse().ok()?, rest))
    }
    let (major, rest) = number(release)?;
    let (minor, _) = number(rest.strip_prefix(b".")?)?;
    Some((major, minor))
}

/// Any bytes: the result is what the text says, worked out in another way.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = |text: &[u8]| core::str::from_utf8(text).unwrap().parse::<u32>().ok();
    let dot = digits(bytes);
    let expected = (bytes.get(dot) == Some(&b'.')).then(|| {
        let rest = &bytes[dot + 1..];
        Some((number(&bytes[..dot])?, number(&rest[..digits(rest)])?))
    });
    assert_eq!(parse(bytes), expected.flatten());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_two_numbers() {
        for (release, version) in [
            ("6.18.44", (6, 18)),
            ("5.1", (5, 1)),
            ("5.0.21", (5, 0)),
            // personality(2) with UNAME26 makes any release look like this.
            ("2.6.32-754.el6.x86_64", (2, 6)),
            ("3.4.35_hi3535", (3, 4)),
            ("4.19.0+", (4, 19)),
            ("5.15.0-91-generic", (5, 15)),
            ("6.6-rc1", (6, 6)),
            ("5.10.", (5, 10)),
            ("5.10.x", (5, 10)),
            ("10.0", (10, 0)),
            ("4294967295.4294967295", (u32::MAX, u32::MAX)),
        ] {
            assert_eq!(parse(release.as_bytes()), Some(version), "{release}");
        }
        assert_eq!(parse(b"6.1\0.7\0\0"), Some((6, 1)));
    }

    #[test]
    fn a_release_without_two_numbers_is_none() {
        for release in ["", "3", "3.", ".3", "3-rc1", "3..1", "bogus", "v5.1", " 5.1", "-5.1", "+5.1", "5.-1", "5.+1"] {
            assert_eq!(parse(release.as_bytes()), None, "{release}");
        }
        for release in ["4294967296.1", "5.4294967296", "99999999999999999999999.1"] {
            assert_eq!(parse(release.as_bytes()), None, "{release}");
        }
        assert_eq!(parse(&[0; 65]), None);
        assert_eq!(parse(&[0xff; 65]), None);
    }
}

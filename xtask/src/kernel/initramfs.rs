//! The file system that a guest's kernel unpacks at its start: a cpio archive in the form "newc".
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel.

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

/// Kinds of files, as in stat(2).
const FOLDER: u32 = 0o040000;
const REGULAR: u32 = 0o100000;
const CHARACTERS: u32 = 0o020000;

impl Archive {
    /// A folder; its parents come before it.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.entry(path, FOLDER | mode, (0, 0), &[]);
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.entry(path, REGULAR | mode, (0, 0), bytes);
    }

    /// A character device.
    pub fn device(&mut self, path: &str, mode: u32, number: (u32, u32)) {
        self.entry(path, CHARACTERS | mode, number, &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.count += 1;
        // inode, mode, user, group, links, time, length, device of the file, of the node, length of
        // the name, check.
        let (len, name) = (content.len() as u32, path.len() as u32 + 1);
        let fields = [self.count, mode, 0, 0, 1, 0, len, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Head and content begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One test of a plan, in the form that tests/src/init reads: a head, the command line, the
/// environment, each string ended by a zero byte. None of them may have one inside.
pub struct Entry<'a> {
    /// The number by which it is spoken of.
    pub number: usize,
    /// Seconds.
    pub limit: u64,
    /// Bytes, or `unlimited`.
    pub stack: Option<&'a str>,
    /// Descriptors that are closed.
    pub close: &'a [u32],
    /// The program's path first.
    pub words: Vec<String>,
    /// `NAME=VALUE`.
    pub variables: Vec<String>,
}

impl Entry<'_> {
    /// As bytes of the plan.
    pub fn bytes(&self) -> Vec<u8> {
        let close: Vec<_> = self.close.iter().map(u32::to_string).collect();
        let head = format!(
            "{} {} {} {} {} {}",
            self.number,
            self.limit,
            self.stack.unwrap_or("-"),
            if close.is_empty() { "-".to_string() } else { close.join(",") },
            self.words.len(),
            self.variables.len()
        );
        let strings = std::iter::once(&head).chain(&self.words).chain(&self.variables);
        strings.flat_map(|text| text.bytes().chain([0])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_reads() {
        let mut archive = Archive::default();
        archive.folder("dev", 0o755);
        archive.device("dev/console", 0o600, (5, 1));
        archive.file("init", 0o755, b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(bytes.len() % 4, 0);
        // The head of the file: mode, then length 5, then a name of 5 bytes with its end.
        let at = text.find("init\0").expect("its name") - 110;
        assert_eq!(&text[at..at + 6], "070701");
        assert_eq!(&text[at + 14..at + 22], "000081ED");
        assert_eq!(&text[at + 54..at + 62], "00000005");
        assert_eq!(&text[at + 94..at + 102], "00000005");
        assert_eq!(&text[at + 116..at + 121], "hello", "both padded to four");
        let node = text.find("dev/console\0").expect("its name") - 110;
        assert_eq!(&text[node + 78..node + 94], "0000000500000001");
        assert!(text.contains("TRAILER!!!"));
    }

    #[test]
    fn an_entry_says_how_many_strings_follow() {
        let words = vec!["/t/start".to_string(), "a_test".to_string()];
        let entry = Entry {
            number: 3,
            limit: 60,
            stack: Some("65536"),
            close: &[0, 2],
            words,
            variables: vec!["K=v w".to_string()],
        };
        assert_eq!(entry.bytes(), b"3 60 65536 0,2 2 1\0/t/start\0a_test\0K=v w\0");
    }
}

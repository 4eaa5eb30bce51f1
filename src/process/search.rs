//! Finding a program by PATH, as exec(3) does, and its arguments and environment.

use core::ffi::{CStr, c_char};
use core::ptr::null;

use crate::errno::{Errno, Result};

/// The folders in which a program without a slash is searched if the child has no PATH: glibc's.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// PATH_MAX of linux/limits.h: the longest path, with its NUL.
const PATH_MAX: usize = 4096;

/// Calls `execute` with each path that `program` may have, until one call fails with another error
/// than that there is no such program. Returns the error of execvp(3): that other error; otherwise
/// `EACCES` if a program could not be executed, or `ENOENT`.
pub(super) fn execute(program: &CStr, path: Option<&CStr>, mut execute: impl FnMut(&CStr) -> Errno) -> Errno {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        return execute(program);
    }
    let mut found = Errno::ENOENT;
    if name.is_empty() {
        return found;
    }
    let mut buf = [0; PATH_MAX];
    for folder in path.map_or(DEFAULT_PATH, CStr::to_bytes).split(|byte| *byte == b':') {
        let Some(candidate) = join(folder, name, &mut buf) else { continue };
        match execute(candidate) {
            Errno::EACCES => found = Errno::EACCES,
            // execvp(3) continues after these: no such file, or a file system that does not answer.
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            errno => return errno,
        }
    }
    found
}

/// `folder/name`, or `name` for an empty folder, which stands for the working directory; `None` if
/// that is too long for a path.
fn join<'a>(folder: &[u8], name: &[u8], buf: &'a mut [u8; PATH_MAX]) -> Option<&'a CStr> {
    let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
    let mut end = 0;
    for part in [folder, slash, name, b"\0"] {
        buf.get_mut(end..end + part.len())?.copy_from_slice(part);
        end += part.len();
    }
    CStr::from_bytes_with_nul(&buf[..end]).ok()
}

/// How a child's environment differs from this process's.
#[derive(Clone, Copy)]
pub(super) struct Environment<'a> {
    /// Whether nothing is inherited.
    pub clear: bool,
    /// Names of variables that are not inherited.
    pub remove: &'a [&'a CStr],
    /// Entries that are added, or replace those of the same name.
    pub set: &'a [&'a CStr],
}

impl Environment<'_> {
    /// The entries: those of `own` that stay, and the added ones.
    ///
    /// # Safety
    ///
    /// 1. `own` is an array of pointers to C strings with a null behind the last; all of it lasts
    ///    as long as `self`.
    pub(super) unsafe fn entries(&self, own: *const *const c_char) -> impl Iterator<Item = *const c_char> {
        let mut next = own;
        let own = core::iter::from_fn(move || {
            // SAFETY: an element of the array, up to its null (1).
            let entry = unsafe { *next };
            next = next.wrapping_add(!entry.is_null() as usize);
            (!entry.is_null()).then_some(entry)
        });
        let stays = |entry: &*const c_char| {
            // SAFETY: the array points to C strings (1).
            let entry = unsafe { CStr::from_ptr(*entry) };
            !self.clear && !self.remove.iter().chain(self.set).any(|other| name_of(other).iter().eq(name_of(entry)))
        };
        own.filter(stays).chain(self.set.iter().map(|entry| entry.as_ptr()))
    }

    /// Whether it does not differ.
    pub(super) fn is_inherited(&self) -> bool {
        !self.clear && self.remove.is_empty() && self.set.is_empty()
    }
}

/// The name of `NAME=VALUE`, or all of it without `=`. As in std, a name may begin with `=`.
fn name_of(entry: &CStr) -> &[u8] {
    let entry = entry.to_bytes();
    let equals = entry.iter().skip(1).position(|byte| *byte == b'=').map(|at| at + 1);
    &entry[..equals.unwrap_or(entry.len())]
}

/// The value of the first `PATH` of an environment.
///
/// # Safety
///
/// 1. `envp` is an array of pointers to C strings with a null behind the last; all of it lasts for
///    `'a`.
pub(super) unsafe fn path_of<'a>(envp: *const *const c_char) -> Option<&'a CStr> {
    let all = Environment { clear: false, remove: &[], set: &[] };
    // SAFETY: 1. The caller guarantees it (1).
    unsafe { all.entries(envp) }.find_map(|entry| {
        // SAFETY: the array points to C strings (1).
        let entry = unsafe { CStr::from_ptr(entry) };
        let value = entry.to_bytes_with_nul().strip_prefix(b"PATH=")?;
        CStr::from_bytes_with_nul(value).ok()
    })
}

/// Writes `pointers` and a null to `room`, and returns the rest; `E2BIG` if they do not fit.
pub(super) fn fill(
    room: &mut [*const c_char],
    pointers: impl Iterator<Item = *const c_char>,
) -> Result<(&[*const c_char], &mut [*const c_char])> {
    let mut len = 0;
    for pointer in pointers.chain([null()]) {
        *room.get_mut(len).ok_or(Errno::E2BIG)? = pointer;
        len += 1;
    }
    let (filled, rest) = room.split_at_mut(len);
    Ok((filled, rest))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// What is tried for `program`, and what is returned where all say `errno` but the last, which
    /// says `last`.
    fn tried(program: &CStr, path: Option<&CStr>, errnos: &[Errno]) -> (Vec<std::ffi::CString>, Errno) {
        let mut tried = Vec::new();
        let errno = execute(program, path, |path| {
            tried.push(path.to_owned());
            *errnos.get(tried.len() - 1).unwrap_or(&Errno::ENOENT)
        });
        (tried, errno)
    }

    #[test]
    fn a_program_with_a_slash_is_not_looked_for() {
        assert_eq!(tried(c"./a", Some(c"/x"), &[Errno::ENOTDIR]), (std::vec![c"./a".to_owned()], Errno::ENOTDIR));
    }

    #[test]
    fn folders_are_tried_in_order_and_an_empty_one_is_the_working_directory() {
        let (paths, errno) = tried(c"a", Some(c"/x::/y/"), &[]);
        assert_eq!(paths, [c"/x/a", c"a", c"/y//a"].map(CStr::to_owned));
        assert_eq!(errno, Errno::ENOENT);
        assert_eq!(tried(c"a", Some(c""), &[]).0, [c"a".to_owned()]);
        assert_eq!(tried(c"a", None, &[]).0, [c"/bin/a", c"/usr/bin/a"].map(CStr::to_owned));
    }

    #[test]
    fn no_permission_is_remembered_and_other_errors_end_the_search() {
        let path = Some(c"/1:/2:/3");
        assert_eq!(tried(c"a", path, &[Errno::EACCES, Errno::ENOTDIR]).1, Errno::EACCES);
        let (paths, errno) = tried(c"a", path, &[Errno::EACCES, Errno::ENOEXEC]);
        assert_eq!((paths.len(), errno), (2, Errno::ENOEXEC));
    }

    #[test]
    fn nothing_is_tried_for_no_name_nor_for_what_is_too_long() {
        assert_eq!(tried(c"", Some(c"/x"), &[]), (Vec::new(), Errno::ENOENT));
        let long = std::ffi::CString::new(std::vec![b'l'; PATH_MAX]).unwrap();
        assert_eq!(tried(&long, Some(c":/x"), &[]), (Vec::new(), Errno::ENOENT));
        let fits = std::ffi::CString::new(std::vec![b'l'; PATH_MAX - 1]).unwrap();
        assert_eq!(tried(&fits, Some(c":/x"), &[]).0, [fits]);
    }

    #[test]
    fn an_environment_has_what_stays_and_what_is_set() {
        let own = [c"A=1", c"B=2", c"=C=3", c"D", c"A=again"].map(CStr::as_ptr);
        let own: Vec<_> = own.into_iter().chain([null()]).collect();
        let made = |environment: Environment| {
            // SAFETY: 1. By the line above.
            let entries = unsafe { environment.entries(own.as_ptr()) };
            // SAFETY: C strings, all of them.
            entries.map(|entry| unsafe { CStr::from_ptr(entry) }.to_owned()).collect::<Vec<_>>()
        };
        let all = Environment { clear: false, remove: &[], set: &[] };
        assert_eq!(made(all), [c"A=1", c"B=2", c"=C=3", c"D", c"A=again"].map(CStr::to_owned));
        assert_eq!(
            made(Environment { set: &[c"A=new", c"E="], ..all }),
            [c"B=2", c"=C=3", c"D", c"A=new", c"E="].map(CStr::to_owned)
        );
        assert_eq!(made(Environment { remove: &[c"B", c"=C", c"A"], ..all }), [c"D"].map(CStr::to_owned));
        assert_eq!(made(Environment { clear: true, remove: &[c"X"], set: &[c"X=1"] }), [c"X=1"].map(CStr::to_owned));
    }

    #[test]
    fn the_path_is_the_first_of_that_name() {
        let envp = [c"XPATH=no".as_ptr(), c"PATH=/a".as_ptr(), c"PATH=/b".as_ptr(), null()];
        // SAFETY: 1. By the line above.
        assert_eq!(unsafe { path_of(envp.as_ptr()) }, Some(c"/a"));
        // SAFETY: 1. Its last element is the null.
        assert_eq!(unsafe { path_of(envp[3..].as_ptr()) }, None);
    }

    #[test]
    fn pointers_end_with_a_null_and_never_overflow() {
        let mut room = [null(); 4];
        let (filled, rest) = fill(&mut room, [c"a".as_ptr(), c"b".as_ptr()].into_iter()).unwrap();
        assert!(filled.len() == 3 && filled[2].is_null() && rest.len() == 1);
        assert_eq!(fill(&mut room[..2], [c"a".as_ptr(), c"b".as_ptr()].into_iter()).map(drop), Err(Errno::E2BIG));
    }
}

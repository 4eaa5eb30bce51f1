extern crate std;
use std::format;
use std::vec::Vec;

use core::ffi::CStr;

use super::env::split_var;
use super::fallback::{PROBED, Source, probe_page_size};
use super::*;
use crate::errno::{Errno, Result};

/// A source that answers from its fields.
struct Fake {
    proc_auxv: Result<&'static [usize]>,
    page_size: Result<usize>,
}

const NOTHING: Fake = Fake { proc_auxv: Err(Errno::ENOENT), page_size: Err(Errno::ENOMEM) };

impl Source for Fake {
    fn proc_auxv(&mut self) -> Result<&'static [usize]> {
        self.proc_auxv
    }

    fn starts_page(&mut self, offset: usize) -> Result<bool> {
        self.page_size.map(|size| offset.is_multiple_of(size))
    }
}

fn ladder(stack: Auxv, source: &mut impl Source) -> (Auxv, usize) {
    let auxv = complete(stack, source);
    (auxv, page_size_of(auxv, source))
}

fn address(text: &'static CStr) -> usize {
    text.as_ptr().expose_provenance()
}

/// An initial stack of these words, which stays until the process ends.
fn env(words: &[usize]) -> Env {
    // SAFETY: the tests' words are laid out as the kernel does; leaked, so they stay.
    unsafe { Env::from_stack(Vec::leak(words.to_vec()).as_ptr()) }
}

#[test]
fn arguments_variables_and_vector_are_found() {
    let words = [
        2,
        address(c"prog"),
        address(c"arg"),
        0,
        address(c"A=1"),
        address(c"B=x=y"),
        0,
        AT_PAGESZ,
        4096,
        AT_SECURE,
        0,
        AT_NULL,
        7,
    ];
    let env = env(&words);
    assert_eq!(env.args().collect::<Vec<_>>(), [c"prog", c"arg"]);
    assert_eq!(env.args().len(), 2);
    assert_eq!(env.args().next_back(), Some(c"arg"));
    assert_eq!(env.vars().collect::<Vec<_>>(), [(&b"A"[..], c"1"), (&b"B"[..], c"x=y")]);
    assert_eq!((env.var("B"), env.var("C")), (Some(c"x=y"), None));
    assert_eq!(env.auxv().iter().collect::<Vec<_>>(), [(AT_PAGESZ, 4096), (AT_SECURE, 0)]);
    assert!(!env.auxv().secure());
    assert_eq!(format!("{:?}", env.auxv()), "{AT_PAGESZ: 0x1000, AT_SECURE: 0x0}");
}

#[test]
fn no_arguments_no_variables_and_no_vector_are_empty_views() {
    let env = env(&[0, 0, 0, AT_NULL]);
    assert_eq!((env.args().count(), env.vars().count()), (0, 0));
    assert!(env.auxv_on_stack().is_empty());
}

#[test]
fn variables_are_split_as_std_does() {
    assert_eq!(split_var(c"A=1"), Some((&b"A"[..], c"1")));
    assert_eq!(split_var(c"A="), Some((&b"A"[..], c"")));
    assert_eq!(split_var(c"=C:=x"), Some((&b"=C:"[..], c"x")));
    assert_eq!(split_var(c"=x"), None);
    assert_eq!(split_var(c"name"), None);
    assert_eq!(split_var(c""), None);
}

#[test]
fn any_doubt_about_at_secure_is_secure() {
    assert!(Auxv::from_words(&[]).secure());
    assert!(Auxv::from_words(&[AT_SECURE, 1]).secure());
    assert!(Auxv::from_words(&[AT_SECURE, 2]).secure());
    assert!(!Auxv::from_words(&[AT_SECURE, 0]).secure());
}

#[test]
fn a_cut_or_unended_vector_gives_its_whole_pairs() {
    assert_eq!(Auxv::from_words(&[AT_PAGESZ]).iter().count(), 0);
    assert_eq!(Auxv::from_words(&[AT_PAGESZ, 1, AT_HWCAP]).iter().count(), 1);
    assert_eq!(Auxv::from_words(&[AT_NULL, 0, AT_PAGESZ, 4096]).get(AT_PAGESZ), None);
}

#[test]
fn the_stack_comes_before_proc() {
    let mut source = Fake { proc_auxv: Ok(&[AT_PAGESZ, 65536]), ..NOTHING };
    let (auxv, page_size) = ladder(Auxv::from_words(&[AT_PAGESZ, 8192]), &mut source);
    assert_eq!((auxv.get(AT_PAGESZ), page_size), (Some(8192), 8192));
}

#[test]
fn without_a_vector_proc_is_read() {
    let mut source = Fake { proc_auxv: Ok(&[AT_PAGESZ, 65536, AT_SECURE, 0, AT_NULL, 0]), ..NOTHING };
    let (auxv, page_size) = ladder(Auxv::from_words(&[]), &mut source);
    assert_eq!((auxv.secure(), page_size), (false, 65536));
}

#[test]
fn without_both_the_page_size_is_probed() {
    for size in [4096, 8192, 16384, 65536, PROBED] {
        let mut source = Fake { page_size: Ok(size), ..NOTHING };
        let (auxv, found) = ladder(Auxv::from_words(&[]), &mut source);
        assert_eq!((auxv.is_empty(), found), (true, size));
    }
}

#[test]
fn with_nothing_at_all_the_largest_common_page_is_assumed() {
    assert_eq!(ladder(Auxv::from_words(&[]), &mut { NOTHING }).1, 65536);
}

#[test]
fn a_page_size_that_cannot_be_is_not_believed() {
    for wrong in [0, 1, 2048, 4095, 12288, 1 << 20, usize::MAX] {
        let words = Vec::leak([AT_PAGESZ, wrong].to_vec());
        let mut source = Fake { page_size: Ok(16384), ..NOTHING };
        assert_eq!(ladder(Auxv::from_words(words), &mut source).1, 16384, "AT_PAGESZ {wrong}");
    }
}

#[test]
fn the_kernel_answers_as_the_ladder_asks() {
    let words = Kernel.proc_auxv().unwrap();
    let stated = Auxv::from_words(words).page_size().unwrap();
    assert_eq!(probe_page_size(&mut Kernel), Ok(stated));
}

//! The two forms of a call that takes a time, on 32-bit machines: wide, with 64-bit seconds (since
//! Linux 5.1), and narrow, with 32-bit seconds (missing in kernels without
//! `CONFIG_COMPAT_32BIT_TIME`).
//!
//! Properties, and how they are achieved:
//!
//! 1. *The form that the kernel's version promises is tried first:* wide since 5.1. On older
//!    kernels rt0 does not try a wide form to find out: filters kill for unknown numbers, and some
//!    vendors gave these numbers to calls of their own.
//! 2. *If one form is refused, the other is tried:* filters that were written before 5.1 answer the
//!    wide form with `EPERM` or `ENOSYS`, and a filter may choose any other error. So every error
//!    except those of [`is_answer`] leads to the other form. An old kernel's wide form is tried
//!    only after `ENOSYS` for the narrow one.
//! 3. *The form that answered second is tried first from then on*, for this call only: a filter may
//!    allow the wide form of one call and not that of another. If a filter of another thread
//!    refuses it there, (2) holds for that thread.
//! 4. *An error of the call itself is returned unchanged:* both forms return it, and nothing is
//!    remembered.
//! 5. *There are at most two tries.*

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::general as k;

use super::{Timespec, at, call, release};
use crate::arch::{Arch, Cpu, Timed};
use crate::errno::{Errno, Result};
use crate::once_word::OnceBool;

/// The width of the seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Wide,
    Narrow,
}

/// Which form of one call is tried first.
pub(super) struct Preference {
    /// Whether that is not the one that the kernel's version promises.
    other: AtomicBool,
}

impl Preference {
    pub(super) const fn new() -> Preference {
        Preference { other: AtomicBool::new(false) }
    }

    /// Makes the call, in the other form too if the first is refused. `modern` says that the
    /// kernel's version promises the wide form.
    #[inline(always)]
    pub(super) fn make<T>(&self, modern: bool, mut call: impl FnMut(Form) -> Result<T>) -> Result<T> {
        // Relaxed, here and below: the choice is all there is, and either form may be tried first.
        let other = self.other.load(Relaxed);
        let form = if modern != other { Form::Wide } else { Form::Narrow };
        match call(form) {
            Err(errno) if let Some(next) = form.after(errno, modern) => self.make_again(next, errno, other, call),
            done => done,
        }
    }

    /// Makes the call in this form, after the other one was refused with `before`.
    #[cold]
    fn make_again<T>(
        &self,
        form: Form,
        before: Errno,
        other: bool,
        mut call: impl FnMut(Form) -> Result<T>,
    ) -> Result<T> {
        match call(form) {
            // Both failed. An error of the call itself is more useful than a missing form.
            Err(errno) if !is_answer(errno) => Err(if is_refusal(before) { errno } else { before }),
            done => {
                self.other.store(!other, Relaxed);
                done
            }
        }
    }
}

impl Form {
    /// The form to try after this one failed.
    fn after(self, errno: Errno, modern: bool) -> Option<Form> {
        match self {
            _ if is_answer(errno) => None,
            Form::Wide => Some(Form::Narrow),
            Form::Narrow if modern || errno == Errno::ENOSYS => Some(Form::Wide),
            Form::Narrow => None,
        }
    }
}

/// Whether only a call that exists fails with it: these end a wait.
fn is_answer(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT)
}

/// Whether kernels and filters use it for a call that does not exist or is forbidden.
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM | Errno::EACCES)
}

/// Makes a call that takes a time, in the form that answers: `call` gets the form and its number.
/// Costs nothing on 64-bit machines.
#[inline(always)]
pub(super) fn timed<T>(
    machines: Timed,
    preference: &Preference,
    mut call: impl FnMut(Form, usize) -> Result<T>,
) -> Result<T> {
    match machines {
        Timed::Wide(nr) => call(Form::Wide, nr as usize),
        Timed::Split { wide, narrow } => preference.make(kernel_has_wide_time(), |form| match form {
            Form::Wide => call(form, wide as usize),
            Form::Narrow => call(form, narrow as usize),
        }),
    }
}

/// Whether the kernel's version promises the 64-bit-time calls of 32-bit machines, which came with
/// Linux 5.1 all at once. Decided on first use. Only if the version cannot be read, it tries a call
/// that changes nothing.
#[cold]
fn ask_for_wide_time() -> bool {
    match kernel_release() {
        Ok(version) => version >= (5, 1),
        Err(_) => match Cpu::FUTEX {
            Timed::Wide(_) => true,
            Timed::Split { wide, .. } => {
                let word = 0u32;
                let op = (k::FUTEX_WAKE | k::FUTEX_PRIVATE_FLAG) as usize;
                // SAFETY: 1. No thread waits on this word, so none is woken.
                let woken = unsafe { call!(@ wide as usize, at(&raw const word), op, 0) };
                woken != Err(Errno::ENOSYS)
            }
        },
    }
}

fn kernel_has_wide_time() -> bool {
    static HAS: OnceBool = OnceBool::new();
    HAS.get(ask_for_wide_time)
}

pub(super) fn narrow(time: &Timespec) -> k::__kernel_old_timespec {
    k::__kernel_old_timespec {
        // A wait may end early, so a time that does not fit is cut.
        tv_sec: time.tv_sec.clamp(0, i32::MAX as i64) as _,
        tv_nsec: i32::try_from(time.tv_nsec).unwrap_or(-1) as _, // It stays invalid.
    }
}

/// uname(2): the running kernel's version. `EINVAL` if its release string has no `major.minor`.
fn kernel_release() -> Result<(u32, u32)> {
    // SAFETY: the struct is bytes, for which all zeros are valid.
    let mut uts: linux_raw_sys::system::new_utsname = unsafe { core::mem::zeroed() };
    // SAFETY: 1. The kernel writes `uts` only.
    unsafe { call!(__NR_uname, at(&raw mut uts)) }?;
    release::parse(&uts.release.map(|c| c as u8)).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(kernel_release().unwrap() >= (2, 6));
    }

    const ERRORS: [Errno; 8] = [
        Errno::ENOSYS,
        Errno::EPERM,
        Errno::EACCES,
        Errno::EINVAL,
        Errno::EFAULT,
        Errno::EAGAIN,
        Errno::EINTR,
        Errno::ETIMEDOUT,
    ];

    /// Success, and each of the errors.
    fn answers() -> impl Iterator<Item = Result<()>> + Clone {
        ERRORS.into_iter().map(Err).chain([Ok(())])
    }

    /// The forms that are tried, in order, and the result.
    fn made(preference: &Preference, modern: bool, wide: Result<()>, narrow: Result<()>) -> (Vec<Form>, Result<()>) {
        let mut tried = Vec::new();
        let result = preference.make(modern, |form| {
            tried.push(form);
            if form == Form::Wide { wide } else { narrow }
        });
        (tried, result)
    }

    /// Every version, preference, and pair of answers.
    fn all(mut f: impl FnMut(bool, bool, Result<()>, Result<()>)) {
        for (modern, other) in [(false, false), (false, true), (true, false), (true, true)] {
            for wide in answers() {
                answers().for_each(|narrow| f(modern, other, wide, narrow));
            }
        }
    }

    fn preference(other: bool) -> Preference {
        Preference { other: AtomicBool::new(other) }
    }

    fn is_there(answer: Result<()>) -> bool {
        answer.err().is_none_or(is_answer)
    }

    #[test]
    fn the_first_form_is_by_the_version_and_by_what_answered() {
        all(|modern, other, wide, narrow| {
            let first = if modern != other { Form::Wide } else { Form::Narrow };
            assert_eq!(made(&preference(other), modern, wide, narrow).0[0], first);
        });
    }

    #[test]
    fn a_form_that_answers_is_the_only_one() {
        all(|modern, other, wide, narrow| {
            let first = if modern != other { wide } else { narrow };
            let preference = preference(other);
            let (tried, result) = made(&preference, modern, wide, narrow);
            if is_there(first) {
                assert_eq!((tried.len(), result), (1, first));
                assert_eq!(preference.other.into_inner(), other);
            }
        });
    }

    #[test]
    fn a_refused_form_has_another_which_comes_first_from_then_on() {
        all(|modern, other, wide, narrow| {
            let wide_first = modern != other;
            let (first, second) = if wide_first { (wide, narrow) } else { (narrow, wide) };
            let old_kernel = !modern && !wide_first && first != Err(Errno::ENOSYS);
            if is_there(first) || old_kernel {
                return;
            }
            let preference = preference(other);
            let (tried, result) = made(&preference, modern, wide, narrow);
            assert_eq!(tried.len(), 2);
            if is_there(second) {
                assert_eq!(result, second);
                let (tried, again) = made(&preference, modern, wide, narrow);
                assert_eq!((tried.len(), again), (1, second), "it is remembered");
            } else {
                assert!(result.is_err());
                assert_eq!(preference.other.into_inner(), other, "nothing is remembered");
            }
        });
    }

    #[test]
    fn an_old_kernel_is_not_asked_for_a_wide_form_that_it_need_not_have() {
        for errno in ERRORS.into_iter().filter(|errno| *errno != Errno::ENOSYS) {
            assert_eq!(made(&preference(false), false, Ok(()), Err(errno)), (vec![Form::Narrow], Err(errno)));
        }
        let both = vec![Form::Narrow, Form::Wide];
        assert_eq!(made(&preference(false), false, Ok(()), Err(Errno::ENOSYS)), (both, Ok(())));
    }

    #[test]
    fn an_error_of_the_calls_own_stays_what_it_is() {
        let result = |wide, narrow| made(&preference(false), true, Err(wide), Err(narrow)).1;
        // There is no such clock, also where one form is refused or missing.
        for refusal in [Errno::ENOSYS, Errno::EPERM, Errno::EACCES] {
            assert_eq!(result(refusal, Errno::EINVAL), Err(Errno::EINVAL));
            assert_eq!(result(Errno::EINVAL, refusal), Err(Errno::EINVAL));
            assert_eq!(result(refusal, refusal), Err(refusal));
        }
        assert_eq!(result(Errno::EFAULT, Errno::EFAULT), Err(Errno::EFAULT));
    }

    #[test]
    fn what_changes_meanwhile_is_followed() {
        let preference = preference(false);
        assert_eq!(made(&preference, true, Err(Errno::EPERM), Ok(())).1, Ok(()));
        // Another thread's filter, or one that came later, forbids the narrow form instead.
        for errno in [Errno::EPERM, Errno::ENOSYS, Errno::EINVAL] {
            assert_eq!(made(&preference, true, Ok(()), Err(errno)).1, Ok(()));
            assert_eq!(made(&preference, true, Err(errno), Ok(())).1, Ok(()));
        }
    }
}

//! The data that the kernel put on the initial stack, as a safe view: arguments, environment and
//! auxiliary vector.
//!
//! ```text
//!     sp ─▶ argc │ argv[0] … argv[argc-1] │ 0 │ envp[0] … │ 0 │ (tag, value) … │ (AT_NULL, 0)
//! ```
//!
//! Some loaders leave the auxiliary vector out. Then rt0 reads it from `/proc/self/auxv`. If that
//! fails too, rt0 finds the page size by mincore(2), and treats the process as one with more rights
//! than its user ([`Auxv::secure`]).
//!
//! Sources: getauxval(3), proc_pid_auxv(5), the kernel's fs/binfmt_elf.c.

mod env;
mod fallback;

use core::ffi::{c_char, c_ulong};
use core::fmt;
use core::ptr::{null, null_mut};
use core::slice;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use linux_raw_sys::{auxvec, elf};
use static_assertions::assert_eq_size;

use crate::once_word::{OncePtr, OnceWord};
pub(crate) use env::Pointers;
pub use env::{Args, Env, Vars};
use fallback::{Kernel, complete, page_size_of};

/// The auxiliary vector: pairs of a tag and a value.
///
/// ```no_run
/// use rt0::auxv::{self, Auxv};
///
/// let auxv: Auxv = auxv::of_process();
/// if let Some(ticks) = auxv.get(auxv::AT_CLKTCK) {
///     rt0::println!("{ticks} ticks a second");
/// }
/// for (tag, value) in auxv.iter() {
///     rt0::println!("{tag}: {value:#x}");
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Auxv {
    pairs: &'static [[usize; 2]],
}

assert_eq_size!([usize; 2], elf::Elf_auxv_t);

macro_rules! tags {
    ($($(#[$doc:meta])* $tag:ident)*) => {
        $($(#[$doc])* pub const $tag: usize = auxvec::$tag as usize;)*

        fn tag_name(tag: usize) -> Option<&'static str> {
            match tag {
                $($tag => Some(stringify!($tag)),)*
                _ => None,
            }
        }
    };
}

const AT_NULL: usize = auxvec::AT_NULL as usize;

tags! {
    /// Address of the program headers.
    AT_PHDR
    /// Size of one program header.
    AT_PHENT
    /// Number of program headers.
    AT_PHNUM
    /// Bytes in a page.
    AT_PAGESZ
    /// The address of the interpreter; 0 without one.
    AT_BASE
    /// Flags.
    AT_FLAGS
    /// The program's entry point.
    AT_ENTRY
    /// Real user id.
    AT_UID
    /// Effective user id.
    AT_EUID
    /// Real group id.
    AT_GID
    /// Effective group id.
    AT_EGID
    /// Address of the processor's name.
    AT_PLATFORM
    /// The processor's features, as bits of this machine.
    AT_HWCAP
    /// Ticks of times(2) per second.
    AT_CLKTCK
    /// Whether the program has rights that its user does not have.
    AT_SECURE
    /// Address of 16 random bytes.
    AT_RANDOM
    /// More of the processor's features.
    AT_HWCAP2
    /// Address of the path that was given to execve(2).
    AT_EXECFN
    /// Address of the vDSO's ELF header.
    AT_SYSINFO_EHDR
    /// The least size of a signal stack.
    AT_MINSIGSTKSZ
    /// Address of the platform's name, if it differs from the processor's.
    AT_BASE_PLATFORM
    /// More of the processor's features.
    AT_HWCAP3
    /// More of the processor's features.
    AT_HWCAP4
    /// How many bytes of rseq(2)'s area the kernel uses.
    AT_RSEQ_FEATURE_SIZE
    /// The alignment of rseq(2)'s area.
    AT_RSEQ_ALIGN
}

impl Auxv {
    /// The vector in `words`, up to `AT_NULL` or the last whole pair.
    pub(crate) fn from_words(words: &'static [usize]) -> Auxv {
        let (pairs, _) = words.as_chunks();
        let end = pairs.iter().position(|&[tag, _]| tag == AT_NULL).unwrap_or(pairs.len());
        Auxv { pairs: &pairs[..end] }
    }

    /// The vector from `first` up to `AT_NULL`.
    ///
    /// # Safety
    ///
    /// 1. `first` points to pairs that end with an `AT_NULL`. They stay mapped, and nothing writes
    ///    to them.
    unsafe fn until_null(first: *const [usize; 2]) -> Auxv {
        // SAFETY: 1. They end with an AT_NULL (1).
        let count = unsafe { count_until(first, |[tag, _]| tag == AT_NULL) };
        // SAFETY: these pairs were counted above, and stay mapped (1).
        Auxv { pairs: unsafe { slice::from_raw_parts(first, count) } }
    }

    /// The value of the first entry with this tag (an `AT_*` of getauxval(3)).
    ///
    /// In handlers: yes.
    pub fn get(&self, tag: usize) -> Option<usize> {
        self.iter().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// All entries: tag and value.
    ///
    /// In handlers: yes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        self.pairs.iter().map(|&[tag, value]| (tag, value))
    }

    /// Whether it is empty: the loader left the vector out, and `/proc/self/auxv` cannot be read.
    ///
    /// In handlers: yes.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether the program has rights that its user does not have (set-user-ID, file capabilities).
    /// Then it must not trust its environment and descriptors. Also true if there is no
    /// `AT_SECURE`.
    ///
    /// In handlers: yes.
    pub fn secure(&self) -> bool {
        self.get(AT_SECURE) != Some(0)
    }

    /// The page size in it, if it is plausible: a power of two from 4 KiB to 512 KiB.
    fn page_size(&self) -> Option<usize> {
        self.get(AT_PAGESZ).filter(|size| size.is_power_of_two() && (4 << 10..=512 << 10).contains(size))
    }
}

impl fmt::Debug for Auxv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (tag, value) in self.iter() {
            match tag_name(tag) {
                Some(name) => map.entry(&format_args!("{name}"), &format_args!("{value:#x}")),
                None => map.entry(&tag, &format_args!("{value:#x}")),
            };
        }
        map.finish()
    }
}

/// Bytes in a page.
#[inline]
pub(crate) fn page_size() -> usize {
    static PAGE_SIZE: OnceWord = OnceWord::new();
    PAGE_SIZE.get(find_page_size)
}

#[cold]
fn find_page_size() -> usize {
    page_size_of(of_process(), &mut Kernel)
}

/// The initial stack's first word: null until [`keep`] ran.
static START: AtomicPtr<usize> = AtomicPtr::new(null_mut());

/// The process's vector, which ends with `AT_NULL`. Null before its first use, and if there is
/// none.
static VECTOR: OncePtr<[usize; 2]> = OncePtr::new();

/// The auxiliary vector of this process, for code without an [`Env`].
///
/// In handlers: yes.
pub fn of_process() -> Auxv {
    let vector = VECTOR.get();
    if vector.is_null() {
        return find_vector();
    }
    // SAFETY: 1. `find_vector` published a vector that ends with AT_NULL and stays mapped.
    unsafe { Auxv::until_null(vector) }
}

/// Finds the vector on the stack, or else asks the kernel.
#[cold]
fn find_vector() -> Auxv {
    // Relaxed: stored before a second thread existed.
    let start = START.load(Relaxed);
    let on_stack = if start.is_null() { Auxv { pairs: &[] } } else { Env { start }.auxv_on_stack() };
    // Threads that come here at the same time read the same values. Each keeps a page mapped.
    let auxv = complete(on_stack, &mut Kernel);
    if !auxv.is_empty() {
        // Both sources have an AT_NULL behind the last pair.
        VECTOR.publish(auxv.pairs.as_ptr());
    }
    auxv
}

/// getauxval(3) without errno: 0 for a missing tag. The compiler's library calls it. The linker
/// script gives it that name if the program does not define one.
#[unsafe(no_mangle)]
extern "C" fn __rt0_getauxval(kind: c_ulong) -> c_ulong {
    of_process().get(kind as usize).unwrap_or(0) as c_ulong
}

/// Stores the address of the initial stack, for [`of_process`] and [`envp`].
pub(crate) fn keep(env: Env) {
    START.store(env.start.cast_mut(), Relaxed);
}

/// The environment that the process was started with: pointers to its entries, and a null behind
/// them.
pub(crate) fn envp() -> *const *const c_char {
    const NONE: &[*const c_char; 1] = &[null()];
    // Relaxed: stored before a second thread existed.
    let start = START.load(Relaxed);
    if start.is_null() { NONE.as_ptr() } else { Env { start }.envp() }
}

/// The number of elements from `first` on, before the one that `is_end`.
///
/// # Safety
///
/// 1. Elements lie from `first` on, up to and including one that is the end.
unsafe fn count_until<T: Copy>(first: *const T, is_end: impl Fn(T) -> bool) -> usize {
    let mut count = 0;
    // SAFETY: 1. None of the elements before this one is the end.
    while !is_end(unsafe { first.wrapping_add(count).read() }) {
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests;

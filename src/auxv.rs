//! What the kernel put on the initial stack, as a safe view: arguments, environment and auxiliary
//! vector.
//!
//! ```text
//!     sp ─▶ argc │ argv[0] … argv[argc-1] │ 0 │ envp[0] … │ 0 │ (tag, value) … │ (AT_NULL, 0)
//! ```
//!
//! Some loaders leave the auxiliary vector out. Then it is read from `/proc/self/auxv`, and where
//! that fails too, the page size is found by asking mincore(2), and the process counts as one that
//! must be careful ([`Auxv::secure`]).
//!
//! Sources: getauxval(3), proc_pid_auxv(5), the kernel's fs/binfmt_elf.c.

use core::ffi::{CStr, c_char, c_int, c_ulong};
use core::fmt;
use core::ptr::{null, null_mut};
use core::slice;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use linux_raw_sys::general as k;
use linux_raw_sys::{auxvec, elf};
use static_assertions::{assert_eq_size, assert_impl_all};

use crate::errno::Result;
use crate::once_word::{OncePtr, OnceWord};
use crate::{io, sys};

/// What the program was started with. It lies on the initial stack, which lives as long as the
/// process.
///
/// ```no_run
/// fn run(env: rt0::Env) -> i32 {
///     for argument in env.args().skip(1) {
///         rt0::println!("{argument:?}");
///     }
///     if env.var("HOME").is_some() && !env.auxv().secure() { 0 } else { 1 }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Env {
    /// The stack pointer at the program's first instruction.
    start: *const usize,
}

// SAFETY: rt0 never writes to the initial stack, and the strings there are the program's to read
// from any thread.
unsafe impl Send for Env {}
// SAFETY: by reference it gives out the same.
unsafe impl Sync for Env {}

assert_impl_all!(Env: Send, Sync, Copy);

impl Env {
    /// Reads the initial stack.
    ///
    /// # Safety
    ///
    /// 1. `sp` points at a stack as the kernel lays it out, down to the null after the environment.
    /// 2. Behind that null lies an auxiliary vector that ends with `AT_NULL`, or a single
    ///    `AT_NULL`.
    /// 3. Nothing writes to it or to its strings again, and it lives as long as the process.
    pub(crate) unsafe fn from_stack(sp: *const usize) -> Env {
        Env { start: sp }
    }

    /// Argument pointers, as many as the first word says.
    fn argv(&self) -> &'static [*const c_char] {
        // SAFETY: `from_stack`, 1.: it is the first word.
        let argc = unsafe { *self.start };
        // SAFETY: `from_stack`, 1. and 3.: they lie behind it, and stay.
        unsafe { slice::from_raw_parts(self.start.wrapping_add(1).cast(), argc) }
    }

    /// The first of the environment's pointers, which end with a null.
    fn envp(&self) -> *const *const c_char {
        let argv = self.argv();
        argv.as_ptr().wrapping_add(argv.len() + 1) // A null ends argv.
    }

    fn environ(&self) -> &'static [*const c_char] {
        // SAFETY: 1. `from_stack`, 1.: they end with a null.
        let count = unsafe { count_until(self.envp(), |entry| entry.is_null()) };
        // SAFETY: `from_stack`, 1. and 3.: the pointers just counted.
        unsafe { slice::from_raw_parts(self.envp(), count) }
    }

    /// argc, argv and envp, for C.
    #[inline(always)]
    pub(crate) fn as_c(&self) -> (c_int, *const *const c_char, *const *const c_char) {
        (self.argv().len() as c_int, self.argv().as_ptr(), self.envp())
    }

    /// The arguments; the first, if there is one, is the name that the program was called by.
    ///
    /// In handlers: yes.
    pub fn args(&self) -> Args {
        Args { left: self.argv().iter() }
    }

    /// The environment's variables. As in std, an entry without `=` after its first byte is passed
    /// over.
    ///
    /// In handlers: yes.
    pub fn vars(&self) -> Vars {
        Vars { left: self.environ().iter() }
    }

    /// The value of the first variable of this name.
    ///
    /// In handlers: yes.
    pub fn var(&self, name: &str) -> Option<&'static CStr> {
        // Byte by byte: LLVM 22 for s390x, where it compares slices of any length in place, takes
        // one that is greater for one that is equal.
        self.vars().find(|(key, _)| key.iter().eq(name.as_bytes())).map(|(_, value)| value)
    }

    /// The auxiliary vector.
    ///
    /// In handlers: yes.
    pub fn auxv(&self) -> Auxv {
        let on_stack = self.auxv_on_stack();
        if on_stack.is_empty() { of_process() } else { on_stack }
    }

    /// What of it the stack holds.
    fn auxv_on_stack(&self) -> Auxv {
        let environ = self.environ();
        // SAFETY: 1. `from_stack`, 2. and 3.: the vector follows the null that ends the
        // environment.
        unsafe { Auxv::until_null(environ.as_ptr().wrapping_add(environ.len() + 1).cast()) }
    }
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

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("args", &self.args())
            .field("vars", &self.environ().len())
            .field("auxv", &self.auxv())
            .finish()
    }
}

fn c_str(pointer: &'static *const c_char) -> &'static CStr {
    // SAFETY: the kernel's strings end with NUL and stay; no null pointer is among the counted
    // ones, for argc counts argv's and the environment's end at the first.
    unsafe { CStr::from_ptr(*pointer) }
}

/// The arguments, see [`Env::args`].
#[derive(Clone)]
pub struct Args {
    left: slice::Iter<'static, *const c_char>,
}

// SAFETY: as for Env.
unsafe impl Send for Args {}
// SAFETY: as for Env.
unsafe impl Sync for Args {}

impl Args {
    /// What is left of them, as the kernel takes them.
    pub(crate) fn pointers(&self) -> Pointers {
        Pointers(self.left.as_slice())
    }
}

/// Some of the arguments.
#[derive(Clone, Copy)]
pub(crate) struct Pointers(pub &'static [*const c_char]);

// SAFETY: as for Env.
unsafe impl Send for Pointers {}
// SAFETY: as for Env.
unsafe impl Sync for Pointers {}

impl Iterator for Args {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        self.left.next().map(c_str)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for Args {
    fn next_back(&mut self) -> Option<&'static CStr> {
        self.left.next_back().map(c_str)
    }
}

impl ExactSizeIterator for Args {}

impl fmt::Debug for Args {
    /// The texts of the arguments that are left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// The environment's variables, name and value, see [`Env::vars`].
#[derive(Clone)]
pub struct Vars {
    left: slice::Iter<'static, *const c_char>,
}

// SAFETY: as for Env.
unsafe impl Send for Vars {}
// SAFETY: as for Env.
unsafe impl Sync for Vars {}

impl Iterator for Vars {
    type Item = (&'static [u8], &'static CStr);

    fn next(&mut self) -> Option<Self::Item> {
        self.left.find_map(|entry| split_var(c_str(entry)))
    }
}

impl fmt::Debug for Vars {
    /// The texts of the variables that are left, `NAME=VALUE` each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.left.clone().map(c_str)).finish()
    }
}

/// A name may begin with `=` but is not empty; the value is what follows the next one.
fn split_var(entry: &'static CStr) -> Option<(&'static [u8], &'static CStr)> {
    let bytes = entry.to_bytes_with_nul();
    let equals = 1 + bytes.get(1..)?.iter().position(|&byte| byte == b'=')?;
    Some((&bytes[..equals], CStr::from_bytes_with_nul(&bytes[equals + 1..]).ok()?))
}

/// The auxiliary vector: pairs of a tag and a value.
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
    /// Where the interpreter was loaded; 0 without one.
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
    /// What the processor can do, by the machine's own bits.
    AT_HWCAP
    /// Ticks of times(2) per second.
    AT_CLKTCK
    /// Whether the program has rights that its user has not.
    AT_SECURE
    /// Address of 16 random bytes.
    AT_RANDOM
    /// More of what the processor can do.
    AT_HWCAP2
    /// Address of the path that was given to execve(2).
    AT_EXECFN
    /// Address of the vDSO's ELF header.
    AT_SYSINFO_EHDR
    /// The least size of a signal stack.
    AT_MINSIGSTKSZ
    /// Address of the name of the platform, where it differs from that of the processor.
    AT_BASE_PLATFORM
    /// Still more of what the processor can do.
    AT_HWCAP3
    /// Still more of what the processor can do.
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
    /// 1. Pairs lie there, the last of which is an `AT_NULL`. They stay, and nothing writes to
    ///    them.
    unsafe fn until_null(first: *const [usize; 2]) -> Auxv {
        // SAFETY: 1. They end with an AT_NULL, by 1.
        let count = unsafe { count_until(first, |[tag, _]| tag == AT_NULL) };
        // SAFETY: 1. The pairs just counted.
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

    /// Whether there is none: the loader left it out, and `/proc/self/auxv` could not be read.
    ///
    /// In handlers: yes.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether the program has rights that its user has not (set-user-ID, file capabilities), so
    /// that environment and descriptors are not to be trusted. Any value but 0 counts, and so does
    /// not knowing.
    ///
    /// In handlers: yes.
    pub fn secure(&self) -> bool {
        self.get(AT_SECURE) != Some(0)
    }

    /// The page size it states, if that can be one: a power of two, at least 4 KiB, at most 512
    /// KiB.
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

/// The process's vector, with its `AT_NULL`: unknown until it is asked for, and as long as there
/// is none.
static VECTOR: OncePtr<[usize; 2]> = OncePtr::new();

/// The auxiliary vector of this process, for code without an [`Env`].
///
/// In handlers: yes.
pub fn of_process() -> Auxv {
    let vector = VECTOR.get();
    if vector.is_null() {
        return find_vector();
    }
    // SAFETY: 1. As `find_vector` left it.
    unsafe { Auxv::until_null(vector) }
}

/// Looks for it on the stack, and asks the kernel for what that did not say.
#[cold]
fn find_vector() -> Auxv {
    // Relaxed: stored before there was a second thread.
    let start = START.load(Relaxed);
    let on_stack = if start.is_null() { Auxv { pairs: &[] } } else { Env { start }.auxv_on_stack() };
    // Threads that ask at once read the same; each keeps a page, and all but one forget where.
    let auxv = complete(on_stack, &mut Kernel);
    if !auxv.is_empty() {
        // Either source has an AT_NULL behind the last pair.
        VECTOR.publish(auxv.pairs.as_ptr());
    }
    auxv
}

/// getauxval(3), less its errno: 0 for what is not there. For the compiler's own library, under the
/// name that the linker script gives it where the program defines none.
#[unsafe(no_mangle)]
extern "C" fn __rt0_getauxval(kind: c_ulong) -> c_ulong {
    of_process().get(kind as usize).unwrap_or(0) as c_ulong
}

/// Stores where the initial stack is, for later look-ups in the vector.
pub(crate) fn keep(env: Env) {
    START.store(env.start.cast_mut(), Relaxed);
}

/// The environment that the process was started with: pointers to its entries, and a null behind
/// them.
pub(crate) fn envp() -> *const *const c_char {
    const NONE: &[*const c_char; 1] = &[null()];
    // Relaxed: stored before there was a second thread.
    let start = START.load(Relaxed);
    if start.is_null() { NONE.as_ptr() } else { Env { start }.envp() }
}

/// Where the ladder finds what the stack did not say.
trait Source {
    /// The words of `/proc/self/auxv`; behind them there are two zeros at least.
    fn proc_auxv(&mut self) -> Result<&'static [usize]>;
    /// Whether `offset` is the first byte of a page in a mapping of [`PROBED`] bytes; an error if
    /// there is none.
    fn starts_page(&mut self, offset: usize) -> Result<bool>;
}

/// Page sizes up to this are told apart.
const PROBED: usize = 256 << 10;

/// Assumed when nothing tells: all our sizes and offsets are then multiples of every page size in
/// use.
const LARGEST_COMMON: usize = 64 << 10;

/// The vector, with what the stack did not say.
fn complete(stack: Auxv, source: &mut impl Source) -> Auxv {
    match stack {
        Auxv { pairs: [] } => source.proc_auxv().map_or(stack, Auxv::from_words),
        _ => stack,
    }
}

/// The page size, by the vector or as found.
fn page_size_of(auxv: Auxv, source: &mut impl Source) -> usize {
    auxv.page_size().unwrap_or_else(|| probe_page_size(source).unwrap_or(LARGEST_COMMON))
}

#[cold]
fn probe_page_size(source: &mut impl Source) -> Result<usize> {
    let mut size = 4 << 10;
    while size < PROBED && !source.starts_page(size)? {
        size *= 2;
    }
    Ok(size)
}

/// The ladder's source in a running program.
struct Kernel;

impl Source for Kernel {
    fn proc_auxv(&mut self) -> Result<&'static [usize]> {
        const WORDS: usize = 512; // A vector has some 20 to 40 pairs; what does not fit is cut off.
        const ROOM: usize = (WORDS - 2) * size_of::<usize>(); // The last pair stays an AT_NULL.
        let file = sys::open(c"/proc/self/auxv", k::O_RDONLY | k::O_CLOEXEC, 0)?;
        // Kept for the life of the process, as the stack's own would be.
        let base = map(WORDS * size_of::<usize>())?;
        // SAFETY: a fresh mapping of this size, of zeros, that no other code has.
        let bytes = unsafe { slice::from_raw_parts_mut(base, WORDS * size_of::<usize>()) };
        let mut filled = 0;
        loop {
            match io::read(&file, bytes.get_mut(filled..ROOM).unwrap_or_default())? {
                0 => break,
                count => filled += count,
            }
        }
        // SAFETY: the same memory, aligned as a page is, and no longer written.
        Ok(unsafe { slice::from_raw_parts(base.cast(), filled / size_of::<usize>()) })
    }

    fn starts_page(&mut self, offset: usize) -> Result<bool> {
        let base = map(PROBED)?;
        let found = sys::mincore(base.wrapping_add(offset));
        // SAFETY: 1. No other code knows of the mapping.
        unsafe { sys::munmap(base, PROBED) }?;
        Ok(found.is_ok())
    }
}

fn map(len: usize) -> Result<*mut u8> {
    // SAFETY: 1. Not MAP_FIXED.
    unsafe { sys::mmap(null_mut(), len, k::PROT_READ | k::PROT_WRITE, k::MAP_PRIVATE | k::MAP_ANONYMOUS, -1, 0) }
}

#[cfg(test)]
mod tests;

//! The vDSO: functions of the kernel that run without a system call; vdso(7).
//!
//! The kernel maps an ELF image with these functions into every process. A function is looked up
//! when it is first needed; a program that needs none reads nothing. Each function's state is one
//! word, so any thread and any signal handler may look it up, at the same time as others, without a
//! lock. If the machine, the kernel or the emulator has no such function, rt0 looks once and then
//! uses the system call.
//!
//! rt0 itself uses the vDSO for the clocks ([`time`](crate::time)) and for random bytes
//! ([`random`](crate::random)). This module [turns it off](turn_off), which valgrind, recorders and
//! some emulators need, because they see system calls only.
//!
//! A call uses up to a page of stack: kernels hardened with `-fstack-check` probe it.

mod image;
mod state;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use image::fuzz::fuzz;

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::slice;

use linux_raw_sys::general as k;

use crate::arch::{Arch, Cpu, Vdso};
use crate::auxv::{self, Auxv, Env};
use crate::errno::{Errno, Result};
use crate::once_word::OnceWord;
use crate::sys::Timespec;
use image::Native;

pub(crate) use state::StateSlot;

/// Stops this process from using the vDSO, permanently. Calls under way still finish in it.
///
/// ```no_run
/// rt0::vdso::turn_off(); // Before other threads start.
/// ```
///
/// In handlers: no.
pub fn turn_off() {
    for function in [&CLOCK_GETTIME, &CLOCK_GETTIME_NARROW, &GETRANDOM] {
        function.disable();
    }
}

/// [`turn_off`] if the environment contains `RT0_VDSO=0`; returns whether it does. A program that
/// offers this switch calls it first in main; nothing else in rt0 reads the variable. A process in
/// secure mode ([`Auxv::secure`]) ignores the variable, because another user may have set it.
///
/// ```no_run
/// use rt0::vdso;
///
/// fn run(env: rt0::Env) -> i32 {
///     if vdso::turn_off_if_asked(env) {
///         rt0::println!("RT0_VDSO=0 is set");
///     }
///     let in_use: vdso::InUse = vdso::in_use();
///     rt0::println!("{in_use:?}");
///     0
/// }
/// ```
///
/// In handlers: no.
pub fn turn_off_if_asked(env: Env) -> bool {
    let asked = env.var("RT0_VDSO") == Some(c"0") && !env.auxv().secure();
    if asked {
        turn_off();
    }
    asked
}

/// Which vDSO functions a process uses; see [`in_use`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InUse {
    /// The clocks.
    pub clock_gettime: bool,
    /// Random bytes: x86_64 since Linux 6.11, other 64-bit machines and PowerPC since 6.12, RISC-V
    /// since 6.16.
    pub getrandom: bool,
}

/// Which vDSO functions this process uses: those that exist, were not turned off, and have not
/// failed.
///
/// In handlers: no.
pub fn in_use() -> InUse {
    InUse { clock_gettime: clock_function().is_some(), getrandom: GETRANDOM.get().is_some() }
}

static CLOCK_GETTIME: Function = Function::new(VDSO.clock_gettime);
static CLOCK_GETTIME_NARROW: Function = Function::new(match VDSO.clock_gettime_narrow {
    Some(name) => name,
    None => "", // Never asked for.
});
static GETRANDOM: Function = Function::new(VDSO.getrandom);

const VDSO: Vdso = Cpu::VDSO;

/// A vDSO function and, once it was looked up, its address.
struct Function {
    name: &'static str,
    address: OnceWord,
}

/// Missing or turned off. (The lowest bit may also be set in a real address: Arm's Thumb.)
const NONE: usize = 1;

impl Function {
    const fn new(name: &'static str) -> Function {
        Function { name, address: OnceWord::new() }
    }

    #[inline(always)]
    fn get(&self) -> Option<*const c_void> {
        let address = self.address.get(|| self.look_up());
        (address != NONE).then(|| ptr::with_exposed_provenance(address))
    }

    #[cold]
    fn look_up(&self) -> usize {
        find(auxv::of_process(), self.name).map_or(NONE, |address| address.expose_provenance())
    }

    fn disable(&self) {
        self.address.set(NONE);
    }
}

/// The image, if the kernel gives this process one.
pub(crate) fn image(vector: Auxv) -> Option<&'static [u8]> {
    /// The kernel maps the image at a page boundary, and no page is smaller than this.
    const PAGE: usize = 4096;
    /// The largest image is about 64 KiB, on machines with pages of that size.
    const MAX_LEN: usize = 1 << 20;
    let base = vector.get(auxv::AT_SYSINFO_EHDR).filter(|base| *base != 0 && base.is_multiple_of(PAGE))?;
    let base = ptr::with_exposed_provenance::<u8>(base);
    // SAFETY: the kernel says that an image starts at `base`. It fills at least one page, stays
    // mapped and does not change.
    let start = unsafe { slice::from_raw_parts(base, PAGE) };
    let len = Native::len(start).filter(|len| *len <= MAX_LEN)?;
    // SAFETY: the kernel maps the image at `base`, `len` bytes by its own header. It stays mapped
    // and does not change.
    Some(unsafe { slice::from_raw_parts(base, len) })
}

/// The address of the function with this name.
fn find(vector: Auxv, name: &str) -> Option<*const c_void> {
    let image = image(vector)?;
    let place = Native::parse(image)?.function(name, VDSO.versions)?;
    Some(image.as_ptr().wrapping_add(place).cast())
}

/// clock_gettime with 64-bit (wide) or 32-bit (narrow) seconds.
#[derive(Clone, Copy)]
enum ClockFunction {
    Wide(*const c_void),
    Narrow(*const c_void),
}

#[inline(always)]
fn clock_function() -> Option<ClockFunction> {
    match VDSO.clock_gettime_narrow {
        None => CLOCK_GETTIME.get().map(ClockFunction::Wide),
        Some(_) => match (CLOCK_GETTIME.get(), CLOCK_GETTIME_NARROW.get()) {
            (Some(_), None) if VDSO.narrow_vouches_for_wide => None,
            (Some(wide), _) => Some(ClockFunction::Wide(wide)),
            (None, narrow) => narrow.map(ClockFunction::Narrow),
        },
    }
}

/// The time of a clock. `ENOSYS` if the vDSO has no clock_gettime. After any error the caller makes
/// the system call; if that succeeds after `ENOSYS`, the caller calls [`disable_clocks`].
#[inline(always)]
pub(crate) fn clock_gettime(clock: c_int) -> Result<Timespec> {
    match clock_function() {
        Some(ClockFunction::Wide(function)) => {
            let mut now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: 1. Found under the wide name. 2. The result has the wide form.
            let done = unsafe { Cpu::vdso_clock_gettime(function, clock, (&raw mut now).cast()) };
            Errno::check(done)?;
            Ok(Timespec { tv_sec: take_field(&now.tv_sec), tv_nsec: take_field(&now.tv_nsec) })
        }
        Some(ClockFunction::Narrow(function)) => {
            let mut now = k::__kernel_old_timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: 1. Found under the narrow name. 2. The result has the narrow form.
            let done = unsafe { Cpu::vdso_clock_gettime(function, clock, (&raw mut now).cast()) };
            Errno::check(done)?;
            let (tv_sec, tv_nsec) = (take_field(&now.tv_sec), take_field(&now.tv_nsec));
            Ok(Timespec::from_narrow(k::__kernel_old_timespec { tv_sec, tv_nsec }))
        }
        None => Err(Errno::ENOSYS),
    }
}

/// Reads a field that the vDSO has just stored, by one load of the field's width.
///
/// The vDSO stores the two fields separately. The compiler would copy both by one load, and a
/// processor forwards a store to a load only if that store contains the whole load; otherwise the
/// load waits until both stores are in the cache. Measured on x86_64: 32 ns a call instead of 26.
/// The compiler does not merge volatile loads.
#[inline(always)]
fn take_field<T: Copy>(field: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { (&raw const *field).read_volatile() }
}

/// Makes the clocks use system calls from now on. Some vDSO functions only ever return ENOSYS, for
/// example on MIPS if the machine's clock cannot be read.
#[cold]
pub(crate) fn disable_clocks() {
    CLOCK_GETTIME.disable();
    CLOCK_GETTIME_NARROW.disable();
}

/// Fills the start of `buf` with random bytes from the state in `slot`, which is the calling
/// thread's, and returns how many. `None` if the vDSO has no getrandom or there is no memory for a
/// state; after an error the caller makes the system call.
///
/// A signal handler may call it while it interrupts the same function on the same thread: the vDSO
/// sees that the state is in use and makes the system call. In a forked child the states are zero,
/// so the vDSO fetches a new key.
///
/// `before_first` is called before the slot gets a state.
#[inline(always)]
pub(crate) fn getrandom(buf: &mut [u8], slot: &StateSlot, before_first: impl FnOnce()) -> Option<Result<usize>> {
    let function = GETRANDOM.get()?;
    let state = slot.state(|| {
        before_first();
        state_params(function)
    })?;
    // SAFETY: 1. Found under its name. 2. `buf` is a slice. 3. Only this thread uses the slot's
    // state.
    let done =
        unsafe { Cpu::vdso_getrandom(function, buf.as_mut_ptr(), buf.len(), 0, state.address().cast(), state.size()) };
    let done = Errno::check(done);
    if done == Err(Errno::ENOSYS) {
        GETRANDOM.disable();
    }
    Some(done)
}

/// Asks what memory the vDSO needs for the states of its getrandom. On an error, disables
/// getrandom.
#[cold]
fn state_params(function: *const c_void) -> Option<k::vgetrandom_opaque_params> {
    let mut params = MaybeUninit::<k::vgetrandom_opaque_params>::zeroed();
    // SAFETY: 1. Found under its name. 2. The length is 0. 3. The size asks for the parameters.
    let done = unsafe { Cpu::vdso_getrandom(function, ptr::null_mut(), 0, 0, params.as_mut_ptr().cast(), !0) };
    // SAFETY: all zeros are valid parameters.
    let params = unsafe { params.assume_init() };
    if done != 0 {
        GETRANDOM.disable();
        return None;
    }
    Some(params)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    unsafe extern "C" {
        /// The host libc's function.
        safe fn getauxval(tag: usize) -> usize;
    }

    /// An auxiliary vector with the host's image, or an image at another address.
    fn vector(base: usize) -> Auxv {
        Auxv::from_words(Vec::leak([auxv::AT_SYSINFO_EHDR, base].to_vec()))
    }

    #[test]
    fn the_clock_of_the_hosts_image_tells_the_kernels_time() {
        let base = getauxval(auxv::AT_SYSINFO_EHDR);
        if base == 0 {
            return; // A host without a vDSO.
        }
        let function = find(vector(base), VDSO.clock_gettime).unwrap();
        let clock = k::CLOCK_MONOTONIC as c_int;
        for _ in 0..1000 {
            let before = crate::sys::clock_gettime(clock).unwrap();
            let mut now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: 1. Found under its name. 2. A timespec of that width, on a 64-bit host.
            assert_eq!(unsafe { Cpu::vdso_clock_gettime(function, clock, (&raw mut now).cast()) }, 0);
            let after = crate::sys::clock_gettime(clock).unwrap();
            assert!(before <= now && now <= after, "{before:?} {now:?} {after:?}");
        }
        assert_eq!(find(vector(base), "no such function"), None);
        assert_eq!(find(vector(base), "LINUX_2.6"), None);
    }

    #[test]
    fn an_address_that_cannot_be_an_images_is_not_read() {
        for base in [0, 1, 8, 4095, 4097, usize::MAX] {
            assert_eq!(find(vector(base), VDSO.clock_gettime), None, "{base:#x}");
        }
        assert_eq!(find(Auxv::from_words(&[]), VDSO.clock_gettime), None);
    }

    #[test]
    fn memory_that_is_no_image_has_no_functions() {
        #[repr(align(4096))]
        struct Page(#[allow(dead_code)] [u8; 4096]);
        static ZERO: Page = Page([0; 4096]);
        assert_eq!(find(vector((&raw const ZERO).expose_provenance()), VDSO.clock_gettime), None);
        // The host's test program: a valid ELF header, but other symbols.
        let me = getauxval(auxv::AT_PHDR) & !4095;
        assert_eq!(find(vector(me), VDSO.clock_gettime), None);
    }

    #[test]
    fn threads_get_random_bytes_of_their_own_from_the_hosts_image() {
        let base = getauxval(auxv::AT_SYSINFO_EHDR);
        let Some(function) = find(vector(base), VDSO.getrandom) else { return };
        let function = function.expose_provenance();
        let thread = || {
            let function = ptr::with_exposed_provenance(function);
            let slot = StateSlot::new();
            let mut all = Vec::new();
            for _ in 0..100 {
                let state = slot.state(|| state_params(function)).unwrap();
                assert_eq!(state.address().addr() / 4096, (state.address().addr() + state.size() - 1) / 4096);
                let (address, size) = (state.address().cast(), state.size());
                let mut bytes = [0; 16];
                // SAFETY: 1. Found under its name. 2. An array. 3. The slot belongs to this thread.
                let done = unsafe { Cpu::vdso_getrandom(function, bytes.as_mut_ptr(), 16, 0, address, size) };
                assert_eq!(done, 16);
                all.push(bytes);
            }
            slot.give_back();
            all
        };
        let mut all: Vec<[u8; 16]> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..200).map(|_| scope.spawn(thread)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn what_was_turned_off_is_not_looked_up_again() {
        let function = Function::new(VDSO.clock_gettime);
        function.disable();
        assert_eq!(function.get(), None);
        function.look_up();
        assert_eq!(function.get(), None);
    }

    #[test]
    fn a_function_that_only_says_enosys_is_disabled_for_good() {
        extern "C" fn stub(_: c_int, _: *mut c_void) -> c_int {
            -(Errno::ENOSYS.raw() as c_int)
        }
        CLOCK_GETTIME.address.set(stub as *mut c_void as usize);
        let by_call = crate::sys::clock_gettime(k::CLOCK_MONOTONIC as i32).unwrap();
        // The time still comes from the kernel.
        assert!(crate::time::ClockId::CLOCK_MONOTONIC.now().unwrap() >= by_call);
        assert!(!in_use().clock_gettime);
        assert!(crate::time::ClockId::CLOCK_MONOTONIC.now().unwrap() >= by_call);
    }

    #[test]
    fn an_error_is_the_kernels_to_explain() {
        extern "C" fn refuses(_: c_int, _: *mut c_void) -> c_int {
            -(Errno::EINVAL.raw() as c_int)
        }
        let mut now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: 1. A function of that type. 2. A timespec.
        let done = unsafe { Cpu::vdso_clock_gettime(refuses as *const c_void, 0, (&raw mut now).cast()) };
        assert_eq!(Errno::check(done), Err(Errno::EINVAL));
    }
}

//! clock_gettime of the vDSO, found with the minimum that the x86_64 kernel's image needs, without
//! checks.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static CLOCK_GETTIME: AtomicUsize = AtomicUsize::new(0);

const AT_SYSINFO_EHDR: usize = 33;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;

/// Looks up the function.
///
/// # Safety
///
/// 1. `environment` is the first pointer of the environment, on the initial stack.
pub unsafe fn find(environment: *const usize) {
    // SAFETY: 1. A null ends the environment and (0, 0) the vector; the kernel's image is complete.
    unsafe {
        let mut word = environment;
        while *word != 0 {
            word = word.add(1);
        }
        let mut pair = word.add(1);
        while *pair != AT_SYSINFO_EHDR {
            pair = pair.add(2);
        }
        let base = core::ptr::with_exposed_provenance::<u8>(*pair.add(1));
        let headers = base.add(*base.add(32).cast::<usize>());
        let (mut slide, mut dynamic) = (0, core::ptr::null::<usize>());
        for nr in 0..usize::from(*base.add(56).cast::<u16>()) {
            let header = headers.add(56 * nr);
            match *header.cast::<u32>() {
                PT_LOAD => {
                    slide = base.addr() + *header.add(8).cast::<usize>() - *header.add(16).cast::<usize>();
                }
                PT_DYNAMIC => dynamic = base.add(*header.add(8).cast::<usize>()).cast(),
                _ => {}
            }
        }
        let (mut strings, mut symbols) = (base, base);
        while *dynamic != 0 {
            let address = core::ptr::with_exposed_provenance(slide + *dynamic.add(1));
            match *dynamic {
                DT_STRTAB => strings = address,
                DT_SYMTAB => symbols = address,
                _ => {}
            }
            dynamic = dynamic.add(2);
        }
        // The strings follow the symbols.
        let mut symbol = symbols;
        while symbol < strings {
            let name = CStr::from_ptr(strings.add(*symbol.cast::<u32>() as usize).cast::<c_char>());
            if name == c"__vdso_clock_gettime" {
                CLOCK_GETTIME.store(slide + *symbol.add(8).cast::<usize>(), Relaxed);
                return;
            }
            symbol = symbol.add(24);
        }
    }
    super::kernel::exit_group(3)
}

/// CLOCK_MONOTONIC.
#[inline(always)]
pub fn monotonic() -> [u64; 2] {
    // SAFETY: `find` stored the address of a function of this type, or ended the program.
    let function: extern "C" fn(i32, *mut [u64; 2]) -> i32 =
        unsafe { core::mem::transmute(CLOCK_GETTIME.load(Relaxed)) };
    let mut now = [0; 2];
    function(1, &mut now);
    // As two words, as the function stored them: one load of 16 bytes would wait until both stores
    // are in the cache (32 ns instead of 26).
    // SAFETY: the array is valid.
    unsafe { [(&raw const now[0]).read_volatile(), (&raw const now[1]).read_volatile()] }
}

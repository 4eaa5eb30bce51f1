//! How much memory this process has, and in how many mappings.

use core::ffi::CStr;
use core::ops::RangeInclusive;

use rt0::{sys, thread};

use crate::files::read_file;
use crate::runner::{emulated, under_valgrind};
use crate::waiting::wait_until;

/// The number of bytes that each thread has beside its block: thread-locals, and what rt0's modules
/// keep of each thread.
pub fn bytes_of_each_thread() -> usize {
    unsafe extern "C" {
        /// Of the linker scripts.
        static __rt0_tls_start: [u8; 0];
        static __rt0_tls_end: [u8; 0];
    }
    (&raw const __rt0_tls_end).addr() - (&raw const __rt0_tls_start).addr()
}

/// An emulator has mappings of its own among the program's, which come and go with its threads.
fn of_the_emulator() -> usize {
    if emulated() { 4 } else { 0 }
}

/// Waits until there are at most `before` mappings: nothing is left of what a test made since then.
pub fn wait_for_mappings_to_go(before: usize) {
    wait_until("every mapping to be gone", || mappings() <= before + of_the_emulator());
}

/// Checks the number of mappings, without waiting.
#[track_caller]
pub fn assert_mappings(expected: RangeInclusive<usize>) {
    let (now, own) = (mappings(), of_the_emulator());
    let allowed = expected.start().saturating_sub(own)..=expected.end() + own;
    assert!(allowed.contains(&now), "{now} mappings, not {allowed:?}");
}

/// The number of mappings of this process, without the cached stacks. Each 512 KiB of a mapping
/// count as one, because the kernel merges neighbouring mappings. (Under an emulator: the guest's
/// mappings. Under valgrind 0, see [`under_valgrind`]: a test of mappings then tests only the
/// rest.)
pub fn mappings() -> usize {
    thread::trim_stack_cache();
    if under_valgrind() {
        return 0;
    }
    let file = sys::open(c"/proc/self/maps", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).expect("/proc/self/maps");
    let mut buf = [0; 4096];
    let mut mappings = 0;
    // A line begins `START-END `, in hexadecimal.
    let (mut in_range, mut start, mut number) = (true, 0, 0u64);
    loop {
        let count = rt0::io::read(&file, &mut buf).expect("reading /proc/self/maps");
        if count == 0 {
            return mappings;
        }
        for &byte in &buf[..count] {
            match byte {
                b'\n' => (in_range, number) = (true, 0),
                _ if !in_range => {}
                b'-' => (start, number) = (number, 0),
                b' ' => {
                    in_range = false;
                    mappings += 1 + ((number - start) >> 19) as usize;
                }
                digit => number = number << 4 | u64::from((digit as char).to_digit(16).expect("an address")),
            }
        }
    }
}

/// This process's address space in KiB, without cached stacks: VmSize. Under an emulator it is the
/// emulator's, and says nothing about the program.
pub fn vm_size_kib() -> usize {
    thread::trim_stack_cache();
    status_kib("VmSize:")
}

/// A number of KiB in /proc/self/status, by its line's first word: proc_pid_status(5)
pub fn status_kib(name: &str) -> usize {
    kib(c"/proc/self/status", name)
}

/// The same of another file of /proc/self.
pub fn kib(file: &CStr, name: &str) -> usize {
    let mut buf = [0; 4096];
    let text = core::str::from_utf8(read_file(file, &mut buf).expect("/proc")).expect("ASCII");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no line {name}"));
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

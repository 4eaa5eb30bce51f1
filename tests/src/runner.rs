//! What runs this program: which machine, an emulator or valgrind, and how much work it can do.

use core::ops::Range;
use core::time::Duration;

use linux_raw_sys::{auxvec, general as k};
use rt0::{Env, sys};

use crate::files::read_link;

/// The machine's name, as uname(2) has it.
pub fn machine() -> [u8; 65] {
    let mut names = [[0u8; 65]; 6]; // struct new_utsname
    let at = (&raw mut names).expose_provenance();
    // SAFETY: 1. The kernel writes the six names.
    unsafe { sys::syscall(k::__NR_uname as usize, [at, 0, 0, 0, 0, 0]) }.expect("uname");
    names[4]
}

/// Whether an emulator executes the instructions: an emulator of programs, or one of machines with
/// a real kernel, where the first process creates a file to say so.
pub fn slow() -> bool {
    let args = [k::AT_FDCWD as isize as usize, c"/slow".as_ptr().expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the path.
    let marked = unsafe { sys::syscall(k::__NR_faccessat as usize, args) };
    marked.is_ok() || emulated()
}

/// Whether an emulator answers this process's system calls. It shows its own file as the process's,
/// unless it pretends.
pub fn emulated() -> bool {
    let (mut told, mut true_one) = ([0; 4096], [0; 4096]);
    let told = read_link(c"/proc/self/exe", &mut told).expect("/proc");
    told != read_link(c"/proc/thread-self/exe", &mut true_one).expect("/proc")
}

/// Whether valgrind runs this program. Its mappings are in the same process, and cannot be
/// distinguished from the program's.
pub fn under_valgrind() -> bool {
    let mut path = [0; 512];
    read_link(c"/proc/thread-self/exe", &mut path).is_ok_and(|path| path.windows(8).any(|part| part == b"valgrind"))
}

/// The number of repetitions of a step that finds more the more often it runs: `times` natively,
/// and a twentieth of it where everything is slower and rt0's code is the same.
pub fn often(times: usize) -> usize {
    if slow() { times.div_ceil(20) } else { times }
}

/// The number of threads that shows that none leaks. qemu needs up to 5 ms for one on Arm.
pub fn thousands() -> usize {
    if slow() { 100 } else { 10_000 }
}

/// The duration of a stress test: a second (on a slow machine, a sixth), or `RT0_STRESS_SECONDS`.
/// Events that the test requires are awaited, however long that takes.
pub fn stress_time(env: Env) -> Duration {
    let seconds = env.var("RT0_STRESS_SECONDS").and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    seconds.map_or(Duration::from_millis(if slow() { 160 } else { 1000 }), Duration::from_secs)
}

/// The range of the vDSO's image; empty if there is none. It assumes the usual length of 16 KiB; no
/// other code follows the image.
pub fn vdso_image(env: Env) -> Range<usize> {
    const AT_SYSINFO_EHDR: usize = 33;
    env.auxv().get(AT_SYSINFO_EHDR).map_or(0..0, |start| start..start + (16 << 10))
}

/// Sets `AT_SECURE` in the auxiliary vector on the main thread's stack, as for a set-uid program.
pub fn make_secure(env: Env) {
    let [secure, page_size, path] = [auxvec::AT_SECURE, auxvec::AT_PAGESZ, auxvec::AT_EXECFN].map(|key| key as usize);
    let vector = env.auxv();
    let (page, end) = (vector.get(page_size).expect("its page size"), vector.get(path).expect("its path"));
    let word = |at: usize| core::ptr::with_exposed_provenance_mut::<usize>(at);
    // SAFETY: the stack from here to the path.
    let read = |at: usize| unsafe { word(at).read_volatile() };
    let step = size_of::<usize>();
    let start = (&raw const vector).expose_provenance().next_multiple_of(step);
    // A function's frame may hold the same two words, but not the other entry near them.
    let pages = (start..end - step).step_by(step).filter(|at| read(*at) == page_size && read(at + step) == page);
    let near = |at: usize| (1..32).flat_map(move |n| [at - 2 * step * n, at + 2 * step * n]);
    let at = pages.flat_map(near).find(|at| read(*at) == secure && read(at + step) == 0).expect("the entry");
    // SAFETY: within the vector, which is this process's; no thread reads it meanwhile.
    unsafe { word(at + step).write_volatile(1) };
    assert!(env.auxv().secure());
}

//! Children of a test: the test's own program once more, as another process. A test asks [`role`]
//! first; in a child it says which part of the test to run.

use core::ffi::CStr;

use rt0::Env;
use rt0::process::Command;

use crate::emulated;
use crate::files::read_link;

/// The role of this process as a child; `None` in the test itself.
pub fn role(env: Env) -> Option<&'static str> {
    env.var("ROLE").and_then(|role| role.to_str().ok())
}

/// The program to execute for a child. Under an emulator that is the emulator: the kernel cannot
/// execute a program of another machine.
pub fn program() -> &'static CStr {
    if emulated() { c"/proc/thread-self/exe" } else { c"/proc/self/exe" }
}

/// Calls `f` with a command that runs `test` of this program, with `role`, an entry `ROLE=…` of the
/// environment, and `more` arguments after the test's name.
pub fn with<T>(test: &CStr, role: &CStr, more: &[&CStr], f: impl FnOnce(Command) -> T) -> T {
    with_program(program(), test, more, |command| f(command.envs(&[role])))
}

/// As [`with`], but by another path of [`program`], and without a role.
pub fn with_program<T>(program: &CStr, test: &CStr, more: &[&CStr], f: impl FnOnce(Command) -> T) -> T {
    let mut path = [0; 4096];
    let room = path.len() - 1;
    read_link(c"/proc/self/exe", &mut path[..room]).expect("/proc/self/exe");
    let path = CStr::from_bytes_until_nul(&path).expect("a path");

    let mut args = [c""; 8];
    let own = [path].into_iter().filter(|_| emulated());
    let mut len = 0;
    for arg in own.chain([test]).chain(more.iter().copied()) {
        args[len] = arg;
        len += 1;
    }
    f(Command::new(program).args(&args[..len]))
}

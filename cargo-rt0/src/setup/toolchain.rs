//! Which toolchain is used, and which of the user's variables its commands get.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which toolchain is used: rustup's choice in a folder.
pub struct Toolchain {
    folder: PathBuf,
    /// The toolchain that the command line or the environment names instead.
    named: Option<OsString>,
}

impl Toolchain {
    /// The toolchain that this folder pins, even if the environment names another one.
    pub fn pinned(folder: &Path) -> Toolchain {
        Toolchain { folder: folder.to_path_buf(), named: None }
    }

    /// The toolchain that cargo itself would use here: `cargo +TOOLCHAIN` names it in the
    /// environment.
    pub fn chosen(folder: &Path) -> Toolchain {
        Toolchain { folder: folder.to_path_buf(), named: std::env::var_os(RUSTUP_TOOLCHAIN) }
    }

    /// A command in the folder, without the variables that `cargo run` and the user's environment
    /// would add.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if is_left_out(&name) {
                command.env_remove(&*name);
            }
        }
        command.envs(self.named.iter().map(|name| (RUSTUP_TOOLCHAIN, name)));
        command
    }
}

const RUSTUP_TOOLCHAIN: &str = "RUSTUP_TOOLCHAIN";

/// Whether a variable would change which compiler runs, with which flags, for which machine or into
/// which folder. A wrapper of the compiler, such as a cache, stays.
fn is_left_out(name: &str) -> bool {
    const BEGIN: [&str; 4] = ["CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PKG_", "CARGO_MANIFEST_"];
    const WHOLE: [&str; 6] = ["CARGO", "LD_LIBRARY_PATH", RUSTUP_TOOLCHAIN, "RUSTC", "RUSTC_BOOTSTRAP", "RUSTDOC"];
    let wraps = name.ends_with("_WRAPPER");
    let flags = name.ends_with("RUSTFLAGS") || name.ends_with("RUSTDOCFLAGS");
    flags || WHOLE.contains(&name) || (BEGIN.iter().any(|begin| name.starts_with(begin)) && !wraps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_would_change_what_is_built_are_left_out() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_BUILD_TARGET_DIR",
            "RUSTC",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_left_out(name), "{name}");
        }
        for name in ["RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER", "CARGO_HOME", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!is_left_out(name), "{name}");
        }
    }
}

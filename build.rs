//! Puts the linker script where `-Trt0.ld` finds it, for rt0's own programs and for those of every crate that depends
//! on it (a library cannot pass linker arguments on, but it can name a folder to search).
use std::{env, fs, path::Path};

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let script = Path::new(&out).join("rt0.ld");
    fs::copy("link.ld", &script).unwrap_or_else(|e| panic!("copying link.ld to {}: {e}", script.display()));
    println!("cargo:rustc-link-search={out}");
    println!("cargo:rerun-if-changed=link.ld");
}

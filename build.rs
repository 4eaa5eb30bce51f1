//! Puts the linker scripts where `-Trt0.ld` finds them, for rt0's own programs and for those of
//! every crate that depends on rt0. (A library cannot pass linker arguments on, but it can add a
//! folder to the search path.)
use std::{env, fs, path::Path};

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    for (from, name) in [("link.ld", "rt0.ld"), ("small.ld", "rt0-small.ld"), ("common.ld", "rt0-common.ld")] {
        let script = Path::new(&out).join(name);
        fs::copy(from, &script).unwrap_or_else(|e| panic!("copying {from} to {}: {e}", script.display()));
        println!("cargo:rerun-if-changed={from}");
    }
    println!("cargo:rustc-link-search={out}");
}

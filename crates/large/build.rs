fn main() {
    println!("cargo::rerun-if-changed=src/part.c");
    println!("cargo::rerun-if-changed=Cargo.toml");
    // Position-independent code works too, but leaves the undefined name `__tls_get_addr` behind:
    // of calls that the linker has replaced.
    cc::Build::new().file("src/part.c").pic(false).flag("-fstack-protector-all").compile("part");
    rt0_build::program();
}

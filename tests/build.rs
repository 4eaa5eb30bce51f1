//! Compiles the functions that src/bin/stack_protector.rs calls: from src/protected/protected.rs
//! with rustc, for every machine, and from protected.c with the host's C compiler, for x86_64 and
//! x86.
use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let (target, out) = (variable("TARGET"), variable("OUT_DIR"));
    println!("cargo::rerun-if-changed=src/protected");
    println!("cargo::rustc-check-cfg=cfg(protected_by_cc)");

    let object = |name: &str| Path::new(&out).join(name);
    let link = |object: &Path| println!("cargo::rustc-link-arg-bin=stack_protector={}", object.display());

    let by_rustc = object("protected-by-rustc.o");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.env("RUSTC_BOOTSTRAP", "1").args(["--edition=2024", "--crate-type=lib", "--emit=obj", "-O", "-Cpanic=abort"]);
    rustc.args(["-Crelocation-model=static", "-Zstack-protector=all", "--target", &target, "-o"]).arg(&by_rustc);
    run(rustc.arg("src/protected/protected.rs"));
    link(&by_rustc);

    let machine: &[&str] = match target.split('-').next() {
        Some("x86_64") => &["-m64"],
        Some("i686") => &["-m32"],
        _ => return,
    };
    if !variable("HOST").starts_with("x86_64-") || Command::new("cc").arg("--version").output().is_err() {
        return;
    }
    for (name, model) in [("rt0_test_protected_by_cc", "-fno-pic"), ("rt0_test_protected_by_cc_pic", "-fpic")] {
        let by_cc = object(&format!("{name}.o"));
        let mut cc = Command::new("cc");
        cc.args(machine).args(["-c", "-O1", "-ffreestanding", "-fstack-protector-strong", model, "-o"]).arg(&by_cc);
        run(cc.arg(format!("-DNAME={name}")).arg("src/protected/protected.c"));
        link(&by_cc);
    }
    println!("cargo::rustc-cfg=protected_by_cc");
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

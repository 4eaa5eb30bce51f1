//! Tests of rt0's linker scripts: a program that would not run is refused with a sentence, and
//! every section has a place.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Error, Result, ensure};
use cargo_rt0::process;
use cargo_rt0::protocol::seen;
use cargo_rt0::report::Test;
use cargo_rt0::setup::Setup;

use crate::repository::{pinned, root, scratch};

/// The time limit for compiling and linking a program.
const LIMIT: Duration = Duration::from_secs(300);

/// The tests.
pub fn all(setup: &Setup) -> Vec<Test<'static>> {
    let test = |name: &str, look: fn(&Linker) -> Result<()>| {
        let linker = setup.linker().map(|path| Linker { host: setup.rust.host.clone(), path });
        let linker = linker.map_err(|error| format!("{error:#}"));
        Test::new("host", format!("repository::{name}"), move || {
            look(linker.as_ref().map_err(|why| Error::msg(why.clone()))?)
        })
    };
    vec![
        test("the_linker_refuses_with_a_sentence_what_would_not_run", refuses),
        test("the_linker_script_has_a_place_for_the_large_code_model", has_places),
    ]
}

/// The toolchain's LLD.
struct Linker {
    /// The triple of this machine, for which it links.
    host: String,
    path: PathBuf,
}

/// Flags that a program must not be linked with or without, and the linker's message.
const REFUSED: [(&[&str], &str); 3] = [
    (&["-Clink-arg=-Trt0.ld"], RELOCATED),
    (&["-Clink-arg=-Trt0-small.ld"], RELOCATED),
    (&["-Crelocation-model=static"], "undefined symbol: __rt0_ld_is_missing__call_rt0_build_program_in_build_rs"),
];
const RELOCATED: &str =
    "rt0: nothing relocates a program when it starts: compile and link with -Crelocation-model=static";

/// A function whose address a resolver would have to return. For x86_64; the assembly is the same
/// on most machines.
const IFUNC: &str = r#"
#![no_std]
core::arch::global_asm!(
    ".globl f, _start",
    ".type f,@gnu_indirect_function",
    ".section .text.resolver, \"ax\"",
    "f: .long 0",
    ".text",
    "_start: .long f - .",
);
"#;

fn refuses(linker: &Linker) -> Result<()> {
    for (flags, sentence) in REFUSED {
        let outcome = linker.link_hello(flags)?;
        let said = !outcome.status.success() && outcome.stderr.contains(sentence);
        ensure!(said, seen(&outcome, &format!("{flags:?} is not refused with `{sentence}`")));
    }
    let outcome = linker.link_alone("ifunc", IFUNC)?;
    let sentence = "rt0: nothing calls resolvers when a program starts: STT_GNU_IFUNC symbols are not supported";
    let said = !outcome.status.success() && outcome.stderr.contains(sentence);
    ensure!(said, seen(&outcome, &format!("an ifunc is not refused with `{sentence}`")));
    Ok(())
}

/// Contents for each section that only -Ccode-model=large makes. A section that a script does not
/// name could be placed anywhere.
const LARGE: &str = r#"
#![no_std]
core::arch::global_asm!(
    ".globl _start",
    ".section .ltext.f, \"ax\"",
    "_start: .long 0",
    ".section .lrodata.c, \"a\"",
    ".long 0",
    ".section .ldata.d, \"aw\"",
    ".long 0",
    ".section .lbss.b, \"aw\", %nobits",
    ".long 0",
    ".text",
);
"#;

fn has_places(linker: &Linker) -> Result<()> {
    let outcome = linker.link_alone("large", LARGE)?;
    let placed = outcome.status.success() && !outcome.stderr.contains("alone.o:(");
    ensure!(placed, seen(&outcome, "the script names no place for a section of the large code model"));
    Ok(())
}

impl Linker {
    /// Tries to link rt0's greeting with flags that must be refused; the outcome contains cargo's
    /// messages.
    fn link_hello(&self, flags: &[&str]) -> Result<process::Outcome> {
        let host = &self.host;
        let linker = [format!("-Clinker={}", self.path.display()), "-Clinker-flavor=ld.lld".to_string()];
        let mut command = pinned("cargo");
        command.args(["rustc", "--manifest-path", "bench/Cargo.toml", "--target", host, "--features", "rt0"]);
        command.args(["--bin", "rt0-hello", "--config", &format!("target.{host}.rustflags={linker:?}")]);
        // Only for the program: rt0 is compiled once for all of them.
        command.arg("--target-dir").arg(root().join("target/bench/refused")).arg("--").args(flags);
        Ok(process::run(&mut command, LIMIT)?)
    }

    /// Compiles a file to an object, and tries to link that alone with rt0's linker script. The
    /// outcome contains the linker's messages, with a warning for each section that the script does
    /// not name.
    fn link_alone(&self, name: &str, source: &str) -> Result<process::Outcome> {
        let folder = scratch(&format!("linked-alone-{name}"))?;
        for (from, to) in [("link.ld", "rt0.ld"), ("common.ld", "rt0-common.ld")] {
            fs::copy(root().join(from), folder.join(to))?;
        }
        fs::write(folder.join("alone.rs"), source)?;
        let mut rustc = pinned("rustc");
        rustc.current_dir(&folder).args(["--edition=2024", "--crate-type=lib", "--emit=obj", "--target", &self.host]);
        let compiled = process::run(rustc.arg("alone.rs"), LIMIT)?;
        ensure!(compiled.status.success(), seen(&compiled, &process::shell_line(&rustc)));
        let mut linker = Command::new(&self.path);
        linker.current_dir(&folder).args(["-flavor", "gnu", "-L.", "-Trt0.ld", "--orphan-handling=warn"]);
        Ok(process::run(linker.args(["alone.o", "-o", "alone"]), LIMIT)?)
    }
}

//! Which linker rustc will start, and what it must be told.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::variable;

/// The two kinds of linkers, by how they take their arguments.
#[derive(Debug, PartialEq, Eq)]
pub enum Linker {
    /// A C compiler.
    Compiler {
        /// The emulation for the linker behind it, where the compiler is made for another machine.
        emulation: Option<&'static str>,
    },
    /// LLD itself.
    Lld,
}

/// The start of a target's name, and what the machine is called by LLD.
const EMULATIONS: &[(&str, &str)] = &[
    ("x86_64-", "elf_x86_64"),
    ("i586-", "elf_i386"),
    ("i686-", "elf_i386"),
    ("aarch64-", "aarch64linux"),
    ("aarch64_be-", "aarch64linuxb"),
    ("arm", "armelf_linux_eabi"),
    ("thumbv7", "armelf_linux_eabi"),
    ("riscv64", "elf64lriscv"),
    ("riscv32", "elf32lriscv"),
    ("loongarch64-", "elf64loongarch"),
    ("s390x-", "elf64_s390"),
    ("mips-", "elf32btsmip"),
    ("mipsel-", "elf32ltsmip"),
    ("mips64-", "elf64btsmip"),
    ("mips64el-", "elf64ltsmip"),
    ("powerpc64-", "elf64ppc"),
    ("powerpc64le-", "elf64lppc"),
    ("powerpc-", "elf32ppclinux"),
    ("sparc64-", "elf64_sparc"),
];

/// The linker script that the flags of all crates have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// None, as with plain cargo.
    None,
    /// One that another script replaces, as with `cargo rt0`.
    Default,
    /// One that stays.
    Fixed,
}

impl Script {
    fn of(flags: &[&str]) -> Script {
        let has = |part: &str| flags.iter().any(|flag| flag.contains(part));
        match (has("-Trt0"), has("--default-script=rt0")) {
            (true, _) => Script::Fixed,
            (false, true) => Script::Default,
            (false, false) => Script::None,
        }
    }
}

impl Linker {
    /// Asks cargo's environment; and which linker script the flags of all crates have already.
    pub fn find() -> Result<(Linker, Script), String> {
        let (target, host) = (variable("TARGET")?, variable("HOST")?);
        let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
        let flags: Vec<_> = flags.split('\x1f').collect();
        let program = codegen_option(&flags, "linker").or_else(|| env::var("RUSTC_LINKER").ok());
        let flavor = codegen_option(&flags, "linker-flavor");
        Ok((Linker::of(program.as_deref(), flavor.as_deref(), &target, &host)?, Script::of(&flags)))
    }

    /// What rustc makes of the linker's name and flavor, if they are given.
    fn of(program: Option<&str>, flavor: Option<&str>, target: &str, host: &str) -> Result<Linker, String> {
        let stem = program.map(|path| Path::new(path).file_name().unwrap_or_default().to_string_lossy());
        let is_lld = match (flavor, &stem) {
            (Some(flavor), _) => ["ld.lld", "ld", "gnu-lld", "gnu", "gnu-lld-no-cc", "gnu-no-cc"].contains(&flavor),
            (None, Some(stem)) => stem.ends_with("lld") || stem == "ld" || stem.ends_with("-ld"),
            (None, None) => false,
        };
        if is_lld {
            return Ok(Linker::Lld);
        }
        let machine = |triple: &str| triple.split('-').next().unwrap_or_default().to_string();
        // A compiler that was named is one for the target.
        if program.is_some() || machine(target) == machine(host) {
            return Ok(Linker::Compiler { emulation: None });
        }
        let row = EMULATIONS.iter().find(|row| target.starts_with(row.0));
        let emulation = row.ok_or_else(|| format!("there is no rt0 for {target}: see its README for the machines"))?.1;
        Ok(Linker::Compiler { emulation: Some(emulation) })
    }

    /// The arguments for it beside a linker script, which finds the rest: libraries of libc's names
    /// with nothing in them, and what the linker does not find, explained. The script for `small`
    /// programs replaces one that is only the default.
    pub fn arguments_beside_script(&self, scripts: &Path, small: bool) -> Vec<String> {
        let mut arguments = vec![format!("-L{}", scripts.join("no-libc").display())];
        if small {
            arguments.push(format!("-T{}", scripts.join(SMALL).display()));
        }
        arguments.extend(self.passed_on(for_linker(scripts, small)));
        arguments
    }

    /// Arguments for LLD, as this linker takes them.
    fn passed_on(&self, arguments: Vec<String>) -> Vec<String> {
        match self {
            Linker::Lld => arguments,
            Linker::Compiler { .. } => arguments.iter().map(|argument| format!("-Wl,{argument}")).collect(),
        }
    }

    /// The arguments for it.
    pub fn arguments(&self, scripts: &Path, small: bool) -> Result<Vec<String>, String> {
        let name = if small { SMALL } else { "rt0.ld" };
        let script = scripts.join(name);
        let mut arguments = vec![
            "-static".to_string(),
            "-no-pie".to_string(),
            "-nostdlib".to_string(),
            // For what the script includes; and libraries of libc's names with nothing in them.
            format!("-L{}", scripts.display()),
            format!("-L{}", scripts.join("no-libc").display()),
            format!("-T{}", script.display()),
        ];
        let mut for_linker = for_linker(scripts, small);
        let Linker::Compiler { emulation } = self else {
            arguments.extend(for_linker);
            return Ok(arguments);
        };
        arguments.push("-nostartfiles".to_string());
        // The scripts are written for LLD: the one that comes with Rust, where rustc would take
        // another.
        arguments.push("-fuse-ld=lld".to_string());
        let folder = Path::new(&sysroot()?).join("lib/rustlib").join(variable("HOST")?).join("bin/gcc-ld");
        if folder.exists() {
            arguments.push(format!("-B{}", folder.display()));
        }
        if let Some(emulation) = emulation {
            // Last, so that they count and not what the compiler says for its own machine. MIPS has
            // no GNU hash tables; a static program has none of either kind.
            for_linker.extend(["-m".to_string(), emulation.to_string(), "--hash-style=sysv".to_string()]);
        }
        arguments.extend(self.passed_on(for_linker));
        Ok(arguments)
    }
}

/// The linker script of small programs.
const SMALL: &str = "rt0-small.ld";

/// What LLD is told for every program: to explain what it does not find. A small one has no section
/// headers.
fn for_linker(scripts: &Path, small: bool) -> Vec<String> {
    let mut arguments = vec![format!("--error-handling-script={}", scripts.join("explain").display())];
    if small {
        arguments.extend(["-z".to_string(), "nosectionheader".to_string()]);
    }
    arguments
}

/// The value of `-C name=value`, in either way to write it; the last one counts.
fn codegen_option(flags: &[&str], name: &str) -> Option<String> {
    let mut found = None;
    for (index, flag) in flags.iter().enumerate() {
        let option = match *flag {
            "-C" | "--codegen" => flags.get(index + 1).copied(),
            flag => flag.strip_prefix("-C").or_else(|| flag.strip_prefix("--codegen=")),
        };
        let value = option.and_then(|option| option.strip_prefix(name)?.strip_prefix('='));
        found = value.map(str::to_string).or(found);
    }
    found
}

/// The folder of the toolchain that compiles.
fn sysroot() -> Result<String, String> {
    let rustc = variable("RUSTC")?;
    let output = Command::new(&rustc).args(["--print", "sysroot"]).output().map_err(|e| format!("{rustc}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{rustc} --print sysroot: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "x86_64-unknown-linux-gnu";

    #[test]
    fn an_option_is_found_in_either_way_to_write_it_and_the_last_counts() {
        let flags = ["-Clinker=a", "-C", "linker=b", "--codegen=linker-flavor=ld.lld", "-Clto"];
        assert_eq!(codegen_option(&flags, "linker").as_deref(), Some("b"));
        assert_eq!(codegen_option(&flags, "linker-flavor").as_deref(), Some("ld.lld"));
        assert_eq!(codegen_option(&flags, "panic"), None);
    }

    #[test]
    fn a_script_is_replaced_where_it_is_the_default() {
        assert_eq!(Script::of(&["-Clinker=a"]), Script::None);
        assert_eq!(Script::of(&["-Clinker=a", "-Clink-arg=--default-script=rt0.ld"]), Script::Default);
        assert_eq!(Script::of(&["-C", "link-arg=-Trt0.ld"]), Script::Fixed);
        let scripts = Path::new("/scripts");
        let is_script = |argument: &&String| argument.contains(".ld");
        let script = |small| Linker::Lld.arguments_beside_script(scripts, small).iter().find(is_script).cloned();
        assert_eq!((script(true).as_deref(), script(false)), (Some("-T/scripts/rt0-small.ld"), None));
    }

    #[test]
    fn a_linker_is_known_by_its_flavor_or_its_name() {
        let of = |program, flavor, target| Linker::of(program, flavor, target, HOST).expect("a machine of rt0's");
        let compiler = Linker::Compiler { emulation: None };
        assert_eq!(of(None, None, HOST), compiler);
        assert_eq!(of(None, None, "x86_64-unknown-linux-musl"), compiler);
        assert_eq!(of(Some("/usr/bin/aarch64-linux-gnu-gcc"), None, "aarch64-unknown-linux-gnu"), compiler);
        assert_eq!(of(Some("a/bin/rust-lld"), None, "mips-unknown-linux-gnu"), Linker::Lld);
        assert_eq!(of(Some("mine"), Some("ld.lld"), HOST), Linker::Lld);
        assert_eq!(of(Some("rust-lld"), Some("gcc"), HOST), compiler);
        let emulated = Linker::Compiler { emulation: Some("elf64lppc") };
        assert_eq!(of(None, None, "powerpc64le-unknown-linux-gnu"), emulated);
        assert!(Linker::of(None, None, "vax-unknown-linux-gnu", HOST).is_err());
    }
}

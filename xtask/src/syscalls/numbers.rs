//! The numbers of a machine's system calls, from the crate linux-raw-sys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use cargo_rt0::packages::checked;
use cargo_rt0::targets::Target;
use object::elf;

use crate::repository::pinned;

/// The number of each call on a machine, by its name without `__NR_`.
pub struct Numbers(BTreeMap<String, u32>);

impl Numbers {
    /// Reads them from the crate's source, which has all machines.
    pub fn of(target: &Target) -> Result<Numbers> {
        let file = crate_folder()?.join("src").join(arch(target)).join("general.rs");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let numbers = parse(&text);
        ensure!(numbers.contains_key("exit_group"), "no numbers of calls in {}", file.display());
        Ok(Numbers(numbers))
    }

    /// `None` where the machine has no such call.
    pub fn get(&self, call: &str) -> Option<u32> {
        self.0.get(call).copied()
    }
}

/// `pub const __NR_NAME: u32 = NUMBER;`
fn parse(text: &str) -> BTreeMap<String, u32> {
    let number = |line: &str| {
        let line = line.strip_prefix("pub const ")?;
        let line = line.strip_prefix("__NR_").or_else(|| line.strip_prefix("__ARM_NR_"))?;
        let (name, value) = line.strip_suffix(';')?.split_once(": u32 = ")?;
        Some((name.to_string(), value.parse().ok()?))
    };
    text.lines().filter_map(number).collect()
}

/// The folder into which cargo has unpacked linux-raw-sys. cargo is asked once.
fn crate_folder() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOUND.get() {
        return Ok(folder.clone());
    }
    let folder = ask_for_crate_folder()?;
    Ok(FOUND.get_or_init(|| folder).clone())
}

fn ask_for_crate_folder() -> Result<PathBuf> {
    let mut cargo = pinned("cargo");
    let described = checked(cargo.args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata = MetadataCommand::parse(described)?;
    let package =
        metadata.packages.iter().find(|package| *package.name == "linux-raw-sys").context("no linux-raw-sys")?;
    Ok(package.manifest_path.parent().context("a file in a folder")?.into())
}

/// The machine's processor, as `target_arch` has it.
pub fn arch(target: &Target) -> &'static str {
    match target.triple.split('-').next().unwrap_or_default() {
        "i686" => "x86",
        "armv7" | "arm" | "armv5te" => "arm",
        "riscv64gc" => "riscv64",
        "riscv32gc" => "riscv32",
        "aarch64_be" => "aarch64",
        "mipsel" => "mips",
        "mips64el" => "mips64",
        "powerpc64le" => "powerpc64",
        other => other,
    }
}

/// `AUDIT_ARCH_…` of linux/audit.h, by which a filter knows the machine of a call.
pub fn audit_arch(target: &Target) -> u32 {
    const IS_64_BIT: u32 = 0x8000_0000;
    const IS_LITTLE_ENDIAN: u32 = 0x4000_0000;
    // arm and arm64 have one value for both orders (their asm/syscall.h).
    let little = !target.elf.big_endian || target.elf.machine == elf::EM_AARCH64;
    let bits = if target.elf.bits == 64 { IS_64_BIT } else { 0 };
    u32::from(target.elf.machine) | bits | if little { IS_LITTLE_ENDIAN } else { 0 }
}

/// The name in a profile of an OCI runtime, which is libseccomp's; `None` for a machine that it
/// does not know.
pub fn oci_arch(target: &Target) -> Option<&'static str> {
    let little = !target.elf.big_endian;
    Some(match (arch(target), little) {
        ("x86_64", _) => "SCMP_ARCH_X86_64",
        ("x86", _) => "SCMP_ARCH_X86",
        ("aarch64", true) => "SCMP_ARCH_AARCH64",
        ("arm", true) => "SCMP_ARCH_ARM",
        ("riscv64", _) => "SCMP_ARCH_RISCV64",
        ("loongarch64", _) => "SCMP_ARCH_LOONGARCH64",
        ("s390x", _) => "SCMP_ARCH_S390X",
        ("mips", true) => "SCMP_ARCH_MIPSEL",
        ("mips", false) => "SCMP_ARCH_MIPS",
        ("mips64", true) => "SCMP_ARCH_MIPSEL64",
        ("mips64", false) => "SCMP_ARCH_MIPS64",
        ("powerpc64", true) => "SCMP_ARCH_PPC64LE",
        ("powerpc64", false) => "SCMP_ARCH_PPC64",
        ("powerpc", _) => "SCMP_ARCH_PPC",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cargo_rt0::targets::TARGETS;

    fn target(name: &str) -> &'static Target {
        TARGETS.iter().find(|target| target.name == name).expect("a machine")
    }

    #[test]
    fn numbers_are_each_machines_own() {
        // From the kernel's tables: arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h, …
        for (name, call, number) in [
            ("x86_64", "futex", 202),
            ("x86", "futex_time64", 422),
            ("aarch64_be", "futex", 98),
            ("armv5", "set_tls", 983_045),
            ("mips", "exit_group", 4246),
            ("mips64el", "exit_group", 5205),
            ("s390x", "mmap", 90),
            ("powerpc", "mmap2", 192),
            ("sparc64", "rt_sigaction", 102),
        ] {
            assert_eq!(Numbers::of(target(name)).expect("numbers").get(call), Some(number), "{name} {call}");
        }
        assert_eq!(Numbers::of(target("riscv32")).expect("numbers").get("futex"), None);
    }

    #[test]
    fn machines_are_told_apart_as_in_linux_audit_h() {
        for (name, value) in [
            ("x86_64", 0xc000_003e),
            ("x86", 0x4000_0003),
            ("aarch64_be", 0xc000_00b7),
            ("armv6", 0x4000_0028),
            ("riscv32", 0x4000_00f3),
            ("s390x", 0x8000_0016),
            ("mips", 8),
            ("mips64el", 0xc000_0008),
            ("powerpc", 20),
            ("powerpc64le", 0xc000_0015),
            ("sparc64", 0x8000_002b),
            ("loongarch64", 0xc000_0102),
        ] {
            assert_eq!(audit_arch(target(name)), value, "{name}");
        }
    }
}

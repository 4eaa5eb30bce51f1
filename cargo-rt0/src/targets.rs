//! The table of machines: a row for each, with everything that the tool must know about it.
//!
//! `arch/README.md` says how to add a machine. The facts of the ELF column are checked on every
//! binary before it is started, so a wrong row is found at once.

use anyhow::{Result, bail};
use object::elf;
use semver::Version;

/// One machine that rt0 is built for and started on.
#[derive(Debug)]
pub struct Target {
    /// The short name: what the user types, and the first part of every test's name.
    pub name: &'static str,
    /// rustc's name.
    pub triple: &'static str,
    /// The profile that its programs are built in.
    pub profile: Profile,
    /// Whether rustup serves a `core` that fits; else `core` is built from its source.
    pub prebuilt: bool,
    /// Flags for rustc beside those that all machines get.
    pub rustflags: &'static [&'static str],
    /// The processors (in the words of `std::env::consts::ARCH`) on which it may run without an
    /// emulator.
    pub native_on: &'static [&'static str],
    /// The emulator's name, without the `-static` that Debian 12 appends.
    pub qemu: &'static str,
    /// Arguments for the emulator, before the program's name.
    pub qemu_args: &'static [&'static str],
    /// What the ELF header of its programs says.
    pub elf: Elf,
    /// Up to when the emulator is no good for it at all: then no test is run.
    pub unfit: Option<Unfit>,
    /// What the emulator is known to do wrong. A test that is listed here may fail under it; if it
    /// passes, the summary says so.
    pub gaps: &'static [Gap],
}

/// The two profiles of the root Cargo.toml; dev has debug assertions and overflow checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// `--release`.
    Release,
    /// The default of cargo.
    Dev,
}

/// What the ELF header of a machine's programs says.
#[derive(Debug)]
pub struct Elf {
    /// `EM_…`.
    pub machine: u16,
    /// 32 or 64.
    pub bits: u8,
    /// Byte order.
    pub big_endian: bool,
    /// The bits of `e_flags` that distinguish ABIs, and their value.
    pub flags: (u32, u32),
    /// The largest page size that a kernel for this machine uses; LOAD segments must be aligned to
    /// it.
    pub page: u64,
}

/// An emulator that is wrong in something that nearly every program needs.
#[derive(Debug)]
pub struct Unfit {
    /// The first version of qemu that is right.
    pub before: (u64, u64),
    /// What it does wrong; shown in the summary.
    pub reason: &'static str,
}

/// A known gap of the emulator.
#[derive(Debug)]
pub struct Gap {
    /// A part of the test's `bin::name`.
    pub test: &'static str,
    /// Why it fails there; shown in the summary.
    pub reason: &'static str,
    /// The first version of qemu without this gap, where there is one.
    pub fixed_in: Option<(u64, u64)>,
}

/// qemu-sparc64 on a little-endian host.
const fn whole_seconds(test: &'static str) -> Gap {
    let reason = "getrusage gives whole seconds: qemu swaps the microseconds as 64 bits, and sparc64 has 32";
    Gap { test, reason, fixed_in: None }
}

/// qemu-ppc.
const POWERPC_GAPS: &[Gap] = &[
    maps_nothing("overflow::a_protected_page_of_the_programs_own_is_no_overflow"),
    maps_nothing("fault::kinds::an_access_that_the_page_forbids_says_so"),
];

/// qemu-mips, of each word size and byte order.
const MIPS_GAPS: &[Gap] = &[Gap {
    test: "fault::kinds::a_division_by_zero_is_told_and_kills_there",
    reason: "a conditional trap with the code of a division by zero is a SIGTRAP",
    fixed_in: None,
}];

/// qemu-ppc.
const fn maps_nothing(test: &'static str) -> Gap {
    Gap { test, reason: "every fault is SEGV_MAPERR, also of a page that is mapped and protected", fixed_in: None }
}

/// qemu-riscv32 and qemu-riscv64.
const RISCV_VECTORS: Gap = Gap {
    test: "signal::stack::a_handler_that_uses_vectors_leaves_those_of_the_interrupted_code_alone",
    reason: "qemu saves no vectors in the frame of a signal",
    fixed_in: None,
};

const K4: u64 = 0x1000;
const K8: u64 = 0x2000;
const K64: u64 = 0x1_0000;

/// The values that most rows have in common; not a machine.
const ROW: Target = Target {
    name: "",
    triple: "",
    profile: Profile::Release,
    prebuilt: true,
    rustflags: &[],
    native_on: &[],
    qemu: "",
    qemu_args: &[],
    elf: Elf { machine: elf::EM_NONE, bits: 64, big_endian: false, flags: (0, 0), page: K4 },
    unfit: None,
    gaps: &[],
};

/// The same machine with debug assertions, or under the emulator, is a row of its own.
const X86_64: Target = Target {
    name: "x86_64",
    triple: "x86_64-unknown-linux-gnu",
    native_on: &["x86_64"],
    qemu: "qemu-x86_64",
    elf: Elf { machine: elf::EM_X86_64, bits: 64, big_endian: false, flags: (0, 0), page: K4 },
    // An aligned vector on the stack is a segmentation fault then, and the compiler may put one
    // there in any handler.
    unfit: Some(Unfit { before: (10, 0), reason: "signal handlers start with a stack pointer that is 8 bytes off" }),
    ..ROW
};

const X86: Target = Target {
    name: "x86",
    triple: "i686-unknown-linux-gnu",
    native_on: &["x86_64", "x86"],
    qemu: "qemu-i386",
    elf: Elf { machine: elf::EM_386, bits: 32, big_endian: false, flags: (0, 0), page: K4 },
    // Threads got each other's thread pointer, and then crashed in many ways.
    unfit: Some(Unfit {
        before: (10, 0),
        reason: "all threads share one GDT: after a signal, a thread that started another has that one's thread \
                 pointer",
    }),
    ..ROW
};

/// Of both byte orders. ABI o32, instruction set mips32r2.
const MIPS: Target = Target {
    prebuilt: false,
    elf: Elf { machine: elf::EM_MIPS, bits: 32, big_endian: true, flags: (0xf000_f000, 0x7000_1000), page: K64 },
    gaps: MIPS_GAPS,
    ..ROW
};

/// Of both byte orders. ABI n64, instruction set mips64r2.
const MIPS64: Target = Target { elf: Elf { bits: 64, flags: (0xf000_f020, 0x8000_0000), ..MIPS.elf }, ..MIPS };

/// Of both byte orders. The low two bits are the ABI's version; rt0 is ELFv2 throughout.
const POWERPC64: Target = Target {
    elf: Elf { machine: elf::EM_PPC64, bits: 64, big_endian: true, flags: (3, 2), page: K64 },
    gaps: POWERPC_GAPS,
    ..ROW
};

/// All machines, in the order in which they are tested and listed.
pub const TARGETS: &[Target] = &[
    X86_64,
    Target { name: "x86_64-dev", profile: Profile::Dev, ..X86_64 },
    X86,
    // The native machines again under the emulator, which behaves differently in some calls.
    Target { name: "x86_64-qemu", native_on: &[], ..X86_64 },
    Target { name: "x86-qemu", native_on: &[], ..X86 },
    Target {
        name: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        native_on: &["aarch64"],
        qemu: "qemu-aarch64",
        elf: Elf { machine: elf::EM_AARCH64, bits: 64, big_endian: false, flags: (0, 0), page: K64 },
        ..ROW
    },
    Target {
        name: "aarch64_be",
        triple: "aarch64_be-unknown-linux-gnu",
        prebuilt: false,
        qemu: "qemu-aarch64_be",
        elf: Elf { machine: elf::EM_AARCH64, bits: 64, big_endian: true, flags: (0, 0), page: K64 },
        ..ROW
    },
    Target {
        name: "armv7",
        triple: "armv7-unknown-linux-gnueabihf",
        native_on: &["arm"],
        qemu: "qemu-arm",
        qemu_args: &["-cpu", "cortex-a8"],
        // EABI version 5, floats in registers.
        elf: Elf { machine: elf::EM_ARM, bits: 32, big_endian: false, flags: (0xff00_0600, 0x0500_0400), page: K4 },
        ..ROW
    },
    // On a processor without a register for the thread pointer.
    Target {
        name: "armv6",
        triple: "arm-unknown-linux-gnueabi",
        qemu: "qemu-arm",
        qemu_args: &["-cpu", "arm1136-r2"],
        // EABI version 5, soft floats.
        elf: Elf { machine: elf::EM_ARM, bits: 32, big_endian: false, flags: (0xff00_0600, 0x0500_0200), page: K4 },
        ..ROW
    },
    Target {
        name: "armv5",
        triple: "armv5te-unknown-linux-gnueabi",
        qemu: "qemu-arm",
        qemu_args: &["-cpu", "arm926"],
        elf: Elf { machine: elf::EM_ARM, bits: 32, big_endian: false, flags: (0xff00_0600, 0x0500_0200), page: K4 },
        ..ROW
    },
    Target {
        name: "riscv64",
        triple: "riscv64gc-unknown-linux-gnu",
        native_on: &["riscv64"],
        qemu: "qemu-riscv64",
        // Doubles in registers.
        elf: Elf { machine: elf::EM_RISCV, bits: 64, big_endian: false, flags: (6, 4), page: K4 },
        gaps: &[RISCV_VECTORS],
        ..ROW
    },
    Target {
        name: "riscv32",
        triple: "riscv32gc-unknown-linux-gnu",
        prebuilt: false,
        qemu: "qemu-riscv32",
        elf: Elf { machine: elf::EM_RISCV, bits: 32, big_endian: false, flags: (6, 4), page: K4 },
        gaps: &[
            RISCV_VECTORS,
            Gap {
                test: "signal::the_mask_of_an_action_holds_while_its_handler_runs",
                reason: "qemu expects a restorer in sigaction, which riscv has not, and takes half of the mask for it",
                fixed_in: Some((10, 0)),
            },
        ],
        ..ROW
    },
    // Without vectors, which qemu 7.2 does not have; so not with the prebuilt core, which uses
    // them.
    Target {
        name: "loongarch64",
        triple: "loongarch64-unknown-linux-gnu",
        prebuilt: false,
        rustflags: &["-Ctarget-feature=-lsx"],
        native_on: &["loongarch64"],
        qemu: "qemu-loongarch64",
        // Doubles in registers.
        elf: Elf { machine: elf::EM_LOONGARCH, bits: 64, big_endian: false, flags: (7, 3), page: K64 },
        gaps: &[Gap {
            test: "fault::kinds::an_illegal_instruction_is_told_and_kills_there",
            reason: "an illegal instruction is a SIGILL whose reason is that a process sent it",
            fixed_in: None,
        }],
        ..ROW
    },
    Target {
        name: "s390x",
        triple: "s390x-unknown-linux-gnu",
        native_on: &["s390x"],
        qemu: "qemu-s390x",
        elf: Elf { machine: elf::EM_S390, bits: 64, big_endian: true, flags: (0, 0), page: K4 },
        ..ROW
    },
    Target { name: "mips", triple: "mips-unknown-linux-gnu", qemu: "qemu-mips", ..MIPS },
    Target {
        name: "mipsel",
        triple: "mipsel-unknown-linux-gnu",
        qemu: "qemu-mipsel",
        elf: Elf { big_endian: false, ..MIPS.elf },
        ..MIPS
    },
    Target { name: "mips64", triple: "mips64-unknown-linux-gnuabi64", qemu: "qemu-mips64", ..MIPS64 },
    Target {
        name: "mips64el",
        triple: "mips64el-unknown-linux-gnuabi64",
        qemu: "qemu-mips64el",
        elf: Elf { big_endian: false, ..MIPS64.elf },
        ..MIPS64
    },
    // The triple for glibc has ELFv1, which rust-lld cannot link.
    Target { name: "powerpc64", triple: "powerpc64-unknown-linux-musl", qemu: "qemu-ppc64", ..POWERPC64 },
    Target {
        name: "powerpc64le",
        triple: "powerpc64le-unknown-linux-gnu",
        native_on: &["powerpc64"],
        qemu: "qemu-ppc64le",
        elf: Elf { big_endian: false, ..POWERPC64.elf },
        ..POWERPC64
    },
    Target {
        name: "powerpc",
        triple: "powerpc-unknown-linux-gnu",
        qemu: "qemu-ppc",
        elf: Elf { machine: elf::EM_PPC, bits: 32, big_endian: true, flags: (0, 0), page: K64 },
        gaps: POWERPC_GAPS,
        ..ROW
    },
    // rustup has a core, but only a compiled one comes with the unstable feature that the assembly
    // needs.
    Target {
        name: "sparc64",
        triple: "sparc64-unknown-linux-gnu",
        prebuilt: false,
        native_on: &["sparc64"],
        qemu: "qemu-sparc64",
        elf: Elf { machine: elf::EM_SPARCV9, bits: 64, big_endian: true, flags: (0, 0), page: K8 },
        gaps: &[
            whole_seconds("profile::a_million_ticks_a_second_weigh_what_they_should"),
            whole_seconds("profile::timers::where_timers_are_refused_the_process_has_one"),
            whole_seconds("profile::a_profile_sees_a_thread_to_its_end_while_others_come_and_go"),
            Gap {
                test: "all_threads::rights::credentials_are_the_processs",
                reason: "qemu has user and group ids of 16 bits, as on 32-bit SPARC",
                fixed_in: Some((10, 0)),
            },
        ],
        ..ROW
    },
];

impl Target {
    /// The reason why no test is run under this version of qemu, if there is one.
    pub fn unfit(&self, qemu: &Version) -> Option<&'static str> {
        self.unfit.as_ref().filter(|unfit| (qemu.major, qemu.minor) < unfit.before).map(|unfit| unfit.reason)
    }

    /// The known gap that covers test `name` (`bin::name`) under this version of qemu.
    pub fn gap(&self, name: &str, qemu: &Version) -> Option<&'static Gap> {
        let open = |gap: &&Gap| gap.fixed_in.is_none_or(|fixed| (qemu.major, qemu.minor) < fixed);
        self.gaps.iter().filter(open).find(|gap| name.contains(gap.test))
    }
}

/// The machines that `words` name: short names, triples, `native` (the host's) or `all`; each once,
/// in table order.
pub fn select(words: &[String], host_triple: &str) -> Result<Vec<&'static Target>> {
    let mut wanted = Vec::new();
    for word in words {
        let before = wanted.len();
        match word.as_str() {
            "all" => wanted.extend(TARGETS),
            "native" => wanted.extend(native(host_triple)),
            word => {
                let by_name = TARGETS.iter().find(|t| t.name == word);
                wanted.extend(by_name.or_else(|| TARGETS.iter().find(|t| t.triple == word)));
            }
        }
        if wanted.len() == before {
            let rows: Vec<_> = TARGETS.iter().map(|t| format!("  {:<12} {}", t.name, t.triple)).collect();
            bail!("no machine is called `{word}`; these are:\n{}\n  native       the host's\n  all", rows.join("\n"));
        }
    }
    Ok(TARGETS.iter().filter(|t| wanted.iter().any(|w| w.name == t.name)).collect())
}

/// One row for each triple: the machines, without those that are tested in a second way.
pub fn machines() -> Vec<&'static Target> {
    let first = |t: &&Target| TARGETS.iter().find(|other| other.triple == t.triple).is_some_and(|f| f.name == t.name);
    TARGETS.iter().filter(first).collect()
}

/// The first row with the host's own triple (rt0 is Linux without libc: gnu or musl makes no
/// difference).
fn native(host_triple: &str) -> Option<&'static Target> {
    let processor = host_triple.split('-').next();
    TARGETS.iter().find(|t| t.triple.split('-').next() == processor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "x86_64-unknown-linux-gnu";

    fn names(words: &[&str]) -> Vec<&'static str> {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        select(&words, HOST).expect("known names").iter().map(|t| t.name).collect()
    }

    #[test]
    fn a_target_is_a_short_name_a_triple_native_or_all() {
        assert_eq!(names(&["mips"]), ["mips"]);
        assert_eq!(names(&["i686-unknown-linux-gnu"]), ["x86"]);
        assert_eq!(names(&["native"]), ["x86_64"]);
        assert_eq!(names(&["all"]).len(), TARGETS.len());
    }

    #[test]
    fn targets_named_twice_are_taken_once_and_in_table_order() {
        assert_eq!(names(&["mips", "x86", "mips-unknown-linux-gnu"]), ["x86", "mips"]);
    }

    #[test]
    fn a_wrong_target_gets_the_list() {
        let error = select(&["vax".to_string()], HOST).expect_err("no such machine").to_string();
        assert!(error.contains("`vax`") && error.contains("powerpc64le-unknown-linux-gnu"), "{error}");
    }

    #[test]
    fn names_are_unique_and_every_row_is_complete() {
        for (index, row) in TARGETS.iter().enumerate() {
            assert!(TARGETS[..index].iter().all(|other| other.name != row.name), "{} twice", row.name);
            assert!(row.qemu.starts_with("qemu-") && row.elf.machine != elf::EM_NONE, "{}", row.name);
            let mut same = TARGETS.iter().filter(|other| other.triple == row.triple);
            assert!(same.all(|other| other.rustflags == row.rustflags), "{} is built in two ways", row.triple);
        }
    }

    #[test]
    fn a_gap_ends_with_the_version_that_fixes_it() {
        let gaps = &[Gap { test: "futex::pi_", reason: "host byte order", fixed_in: Some((10, 0)) }];
        let row = Target { gaps, ..ROW };
        assert!(row.gap("futex::pi_lock", &Version::new(7, 2, 0)).is_some());
        assert!(row.gap("futex::pi_lock", &Version::new(10, 0, 0)).is_none());
        assert!(row.gap("futex::wait", &Version::new(7, 2, 0)).is_none());
        let row = Target { unfit: Some(Unfit { before: (10, 0), reason: "one GDT" }), ..ROW };
        assert_eq!((row.unfit(&Version::new(7, 2, 0)), row.unfit(&Version::new(10, 0, 0))), (Some("one GDT"), None));
    }
}

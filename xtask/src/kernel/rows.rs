//! The table of real kernels: which image, under which emulator, for the programs of which machine.
//!
//! A row's name is `MACHINE@VERSION`, and what is special about it behind that: `aarch64@7.2-16k`.
//! The version is found out when the kernel is there.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use cargo_rt0::targets::Gap;

use super::source::Source;

/// One guest: a kernel on a machine, and the programs that it is to run.
#[derive(Debug)]
pub struct Row {
    /// The short name in the table of machines: whose programs.
    pub machine: &'static str,
    /// What is special: page size, or the kernel of another machine.
    pub kind: &'static str,
    /// The kernel.
    pub origin: Origin,
    /// The machine that it starts on.
    pub board: &'static Board,
    /// Whether it is one of the few that are started every day.
    pub daily: bool,
    /// What is known to fail there for a reason that is not rt0's. If it passes, the summary says
    /// so.
    pub gaps: &'static [Gap],
    /// What is not even started there, since it would stop the whole guest.
    pub stops: &'static [Gap],
}

/// Where a kernel comes from.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// A package of Debian's.
    Package(&'static Image),
    /// Its source.
    Source(&'static Source),
}

/// A kernel in a package of Debian's.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// Debian's name for the machine.
    pub architecture: &'static str,
    /// Where the mirror has it.
    pub suite: &'static str,
    /// The package's name, before its version.
    pub package: &'static str,
    /// The package's name, behind its version.
    pub flavour: &'static str,
    /// What the version begins with, where a suite has several generations.
    pub version: &'static str,
    /// The kernel's file in it.
    pub file: &'static str,
    /// The description of the board in it, if qemu has none.
    pub dtb: Option<&'static str>,
    /// What kind of file it is.
    pub format: Format,
}

/// What qemu must be given.
#[derive(Debug, PartialEq, Eq)]
pub enum Format {
    /// The file itself.
    Plain,
    /// An EFI program around it.
    Zboot,
}

/// A machine as qemu-system makes it.
#[derive(Debug)]
pub struct Board {
    /// The emulator.
    pub qemu: &'static str,
    /// Its arguments: machine and processor.
    pub args: &'static [&'static str],
    /// How many processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// The device that the kernel is to speak to.
    pub console: &'static str,
    /// What else the kernel's command line has.
    pub append: &'static str,
    /// Whether its processor's counter is the host's.
    pub counts_as_host: bool,
}

/// The areas whose tests the daily rows run: they ask the kernel for something that qemu-user
/// emulates or passes to the host's kernel. The tests of the other areas execute the same machine
/// code under qemu-user. A row that is named, or whose machine is named, runs all tests.
pub const TELLING: [&str; 23] = [
    "all_threads",
    "cpu",
    "dump",
    "fault",
    "fork",
    "futex",
    "gone",
    "inherited",
    "interrupt",
    "limits",
    "mapping",
    "overflow",
    "process",
    "profile",
    "signal",
    "stack_cache",
    "start",
    "stopped",
    "surroundings",
    "thread",
    "time",
    "vdso",
    "wait",
];

/// The packages with the emulators below.
pub const QEMU_PACKAGES: [&str; 8] = [
    "qemu-system-arm",
    "qemu-system-mips",
    "qemu-system-misc",
    "qemu-system-ppc",
    "qemu-system-riscv",
    "qemu-system-s390x",
    "qemu-system-sparc",
    "qemu-system-x86",
];

/// The emulators of the table, each once.
pub fn qemus() -> BTreeSet<&'static str> {
    ROWS.iter().map(|row| row.board.qemu).collect()
}

// ---- images ----

/// The newest kernel, which is in a package without its modules.
const fn sid(architecture: &'static str, flavour: &'static str) -> Image {
    Image {
        architecture,
        suite: "sid",
        package: "linux-binary-",
        flavour,
        version: "",
        file: "./usr/lib/modules/*/vmlinuz",
        dtb: None,
        format: Format::Plain,
    }
}

/// An older kernel, with its modules, which are not unpacked.
const fn older(suite: &'static str, architecture: &'static str, flavour: &'static str, version: &'static str) -> Image {
    Image {
        architecture,
        suite,
        package: "linux-image-",
        flavour,
        version,
        file: "./boot/vmlinu*",
        dtb: None,
        format: Format::Plain,
    }
}

static X86_64: Image = sid("amd64", "-cloud-amd64");
static X86_64_5: Image = older("bullseye", "amd64", "-cloud-amd64", "5.10.");
static X86_6: Image = older("bookworm", "i386", "-686-pae", "6.1.");
static X86_5: Image = older("bullseye", "i386", "-686-pae", "5.10.");
static AARCH64: Image = sid("arm64", "-arm64");
static AARCH64_16K: Image = sid("arm64", "-arm64-16k");
static AARCH64_6: Image = older("bookworm-backports", "arm64", "-arm64", "6.12.");
static AARCH64_5: Image = older("bullseye", "arm64", "-cloud-arm64", "5.10.");
static ARMV7: Image = sid("armhf", "-armmp");
static ARMV7_LPAE: Image = sid("armhf", "-armmp-lpae");
static ARMV7_5: Image = older("bullseye", "armhf", "-armmp", "5.10.");
static ARMV6_6: Image =
    Image { dtb: Some("./usr/lib/linux-image-*/bcm2835-rpi-zero.dtb"), ..older("bookworm", "armel", "-rpi", "6.1.") };
static RISCV64: Image = sid("riscv64", "-riscv64");
static LOONGARCH64: Image = Image { format: Format::Zboot, ..sid("loong64", "-loong64") };
static S390X: Image = sid("s390x", "-s390x");
static POWERPC64LE: Image = sid("ppc64el", "-powerpc64le");
static POWERPC64LE_64K: Image = sid("ppc64el", "-powerpc64le-64k");
static MIPS64EL_6: Image = older("bookworm-backports", "mips64el", "-5kc-malta", "6.12.");
static MIPSEL_6: Image = older("bookworm", "mipsel", "-4kc-malta", "6.1.");

// ---- kernels built here ----

const fn vmlinux(config: &'static str, arch: &'static str, cross: &'static str) -> Source {
    Source { config, arch, cross, make: &["vmlinux"], image: "vmlinux", dtb: None }
}

static MIPS_BUILT: Source = vmlinux("mips", "mips", "mips-linux-gnu");
static MIPS64_BUILT: Source = vmlinux("mips64", "mips", "mips64-linux-gnuabi64");
static POWERPC_BUILT: Source = vmlinux("powerpc", "powerpc", "powerpc-linux-gnu");
static POWERPC64_BUILT: Source = vmlinux("powerpc64", "powerpc", "powerpc64-linux-gnu");
static SPARC64_BUILT: Source = vmlinux("sparc64", "sparc", "sparc64-linux-gnu");
static RISCV32_BUILT: Source =
    Source { make: &["Image"], image: "arch/riscv/boot/Image", ..vmlinux("riscv32", "riscv", "riscv64-linux-gnu") };
static AARCH64_BE_BUILT: Source =
    Source { make: &["Image"], image: "arch/arm64/boot/Image", ..vmlinux("aarch64_be", "arm64", "aarch64-linux-gnu") };
static ARMV5_BUILT: Source = Source {
    make: &["zImage", "dtbs"],
    image: "arch/arm/boot/zImage",
    dtb: Some("arch/arm/boot/dts/arm/versatile-pb.dtb"),
    ..vmlinux("armv5", "arm", "arm-linux-gnueabi")
};

// ---- boards ----

const BOARD: Board =
    Board { qemu: "", args: &[], processors: 2, memory: 1024, console: "", append: "", counts_as_host: false };

/// The guest's clock is its counter, which the vDSO can read; else each reading would be a call.
static PC: Board = PC_LIKE;
const PC_LIKE: Board = Board {
    qemu: "qemu-system-x86_64",
    args: &["-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi"],
    console: "ttyS0",
    append: "clocksource=tsc tsc=reliable",
    counts_as_host: true,
    ..BOARD
};
/// What a kernel may lack: a vDSO, a second processor although the machine has one, much memory.
static PC_BARE: Board = Board { memory: 256, append: "clocksource=tsc tsc=reliable vdso=0 nosmp", ..PC_LIKE };
static ARM64: Board =
    Board { qemu: "qemu-system-aarch64", args: &["-M", "virt", "-cpu", "cortex-a76"], console: "ttyAMA0", ..BOARD };
static ARM64_MAX: Board = Board { args: &["-M", "virt", "-cpu", "max,pauth-impdef=on"], ..ARM64_LIKE };
const ARM64_LIKE: Board = Board { qemu: "qemu-system-aarch64", console: "ttyAMA0", ..BOARD };
static ARM: Board = Board { args: &["-M", "virt", "-cpu", "cortex-a15"], ..ARM64_LIKE };
static RASPI: Board = Board {
    args: &["-M", "raspi0"],
    processors: 1,
    memory: 512,
    append: "initcall_blacklist=bcm2835_power_driver_init",
    ..ARM64_LIKE
};
/// With vectors, which this processor has only if it is told so.
static RISCV: Board =
    Board { qemu: "qemu-system-riscv64", args: &["-M", "virt", "-cpu", "rv64,v=true"], console: "ttyS0", ..BOARD };
static LOONGARCH: Board = Board {
    qemu: "qemu-system-loongarch64",
    args: &["-M", "virt", "-cpu", "la464"],
    console: "ttyS0",
    append: "initcall_blacklist=i8042_init",
    ..BOARD
};
static S390: Board =
    Board { qemu: "qemu-system-s390x", args: &["-M", "s390-ccw-virtio", "-cpu", "max"], console: "ttysclp0", ..BOARD };
static PSERIES: Board =
    Board { qemu: "qemu-system-ppc64", args: &["-M", "pseries", "-cpu", "power9"], console: "hvc0", ..BOARD };
/// With addresses at random, this kernel takes each bad address of a program for a fault of its
/// own.
static MALTA64: Board = Board {
    qemu: "qemu-system-mips64el",
    args: &["-M", "malta", "-cpu", "5KEf"],
    processors: 1,
    console: "ttyS0",
    append: "nokaslr",
    ..BOARD
};
static MALTA32: Board = MALTA;
const MALTA: Board = Board {
    qemu: "qemu-system-mipsel",
    args: &["-M", "malta", "-cpu", "24Kf"],
    processors: 1,
    console: "ttyS0",
    append: "nokaslr",
    ..BOARD
};
static MALTA32_BIG: Board = Board { qemu: "qemu-system-mips", ..MALTA };
static MALTA64_BIG: Board = Board { qemu: "qemu-system-mips64", args: &["-M", "malta", "-cpu", "5KEf"], ..MALTA };
static E500: Board =
    Board { qemu: "qemu-system-ppc64", args: &["-M", "ppce500", "-cpu", "e500mc"], console: "ttyS0", ..BOARD };
static RISCV_32: Board = Board { qemu: "qemu-system-riscv32", args: &["-M", "virt"], console: "ttyS0", ..BOARD };
static SUN4U: Board =
    Board { qemu: "qemu-system-sparc64", args: &["-M", "sun4u"], processors: 1, console: "ttyS0", ..BOARD };
static VERSATILE: Board = Board {
    args: &["-M", "versatilepb", "-audio", "none", "-cpu", "arm926"],
    processors: 1,
    memory: 256,
    ..ARM64_LIKE
};

// ---- rows ----

const fn row(machine: &'static str, kind: &'static str, image: &'static Image, board: &'static Board) -> Row {
    Row { machine, kind, origin: Origin::Package(image), board, daily: false, gaps: &[], stops: &[] }
}

const fn built(machine: &'static str, kind: &'static str, source: &'static Source, board: &'static Board) -> Row {
    Row { machine, kind, origin: Origin::Source(source), board, daily: false, gaps: &[], stops: &[] }
}

const fn daily(machine: &'static str, kind: &'static str, image: &'static Image, board: &'static Board) -> Row {
    Row { daily: true, ..row(machine, kind, image, board) }
}

/// When a program executes a page that is not executable, qemu reads the instruction there for the
/// register BADI, which is the same exception again, for ever. (loongarch_cpu_do_interrupt in
/// target/loongarch/cpu.c of qemu)
const LOONGARCH_STOPS: &[Gap] = &[Gap {
    test: "overflow::a_jump_into_the_stack_is_no_overflow",
    reason: "qemu never comes out of an exception of a page that is not executable",
    fixed_in: None,
}];

/// All of them, in the order of the table of machines.
pub static ROWS: &[Row] = &[
    row("x86_64", "", &X86_64, &PC),
    row("x86_64", "", &X86_64_5, &PC),
    row("x86_64", "-bare", &X86_64, &PC_BARE),
    daily("x86", "", &X86_6, &PC),
    row("x86", "", &X86_5, &PC),
    row("x86", "-on-x86_64", &X86_64, &PC),
    row("aarch64", "", &AARCH64, &ARM64),
    daily("aarch64", "-16k", &AARCH64_16K, &ARM64_MAX),
    row("aarch64", "", &AARCH64_6, &ARM64),
    row("aarch64", "", &AARCH64_5, &ARM64),
    daily("armv7", "", &ARMV7, &ARM),
    row("armv7", "-lpae", &ARMV7_LPAE, &ARM),
    row("armv7", "", &ARMV7_5, &ARM),
    row("armv7", "-on-aarch64", &AARCH64, &ARM64),
    built("aarch64_be", "-64k", &AARCH64_BE_BUILT, &ARM64_MAX),
    row("armv6", "", &ARMV6_6, &RASPI),
    row("armv6", "-on-armv7", &ARMV7, &ARM),
    row("armv5", "-on-armv7", &ARMV7, &ARM),
    built("armv5", "", &ARMV5_BUILT, &VERSATILE),
    daily("riscv64", "", &RISCV64, &RISCV),
    built("riscv32", "", &RISCV32_BUILT, &RISCV_32),
    Row { stops: LOONGARCH_STOPS, ..row("loongarch64", "", &LOONGARCH64, &LOONGARCH) },
    daily("s390x", "", &S390X, &S390),
    built("mips", "", &MIPS_BUILT, &MALTA32_BIG),
    built("mips64", "", &MIPS64_BUILT, &MALTA64_BIG),
    daily("mips64el", "", &MIPS64EL_6, &MALTA64),
    row("mipsel", "", &MIPSEL_6, &MALTA32),
    row("mipsel", "-on-mips64el", &MIPS64EL_6, &MALTA64),
    row("powerpc64le", "", &POWERPC64LE, &PSERIES),
    daily("powerpc64le", "-64k", &POWERPC64LE_64K, &PSERIES),
    built("powerpc64", "", &POWERPC64_BUILT, &PSERIES),
    built("powerpc", "", &POWERPC_BUILT, &E500),
    built("sparc64", "", &SPARC64_BUILT, &SUN4U),
];

impl Image {
    /// The name of its folder in the cache.
    pub fn name(&self) -> String {
        format!("{}{}-{}", self.architecture, self.flavour, self.suite)
    }

    /// The regular expression of its packages.
    pub fn pattern(&self) -> String {
        format!("^{}{}.*{}$", self.package, self.version.replace('.', "[.]"), self.flavour)
    }
}

impl Row {
    /// The row's name with a kernel of this version.
    pub fn name(&self, short_version: &str) -> String {
        format!("{}@{short_version}{}", self.machine, self.kind)
    }

    /// Its name before the version is known.
    pub fn nickname(&self) -> String {
        let place = match self.origin {
            Origin::Package(image) => image.suite,
            Origin::Source(_) => "built",
        };
        format!("{}@{place}{}", self.machine, self.kind)
    }
}

/// What the user wants of the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Those of every day, and of their tests those that only a kernel can fail.
    Daily,
    /// All.
    All,
    /// Those of a machine.
    Machine(String),
    /// The row of this name, which begins with its machine's.
    Row(String),
}

impl Choice {
    /// Reads `daily`, `all`, a machine's name or a row's.
    pub fn parse(word: &str) -> Result<Choice> {
        let machine = word.split('@').next().unwrap_or(word);
        Ok(match word {
            "daily" => Choice::Daily,
            "all" => Choice::All,
            _ if !ROWS.iter().any(|row| row.machine == machine) => {
                let mut machines: Vec<_> = ROWS.iter().map(|row| row.machine).collect();
                machines.dedup();
                bail!(
                    "no kernel is called `{word}`; there are some for {}; a row is MACHINE@VERSION, as in \
                     `aarch64@6.12`; `daily` and `all` are several",
                    machines.join(", ")
                )
            }
            _ if word.contains('@') => Choice::Row(word.to_string()),
            _ => Choice::Machine(word.to_string()),
        })
    }

    /// Whether the row may be meant, whatever its version.
    pub fn may_be(&self, row: &Row) -> bool {
        match self {
            Choice::Daily => row.daily,
            Choice::All => true,
            Choice::Machine(machine) => machine == row.machine,
            Choice::Row(name) => {
                let version =
                    name.strip_prefix(row.machine).and_then(|rest| rest.strip_prefix('@')?.strip_suffix(row.kind));
                version.is_some_and(|version| {
                    !version.is_empty() && !version.contains('-') && may_have(row.origin, version)
                })
            }
        }
    }

    /// Whether the row is meant, now that its name is known.
    pub fn is(&self, row: &Row, name: &str) -> bool {
        self.may_be(row) && !matches!(self, Choice::Row(wanted) if wanted != name)
    }
}

/// Whether an image whose version begins as its row says may be of this version.
fn may_have(origin: Origin, version: &str) -> bool {
    match origin {
        Origin::Package(image) => image.version.is_empty() || image.version.trim_end_matches('.') == version,
        Origin::Source(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;
    use cargo_rt0::targets::TARGETS;

    fn chosen(word: &str) -> Vec<String> {
        let choice = Choice::parse(word).expect("a good word");
        ROWS.iter().filter(|row| choice.may_be(row)).map(Row::nickname).collect()
    }

    #[test]
    fn rows_are_of_known_machines_and_have_names_of_their_own() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(TARGETS.iter().any(|target| target.name == row.machine), "{}", row.machine);
            let name = |row: &Row| match row.origin {
                Origin::Package(image) => (row.nickname(), image.version),
                Origin::Source(_) => (row.nickname(), ""),
            };
            assert_eq!(
                ROWS[..index].iter().filter(|other| name(other) == name(row)).count(),
                0,
                "{} twice",
                name(row).0
            );
            if let Origin::Source(source) = row.origin {
                assert!(source::has_config(source.config), "{} has no configuration", source.config);
            }
            assert!(!row.board.console.is_empty() && row.board.qemu.starts_with("qemu-system-"));
        }
        assert!(ROWS.iter().filter(|row| row.daily).count() >= 3);
    }

    #[test]
    fn the_areas_of_every_day_are_there() {
        let areas = [crate::build::modules_of_suite(), crate::build::test_programs()].concat();
        for name in TELLING {
            assert!(areas.iter().any(|area| area == name), "there is no area {name}");
        }
    }

    #[test]
    fn a_choice_is_daily_all_a_machine_or_a_row() {
        assert_eq!(chosen("all").len(), ROWS.len());
        assert_eq!(chosen("riscv64"), ["riscv64@sid"]);
        assert_eq!(chosen("x86").len(), 3);
        assert_eq!(chosen("aarch64@7.2-16k"), ["aarch64@sid-16k"]);
        assert_eq!(chosen("aarch64@6.12"), ["aarch64@sid", "aarch64@bookworm-backports"]);
        assert_eq!(chosen("x86@7.2-on-x86_64"), ["x86@sid-on-x86_64"]);
        let row = ROWS.iter().find(|row| row.nickname() == "aarch64@sid").expect("a row");
        let choice = Choice::parse("aarch64@6.12").expect("good");
        assert!(!choice.is(row, "aarch64@7.2") && choice.is(row, "aarch64@6.12"));
        let said = Choice::parse("vax").expect_err("no such machine").to_string();
        assert!(said.contains("`vax`") && said.contains("riscv64") && said.contains("aarch64@6.12"), "{said}");
    }
}

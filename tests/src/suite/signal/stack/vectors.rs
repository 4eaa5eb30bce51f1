//! Work on many numbers at once, in each kind of registers that this processor and its kernel have:
//! what a signal frame must save and bring back.

use rt0::Env;

/// AltiVec has these only, and the vectors of z13 only doubles.
#[cfg(any(target_arch = "powerpc", target_arch = "powerpc64"))]
pub type Number = f32;
#[cfg(not(any(target_arch = "powerpc", target_arch = "powerpc64")))]
pub type Number = f64;

/// Of 512 bytes: eight of the widest registers. Aligned for those that want that.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(align(16))]
pub struct Numbers(pub [Number; COUNT]);

pub const COUNT: usize = 512 / size_of::<Number>();

/// The registers that the work is done in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registers {
    /// What the compiler takes without being told.
    Ordinary,
    /// The machine's vectors, by their name.
    Wide(&'static str),
}

/// How often the work does its step. The result of an odd number differs from the start.
const STEPS: usize = 101;

/// A step is `number * FACTOR + SUMMAND`. On small integers it is exact, and loses nothing:
/// whatever is wrong before a step is wrong after it.
const FACTOR: Number = -1.0;
const SUMMAND: Number = 3.0;

/// The steps from `start`, many numbers at once. The result depends on `start` alone.
#[inline(never)]
pub fn work(registers: Registers, start: Numbers) -> Numbers {
    match registers {
        Registers::Ordinary => steps(start),
        // SAFETY: 1. `vectors` found out that they are there.
        Registers::Wide(name) => unsafe { machine::wide(name, start) },
    }
}

/// The vectors that this machine's processors may have, by the bits that tell of them; the widest
/// last.
pub const NAMES: &[(&str, usize)] = machine::NAMES;

/// Those that this processor has and its kernel saves.
pub fn vectors(env: Env) -> impl Iterator<Item = Registers> {
    let has = machine::has(env);
    NAMES.iter().filter(move |(_, mask)| has & mask == *mask).map(|(name, _)| Registers::Wide(name))
}

/// The widest registers here.
pub fn widest(env: Env) -> Registers {
    vectors(env).last().unwrap_or(Registers::Ordinary)
}

#[inline(always)]
fn steps(start: Numbers) -> Numbers {
    let Numbers(mut all) = start;
    for part in all.as_chunks_mut().0 {
        let mut numbers: [Number; COUNT / 4] = *part; // In registers through all steps.
        for _ in 0..STEPS {
            numbers = numbers.map(|number| number * FACTOR + SUMMAND);
        }
        *part = numbers;
    }
    Numbers(all)
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod machine {
    use super::{Numbers, steps};
    #[cfg(target_arch = "x86")]
    use core::arch::x86::{__cpuid_count, _xgetbv};
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::{__cpuid_count, _xgetbv};

    /// The bits of the features of leaf 7, and behind them those of what the kernel saves. (Intel's
    /// Software Developer's Manual, volume 1, 14.3 and 15.2)
    pub const NAMES: &[(&str, usize)] = &[("avx2", 1 << 5 | 6 << 24), ("avx512f", 1 << 16 | 0xe6 << 24)];

    pub fn has(_: rt0::Env) -> usize {
        const XSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
        if __cpuid_count(0, 0).eax < 7 || __cpuid_count(1, 0).ecx & XSAVE_AND_AVX != XSAVE_AND_AVX {
            return 0;
        }
        // SAFETY: 1. The kernel has turned xgetbv on.
        let saved = unsafe { saved() } as usize;
        __cpuid_count(7, 0).ebx as usize & (1 << 5 | 1 << 16) | (saved & 0xe6) << 24
    }

    /// # Safety
    ///
    /// 1. The kernel has turned on `xgetbv`.
    #[target_feature(enable = "xsave")]
    unsafe fn saved() -> u64 {
        // SAFETY: 1. The caller guarantees it (1).
        unsafe { _xgetbv(0) }
    }

    /// # Safety
    ///
    /// 1. The registers of this name are there.
    pub unsafe fn wide(name: &str, start: Numbers) -> Numbers {
        match name {
            // SAFETY: the caller guarantees 1.
            "avx512f" => unsafe { avx512(start) },
            // SAFETY: the caller guarantees 1.
            _ => unsafe { avx2(start) },
        }
    }

    #[target_feature(enable = "avx512f")]
    fn avx512(start: Numbers) -> Numbers {
        steps(start)
    }

    #[target_feature(enable = "avx2")]
    fn avx2(start: Numbers) -> Numbers {
        steps(start)
    }
}

/// What the kernel says in one word of the initial vector of the registers that it saves.
#[cfg(any(
    target_arch = "aarch64",
    target_arch = "s390x",
    target_arch = "loongarch64",
    target_arch = "riscv32",
    target_arch = "riscv64",
    target_arch = "powerpc",
    target_arch = "powerpc64"
))]
fn capabilities(env: Env) -> usize {
    env.auxv().get(linux_raw_sys::auxvec::AT_HWCAP as usize).unwrap_or(0)
}

/// The compiler takes these registers for loops of an unknown length only.
#[cfg(target_arch = "aarch64")]
mod machine {
    use super::{COUNT, FACTOR, Numbers, STEPS, SUMMAND};
    use core::arch::asm;

    pub(super) use super::capabilities as has;

    /// A bit of AT_HWCAP. (arch/arm64/include/uapi/asm/hwcap.h)
    pub const NAMES: &[(&str, usize)] = &[("sve", 1 << 22)];

    /// # Safety
    ///
    /// 1. The registers of this name are there.
    #[target_feature(enable = "sve")]
    pub unsafe fn wide(_: &str, mut start: Numbers) -> Numbers {
        // The numbers of eight vectors at a time, whose width the processor knows. Predicates say
        // which of their elements there are.
        // SAFETY: it writes `start` and the registers that it names, which are there (1).
        unsafe {
            asm!(
                "mov z8.d, {factor}",
                "mov z9.d, {summand}",
                "2:",
                "mov {at}, {done}",
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
                "whilelo p\\n\\().d, {at}, {count}",
                "ld1d {{z\\n\\().d}}, p\\n/z, [{numbers}, {at}, lsl #3]",
                "incd {at}",
                ".endr",
                "mov {left}, {steps}",
                "3:",
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
                "fmul z\\n\\().d, p\\n/m, z\\n\\().d, z8.d",
                "fadd z\\n\\().d, p\\n/m, z\\n\\().d, z9.d",
                ".endr",
                "subs {left}, {left}, #1",
                "b.ne 3b",
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
                "st1d {{z\\n\\().d}}, p\\n, [{numbers}, {done}, lsl #3]",
                "incd {done}",
                ".endr",
                "cmp {done}, {count}",
                "b.lo 2b",
                numbers = in(reg) &raw mut start,
                done = inout(reg) 0usize => _,
                at = out(reg) _,
                left = out(reg) _,
                count = in(reg) COUNT,
                steps = in(reg) STEPS,
                factor = in(reg) FACTOR.to_bits(),
                summand = in(reg) SUMMAND.to_bits(),
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("p0") _, out("p1") _, out("p2") _, out("p3") _, out("p4") _,
                out("p5") _, out("p6") _, out("p7") _,
                options(nostack),
            );
        }
        start
    }
}

/// Machines whose vectors the compiler uses if it is told so.
#[cfg(any(target_arch = "s390x", target_arch = "loongarch64"))]
mod machine {
    pub(super) use super::capabilities as has;
    use super::{Numbers, steps};

    /// Bits of AT_HWCAP: asm/elf.h of s390x, asm/hwcap.h of loongarch64.
    #[cfg(target_arch = "s390x")]
    pub const NAMES: &[(&str, usize)] = &[("vector", 1 << 11)];
    #[cfg(target_arch = "loongarch64")]
    pub const NAMES: &[(&str, usize)] = &[("lsx", 1 << 4), ("lasx", 1 << 5)];

    /// # Safety
    ///
    /// 1. The registers of this name are there.
    pub unsafe fn wide(name: &str, start: Numbers) -> Numbers {
        match name {
            // SAFETY: the caller guarantees 1.
            #[cfg(target_arch = "loongarch64")]
            "lsx" => unsafe { lsx(start) },
            // SAFETY: the caller guarantees 1.
            _ => unsafe { widest(start) },
        }
    }

    #[cfg(target_arch = "loongarch64")]
    #[target_feature(enable = "lsx")]
    fn lsx(start: Numbers) -> Numbers {
        steps(start)
    }

    #[cfg_attr(target_arch = "s390x", target_feature(enable = "vector"))]
    #[cfg_attr(target_arch = "loongarch64", target_feature(enable = "lasx"))]
    fn widest(start: Numbers) -> Numbers {
        steps(start)
    }
}

/// The compiler has the name of these vectors as an unstable one only.
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
mod machine {
    use super::{COUNT, FACTOR, Numbers, STEPS, SUMMAND};
    use core::arch::asm;

    pub(super) use super::capabilities as has;

    /// AT_HWCAP has a bit for each letter. (arch/riscv/include/uapi/asm/hwcap.h)
    pub const NAMES: &[(&str, usize)] = &[("v", 1 << (b'v' - b'a'))];

    /// # Safety
    ///
    /// 1. The registers of this name are there.
    pub unsafe fn wide(_: &str, mut start: Numbers) -> Numbers {
        // Four groups of eight registers. Of 128 bits, the least there are, they hold all numbers.
        // SAFETY: it writes `start` and the registers that it names, which are there (1).
        unsafe {
            asm!(
                ".option push",
                ".option arch, +v",
                "vsetvli {rest}, {rest}, e64, m8, ta, ma",
                "mv {rest}, {at}",
                ".irp n, 0, 8, 16, 24",
                "vle64.v v\\n, ({rest})",
                "addi {rest}, {rest}, 128",
                ".endr",
                "2:",
                ".irp n, 0, 8, 16, 24",
                "vfmul.vf v\\n, v\\n, {factor}",
                "vfadd.vf v\\n, v\\n, {summand}",
                ".endr",
                "addi {steps}, {steps}, -1",
                "bnez {steps}, 2b",
                "mv {rest}, {at}",
                ".irp n, 0, 8, 16, 24",
                "vse64.v v\\n, ({rest})",
                "addi {rest}, {rest}, 128",
                ".endr",
                ".option pop",
                at = in(reg) &raw mut start,
                rest = inout(reg) COUNT / 4 => _,
                steps = inout(reg) STEPS => _,
                factor = in(freg) FACTOR,
                summand = in(freg) SUMMAND,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
                out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
                out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
                out("v29") _, out("v30") _, out("v31") _,
                options(nostack),
            );
        }
        start
    }
}

/// The compiler has the names of these vectors as unstable ones only.
#[cfg(any(target_arch = "powerpc", target_arch = "powerpc64"))]
mod machine {
    use super::{COUNT, FACTOR, Numbers, STEPS, SUMMAND};
    use core::arch::asm;

    pub(super) use super::capabilities as has;

    /// Bits of AT_HWCAP. (arch/powerpc/include/uapi/asm/cputable.h)
    pub const NAMES: &[(&str, usize)] = &[("altivec", 1 << 28), ("vsx", 1 << 7)];

    /// Loads eight registers and two of constants, does the steps, and stores the eight.
    macro_rules! on_eight {
        ($load:literal, $step:literal, $store:literal, $part:ident, $constants:ident, $($register:tt)*) => {
            asm!(
                "li {at}, 16",
                concat!($load, " 8, 0, {constants}"),
                concat!($load, " 9, {at}, {constants}"),
                "li {at}, 0",
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
                concat!($load, " \\n, {at}, {part}"),
                "addi {at}, {at}, 16",
                ".endr",
                "mtctr {steps}",
                "2:",
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
                $step,
                ".endr",
                "bdnz 2b",
                "li {at}, 0",
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
                concat!($store, " \\n, {at}, {part}"),
                "addi {at}, {at}, 16",
                ".endr",
                at = out(reg_nonzero) _,
                part = in(reg) $part.as_mut_ptr(),
                constants = in(reg) &raw const $constants,
                steps = in(reg) STEPS,
                out("ctr") _,
                $(out($register) _,)*
                options(nostack),
            )
        };
    }

    /// # Safety
    ///
    /// 1. The registers of this name are there.
    pub unsafe fn wide(name: &str, mut start: Numbers) -> Numbers {
        #[repr(align(16))]
        struct Constants(#[expect(dead_code, reason = "only the assembly reads them")] [[f32; 4]; 2]);
        static CONSTANTS: Constants = Constants([[FACTOR; 4], [SUMMAND; 4]]);
        for part in start.0.as_chunks_mut::<{ COUNT / 4 }>().0 {
            match name {
                // Those without the ordinary registers.
                // SAFETY: it writes `part` and the registers that it names, which are there (1).
                "altivec" => unsafe {
                    on_eight!("lvx", "vmaddfp \\n, \\n, 8, 9", "stvx", part, CONSTANTS,
                        "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" "v8" "v9")
                },
                // Those that the ordinary registers are half of.
                // SAFETY: it writes `part` and the registers that it names, which are there (1).
                _ => unsafe {
                    on_eight!("lxvw4x", "xvmaddmsp \\n, 8, 9", "stxvw4x", part, CONSTANTS,
                        "f0" "f1" "f2" "f3" "f4" "f5" "f6" "f7" "f8" "f9")
                },
            }
        }
        start
    }
}

/// Machines without vectors, or whose vectors are the registers that the compiler takes anyway.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "s390x",
    target_arch = "loongarch64",
    target_arch = "riscv32",
    target_arch = "riscv64",
    target_arch = "powerpc",
    target_arch = "powerpc64"
)))]
mod machine {
    use super::{Numbers, steps};

    pub const NAMES: &[(&str, usize)] = &[];

    pub fn has(_: rt0::Env) -> usize {
        0
    }

    /// # Safety
    ///
    /// 1. Nothing: it is not called.
    pub unsafe fn wide(_: &str, start: Numbers) -> Numbers {
        steps(start)
    }
}

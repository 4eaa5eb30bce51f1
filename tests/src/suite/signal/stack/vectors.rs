//! Work on many numbers at once, in the widest registers that this processor and its kernel have:
//! what a signal frame must save and bring back.

use rt0::Env;

/// As many as fill eight registers of 64 bytes.
pub type Numbers = [f64; 64];

/// The registers that the work is done in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registers {
    /// What the compiler takes without being told.
    Ordinary,
    /// The machine's vectors, by their name.
    Wide(&'static str),
}

/// Some steps from `start`, all numbers at once. The result depends on `start` alone.
#[inline(never)]
pub fn work(registers: Registers, start: Numbers) -> Numbers {
    match registers {
        Registers::Ordinary => steps(start),
        // SAFETY: 1. `widest` found out that they are there.
        Registers::Wide(name) => unsafe { machine::wide(name, start) },
    }
}

/// The widest registers here.
pub fn widest(env: Env) -> Registers {
    machine::name(env).map_or(Registers::Ordinary, Registers::Wide)
}

#[inline(always)]
fn steps(start: Numbers) -> Numbers {
    let mut numbers = start;
    for _ in 0..100 {
        for number in &mut numbers {
            *number = *number * 0.75 + 1.5;
        }
    }
    numbers
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod machine {
    use super::{Numbers, steps};
    #[cfg(target_arch = "x86")]
    use core::arch::x86::{__cpuid_count, _xgetbv};
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::{__cpuid_count, _xgetbv};

    /// Intel's Software Developer's Manual, volume 1, 14.3 and 15.2: the processor has them, and
    /// the kernel saves them.
    pub fn name(_: rt0::Env) -> Option<&'static str> {
        const XSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
        if __cpuid_count(0, 0).eax < 7 || __cpuid_count(1, 0).ecx & XSAVE_AND_AVX != XSAVE_AND_AVX {
            return None;
        }
        // SAFETY: 1. The kernel has turned xgetbv on.
        let saved = unsafe { saved() };
        let features = __cpuid_count(7, 0).ebx;
        if features & 1 << 16 != 0 && saved & 0xe6 == 0xe6 {
            return Some("avx512f");
        }
        (features & 1 << 5 != 0 && saved & 6 == 6).then_some("avx2")
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
            // SAFETY: 1. The caller guarantees it (1).
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

/// Machines whose kernel says in one word of the initial vector which registers it saves.
#[cfg(any(target_arch = "aarch64", target_arch = "s390x", target_arch = "loongarch64"))]
mod machine {
    use super::{Numbers, steps};

    /// The bit of AT_HWCAP: asm/hwcap.h of aarch64 and loongarch64, asm/elf.h of s390x.
    const BIT: u32 = if cfg!(target_arch = "aarch64") {
        22
    } else if cfg!(target_arch = "s390x") {
        11
    } else {
        5
    };

    const NAME: &str = if cfg!(target_arch = "aarch64") {
        "sve"
    } else if cfg!(target_arch = "s390x") {
        "vector"
    } else {
        "lasx"
    };

    pub fn name(env: rt0::Env) -> Option<&'static str> {
        let capabilities = env.auxv().get(linux_raw_sys::auxvec::AT_HWCAP as usize)?;
        (capabilities >> BIT & 1 == 1).then_some(NAME)
    }

    /// # Safety
    ///
    /// 1. The registers are there.
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "sve"))]
    #[cfg_attr(target_arch = "s390x", target_feature(enable = "vector"))]
    #[cfg_attr(target_arch = "loongarch64", target_feature(enable = "lasx"))]
    pub unsafe fn wide(_: &str, start: Numbers) -> Numbers {
        steps(start)
    }
}

/// Machines whose vectors the pinned compiler has under no stable name, or that have none.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "s390x",
    target_arch = "loongarch64"
)))]
mod machine {
    use super::{Numbers, steps};

    pub fn name(_: rt0::Env) -> Option<&'static str> {
        None
    }

    /// # Safety
    ///
    /// 1. Nothing: it is not called.
    pub unsafe fn wide(_: &str, start: Numbers) -> Numbers {
        steps(start)
    }
}

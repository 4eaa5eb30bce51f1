use super::*;
use crate::calls::decode::{self, Decoder};

const BASE: u64 = 0x1_0000;

/// The verdict on the first of some functions, which lie one after another.
fn verdict(decoder: Decoder, machine: Machine, order: Order, parts: &[(&str, Vec<u8>)]) -> Result<(), String> {
    let mut functions = Functions::new();
    let mut start = BASE;
    for (name, code) in parts {
        let end = start + code.len() as u64;
        functions.insert(start, Function::new(name, decoder, code, start..end, |_| true));
        start = end;
    }
    Code { functions: &functions, machine }.check(BASE, order, &mut BTreeMap::new())
}

fn little(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn big(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A machine, its decoder and reader, code that has the order, and code that does not. The slow
/// path of each lies far behind the function.
struct Case {
    name: &'static str,
    decoder: Decoder,
    machine: Machine,
    order: Order,
    good: Vec<Vec<u8>>,
    bad: Vec<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let aarch64 = |order, good, bad| Case {
        name: "aarch64",
        decoder: decode::aarch64,
        machine: access::AARCH64,
        order,
        good,
        bad,
    };
    let arm = |order, good, bad| Case { name: "arm", decoder: decode::arm, machine: access::ARM, order, good, bad };
    let riscv = |order, good, bad| Case {
        name: "riscv64",
        decoder: decode::riscv::<64>,
        machine: access::RISCV,
        order,
        good,
        bad,
    };
    let powerpc = |order, good, bad| Case {
        name: "powerpc64",
        decoder: decode::powerpc::<true>,
        machine: access::POWERPC,
        order,
        good,
        bad,
    };
    use Order::{Acquire, Release};
    vec![
        aarch64(
            Acquire,
            vec![
                // 1: ldaxr w8, [x0]; cbnz w8, 2f; stxr w9, w1, [x0]; cbnz w9, 1b; ret; 2: b far
                little(&[0x885f_fc08, 0x3500_0088, 0x8809_7c01, 0x35ff_ffa9, 0xd65f_03c0, 0x1400_0010]),
                little(&[0xb8a1_8002, 0xd65f_03c0]),              // swpa w1, w2, [x0]
                little(&[0x88e1_fc02, 0xd65f_03c0]),              // casal
                little(&[0x88df_fc01, 0xd65f_03c0]),              // ldar
                little(&[0xb8bf_c001, 0xd65f_03c0]),              // ldapr
                little(&[0xb940_0001, 0xd503_39bf, 0xd65f_03c0]), // ldr; dmb ishld
            ],
            vec![
                // The same with ldxr.
                little(&[0x885f_7c08, 0x3500_0088, 0x8809_7c01, 0x35ff_ffa9, 0xd65f_03c0, 0x1400_0010]),
                little(&[0xb861_801f, 0xd65f_03c0]), // swpl w1, wzr
                little(&[0xb8a1_801f, 0xd65f_03c0]), // swpa w1, wzr: not ordered
                little(&[0xb940_0001, 0xd65f_03c0]),
                little(&[0xd503_39bf, 0xb940_0001, 0xd65f_03c0]), // The barrier comes too early.
                little(&[0xb940_0001, 0xd503_3abf, 0xd65f_03c0]), // dmb ishst
            ],
        ),
        aarch64(
            Release,
            vec![
                little(&[0x889f_fc01, 0xd65f_03c0]),              // stlr
                little(&[0x8809_fc01, 0xd65f_03c0]),              // stlxr
                little(&[0xb861_801f, 0xd65f_03c0]),              // swpl
                little(&[0xd503_3bbf, 0xb900_0001, 0xd65f_03c0]), // dmb ish; str
            ],
            vec![
                little(&[0xb900_0001, 0xd65f_03c0]),
                little(&[0xb8a1_8002, 0xd65f_03c0]),              // swpa
                little(&[0xb900_0001, 0xd503_3bbf, 0xd65f_03c0]), // The barrier comes too late.
                little(&[0xd503_39bf, 0xb900_0001, 0xd65f_03c0]), // dmb ishld
            ],
        ),
        arm(
            Acquire,
            // 1: ldrex r1, [r0]; cmp r1, #0; bne 2f; strex r2, r3, [r0]; cmp r2, #0; bne 1b; dmb
            // ish; bx lr; 2: b far
            vec![little(&[
                0xe190_1f9f,
                0xe351_0000,
                0x1a00_0004,
                0xe180_2f93,
                0xe352_0000,
                0x1aff_fff9,
                0xf57f_f05b,
                0xe12f_ff1e,
                0xea00_000e,
            ])],
            vec![
                // Without the barrier; an ordinary access before a barrier, then the exclusive
                // ones.
                little(&[
                    0xe190_1f9f,
                    0xe351_0000,
                    0x1a00_0003,
                    0xe180_2f93,
                    0xe352_0000,
                    0x1aff_fff9,
                    0xe12f_ff1e,
                    0xea00_000e,
                ]),
                little(&[0xe590_1000, 0xf57f_f05b, 0xe190_1f9f, 0xe180_2f93, 0xe12f_ff1e]),
            ],
        ),
        arm(
            Release,
            vec![
                little(&[0xf57f_f05b, 0xe580_1000, 0xe12f_ff1e]),
                little(&[0xee07_0fba, 0xe180_2f93, 0xe12f_ff1e]), // ARMv6's barrier
            ],
            vec![little(&[0xe580_1000, 0xf57f_f05b, 0xe12f_ff1e]), little(&[0xe180_2f93, 0xe12f_ff1e])],
        ),
        riscv(
            Acquire,
            vec![
                // 1: lr.w.aq a1, (a0); bnez a1, 2f; sc.w a2, a3, (a0); bnez a2, 1b; ret; 2: j far
                little(&[0x1405_25af, 0x0005_9863, 0x18d5_262f, 0xfe06_1ae3, 0x0000_8067, 0x0400_006f]),
                little(&[0x0005_2503, 0x0230_000f, 0x0000_8067]), // lw; fence r, rw
            ],
            vec![
                little(&[0x1005_25af, 0x0005_9863, 0x18d5_262f, 0xfe06_1ae3, 0x0000_8067, 0x0400_006f]),
                little(&[0x0005_2503, 0x0310_000f, 0x0000_8067]), // fence rw, w
                little(&[0x02c5_25af, 0x0000_8067]),              // amoadd.w.rl
            ],
        ),
        riscv(
            Release,
            vec![
                little(&[0x1ad5_262f, 0x0000_8067]), // sc.w.rl
                little(&[0x02c5_25af, 0x0000_8067]),
                little(&[0x0310_000f, 0x00b5_2023, 0x0000_8067]), // fence rw, w; sw
            ],
            vec![
                little(&[0x18d5_262f, 0x0000_8067]),
                little(&[0x0230_000f, 0x00b5_2023, 0x0000_8067]),
                little(&[0x00b5_2023, 0x0000_8067]),
            ],
        ),
        powerpc(
            Acquire,
            // 1: lwarx 4, 0, 3; cmpwi 4, 0; bne 2f; stwcx. 5, 0, 3; bne 1b; lwsync; blr; 2: b far
            vec![big(&[
                0x7c80_1828,
                0x2c04_0000,
                0x4082_0014,
                0x7ca0_192d,
                0x4082_fff0,
                0x7c20_04ac,
                0x4e80_0020,
                0x4800_0040,
            ])],
            vec![
                big(&[0x7c80_1828, 0x2c04_0000, 0x4082_0010, 0x7ca0_192d, 0x4082_fff0, 0x4e80_0020, 0x4800_0040]),
                big(&[0x7c20_04ac, 0x7c80_1828, 0x7ca0_192d, 0x4e80_0020]),
            ],
        ),
        powerpc(
            Release,
            vec![big(&[0x7c20_04ac, 0x9083_0000, 0x4e80_0020])], // lwsync; stw
            vec![
                big(&[0x9083_0000, 0x7c20_04ac, 0x4e80_0020]),
                big(&[0x4c00_012c, 0x9083_0000, 0x4e80_0020]), // isync releases nothing.
            ],
        ),
    ]
}

#[test]
fn code_with_the_order_is_told_from_code_without() {
    for Case { name, decoder, machine, order, good, bad } in cases() {
        for code in good {
            assert_eq!(verdict(decoder, machine, order, &[("f", code.clone())]), Ok(()), "{name} {order:?} {code:x?}");
        }
        for code in bad {
            let said = verdict(decoder, machine, order, &[("f", code.clone())]);
            assert!(said.is_err_and(|said| said.contains("without the order")), "{name} {order:?} {code:x?}");
        }
    }
}

/// Code that has the order by plain accesses, with one instruction more among them.
struct Among {
    name: &'static str,
    decoder: Decoder,
    machine: Machine,
    order: Order,
    code: fn(u32) -> Vec<u8>,
    /// It makes an atomic access, which no reader knows.
    unknown: Vec<u32>,
    /// It makes an atomic access without this order.
    unordered: Vec<u32>,
    /// It makes an atomic access with this order.
    ordered: Vec<u32>,
    /// It makes no atomic access.
    harmless: Vec<u32>,
}

fn among() -> Vec<Among> {
    let power = |extended: u32| 0x7c80_1800 | extended << 1;
    vec![
        Among {
            name: "aarch64",
            decoder: decode::aarch64,
            machine: access::AARCH64,
            order: Order::Acquire,
            // ldr; dmb ishld; …; ret
            code: |word| little(&[0xb940_0001, 0xd503_39bf, word, 0xd65f_03c0]),
            // swpp, ldclrp, rcwcas, ldfadd; st64b, cpyfp, a reserved one
            unknown: [
                &[0x1922_8001, 0x1922_1001, 0x1922_0801, 0x3c22_0001][..],
                &[0xf83f_9001, 0x1902_0401, 0xf822_c001],
            ]
            .concat(),
            // ldxr, ldaddl, casp
            unordered: vec![0x885f_7c08, 0xb862_0001, 0x0822_7c04],
            // ldaxr, casal
            ordered: vec![0x885f_fc08, 0x88e1_fc02],
            // ldp, ldr of a vector, ldr from the pool, ld1; ldapur, prfm, stg, ldraa
            harmless: [
                [0xa940_0801, 0x3dc0_0001, 0x5800_0041, 0x4c40_7001],
                [0x9940_4001, 0xf980_0000, 0xd920_0821, 0xf820_0441],
            ]
            .concat(),
        },
        Among {
            name: "arm",
            decoder: decode::arm,
            machine: access::ARM,
            order: Order::Acquire,
            // ldr; dmb ish; …; bx lr
            code: |word| little(&[0xe590_1000, 0xf57f_f05b, word, 0xe12f_ff1e]),
            // swp, swpb, a reserved one
            unknown: vec![0xe100_1092, 0xe140_1092, 0xe190_1d9f],
            // ldrex, ldrexd, ldrexb, ldrexh
            unordered: vec![0xe190_1f9f, 0xe1b0_2f9f, 0xe1d0_1f9f, 0xe1f0_1f9f],
            // ldaex, ldaexd, ldaexb
            ordered: vec![0xe190_1e9f, 0xe1b0_2e9f, 0xe1d0_1e9f],
            // mul, ldrh, lda, stl
            harmless: vec![0xe000_0291, 0xe1d0_10b0, 0xe190_1c9f, 0xe180_fc91],
        },
        Among {
            name: "riscv64",
            decoder: decode::riscv::<64>,
            machine: access::RISCV,
            order: Order::Acquire,
            // lw; fence r, rw; …; ret
            code: |word| little(&[0x0005_2503, 0x0230_000f, word, 0x0000_8067]),
            // lw.aqrl and sw.aqrl of Zalasr, a reserved one, one of 128 bits
            unknown: vec![0x3605_25af, 0x3eb5_202f, 0x5ec5_25af, 0x0ec5_45af],
            // lr.w, amoswap.w.rl, amocas.d.rl
            unordered: vec![0x1005_25af, 0x0ac5_25af, 0x2ac5_35af],
            // lr.w.aq, amoadd.b.aq
            ordered: vec![0x1405_25af, 0x04c5_05af],
            // lw, mul, fence.i
            harmless: vec![0x0005_2503, 0x02c5_8533, 0x0000_100f],
        },
        Among {
            name: "powerpc64",
            decoder: decode::powerpc::<true>,
            machine: access::POWERPC,
            order: Order::Acquire,
            // lwz; lwsync; …; blr
            code: |word| big(&[0x8083_0000, 0x7c20_04ac, word, 0x4e80_0020]),
            // Reserved ones beside those that are known.
            unknown: [308, 118, 774].map(power).to_vec(),
            // lwarx and its kin, lwat, ldat
            unordered: [20, 52, 84, 116, 276, 582, 614].map(power).to_vec(),
            ordered: Vec::new(),
            // ldbrx, stdbrx, lwbrx, stwbrx, dcbt, dcbz, lvsl, eieio
            harmless: [532, 660, 534, 662, 278, 1014, 6, 854].map(power).to_vec(),
        },
    ]
}

#[test]
fn no_plain_access_counts_beside_an_atomic_one_known_or_not() {
    for Among { name, decoder, machine, order, code, unknown, unordered, ordered, harmless } in among() {
        let run = |word| verdict(decoder, machine, order, &[("f", code(word))]);
        for word in unknown {
            let said = run(word);
            assert!(said.as_ref().is_err_and(|said| said.contains("is not known")), "{name} {word:#x}: {said:?}");
        }
        for word in unordered {
            let said = run(word);
            assert!(said.as_ref().is_err_and(|said| said.contains("without the order")), "{name} {word:#x}: {said:?}");
        }
        for word in ordered.into_iter().chain(harmless) {
            assert_eq!(run(word), Ok(()), "{name} {word:#x}");
        }
    }
}

#[test]
fn a_helper_with_an_access_that_is_not_known_has_no_order() {
    // ldaxr; swpp; ret
    let code = little(&[0x885f_fc08, 0x1922_8001, 0xd65f_03c0]);
    let said = verdict(decode::aarch64, access::AARCH64, Order::Acquire, &[("__aarch64_swp", code)]);
    assert!(said.as_ref().is_err_and(|said| said.contains("is not known")), "{said:?}");
}

#[test]
fn thumb_code_is_not_read_as_that_of_arm() {
    // ldr r1, [r0]; dmb ish; bx lr
    let code = [0x01, 0x68, 0xbf, 0xf3, 0x5b, 0x8f, 0x70, 0x47];
    let said = verdict(decode::thumb, access::ARM, Order::Acquire, &[("f", code.to_vec())]);
    assert!(said.as_ref().is_err_and(|said| said.contains("is not known")), "{said:?}");
}

#[test]
fn a_call_counts_if_what_it_calls_has_the_order() {
    let run = |parts: &[(&str, Vec<u8>)]| verdict(decode::aarch64, access::AARCH64, Order::Acquire, parts);
    let caller = ("f", little(&[0x9400_0002, 0xd65f_03c0])); // bl to what is behind; ret
    let tail = ("f", little(&[0x1400_0001]));
    for caller in [caller, tail] {
        let acquires = little(&[0x88df_fc01, 0xd65f_03c0]);
        assert_eq!(run(&[caller.clone(), ("g", acquires)]), Ok(()));
        let not = little(&[0xb940_0001, 0xd65f_03c0]);
        assert_eq!(run(&[caller, ("g", not)]), Err("it has no fast path".to_string()));
    }
    // The check of a function that calls itself ends.
    assert_eq!(run(&[("f", little(&[0x9400_0000, 0xd65f_03c0]))]), Err("it has no fast path".to_string()));
}

#[test]
fn each_access_of_the_compilers_helpers_counts() {
    let run = |order, code: &[u32]| {
        let caller = ("f", little(&[0x9400_0002, 0xd65f_03c0]));
        verdict(decode::aarch64, access::AARCH64, order, &[caller, ("__aarch64_cas4", little(code))])
    };
    // ldxr; cmp; b.ne to the return; stlxr; ret: it stores only if the values are the same.
    let release = [0x885f_7c08, 0x6b00_011f, 0x5400_0041, 0x8809_fc01, 0xd65f_03c0];
    assert_eq!(run(Order::Release, &release), Ok(()));
    assert!(run(Order::Acquire, &release).is_err());
    assert!(run(Order::Release, &[0xd65f_03c0]).is_err(), "there is no access");
}

#[test]
fn a_path_takes_no_branch_that_contradicts_a_bit_it_knows() {
    let run = |code: &[u32]| verdict(decode::powerpc::<true>, access::POWERPC, Order::Acquire, &[("f", big(code))]);
    // 1: lwarx 5, 0, 4; crclr 20; cmplw 5, 6; bne 2f; stwcx. 6, 0, 4; bne 2f; lwsync; crset 20;
    // 2: bf 20, 1b; blr
    let good = [
        0x7ca0_2028,
        0x4e94_a182,
        0x7c05_3040,
        0x40c2_0014,
        0x7cc0_212d,
        0x40c2_000c,
        0x7c20_04ac,
        0x4e94_a242,
        0x4094_ffe0,
        0x4e80_0020,
    ];
    assert_eq!(run(&good), Ok(()));
    let mut without = good;
    without[6] = 0x6000_0000; // nop
    assert!(run(&without).is_err());
    let mut set_too_early = good;
    set_too_early[1] = 0x4e94_a242;
    assert!(run(&set_too_early).is_err());

    let run = |code: &[u32]| verdict(decode::arm, access::ARM, Order::Acquire, &[("f", little(code))]);
    // 1: ldrex r1, [r0]; cmp r1, #0; bne far; strex r1, r2, [r0]; cmp r1, #0; mcreq barrier; popeq
    // {pc}; b 1b
    let good = [0xe190_1f9f, 0xe351_0000, 0x1a00_0010, 0xe180_1f92, 0xe351_0000, 0x0e07_1fba, 0x08bd_8000, 0xeaff_fff7];
    assert_eq!(run(&good), Ok(()));
    let mut other_condition = good;
    other_condition[5] = 0x1e07_1fba; // mcrne
    assert!(run(&other_condition).is_err());
}

#[test]
fn the_name_says_what_must_be_so() {
    assert_eq!(Order::of("acquires_by_mutex_lock"), Some(Order::Acquire));
    assert_eq!(Order::of("releases_by_unpark"), Some(Order::Release));
    assert_eq!(Order::of("rust_start"), None);
}

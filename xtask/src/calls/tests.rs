use super::decode::{aarch64, arm, loongarch64, powerpc, riscv, s390x, sparc64, thumb};
use super::*;

/// Checks functions that follow each other from `BASE` on; returns the faults of the first.
fn faults(decoder: Decoder, parts: &[&[u8]]) -> Vec<(u64, &'static str)> {
    let mut functions = Functions::new();
    let mut start = BASE;
    for &code in parts {
        let end = start + code.len() as u64;
        functions.insert(start, Function::new("f", decoder, code, start..end, |_| true));
        start = end;
    }
    find_what_returns(&mut functions);
    check(&functions, BASE, &functions[&BASE])
}

const BASE: u64 = 0x1_0000;
const TWICE: &str = "another system call can be followed by it, and its number is not set again between them";
const UNSET_AT_ENTRY: &str = "the function can reach it without setting its number";
const UNREACHED: &str = "no path to it is known";

fn little(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn big(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn halves(halves: &[u16]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_le_bytes()).collect()
}

/// A loop with a system call: set the number, call, branch back, return.
struct Loop {
    decoder: Decoder,
    call_at: u64,
    call_length: usize,
    /// Branches back to the call instead of to the instruction that sets the number.
    bad: Vec<u8>,
    good: Vec<u8>,
}

fn loops() -> Vec<Loop> {
    vec![
        // mov w8, 98; svc 0; cbnz w9; ret
        Loop {
            decoder: aarch64,
            call_at: 4,
            call_length: 4,
            bad: little(&[0x5280_0c48, 0xd400_0001, 0x35ff_ffe9, 0xd65f_03c0]),
            good: little(&[0x5280_0c48, 0xd400_0001, 0x35ff_ffc9, 0xd65f_03c0]),
        },
        // mov r7, #240; svc #0; bne; bx lr
        Loop {
            decoder: arm,
            call_at: 4,
            call_length: 4,
            bad: little(&[0xe3a0_70f0, 0xef00_0000, 0x1aff_fffd, 0xe12f_ff1e]),
            good: little(&[0xe3a0_70f0, 0xef00_0000, 0x1aff_fffc, 0xe12f_ff1e]),
        },
        // li a7, 98; ecall; bnez a0; ret
        Loop {
            decoder: riscv::<64>,
            call_at: 4,
            call_length: 4,
            bad: little(&[0x0620_0893, 0x0000_0073, 0xfe05_1ee3, 0x0000_8067]),
            good: little(&[0x0620_0893, 0x0000_0073, 0xfe05_1ce3, 0x0000_8067]),
        },
        // c.li a7, 29; ecall; c.bnez a0; c.jr ra
        Loop {
            decoder: riscv::<32>,
            call_at: 2,
            call_length: 4,
            bad: halves(&[0x48f5, 0x0073, 0x0000, 0xfd75, 0x8082]),
            good: halves(&[0x48f5, 0x0073, 0x0000, 0xfd6d, 0x8082]),
        },
        // ori $a7, $zero, 98; syscall 0; bnez $a0; ret
        Loop {
            decoder: loongarch64,
            call_at: 4,
            call_length: 4,
            bad: little(&[0x0381_880b, 0x002b_0000, 0x47ff_fc9f, 0x4c00_0020]),
            good: little(&[0x0381_880b, 0x002b_0000, 0x47ff_f89f, 0x4c00_0020]),
        },
        // lghi %r1, 238; svc 0; jne; br %r14
        Loop {
            decoder: s390x,
            call_at: 4,
            call_length: 2,
            bad: vec![0xa7, 0x19, 0x00, 0xee, 0x0a, 0x00, 0xa7, 0x74, 0xff, 0xff, 0x07, 0xfe],
            good: vec![0xa7, 0x19, 0x00, 0xee, 0x0a, 0x00, 0xa7, 0x74, 0xff, 0xfd, 0x07, 0xfe],
        },
        // li 0, 221; sc; bne; blr
        Loop {
            decoder: powerpc::<true>,
            call_at: 4,
            call_length: 4,
            bad: big(&[0x3800_00dd, 0x4400_0002, 0x4082_fffc, 0x4e80_0020]),
            good: big(&[0x3800_00dd, 0x4400_0002, 0x4082_fff8, 0x4e80_0020]),
        },
        Loop {
            decoder: powerpc::<false>,
            call_at: 4,
            call_length: 4,
            bad: little(&[0x3800_00dd, 0x4400_0002, 0x4082_fffc, 0x4e80_0020]),
            good: little(&[0x3800_00dd, 0x4400_0002, 0x4082_fff8, 0x4e80_0020]),
        },
        // mov 142, %g1; ta 0x6d; bne,pn %xcc; nop; retl; nop
        Loop {
            decoder: sparc64,
            call_at: 4,
            call_length: 4,
            bad: big(&[0x8210_208e, 0x91d0_206d, 0x1267_ffff, 0x0100_0000, 0x81c3_e008, 0x0100_0000]),
            good: big(&[0x8210_208e, 0x91d0_206d, 0x1267_fffe, 0x0100_0000, 0x81c3_e008, 0x0100_0000]),
        },
    ]
}

#[test]
fn a_loop_that_sets_the_number_once_is_a_fault_on_every_machine() {
    for (index, case) in loops().iter().enumerate() {
        assert_eq!(faults(case.decoder, &[&case.bad]), [(BASE + case.call_at, TWICE)], "loop {index}");
        assert_eq!(faults(case.decoder, &[&case.good]), [], "loop {index}");
        // Two calls in a row.
        let (set, rest) = case.good.split_at(case.call_at as usize);
        let call = &rest[..case.call_length];
        let fault = (BASE + case.call_at + case.call_length as u64, TWICE);
        assert_eq!(faults(case.decoder, &[&[set, call, call].concat()]), [fault], "loop {index}");
        // No function gets the number as an argument.
        assert_eq!(faults(case.decoder, &[call]), [(BASE, UNSET_AT_ENTRY)], "loop {index}");
    }
}

#[test]
fn a_call_that_never_returns_leads_nowhere() {
    // mov w8, 98; svc 0; cbz w9, 5; mov w8, 94; b 6; 5: bl die; 6: svc 0; ret
    let code = little(&[
        0x5280_0c48,
        0xd400_0001,
        0x3400_0069,
        0x5280_0bc8,
        0x1400_0002,
        0x9400_0003,
        0xd400_0001,
        0xd65f_03c0,
    ]);
    let (traps, returns) = (little(&[0xd420_0020]), little(&[0xd65f_03c0]));
    assert_eq!(faults(aarch64, &[&code, &traps]), []);
    assert_eq!(faults(aarch64, &[&code, &returns]), [(BASE + 24, TWICE)]);
    // A function that only calls itself has no path to a return either; a function that jumps to
    // one that returns has.
    assert_eq!(faults(aarch64, &[&code, &little(&[0x9400_0000])]), []);
    assert_eq!(faults(aarch64, &[&code, &little(&[0x1400_0001]), &returns]), [(BASE + 24, TWICE)]);
}

#[test]
fn a_jump_through_a_register_may_lead_to_what_nothing_falls_into() {
    // mov w8, 98; svc 0; br x9; svc 0; ret
    let code = little(&[0x5280_0c48, 0xd400_0001, 0xd61f_0120, 0xd400_0001, 0xd65f_03c0]);
    assert_eq!(faults(aarch64, &[&code]), [(BASE + 12, TWICE)]);
    // mov w8, 98; ret; svc 0
    let code = little(&[0x5280_0c48, 0xd65f_03c0, 0xd400_0001]);
    assert_eq!(faults(aarch64, &[&code]), [(BASE + 8, UNREACHED)]);
}

#[test]
fn what_may_not_write_the_register_does_not_count() {
    // ccmp x0, x1, 8, ne; str x8, [x0]; svc 0
    assert_eq!(faults(aarch64, &[&little(&[0xfa41_1008, 0xf900_0008, 0xd400_0001])]), [(BASE + 8, UNSET_AT_ENTRY)]);
    // movne r7, #1; str r7, [sp]; cmp r7, #1; svc #0
    let code = little(&[0x13a0_7001, 0xe58d_7000, 0xe357_0001, 0xef00_0000]);
    assert_eq!(faults(arm, &[&code]), [(BASE + 12, UNSET_AT_ENTRY)]);
    // movne r7, #240; cmp r0, #0; moveq r7, #422; svc #0
    let code = little(&[0x13a0_70f0, 0xe350_0000, 0x0300_71a6, 0xef00_0000]);
    assert_eq!(faults(arm, &[&code]), [(BASE + 12, UNSET_AT_ENTRY)]);
    // movne r7, #240; movwgt r7, #422; svc #0
    let code = little(&[0x13a0_70f0, 0xc300_71a6, 0xef00_0000]);
    assert_eq!(faults(arm, &[&code]), [(BASE + 8, UNSET_AT_ENTRY)]);
    // sd a7, 0(sp); ecall
    assert_eq!(faults(riscv::<64>, &[&little(&[0x0111_3023, 0x0000_0073])]), [(BASE + 4, UNSET_AT_ENTRY)]);
    // lmg %r6, %r15, 48(%r15); stg %r1, 0(%r15); svc 0
    let code = [0xeb, 0x6f, 0xf0, 0x30, 0x00, 0x04, 0xe3, 0x10, 0xf0, 0x00, 0x00, 0x24, 0x0a, 0x00];
    assert_eq!(faults(s390x, &[&code]), [(BASE + 12, UNSET_AT_ENTRY)]);
    // stw 0, 8(1); sc
    assert_eq!(faults(powerpc::<true>, &[&big(&[0x9001_0008, 0x4400_0002])]), [(BASE + 4, UNSET_AT_ENTRY)]);
    // stx %g1, [%sp]; ta 0x6d
    assert_eq!(faults(sparc64, &[&big(&[0xc273_8000, 0x91d0_206d])]), [(BASE + 4, UNSET_AT_ENTRY)]);
}

#[test]
fn a_jump_through_the_register_of_the_return_address_is_no_return() {
    let table = [0xe3, 0xe4, 0xe0, 0x00, 0x00, 0x04]; // lg %r14, 0(%r4, %r14)
    let rest = [
        0xa7, 0x0b, 0x00, 0x01, // aghi %r0, 1
        0x07, 0xfe, // br %r14
        0x0a, 0x00, // svc 0, which only the jump reaches
        0x07, 0xfe, // br %r14
    ];
    // The second jump may lead to the call again, with the number that the first left.
    assert_eq!(faults(s390x, &[&[&table[..], &rest].concat()]), [(BASE + 12, TWICE)]);
    // Behind lg %r14, 112(%r15) or lmg %r14, %r15, 112(%r15) it is a return.
    for restored in [[0xe3, 0xe0, 0xf0, 0x70, 0x00, 0x04], [0xeb, 0xef, 0xf0, 0x70, 0x00, 0x04]] {
        let code = [&table[..], &restored, &rest].concat();
        assert_eq!(faults(s390x, &[&code]), [(BASE + 18, UNREACHED)], "{restored:02x?}");
    }
}

#[test]
fn copies_and_loads_of_a_number_count() {
    for (decoder, code) in [
        (aarch64 as Decoder, little(&[0xaa13_03e8, 0xd400_0001])), // mov x8, x19
        (aarch64, little(&[0xa940_27e8, 0xd400_0001])),            // ldp x8, x9, [sp]
        (arm, little(&[0xe59f_7004, 0xef00_0000])),                // ldr r7, [pc, #4]
        // movne r7, #240; mov; movweq r7, #422
        (arm, little(&[0x13a0_70f0, 0xe1a0_3000, 0x0300_71a6, 0xef00_0000])),
        (arm, little(&[0xe300_71a6, 0xef00_0000])),         // movw r7, #422
        (riscv::<64>, halves(&[0x88a2, 0x0073, 0x0000])),   // c.mv a7, s0
        (riscv::<64>, little(&[0x0001_3883, 0x0000_0073])), // ld a7, 0(sp)
        (loongarch64, little(&[0x0015_02eb, 0x002b_0000])), // move $a7, $s0
        (s390x, vec![0xb9, 0x04, 0x00, 0x18, 0x0a, 0x00]),  // lgr %r1, %r8
        (s390x, vec![0xeb, 0x05, 0xf0, 0x08, 0x00, 0x04, 0x0a, 0x00]), // lmg %r0, %r5, 8(%r15)
        (s390x, vec![0x0a, 0xad]),                          // svc 173 contains its number.
        (powerpc::<true>, big(&[0x7fe0_fb78, 0x4400_0002])), // mr 0, 31
        (powerpc::<true>, big(&[0x8001_0008, 0x4400_0002])), // lwz 0, 8(1)
        (sparc64, big(&[0x8210_0009, 0x91d0_206d])),        // mov %o1, %g1
    ] {
        assert_eq!(faults(decoder, &[&code]), [], "{code:02x?}");
    }
}

#[test]
fn thumb_code_that_makes_a_call_is_a_fault_for_it_is_not_understood() {
    // movs r7, #1; svc 0; bx lr. The second half of a word is not an instruction.
    assert_eq!(faults(thumb, &[&halves(&[0x2701, 0xdf00, 0x4770])]), [(BASE + 2, UNSET_AT_ENTRY)]);
    assert_eq!(faults(thumb, &[&halves(&[0xf000, 0xdf00, 0x4770])]), []);
}

#[test]
fn what_cannot_be_decoded_is_an_error() {
    let elf = |machine| Elf { machine, bits: 64, big_endian: false, flags: (0, 0), page: 0x1000 };
    assert!(violations(b"", &elf(object::elf::EM_ALPHA)).is_err_and(|error| error.contains("no decoder")));
    assert!(violations(b"", &elf(object::elf::EM_AARCH64)).is_err());
    let empty = cargo_rt0::elf::Image {
        elf: &elf(object::elf::EM_AARCH64),
        kind: object::elf::ET_EXEC,
        segments: &[],
        code: &[],
    };
    assert_eq!(violations(&empty.bytes(), &elf(object::elf::EM_AARCH64)), Ok(vec![NONE.to_string()]));
}

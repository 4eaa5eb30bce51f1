//! A list of system calls as a seccomp filter: the kernel's instructions for C and Rust, and the
//! profile of an OCI runtime.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use cargo_rt0::targets::Target;
use clap::ValueEnum;
use serde_json::json;

use super::numbers::{Numbers, audit_arch, oci_arch};

/// How a filter is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// An array of `struct sock_filter`
    C,
    /// An array of `rt0::all_threads::FilterStep`
    Rust,
    /// The `seccomp` object of an OCI runtime's configuration
    Oci,
}

/// What becomes of a call that is not on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Refusal {
    /// It fails with `ENOSYS`
    Enosys,
    /// It fails with `EPERM`
    Eperm,
    /// The process ends by SIGSYS
    Kill,
}

impl Refusal {
    /// `SECCOMP_RET_…` of linux/seccomp.h. ENOSYS is 38 on most machines.
    fn action(self, target: &Target) -> u32 {
        const ERRNO: u32 = 0x0005_0000;
        match self {
            Refusal::Enosys => ERRNO | enosys(target),
            Refusal::Eperm => ERRNO | 1,
            Refusal::Kill => KILL_PROCESS,
        }
    }
}

/// ENOSYS of asm/errno.h.
fn enosys(target: &Target) -> u32 {
    match super::numbers::arch(target) {
        "mips" | "mips64" => 89,
        "sparc64" => 90,
        _ => 38,
    }
}

const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;

/// `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The offsets of the call's number and of the machine in `struct seccomp_data`.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;

/// The instructions that allow these numbers, and return `others` for all other numbers. They
/// return `foreign` for calls of another machine, where a number means another call.
pub fn steps(machine: u32, numbers: &[u32], others: u32, foreign: u32) -> Result<Vec<Step>> {
    let step = |code, jt, jf, k| Step { code, jt, jf, k };
    let mut steps = vec![
        step(LOAD_WORD, 0, 0, MACHINE),
        step(JUMP_IF_EQUAL, 1, 0, machine),
        step(RETURN, 0, 0, foreign),
        step(LOAD_WORD, 0, 0, NUMBER),
    ];
    for (at, number) in numbers.iter().enumerate() {
        let to_allow = numbers.len() - at; // Over the other numbers and a return.
        steps.push(step(JUMP_IF_EQUAL, u8::try_from(to_allow).context("a filter of so many calls")?, 0, *number));
    }
    steps.push(step(RETURN, 0, 0, others));
    steps.push(step(RETURN, 0, 0, ALLOW));
    Ok(steps)
}

/// A filter for the tests: it ends a process of this machine at every other call. Processes of
/// other machines (a 32-bit program that a test starts) may make any call.
pub fn for_a_test(target: &Target, numbers: &[u32]) -> Result<Vec<Step>> {
    steps(audit_arch(target), numbers, KILL_PROCESS, ALLOW)
}

/// A filter that allows everything, to find out whether a filter can be installed.
pub fn allow_all() -> Vec<Step> {
    vec![Step { code: RETURN, jt: 0, jf: 0, k: ALLOW }]
}

/// The filter as text.
pub fn text(target: &Target, calls: &[&str], numbers: &Numbers, refusal: Refusal, form: Form) -> Result<String> {
    if form == Form::Oci {
        return profile(target, calls, refusal);
    }
    let number = |call: &&str| numbers.get(call).with_context(|| format!("{} has no call {call}", target.name));
    let values: Vec<u32> = calls.iter().map(number).collect::<Result<_>>()?;
    let steps = steps(audit_arch(target), &values, refusal.action(target), KILL_PROCESS)?;
    let mut out = String::new();
    let about = "Allows the system calls that are named here, on this machine.";
    match form {
        Form::Rust => {
            writeln!(out, "/// {about} {}", target.name)?;
            writeln!(out, "const FILTER: [rt0::all_threads::FilterStep; {}] = {{", steps.len())?;
            writeln!(out, "    use rt0::all_threads::FilterStep;")?;
            writeln!(out, "    [")?;
        }
        _ => {
            writeln!(out, "/* {about} {} */", target.name)?;
            writeln!(out, "static const struct sock_filter filter[{}] = {{", steps.len())?;
        }
    }
    for (at, Step { code, jt, jf, k }) in steps.iter().enumerate() {
        let note = at.checked_sub(4).and_then(|at| calls.get(at)).copied().unwrap_or(match at {
            0 => "loads the machine",
            1 => "is it this one?",
            2 => "a call of another",
            3 => "loads the number",
            at if at + 1 == steps.len() => "is allowed",
            _ => "all others",
        });
        let line = match form {
            Form::Rust => {
                format!("        FilterStep {{ code: {code:#04x}, jt: {jt}, jf: {jf}, k: {k:#x} }}, // {note}")
            }
            _ => format!("    {{ {code:#04x}, {jt}, {jf}, {k:#x} }}, /* {note} */"),
        };
        writeln!(out, "{line}")?;
    }
    out += if form == Form::Rust { "    ]\n};\n" } else { "};\n" };
    Ok(out)
}

/// `linux.seccomp` of an OCI runtime's configuration (opencontainers/runtime-spec).
fn profile(target: &Target, calls: &[&str], refusal: Refusal) -> Result<String> {
    let arch = oci_arch(target);
    ensure!(arch.is_some(), "profiles have no name for {}: libseccomp does not know it", target.name);
    let action = match refusal {
        Refusal::Kill => json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS" }),
        errno => {
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.action(target) & 0xffff })
        }
    };
    let mut profile = action;
    profile["architectures"] = json!([arch]);
    profile["syscalls"] = json!([{ "names": calls, "action": "SCMP_ACT_ALLOW" }]);
    Ok(serde_json::to_string_pretty(&profile)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cargo_rt0::targets::TARGETS;

    /// What the kernel makes of a call.
    fn run(steps: &[Step], machine: u32, number: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = steps[at];
            at += 1;
            match step.code {
                LOAD_WORD => value = if step.k == NUMBER { number } else { machine },
                JUMP_IF_EQUAL => at += usize::from(if value == step.k { step.jt } else { step.jf }),
                RETURN => return step.k,
                other => panic!("no instruction: {other}"),
            }
        }
    }

    #[test]
    fn a_filter_allows_what_is_on_its_list_and_nothing_else() {
        let x86_64 = TARGETS.iter().find(|target| target.name == "x86_64").expect("a machine");
        let machine = audit_arch(x86_64);
        for count in [0, 1, 2, 250] {
            let numbers: Vec<u32> = (0..count).map(|n| 3 * n).collect();
            let steps = steps(machine, &numbers, 1, 2).expect("a filter");
            for number in 0..800 {
                let expected = if numbers.contains(&number) { ALLOW } else { 1 };
                assert_eq!(run(&steps, machine, number), expected, "{number}");
                assert_eq!(run(&steps, machine ^ 1, number), 2);
            }
            assert_eq!(run(&steps, machine, 0x4000_0000), 1, "x32's numbers are others");
        }
        assert!(steps(machine, &[0; 256], 1, 2).is_err());
    }

    #[test]
    fn each_form_has_each_call() {
        let target = TARGETS.iter().find(|target| target.name == "mips").expect("a machine");
        let numbers = Numbers::of(target).expect("numbers");
        let of = |form| text(target, &["read", "futex_time64"], &numbers, Refusal::Enosys, form).expect("a filter");
        assert!(of(Form::C).contains("{ 0x15, 2, 0, 0xfa3 }, /* read */"), "{}", of(Form::C));
        assert!(of(Form::Rust).contains("FilterStep { code: 0x15, jt: 1, jf: 0, k: 0x1146 }, // futex_time64"));
        let profile: serde_json::Value = serde_json::from_str(&of(Form::Oci)).expect("JSON");
        assert_eq!(profile["syscalls"][0]["names"], json!(["read", "futex_time64"]));
        assert_eq!((&profile["architectures"][0], &profile["defaultErrnoRet"]), (&json!("SCMP_ARCH_MIPS"), &json!(89)));
        let sparc64 = TARGETS.iter().find(|target| target.name == "sparc64").expect("a machine");
        let refused = text(sparc64, &["read"], &Numbers::of(sparc64).expect("numbers"), Refusal::Kill, Form::Oci);
        assert!(refused.is_err_and(|error| error.to_string().contains("libseccomp")));
    }
}

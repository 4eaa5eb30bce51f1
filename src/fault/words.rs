//! The codes of a fault in words: the words are those of sigaction(2).

use linux_raw_sys::general as k;

/// What `code` means for `signal`, and its name; `None` for one that is not listed.
pub(super) fn of(signal: u32, code: i32) -> Option<(&'static str, &'static str)> {
    macro_rules! table {
        ($($signal:ident { $($name:ident $words:literal)* })*) => {
            match (signal, u32::try_from(code).ok()?) {
                $($((k::$signal, k::$name) => Some(($words, stringify!($name))),)*)*
                _ => None,
            }
        };
    }
    if code == k::SI_KERNEL as i32 {
        let is_fault = super::SIGNALS.iter().any(|fault| fault.raw() == signal);
        let words = if is_fault { "the kernel gives no reason" } else { "sent by the kernel, as for a terminal's key" };
        return Some((words, "SI_KERNEL"));
    }
    table! {
        SIGSEGV {
            SEGV_MAPERR "address not mapped to object"
            SEGV_ACCERR "invalid permissions for mapped object"
            SEGV_BNDERR "failed address bound checks"
            SEGV_PKUERR "access was denied by memory protection keys"
            SEGV_MTEAERR "asynchronous memory tag check fault"
            SEGV_MTESERR "memory tag check fault"
            SEGV_CPERR "control protection fault"
        }
        SIGBUS {
            BUS_ADRALN "invalid address alignment"
            BUS_ADRERR "nonexistent physical address"
            BUS_OBJERR "object-specific hardware error"
            BUS_MCEERR_AR "hardware memory error consumed on a machine check"
            BUS_MCEERR_AO "hardware memory error detected but not consumed"
        }
        SIGILL {
            ILL_ILLOPC "illegal opcode"
            ILL_ILLOPN "illegal operand"
            ILL_ILLADR "illegal addressing mode"
            ILL_ILLTRP "illegal trap"
            ILL_PRVOPC "privileged opcode"
            ILL_PRVREG "privileged register"
            ILL_COPROC "coprocessor error"
            ILL_BADSTK "internal stack error"
        }
        SIGFPE {
            FPE_INTDIV "integer divide by zero"
            FPE_INTOVF "integer overflow"
            FPE_FLTDIV "floating-point divide by zero"
            FPE_FLTOVF "floating-point overflow"
            FPE_FLTUND "floating-point underflow"
            FPE_FLTRES "floating-point inexact result"
            FPE_FLTINV "floating-point invalid operation"
            FPE_FLTSUB "subscript out of range"
            FPE_FLTUNK "undiagnosed floating-point exception"
            FPE_CONDTRAP "trap on condition"
        }
        SIGTRAP {
            TRAP_BRKPT "process breakpoint"
            TRAP_TRACE "process trace trap"
            TRAP_BRANCH "process taken branch trap"
            TRAP_HWBKPT "hardware breakpoint or watchpoint"
            TRAP_UNK "undiagnosed trap"
            TRAP_PERF "perf event"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_the_words_of_its_signal_and_no_others() {
        assert_eq!(of(k::SIGSEGV, 1), Some(("address not mapped to object", "SEGV_MAPERR")));
        assert_eq!(of(k::SIGFPE, 1), Some(("integer divide by zero", "FPE_INTDIV")));
        assert_eq!(of(k::SIGTRAP, 0x80), Some(("the kernel gives no reason", "SI_KERNEL")));
        assert_eq!(of(k::SIGQUIT, 0x80), Some(("sent by the kernel, as for a terminal's key", "SI_KERNEL")));
        for (signal, code) in [(k::SIGSEGV, 0), (k::SIGSEGV, -6), (k::SIGSEGV, 77), (k::SIGTERM, 1)] {
            assert_eq!(of(signal, code), None);
        }
    }
}

//! struct sigaction in the kernel's three forms, and the return from a handler.
//!
//! Source: include/linux/signal_types.h, by `__ARCH_HAS_SA_RESTORER` and
//! `__ARCH_HAS_IRIX_SIGACTION`. The struct of linux-raw-sys 0.12 is only used as a check: on MIPS
//! it has the wrong order, on SPARC no restorer.

use core::mem::offset_of;

use linux_raw_sys::general as k;

use super::{Arch, Cpu};

/// struct sigaction in one order for all machines.
#[derive(Clone, Copy)]
pub(crate) struct RawAction {
    /// The handler's address, or `SIG_DFL` (0) or `SIG_IGN` (1).
    pub handler: usize,
    /// The `SA_*` flags, without `SA_RESTORER`.
    pub flags: usize,
    /// Blocked while the handler runs.
    pub mask: k::kernel_sigset_t,
}

impl RawAction {
    /// The kernel's form: adds the restorer and its flag if the kernel uses them.
    pub fn to_kernel(self) -> <Cpu as Arch>::Sigaction {
        let Restorer::Field { flag, with_info, plain } = Cpu::RESTORER else {
            return Form::new(self, 0);
        };
        let restorer = if self.flags & k::SA_SIGINFO as usize != 0 { with_info } else { plain };
        Form::new(RawAction { flags: self.flags | flag as usize, ..self }, restorer as usize)
    }

    /// The reverse, without the restorer and its flag.
    pub fn from_kernel(form: <Cpu as Arch>::Sigaction) -> RawAction {
        let action = form.action();
        match Cpu::RESTORER {
            Restorer::Field { flag, .. } => RawAction { flags: action.flags & !(flag as usize), ..action },
            _ => action,
        }
    }
}

/// The code that handlers return to; it calls sigreturn(2).
#[allow(dead_code)] // A machine has one of these.
pub(crate) enum Restorer {
    /// The kernel provides it.
    Kernels,
    /// A field of struct sigaction holds its address, and a flag says so.
    Field {
        /// `SA_RESTORER`.
        flag: u32,
        /// For a handler that was installed with `SA_SIGINFO`.
        with_info: unsafe extern "C" fn(),
        /// For the other handlers: on the oldest machines the kernel builds another frame for them.
        plain: unsafe extern "C" fn(),
    },
    /// An argument of rt_sigaction(2), before the size of the set.
    Argument(unsafe extern "C" fn()),
}

/// One of the forms below.
pub(crate) trait Form: Copy {
    fn new(action: RawAction, restorer: usize) -> Self;
    fn action(self) -> RawAction;
}

/// With a field for a restorer, even if the kernel does not read it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WithRestorer {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: k::kernel_sigset_t,
}

const _: () = assert!(
    !matches!(Cpu::RESTORER, Restorer::Field { .. })
        || offset_of!(k::kernel_sigaction, sa_flags) == offset_of!(WithRestorer, flags)
            && offset_of!(k::kernel_sigaction, sa_mask) == offset_of!(WithRestorer, mask)
            && size_of::<k::kernel_sigaction>() == size_of::<WithRestorer>(),
);

impl Form for WithRestorer {
    fn new(RawAction { handler, flags, mask }: RawAction, restorer: usize) -> Self {
        WithRestorer { handler, flags, restorer, mask }
    }

    fn action(self) -> RawAction {
        RawAction { handler: self.handler, flags: self.flags, mask: self.mask }
    }
}

/// Without a restorer.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WithoutRestorer {
    handler: usize,
    flags: usize,
    mask: k::kernel_sigset_t,
    /// The kernel does not access it. qemu-user 7.2 expects a restorer before the mask, as on other
    /// machines, and reads and writes one more word. Without this field, writing an old action
    /// would overwrite the memory behind it. It holds the mask's last word, so a mask of one word
    /// is right; of a longer mask qemu takes the second half for the first.
    spare: usize,
}

impl Form for WithoutRestorer {
    fn new(RawAction { handler, flags, mask }: RawAction, _: usize) -> Self {
        let spare = mask.sig[mask.sig.len() - 1] as usize;
        WithoutRestorer { handler, flags, mask, spare }
    }

    fn action(self) -> RawAction {
        RawAction { handler: self.handler, flags: self.flags, mask: self.mask }
    }
}

/// With the flags first, 32 bits of them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FlagsFirst {
    flags: u32,
    handler: usize,
    mask: k::kernel_sigset_t,
    /// No kernel accesses it. qemu-user does: its struct still has the restorer that Linux removed
    /// in 2.5. Without this field it overwrote the following memory: the flags of the new action,
    /// before it read them.
    spare: usize,
}

impl Form for FlagsFirst {
    fn new(RawAction { handler, flags, mask }: RawAction, _: usize) -> Self {
        FlagsFirst { flags: flags as u32, handler, mask, spare: 0 }
    }

    fn action(self) -> RawAction {
        RawAction { handler: self.handler, flags: self.flags as usize, mask: self.mask }
    }
}

const WORD: usize = size_of::<usize>();
const _: () = assert!(offset_of!(WithRestorer, restorer) == 2 * WORD && offset_of!(WithRestorer, mask) == 3 * WORD);
const _: () = assert!(offset_of!(WithoutRestorer, flags) == WORD && offset_of!(WithoutRestorer, mask) == 2 * WORD);
const _: () = assert!(offset_of!(FlagsFirst, handler) == WORD && offset_of!(FlagsFirst, mask) == 2 * WORD);

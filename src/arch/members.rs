//! Members of [`Arch`](super::Arch) that several machines have in the same form.
//!
//! Each macro takes the names of the members that it defines: a reader of an arch file finds each
//! of them there.

/// Defines `Arch::vdso_clock_gettime` and `Arch::vdso_getrandom` for a machine whose vDSO
/// follows C's calling convention and returns `-errno`; or, with `by`, for one that calls the vDSO
/// through a function of its own.
#[allow(unused_macro_rules)] // A machine uses one of the two.
macro_rules! vdso {
    (vdso_clock_gettime, vdso_getrandom) => {
        #[inline(always)]
        unsafe fn vdso_clock_gettime(function: *const c_void, clock: c_int, time: *mut c_void) -> isize {
            type ClockGettime = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;
            // SAFETY: by 1, the function has this type.
            let function = unsafe { core::mem::transmute::<*const c_void, ClockGettime>(function) };
            // SAFETY: 1. By 2.
            unsafe { function(clock, time) as isize }
        }

        #[inline(always)]
        unsafe fn vdso_getrandom(
            function: *const c_void,
            buf: *mut u8,
            len: usize,
            flags: u32,
            state: *mut c_void,
            state_len: usize,
        ) -> isize {
            type Getrandom = unsafe extern "C" fn(*mut u8, usize, u32, *mut c_void, usize) -> isize;
            // SAFETY: by 1, the function has this type.
            let function = unsafe { core::mem::transmute::<*const c_void, Getrandom>(function) };
            // SAFETY: 1. By 2 and 3.
            unsafe { function(buf, len, flags, state, state_len) }
        }
    };
    (vdso_clock_gettime, vdso_getrandom by $call:ident) => {
        #[inline(always)]
        unsafe fn vdso_clock_gettime(function: *const c_void, clock: c_int, time: *mut c_void) -> isize {
            // SAFETY: 1. and 2. The caller guarantees them.
            unsafe { $call(function, clock as usize, time.expose_provenance(), 0, 0, 0) }
        }

        #[inline(always)]
        unsafe fn vdso_getrandom(
            function: *const c_void,
            buf: *mut u8,
            len: usize,
            flags: u32,
            state: *mut c_void,
            state_len: usize,
        ) -> isize {
            let (buf, state) = (buf.expose_provenance(), state.expose_provenance());
            // SAFETY: 1. to 3. The caller guarantees them.
            unsafe { $call(function, buf, len, flags as usize, state, state_len) }
        }
    };
}

/// Defines the members for the calls that take a timespec. `plain`: the plain names have 64-bit
/// seconds. `both`: the calls with 64-bit seconds have names of their own. `time64`: only those
/// exist.
#[allow(unused_macro_rules)] // A machine uses one of the three.
macro_rules! timed {
    (plain FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME) => {
        const FUTEX: Timed = Timed::Wide(k::__NR_futex);
        const CLOCK_GETTIME: Timed = Timed::Wide(k::__NR_clock_gettime);
        const CLOCK_NANOSLEEP: Timed = Timed::Wide(k::__NR_clock_nanosleep);
        const PPOLL: Timed = Timed::Wide(k::__NR_ppoll);
        const SIGTIMEDWAIT: Timed = Timed::Wide(k::__NR_rt_sigtimedwait);
        const TIMER_SETTIME: Timed = Timed::Wide(k::__NR_timer_settime);
    };
    (both FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME) => {
        const FUTEX: Timed = Timed::Split { wide: k::__NR_futex_time64, narrow: k::__NR_futex };
        const CLOCK_GETTIME: Timed = Timed::Split { wide: k::__NR_clock_gettime64, narrow: k::__NR_clock_gettime };
        const CLOCK_NANOSLEEP: Timed =
            Timed::Split { wide: k::__NR_clock_nanosleep_time64, narrow: k::__NR_clock_nanosleep };
        const PPOLL: Timed = Timed::Split { wide: k::__NR_ppoll_time64, narrow: k::__NR_ppoll };
        const SIGTIMEDWAIT: Timed =
            Timed::Split { wide: k::__NR_rt_sigtimedwait_time64, narrow: k::__NR_rt_sigtimedwait };
        const TIMER_SETTIME: Timed = Timed::Split { wide: k::__NR_timer_settime64, narrow: k::__NR_timer_settime };
    };
    (time64 FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME) => {
        const FUTEX: Timed = Timed::Wide(k::__NR_futex_time64);
        const CLOCK_GETTIME: Timed = Timed::Wide(k::__NR_clock_gettime64);
        const CLOCK_NANOSLEEP: Timed = Timed::Wide(k::__NR_clock_nanosleep_time64);
        const PPOLL: Timed = Timed::Wide(k::__NR_ppoll_time64);
        const SIGTIMEDWAIT: Timed = Timed::Wide(k::__NR_rt_sigtimedwait_time64);
        const TIMER_SETTIME: Timed = Timed::Wide(k::__NR_timer_settime64);
    };
}

/// Defines `Arch::Pair` as an integer, and its operations.
#[allow(unused_macros)] // Unused where vectors are faster.
macro_rules! integer {
    (Pair, pair, xor, or, is_zero) => {
        type Pair = $crate::arch::TwoWords;

        #[inline(always)]
        fn pair(word: usize) -> Self::Pair {
            (word as Self::Pair) << usize::BITS | word as Self::Pair
        }

        #[inline(always)]
        fn xor(x: Self::Pair, y: Self::Pair) -> Self::Pair {
            x ^ y
        }

        #[inline(always)]
        fn or(x: Self::Pair, y: Self::Pair) -> Self::Pair {
            x | y
        }

        #[inline(always)]
        fn is_zero(x: Self::Pair) -> bool {
            x == 0
        }
    };
}

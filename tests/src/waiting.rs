//! Waits with a limit, and signals that come after a time.

use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::{Errno, sys, thread};

use crate::processes::state_of;
use crate::text::Text;

/// Waits until `done`, for at least a minute, because a machine may be busy. `what` names the event
/// in the message.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("waited a minute in vain: {what}");
}

/// Waits until a thread of this process sleeps in the kernel. It must sleep at five looks, because
/// an emulator's threads also sleep briefly while they wait for each other. proc_pid_stat(5)
pub fn wait_until_asleep(tid: u32) {
    let stat = Text::of(format_args!("/proc/self/task/{tid}/stat"));
    let mut looks = 0;
    wait_until("a thread to sleep", || {
        let state = state_of(&stat).expect("the thread is there");
        looks = if state == b'S' { looks + 1 } else { 0 };
        looks == 5
    });
}

/// Whether no thread of this process has this id.
pub fn is_gone(tid: u32) -> bool {
    sys::tgkill(sys::getpid(), tid, 0) == Err(Errno::ESRCH)
}

/// Makes SIGALRM arrive periodically; a time of zero stops it. setitimer(2)
pub fn alarm_every(time: Duration) {
    set_alarm(time, time);
}

/// Makes SIGALRM arrive once, after this time. setitimer(2)
pub fn alarm_after(time: Duration) {
    set_alarm(time, Duration::ZERO);
}

fn set_alarm(first: Duration, interval: Duration) {
    let half = |time: Duration| k::__kernel_old_timeval { tv_sec: 0, tv_usec: time.subsec_micros() as _ };
    let timer = k::__kernel_old_itimerval { it_interval: half(interval), it_value: half(first) };
    let args = [k::ITIMER_REAL as usize, (&raw const timer).expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the times; the signal has a handler.
    unsafe { sys::syscall(k::__NR_setitimer as usize, args) }.expect("setitimer");
}

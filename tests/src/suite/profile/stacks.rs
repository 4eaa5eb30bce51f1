//! Where a sample was taken: the stack.

use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::profile::{DEPTH, drain, start, stop};
use rt0::time::Instant;
use rt0::{Env, Errno, println, sys, thread, vdso};
use rt0_tests::{reports, skip, slow, vdso_image};

use super::{burn, burn_until, compute, thread_time};

/// Whether this program has a frame chain: the machine has one, and the program was compiled with
/// it. Without a chain, stale words on the stack may look like one, so most chains must lead to
/// this function.
#[inline(never)]
fn has_frames() -> bool {
    if !reports::has_frames() {
        return false;
    }
    let caller = has_frames as fn() -> bool as usize;
    start(1000).unwrap();
    let (mut seen, mut led_here) = (0, 0);
    burn_until(|sample| {
        let mut callers = sample.stack.iter().skip(1);
        led_here += u32::from(callers.any(|address| (1..2048).contains(&address.wrapping_sub(caller))));
        seen += 1;
        seen >= 10
    });
    stop();
    drain(|_| ()).map(|_| black_box(led_here * 10 >= seen * 8)).unwrap()
}

rt0::test_module! {
    samples_are_where_the_program_was,
    a_stack_leads_from_the_inside_out_on_main_and_elsewhere,
    a_sample_within_the_vdso_has_a_stack_and_does_no_harm,
    a_sample_within_a_call_of_six_arguments_has_its_callers,
    a_deep_stack_is_cut_at_its_outer_end,
}

fn samples_are_where_the_program_was() {
    start(1000).unwrap();
    let (mut inside, mut all) = (0, 0);
    burn_until(|sample| {
        all += 1;
        // Without optimisation it calls functions in each step of its loop.
        let within = |address: &usize| address.wrapping_sub(compute as fn() as usize) < 512;
        inside += sample.stack.iter().take(4).any(within) as u32;
        all >= 40
    });
    stop();
    if slow() && inside == 0 {
        skip("this emulator lets a timer expire only where the program makes a call");
    }
    // The rest is in getrusage(2), which takes an emulator longer.
    assert!(inside * if slow() { 20 } else { 4 } > all, "{inside} of {all}");
}

fn a_stack_leads_from_the_inside_out_on_main_and_elsewhere() {
    #[inline(never)]
    fn outer(micros: u64) {
        black_box(micros);
        middle(black_box(micros));
        black_box(micros);
    }
    #[inline(never)]
    fn middle(micros: u64) {
        burn(black_box(micros));
        black_box(micros);
    }
    if !has_frames() {
        skip("no chain of frames on this machine, or not compiled so");
    }
    let within = |address: usize, f: fn(u64)| (1..256).contains(&address.wrapping_sub(f as usize));
    let check = move || {
        start(1000).unwrap();
        let (mut good, mut all) = (0, 0);
        for _ in 0..200 {
            outer(100_000);
            let _ = drain(|sample| {
                if let Some(at) = sample.stack.iter().position(|a| within(*a, middle)) {
                    all += 1;
                    good += sample.stack.get(at + 1).is_some_and(|a| within(*a, outer)) as u32;
                }
            })
            .unwrap();
            if all >= 20 {
                break;
            }
        }
        stop();
        assert!(good > 0 && good * 10 >= all * 9, "{good} of {all}");
    };
    check();
    thread::spawn(check).unwrap().join();
}

/// The vDSO's code may use the frame pointer for anything.
fn a_sample_within_the_vdso_has_a_stack_and_does_no_harm(env: Env) {
    #[inline(never)]
    fn read_clocks(until: Instant) {
        while black_box(Instant::now()) < until {}
    }
    let image = vdso_image(env);
    if !vdso::in_use().clock_gettime {
        skip("no clock in the vDSO here");
    }
    let check = move || {
        let (mut inside, mut named) = (0, 0);
        let end = Instant::now() + Duration::from_secs(10);
        while inside < 20 && Instant::now() < end {
            start(20_000).unwrap();
            read_clocks(Instant::now() + Duration::from_millis(100));
            stop();
            let reads =
                |address: &&usize| (1..512).contains(&address.wrapping_sub(read_clocks as fn(Instant) as usize));
            let _ = drain(|sample| {
                if image.contains(&sample.stack[0]) {
                    inside += 1;
                    let twice = (1..sample.stack.len()).any(|at| sample.stack[..at].contains(&sample.stack[at]));
                    assert!(!twice, "nothing here calls itself: {:x?}", sample.stack);
                    named += sample.stack[1..].iter().any(|address| reads(&address)) as u32;
                }
            })
            .unwrap();
        }
        (inside, named)
    };
    let counts = [check.clone()(), thread::Builder::new().stack_size(0).spawn(check).unwrap().join()];
    println!("samples in the vDSO, with their caller: {counts:?}");
    if slow() && counts.iter().any(|(inside, _)| *inside == 0) {
        skip("no tick of this emulator's comes within the vDSO");
    }
    assert!(counts.iter().all(|(inside, _)| *inside > 0));
}

/// On any registers: on x86 the sixth argument is in the frame pointer.
fn a_sample_within_a_call_of_six_arguments_has_its_callers() {
    #[inline(never)]
    fn outer(micros: u64) {
        black_box(micros);
        calls(black_box(micros));
        black_box(micros);
    }
    #[inline(never)]
    fn calls(micros: u64) {
        let until = thread_time() + micros;
        while thread_time() < until {
            for _ in 0..1000 {
                // SAFETY: 1. The kernel refuses an address that is not a page's.
                let refused = unsafe { sys::syscall(k::__NR_madvise as usize, [1; 6]) };
                assert_eq!(refused, Err(Errno::EINVAL));
            }
        }
    }
    if !has_frames() {
        skip("no chain of frames on this machine, or not compiled so");
    }
    let within = |address: &usize, f: fn(u64)| (1..512).contains(&address.wrapping_sub(f as usize));
    let check = move || {
        start(1000).unwrap();
        let (mut good, mut all) = (0, 0);
        for _ in 0..200 {
            outer(50_000);
            let _ = drain(|sample| {
                all += 1;
                let inner = sample.stack.iter().position(|address| within(address, calls));
                good += inner.is_some_and(|at| sample.stack[at..].iter().any(|a| within(a, outer))) as u32;
            })
            .unwrap();
            if all >= 40 {
                break;
            }
        }
        stop();
        // The other samples are in thread_time.
        assert!(all > 0 && good * 10 >= all * 8, "{good} of {all}");
    };
    check();
    thread::spawn(check).unwrap().join();
}

fn a_deep_stack_is_cut_at_its_outer_end() {
    static DEEPEST: AtomicUsize = AtomicUsize::new(0);
    #[inline(never)]
    fn recurse(depth: u32) -> u32 {
        if depth == 0 {
            let mut seen = 0;
            burn_until(|sample| {
                DEEPEST.fetch_max(sample.stack.len(), Relaxed);
                seen += 1;
                seen >= 20
            });
            return 0;
        }
        black_box(recurse(black_box(depth - 1))) + 1
    }
    if !has_frames() {
        skip("no chain of frames on this machine, or not compiled so");
    }
    start(1000).unwrap();
    black_box(recurse(500));
    stop();
    assert_eq!(DEEPEST.load(Relaxed), DEPTH);
}

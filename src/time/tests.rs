extern crate std;
use std::format;

use linux_raw_sys::general as k;

use super::*;
use crate::errno::Errno;

fn instant(tv_sec: i64, tv_nsec: i64) -> Instant {
    Instant(Timespec { tv_sec, tv_nsec })
}

fn system(tv_sec: i64, tv_nsec: i64) -> SystemTime {
    SystemTime(Timespec { tv_sec, tv_nsec })
}

#[test]
fn nanoseconds_carry_and_borrow() {
    let half = Duration::from_millis(500);
    let late = instant(7, 700_000_000);
    assert_eq!(late + half, instant(8, 200_000_000));
    assert_eq!(instant(8, 200_000_000) - half, late);
    assert_eq!(instant(8, 200_000_000) - late, half);
    assert_eq!(late - instant(8, 200_000_000), Duration::ZERO);
    assert_eq!(late.checked_duration_since(instant(8, 0)), None);
}

#[test]
fn the_ends_of_the_clock_are_no_overflow() {
    assert_eq!(instant(i64::MAX, 999_999_999).checked_add(Duration::from_nanos(1)), None);
    assert_eq!(instant(1, 0).checked_add(Duration::MAX), None);
    assert_eq!(instant(i64::MIN, 0).checked_sub(Duration::from_nanos(1)), None);
    let (first, last) = (instant(i64::MIN, 0), instant(i64::MAX, 999_999_999));
    assert_eq!(last.duration_since(first), Duration::new(u64::MAX, 999_999_999));
    assert_eq!(system(i64::MAX, 0).checked_add(Duration::from_secs(1)), None);
    assert_eq!(SystemTime::MIN.checked_sub(Duration::from_nanos(1)), None);
    assert_eq!(SystemTime::MAX.checked_add(Duration::from_nanos(1)), None);
    assert_eq!(SystemTime::MIN.checked_add(Duration::ZERO), Some(SystemTime::MIN));
    assert_eq!(SystemTime::MAX.checked_sub(Duration::ZERO), Some(SystemTime::MAX));
    assert_eq!(system(i64::MIN, 0).checked_sub(Duration::from_secs(1)), None);
}

#[test]
fn moments_before_and_long_after_the_epoch_are_moments() {
    let moonlanding = UNIX_EPOCH - Duration::from_millis(14_182_939_500);
    assert_eq!(moonlanding, system(-14_182_940, 500_000_000));
    assert_eq!(UNIX_EPOCH.duration_since(moonlanding).unwrap().as_millis(), 14_182_939_500);
    let late = system(1 << 40, 0); // The year 36812.
    assert_eq!(late.duration_since(UNIX_EPOCH).unwrap().as_secs(), 1 << 40);
    assert!(UNIX_EPOCH < late && moonlanding < UNIX_EPOCH);
}

#[test]
fn a_later_moment_is_an_error_that_says_how_much_later() {
    let error = system(7, 900_000_000).duration_since(system(9, 100_000_000)).unwrap_err();
    assert_eq!(error.duration(), Duration::from_millis(1200));
    assert_eq!(format!("{error}"), "second time provided was later than self");
}

#[test]
fn seconds_of_32_bits_last_until_2106() {
    for (bits, tv_sec) in [(0, 0), (i32::MAX, i32::MAX as i64), (i32::MIN, 1 << 31), (-1, u32::MAX as i64)] {
        let narrow = k::__kernel_old_timespec { tv_sec: bits as _, tv_nsec: 999_999_999 };
        assert_eq!(Timespec::from_narrow(narrow), Timespec { tv_sec, tv_nsec: 999_999_999 });
    }
}

#[test]
fn clocks_are_shown_by_name_and_number() {
    assert_eq!(format!("{:?}", ClockId::CLOCK_BOOTTIME), "CLOCK_BOOTTIME (7)");
    assert_eq!(format!("{:?}", ClockId::from_raw(-6)), "clock -6");
    assert_eq!(format!("{:?}", instant(1, 2)), "Instant { tv_sec: 1, tv_nsec: 2 }");
    assert_eq!(format!("{:?}", system(1, 2)), "SystemTime { tv_sec: 1, tv_nsec: 2 }");
}

#[test]
fn a_clock_that_does_not_exist_is_einval() {
    for number in [16, 1000, i32::MAX] {
        assert_eq!(ClockId::from_raw(number).now(), Err(Errno::EINVAL), "clock {number}");
    }
}

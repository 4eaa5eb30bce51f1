//! The first process of a guest: mounts what programs expect, runs the tests of a plan one by one,
//! says how each ended, and turns the machine off.
//!
//! `cargo xtask test --kernel` puts it into an initramfs as `/init`, beside the test programs and
//! `/plan`. It is a program on rt0 like those that it starts. Its account goes to the console, see
//! `report.rs`. `cargo xtask boot` puts it beside one program instead, see `alone.rs`.
//!
//! A plan is a list of strings, each ended by a zero byte. A test is a head, which [`Test::take`]
//! reads, then its command line (the first word is the program's path), then its environment.
#![no_std]
#![no_main]

mod alone;
mod process;
mod report;

use core::ffi::CStr;

use linux_raw_sys::general as k;
use report::{KernelLog, say};
use rt0::sync::Mutex;
use rt0::{Env, Errno, cpu, sys};

rt0::entry!(main);

/// Room for the plan. One of 450 tests has some 50 KiB.
static PLAN: Mutex<[u8; 1 << 20]> = Mutex::new([0; 1 << 20]);

/// As many words or variables as a test may have.
const WORDS: usize = 40;

/// A null-terminated list of strings, as execve(2) takes it.
pub type List = [*const u8; WORDS + 1];

/// One test of the plan.
pub struct Test<'a> {
    /// Its number in the plan of the host.
    number: &'a str,
    /// After so many seconds it is killed.
    limit: u32,
    /// Its soft limit of stack, in bytes.
    stack: Option<u64>,
    /// Descriptors that it starts without, separated by commas.
    close: &'a str,
    path: &'a CStr,
    args: List,
    env: List,
}

fn main(_: Env) -> i32 {
    if alone::is_there() {
        alone::run();
        return power_off();
    }
    for (source, target, kind) in MOUNTS {
        if let Err(errno) = mount(source, target, kind) {
            say(format_args!("N {} is not mounted: {errno}", target.to_str().unwrap_or_default()));
        }
    }
    let mut log = KernelLog::open();
    let mut names = [[0u8; 65]; 6]; // struct new_utsname
    // SAFETY: 1. The kernel writes the six names.
    let named = unsafe { sys::syscall(k::__NR_uname as usize, [(&raw mut names).expose_provenance(), 0, 0, 0, 0, 0]) };
    let release = CStr::from_bytes_until_nul(&names[2]).ok().and_then(|name| name.to_str().ok());
    let release = release.filter(|_| named.is_ok()).unwrap_or("unknown");
    let processors = cpu::count();
    say(format_args!("H {release} {} {processors}", cpu::page_size()));
    log.skip(); // What the kernel said while it started is on the console.

    run_plan(&mut log);
    power_off()
}

/// Runs each test of the plan, or says why no more are run.
fn run_plan(log: &mut KernelLog) {
    let mut plan = PLAN.lock();
    let len = match rt0_tests::read_file(c"/plan", &mut *plan) {
        Ok(text) if text.len() < 1 << 20 => text.len(),
        Ok(_) => return say(format_args!("N the plan is too long")),
        Err(errno) => return say(format_args!("N there is no plan: {errno}")),
    };
    let mut rest = &plan[..len];
    let mut count = 0;
    while !rest.is_empty() {
        let Some(test) = Test::take(&mut rest) else {
            return say(format_args!("N test {count} of the plan is unreadable"));
        };
        say(format_args!("S {}", test.number));
        match process::run(&test) {
            Ok(end) => {
                log.forward(test.number);
                say(format_args!("E {} {end}", test.number));
            }
            Err(errno) => say(format_args!("E {} refused {} 0", test.number, errno.raw())),
        }
        count += 1;
    }
    say(format_args!("D {count}"));
}

/// What is mounted: source and target, and the kind of file system.
const MOUNTS: [(&CStr, &CStr, &CStr); 6] = [
    (c"proc", c"/proc", c"proc"),
    (c"sysfs", c"/sys", c"sysfs"),
    (c"devtmpfs", c"/dev", c"devtmpfs"),
    (c"tmpfs", c"/tmp", c"tmpfs"),
    (c"tmpfs", c"/run", c"tmpfs"),
    (c"cgroup2", c"/sys/fs/cgroup", c"cgroup2"),
];

/// mount(2) without options.
fn mount(source: &CStr, target: &CStr, kind: &CStr) -> Result<(), Errno> {
    let [source, target, kind] = [source, target, kind].map(|text| text.as_ptr().expose_provenance());
    // SAFETY: 1. The kernel reads the three strings; no program has begun to use what it covers.
    unsafe { sys::syscall(k::__NR_mount as usize, [source, target, kind, 0, 0, 0]) }.map(drop)
}

/// Turns the machine off by reboot(2). A kernel that cannot do that stops the machine, or the call
/// returns and the kernel panics when its first process ends. In both cases the host ends the
/// guest.
fn power_off() -> i32 {
    let [first, second, off] = [k::LINUX_REBOOT_MAGIC1, k::LINUX_REBOOT_MAGIC2, k::LINUX_REBOOT_CMD_POWER_OFF];
    let args = [first as usize, second as usize, off as usize, 0, 0, 0];
    // SAFETY: 1. Nothing is left to do here.
    let _ = unsafe { sys::syscall(k::__NR_reboot as usize, args) };
    1
}

impl<'a> Test<'a> {
    /// Takes the next test off the plan. Its head is `NUMBER LIMIT STACK CLOSE WORDS VARIABLES`,
    /// where a `-` is none.
    fn take(plan: &mut &'a [u8]) -> Option<Test<'a>> {
        let mut next = || {
            let text = CStr::from_bytes_until_nul(plan).ok()?;
            *plan = &plan[text.count_bytes() + 1..];
            Some(text)
        };
        let mut head = next()?.to_str().ok()?.split(' ');
        let (number, limit) = (head.next()?, head.next()?.parse().ok()?);
        let stack = match head.next()? {
            "-" => None,
            "unlimited" => Some(u64::MAX),
            bytes => Some(bytes.parse().ok()?),
        };
        let close = head.next()?.trim_matches('-');
        let counts = [head.next()?.parse::<usize>().ok()?, head.next()?.parse::<usize>().ok()?];
        let mut lists = [[core::ptr::null(); WORDS + 1]; 2];
        let mut path = None;
        for (list, count) in lists.iter_mut().zip(counts) {
            for place in list.get_mut(..count).filter(|_| count <= WORDS)? {
                let text = next()?;
                path = path.or(Some(text));
                *place = text.as_ptr().cast();
            }
        }
        let [args, env] = lists;
        Some(Test { number, limit, stack, close, path: path?, args, env })
    }
}

//! One guest: its initramfs, its start, what it says, and the verdict on each of its tests.
//!
//! A guest ends by itself when its tests are done, or is ended: when it says nothing of its tests
//! for longer than the test that it is in may take, when its kernel broke, and when it does not
//! turn itself off. A guest that ended early is started again with the tests that are left, a few
//! times.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cargo_rt0::process::{Next, Outcome, Talk, shell_line};
use cargo_rt0::protocol::{Expectation, judge};
use cargo_rt0::report::{Spent, Verdict};
use cargo_rt0::setup::Rust;
use cargo_rt0::{packages, say};

use super::console::{Console, End, Event, is_emergency};
use super::images::{Emulator, Kernel};
use super::initramfs::{Archive, Entry};
use super::rows::Row;
use crate::repository::root;

/// How long a kernel may take until its first process speaks. That is ten seconds of a processor,
/// which a host with much else to do gives in minutes.
const BOOT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 600 });

/// What a guest may take on top of a test's own limit, and between tests.
const GRACE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 120 });

/// A guest that is done turns itself off, where its kernel can do that.
const POWER_OFF: Duration = Duration::from_secs(3);

/// What a kernel has to say when it breaks comes within this time.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// So often a guest is started.
const STARTS: usize = 3;

/// A machine with its kernel.
pub struct Guest {
    /// `aarch64@7.2-16k`.
    pub name: String,
    /// Its row in the table.
    pub row: &'static Row,
    /// The areas whose tests it is to run; `None`: all.
    pub areas: Option<&'static [&'static str]>,
    /// What it boots.
    pub kernel: Kernel,
    /// What it runs under.
    pub emulator: Emulator,
}

/// A test for a guest.
pub struct Job {
    /// The full name, which begins with the area.
    pub name: String,
    /// The file name of its program.
    pub bin: String,
    /// What it expects of its process.
    pub test: Expectation,
    /// How long it may take.
    pub limit: Duration,
}

/// Where the verdicts go: the test's name in its row, the verdict, and what it took.
pub type Tell<'a> = dyn Fn(&str, Verdict, Option<Spent>) + 'a;

impl Guest {
    /// `Linux 6.12.95, qemu-system 10.0.2`, before it has said more.
    pub fn describe(&self) -> String {
        format!("Linux {}, {}, qemu {}", self.kernel.version, self.row.board.qemu, self.emulator.version)
    }

    /// Runs the tests and tells the verdict on each; the result describes the kernel in its own
    /// words.
    pub fn run(
        &self,
        rust: &Rust,
        init: &Path,
        programs: &BTreeMap<String, PathBuf>,
        jobs: &[Job],
        tell: &Tell,
    ) -> String {
        let mut left: Vec<usize> = (0..jobs.len()).collect();
        let mut said = self.describe();
        for _ in 0..STARTS {
            if left.is_empty() {
                return said;
            }
            let before = left.len();
            let started = self.start(rust, init, programs, jobs, &left);
            let boot = match started {
                Ok((command, talk, _folder)) => {
                    let mut boot = Boot { guest: self, jobs, tell, talk, command, said: None, left: &mut left };
                    boot.listen();
                    boot.said
                }
                Err(error) => {
                    tell("boot", Verdict::Failed(format!("cannot be started: {error:#}")), None);
                    return said;
                }
            };
            match boot {
                Some(text) => said = text,
                None => return said, // It never came as far as init, and will not the next time.
            }
            if left.len() == before {
                break;
            }
        }
        if !left.is_empty() {
            let names: Vec<_> = left.iter().map(|&index| jobs[index].name.as_str()).collect();
            let why =
                format!("{} tests were not run, for the guest ended too often: {}", names.len(), names.join(", "));
            tell("boot", Verdict::Failed(why), None);
        }
        said
    }

    /// Writes the initramfs and starts the guest.
    fn start(
        &self,
        rust: &Rust,
        init: &Path,
        programs: &BTreeMap<String, PathBuf>,
        jobs: &[Job],
        left: &[usize],
    ) -> Result<(String, Talk, Folder)> {
        let folder = Folder::new(&self.name)?;
        let archive = self.initramfs(rust, init, programs, jobs, left, &folder.0)?;
        let initrd = folder.write("initramfs", &archive)?;
        let mut command = self.command(&initrd, "");
        let line = shell_line(&command);
        let talk = Talk::start(&mut command).with_context(|| format!("cannot start {line}"))?;
        Ok((line, talk, folder))
    }

    /// The command that boots it, with its console on standard input and output.
    pub fn command(&self, initrd: &Path, append: &str) -> Command {
        let board = self.row.board;
        let mut command = self.emulator.command();
        command.args(board.args).args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        command.args(["-no-reboot", "-nodefaults", "-nic", "none"]);
        command.args(["-m", &board.memory.to_string(), "-smp", &board.processors.to_string()]);
        command.arg("-kernel").arg(&self.kernel.file).arg("-initrd").arg(initrd);
        if let Some(dtb) = &self.kernel.dtb {
            command.arg("-dtb").arg(dtb);
        }
        // A slow host is no fault of the kernel's: it does not watch itself for time.
        let quiet = "panic=-1 loglevel=3 nowatchdog rcupdate.rcu_cpu_stall_suppress=1";
        let clock = if board.counts_as_host { clock_words() } else { String::new() };
        let words = [&format!("console={}", board.console), quiet, board.append, &clock, append];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        command.args(["-append", &words.join(" ")]);
        command
    }

    fn initramfs(
        &self,
        rust: &Rust,
        init: &Path,
        programs: &BTreeMap<String, PathBuf>,
        jobs: &[Job],
        left: &[usize],
        folder: &Path,
    ) -> Result<Vec<u8>> {
        let mut archive = skeleton();
        archive.file("init", 0o755, &stripped(rust, init, folder)?);
        let bins: BTreeSet<_> = left.iter().map(|&index| jobs[index].bin.as_str()).collect();
        for bin in bins {
            let program = programs.get(bin).with_context(|| format!("there is no program {bin}"))?;
            archive.file(&format!("t/{bin}"), 0o755, &stripped(rust, program, folder)?);
        }
        let mut plan = Vec::new();
        for &index in left {
            let Job { bin, test, limit, .. } = &jobs[index];
            let words = [format!("/t/{bin}"), test.name.clone()].into_iter().chain(test.args.iter().cloned());
            let variables = test.env.iter().map(|(name, value)| format!("{name}={value}"));
            plan.extend(
                Entry {
                    number: index,
                    limit: limit.as_secs(),
                    stack: test.stack.as_deref(),
                    close: &test.close,
                    words: words.collect(),
                    variables: std::iter::once("PATH=/bin".to_string()).chain(variables).collect(),
                }
                .bytes(),
            );
        }
        archive.file("plan", 0o644, &plan);
        // Tests look for it: what proves more the more often it is done is done less often here.
        archive.file("slow", 0o644, b"");
        Ok(archive.finish())
    }
}

/// The rate of this processor's time-stamp counter, as a word of the kernel's command line.
///
/// A kernel measures it at its start. On a busy host the result is wrong by a factor, and so are
/// the kernel's clocks.
#[cfg(target_arch = "x86_64")]
fn clock_words() -> String {
    // SAFETY: every x86_64 has the instruction, and Linux lets programs execute it.
    let read = || unsafe { core::arch::x86_64::_rdtsc() };
    let rate = || {
        let (time, count) = (Instant::now(), read());
        std::thread::sleep(Duration::from_millis(20));
        let (count, time) = (read().saturating_sub(count), time.elapsed());
        count as f64 / time.as_secs_f64() / 1000.0
    };
    // The process may lose the processor between the two readings: the middle one of several.
    let mut rates = [(); 5].map(|()| rate());
    rates.sort_by(f64::total_cmp);
    format!("tsc_early_khz={:.0}", rates[2])
}

/// qemu gives a PC another counter on other machines; its kernel measures it.
#[cfg(not(target_arch = "x86_64"))]
fn clock_words() -> String {
    String::new()
}

/// What every guest has.
pub fn skeleton() -> Archive {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "run", "t"] {
        archive.folder(folder, 0o755);
    }
    archive.folder("tmp", 0o1777);
    archive.device("dev/console", 0o600, (5, 1));
    archive.device("dev/null", 0o666, (1, 3));
    archive
}

/// A program without symbols and debug information, which are most of its size.
pub fn stripped(rust: &Rust, program: &Path, folder: &Path) -> Result<Vec<u8>> {
    let toolchain = &rust.sysroot;
    let objcopy = toolchain.join("lib/rustlib").join(&rust.host).join("bin/rust-objcopy");
    if objcopy.is_file() {
        let out = folder.join("stripped");
        let mut command = Command::new(objcopy);
        command.arg("--strip-all").arg(program).arg(&out).env("LD_LIBRARY_PATH", toolchain.join("lib"));
        packages::checked(&mut command)?;
        return fs::read(&out).with_context(|| format!("cannot read {}", out.display()));
    }
    // Toolchains before 1.85 have none. It is only larger.
    fs::read(program).with_context(|| format!("cannot read {}", program.display()))
}

/// A folder of this run's own, removed with what is in it.
pub struct Folder(pub PathBuf);

impl Folder {
    /// For the files of one guest.
    pub fn new(name: &str) -> Result<Folder> {
        let folder = root().join("target/guests").join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(Folder(folder))
    }

    /// Writes a file, and returns its path.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, content).with_context(|| {
            let mib = content.len().div_ceil(1 << 20);
            format!("cannot write {mib} MiB to {}: is the disk full?", path.display())
        })?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say!("{} is left: {error}", self.0.display());
        }
    }
}

/// A guest that runs.
struct Boot<'a> {
    guest: &'a Guest,
    jobs: &'a [Job],
    tell: &'a Tell<'a>,
    talk: Talk,
    command: String,
    /// What init said of the kernel.
    said: Option<String>,
    /// The tests without a verdict.
    left: &'a mut Vec<usize>,
}

/// What a test has said so far.
#[derive(Default)]
struct Said {
    streams: [Vec<u8>; 2],
    log: Vec<String>,
}

impl Boot<'_> {
    /// Listens to the end, and gives the verdict on each test that ended.
    fn listen(&mut self) {
        let mut console = Console::default();
        let mut current: Option<(usize, Said)> = None;
        let mut done = false;
        let mut deadline = Instant::now() + BOOT;
        loop {
            let ended = match self.talk.next(deadline.saturating_duration_since(Instant::now())) {
                Next::Line(line) => {
                    let event = console.line(&line);
                    match event {
                        Some(event) => self.event(event, &mut current, &mut done, &mut deadline),
                        // The last words of a broken kernel, then the end.
                        None if console.emergency() => deadline = deadline.min(Instant::now() + LAST_WORDS),
                        None => {}
                    }
                    // Lines without end do not keep the deadline away.
                    (Instant::now() >= deadline).then_some("said nothing more of its tests in time")
                }
                Next::Silence => Some("fell silent"),
                Next::End => Some("ended"),
            };
            let Some(how) = ended else { continue };
            if !done {
                self.ended_early(how, current, &console);
            }
            return;
        }
    }

    fn event(&mut self, event: Event, current: &mut Option<(usize, Said)>, done: &mut bool, deadline: &mut Instant) {
        let name = &self.guest.name;
        match event {
            Event::Hello { release, page_size, processors } => {
                let (board, version) = (self.guest.row.board, &self.guest.emulator.version);
                let pages = page_size >> 10;
                let boot = self.talk.take_cpu_time().as_secs_f64(); // No test's.
                self.said = Some(format!(
                    "Linux {release}, {pages} KiB pages, {processors} processor{}, {} {version}, boot {boot:.1} s of \
                     processors",
                    if processors == 1 { "" } else { "s" },
                    board.qemu
                ));
                *deadline = Instant::now() + GRACE;
            }
            Event::Start(index) => {
                let limit = self.jobs.get(index).map_or(Duration::ZERO, |job| job.limit);
                *current = Some((index, Said::default()));
                *deadline = Instant::now() + limit + GRACE;
            }
            Event::Output(index, stream, bytes) => {
                if let Some((_, said)) = current.as_mut().filter(|(now, _)| *now == index) {
                    let stream = usize::from(stream == 2);
                    said.streams[stream].extend(bytes);
                }
            }
            Event::Log(index, text) => {
                if let Some((_, said)) = current.as_mut().filter(|(now, _)| *now == index) {
                    said.log.push(text);
                }
            }
            Event::End(index, end, time) => {
                let said = current.take().filter(|(now, _)| *now == index).map(|(_, said)| said).unwrap_or_default();
                self.verdict(index, end, time, said);
                *deadline = Instant::now() + GRACE;
            }
            Event::Note(text) => say!("{name}: {text}"),
            Event::Done(_) => {
                *done = true;
                *deadline = Instant::now() + POWER_OFF;
            }
            Event::Booted(_) => say!("{name}: it ran one program instead of its tests"),
        }
    }

    /// Judges a test that ended.
    fn verdict(&mut self, index: usize, end: End, time: Duration, said: Said) {
        let Some(at) = self.left.iter().position(|&left| left == index) else { return };
        self.left.remove(at);
        let job = &self.jobs[index];
        let [stdout, stderr] = said.streams.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let broken = said.log.iter().any(|line| is_emergency(line));
        let log = format!("--- the kernel's log ---\n{}", said.log.join("\n"));
        let status = match end {
            End::Exit(status) => ExitStatus::from_raw((status & 0xff) << 8),
            End::Signal(signal) => ExitStatus::from_raw(signal & 0x7f),
            End::TimedOut => ExitStatus::from_raw(9),
            End::Refused(_) => ExitStatus::from_raw(127 << 8),
        };
        let outcome = Outcome { status, timed_out: end == End::TimedOut, stdout, stderr, time };
        let verdict = match end {
            End::Refused(errno) => Verdict::Failed(format!("init cannot run it: error {errno}")),
            _ if broken => Verdict::Failed(format!("the kernel found a fault of its own while it ran\n{log}")),
            _ => match judge(&outcome, &job.test) {
                Verdict::Failed(why) if !said.log.is_empty() => Verdict::Failed(format!("{why}\n{log}")),
                verdict => verdict,
            },
        };
        let gap = self.guest.row.gaps.iter().find(|gap| job.name.contains(gap.test));
        let verdict = match (verdict, gap) {
            (Verdict::Failed(_), Some(gap)) if !broken => Verdict::Skipped(gap.reason.to_string()),
            (Verdict::Passed, Some(gap)) => {
                say!("{}::{} passes although the table lists a gap: {}", self.guest.name, job.name, gap.reason);
                Verdict::Passed
            }
            (verdict, _) => verdict,
        };
        let spent = Spent { time, cpu: self.talk.take_cpu_time() };
        (self.tell)(&job.name, verdict, Some(spent));
    }

    /// The guest ended, or was ended, before its tests did.
    fn ended_early(&mut self, how: &str, current: Option<(usize, Said)>, console: &Console) {
        let others = console.others();
        let words =
            if others.is_empty() { String::new() } else { format!("\n--- its console, last lines ---\n{others}") };
        let name = match &current {
            Some((index, _)) => self.jobs[*index].name.clone(),
            None => "boot".to_string(),
        };
        let when = match (&current, &self.said) {
            (Some(_), _) => "in this test",
            (None, Some(_)) => "between two tests",
            (None, None) => "before its first process spoke",
        };
        let broke = if console.emergency() { "its kernel broke: " } else { "" };
        let mut why = format!("{broke}the guest {how} {when}{words}");
        if let Some((_, said)) = &current {
            for (stream, bytes) in ["stdout", "stderr"].iter().zip(&said.streams).filter(|(_, bytes)| !bytes.is_empty())
            {
                why += &format!("\n--- {stream} ---\n{}", String::from_utf8_lossy(bytes));
            }
        }
        why += &format!("\n(its initramfs is gone) {}", self.command);
        if let Some((index, _)) = current {
            self.left.retain(|&left| left != index);
        }
        (self.tell)(&name, Verdict::Failed(why), None);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use super::super::rows::ROWS;
    use super::*;
    use crate::kernel::console::signed;
    use cargo_rt0::protocol::expectation;
    use cargo_rt0::setup::Rust;

    /// What is told of three tests, by a guest that a shell script plays; `$starts` is how often it
    /// was started before.
    fn told(name: &str, script: &str) -> Vec<(String, Verdict)> {
        let folder = std::env::temp_dir().join(format!("rt0-guest-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let program = folder.join("qemu");
        let counted = r#"starts=$(cat "$0.starts" 2>/dev/null || echo 0); echo $((starts + 1)) > "$0.starts""#;
        fs::write(&program, format!("#!/bin/sh\n{counted}\n{script}\n")).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
        let kernel = Kernel { version: "6.1".to_string(), file: program.clone(), dtb: None };
        let emulator = Emulator::played_by(program.clone());
        let guest = Guest { name: format!("played-{name}"), row: &ROWS[0], areas: None, kernel, emulator };
        let job = |line: &str| {
            let test = expectation(line).expect("a good line");
            Job { name: format!("bin::{}", test.name), bin: "bin".to_string(), test, limit: Duration::from_secs(1) }
        };
        let jobs = [job("first\tstdout=hello"), job("second\texit=3"), job("third")];
        let programs = BTreeMap::from([("bin".to_string(), program.clone())]);
        let rust = Rust { host: String::new(), release: String::new(), sysroot: folder.clone() };
        let verdicts = Mutex::new(Vec::new());
        let tell = |name: &str, verdict, _: Option<Spent>| {
            verdicts.lock().expect("one thread").push((name.to_string(), verdict));
        };
        guest.run(&rust, &program, &programs, &jobs, &tell);
        fs::remove_dir_all(&folder).expect("ours");
        verdicts.into_inner().expect("one thread")
    }

    /// A line of the script that says this, as init would.
    fn says(words: &str) -> String {
        format!("printf '%s\\n' '{}'\n", signed(words).trim_end())
    }

    fn script(lines: &[&str]) -> String {
        lines.iter().map(|words| says(words)).collect()
    }

    fn failed<'a>(verdict: &'a Verdict, parts: &[&str]) -> &'a str {
        let Verdict::Failed(why) = verdict else { panic!("{verdict:?}") };
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        why
    }

    const GOOD: [&str; 10] = [
        "H 6.1 4096 2",
        "S 0",
        "O 0 1 hello",
        "E 0 exit 0 5",
        "S 1",
        "E 1 exit 3 5",
        "S 2",
        "O 2 1 skipped: no reason\\0a",
        "E 2 exit 77 5",
        "D 3",
    ];

    #[test]
    fn each_test_gets_its_verdict_and_a_guest_that_does_not_turn_itself_off_is_ended() {
        let told = told("good", &(script(&GOOD) + "sleep 60"));
        let expected = [Verdict::Passed, Verdict::Passed, Verdict::Skipped("no reason".to_string())];
        let expected: Vec<_> =
            ["first", "second", "third"].map(|n| format!("bin::{n}")).into_iter().zip(expected).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_guest_that_falls_silent_is_ended_and_the_rest_is_run_by_another() {
        let second = format!(
            "if [ $starts = 1 ]; then\n{}exit\nfi\n",
            script(&[GOOD[0], "S 1", "E 1 exit 3 5", "S 2", "E 2 exit 0 1", "D 2"])
        );
        let told = told("silent", &(second + &script(&GOOD[..3]) + "echo '[ 1.5] a word of the kernel'; sleep 60"));
        failed(&told[0].1, &["the guest fell silent in this test", "a word of the kernel", "hello"]);
        let rest: Vec<_> = told[1..].iter().map(|(name, verdict)| (name.as_str(), verdict)).collect();
        assert_eq!(rest, [("bin::second", &Verdict::Passed), ("bin::third", &Verdict::Passed)]);
    }

    #[test]
    fn a_flood_does_not_keep_a_guest_alive() {
        let told = told("flood", &(script(&GOOD[..2]) + "exec yes flood"));
        assert_eq!(told[0].0, "bin::first");
        failed(&told[0].1, &["in this test", "flood"]);
    }

    #[test]
    fn a_kernel_that_breaks_shows_its_words_and_the_tests_that_never_ran_are_named() {
        let told =
            told("panic", &(script(&GOOD[..1]) + "echo '[ 1.5] Kernel panic - not syncing: out of luck'; sleep 60"));
        failed(&told[0].1, &["its kernel broke", "between two tests", "out of luck"]);
        let (name, verdict) = told.last().expect("some");
        assert_eq!(name, "boot");
        failed(verdict, &["3 tests were not run", "bin::first, bin::second, bin::third"]);
    }

    #[test]
    fn a_warning_of_the_kernels_fails_the_test_in_which_it_came() {
        let lines = ["H 6.1 4096 2", "S 0", "O 0 1 hello", "K 0 WARNING: CPU: 0 PID: 5 at mm/x.c:7", "E 0 exit 0 5"];
        let told = told("warning", &(script(&lines) + &script(&GOOD[4..]) + "exit"));
        failed(&told[0].1, &["found a fault of its own", "mm/x.c:7"]);
        assert_eq!(told[1].1, Verdict::Passed);
    }

    #[test]
    fn a_full_disk_is_said_and_leaves_no_folder() {
        let folder = Folder::new("full").expect("there is room for a folder");
        let path = folder.0.clone();
        std::os::unix::fs::symlink("/dev/full", path.join("initramfs")).expect("ours");
        let said = format!("{:#}", folder.write("initramfs", &[0; 3 << 20]).expect_err("it is full"));
        assert!(said.contains("cannot write 3 MiB to") && said.contains("is the disk full?"), "{said}");
        assert!(said.contains("No space left"), "{said}");
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_guest_that_never_speaks_or_cannot_be_started_is_one_failure() {
        let told_of_silence = told("mute", "echo 'SeaBIOS'; sleep 60");
        assert_eq!(told_of_silence.len(), 1);
        failed(&told_of_silence[0].1, &["before its first process spoke", "SeaBIOS"]);
        let told_of_end = told("gone", "echo 'qemu: no such machine' >&2; exit 1");
        failed(&told_of_end[0].1, &["ended before its first process spoke", "no such machine"]);
    }
}

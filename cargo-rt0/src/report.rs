//! A queue of tests, and the report on all of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::process;

/// How a test ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected: what was seen, and how to repeat it.
    Failed(String),
    /// It was not run, or could not prove anything here.
    Skipped(String),
    /// It failed, and passed when it ran again; what was seen first.
    PassedAgain(String),
}

impl From<()> for Verdict {
    fn from((): ()) -> Verdict {
        Verdict::Passed
    }
}

/// A test's body may end by `?`.
impl<V: Into<Verdict>> From<anyhow::Result<V>> for Verdict {
    fn from(result: anyhow::Result<V>) -> Verdict {
        result.map_or_else(|error| Verdict::Failed(format!("{error:#}")), V::into)
    }
}

/// A test, ready to run.
pub struct Test<'a> {
    /// The machine's short name, or `host`.
    pub machine: &'static str,
    /// `bin::name`.
    pub name: String,
    /// Whether no other test runs at the same time.
    pub alone: bool,
    /// How often it must pass if it has failed and may run again ([`Report::retries`]).
    pub repeats: u32,
    /// Runs it.
    pub run: Box<dyn Fn() -> Verdict + Send + Sync + 'a>,
}

impl<'a> Test<'a> {
    /// A test that may run beside others.
    pub fn new<V: Into<Verdict>>(
        machine: &'static str,
        name: impl Into<String>,
        run: impl Fn() -> V + Send + Sync + 'a,
    ) -> Self {
        Test { machine, name: name.into(), alone: false, repeats: 3, run: Box::new(move || run().into()) }
    }

    /// `machine::bin::name`.
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.machine, self.name)
    }
}

/// Runs the tests of a queue: those that may run together, or those that run alone.
fn run_all(tests: &[Test], alone: bool, report: &Mutex<Report>) {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let workers = if alone { 1 } else { 2 * workers };
    let tests: VecDeque<_> = tests.iter().filter(|test| test.alone == alone).collect();
    let queue = Mutex::new(tests);
    let take = || queue.lock().expect("no worker panics with the queue").pop_front();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(test) = take() {
                    let started = Instant::now();
                    process::take_cpu_time(); // The time before is no test's.
                    let mut verdict = (test.run)();
                    if let Verdict::Failed(why) = &verdict
                        && report.lock().expect("no worker panics with the report").take_retry()
                        && (0..test.repeats).all(|_| (test.run)() == Verdict::Passed)
                    {
                        verdict = Verdict::PassedAgain(why.clone());
                    }
                    let spent = Spent { time: started.elapsed(), cpu: process::take_cpu_time() };
                    let mut report = report.lock().expect("no worker panics with the report");
                    report.add(&test.full_name(), verdict, Some(spent));
                }
            });
        }
    });
}

/// Collects verdicts, prints each as it comes, and all of them at the end.
pub struct Report {
    counts: BTreeMap<String, Count>,
    /// The time that each test took.
    spent: Vec<(String, Spent)>,
    /// What starts each machine's programs.
    pub runners: BTreeMap<String, String>,
    failures: Vec<(String, String)>,
    /// The tests that failed first and then passed.
    unsteady: Vec<(String, String)>,
    /// So many tests that fail may still run again: once under an emulator, else three times.
    ///
    /// Of many thousands one or two meet a race of the emulator itself, whose own mappings and
    /// threads are seen by the program, or a race of the test with a busy machine. In a guest no
    /// test runs again.
    pub retries: usize,
    skips: BTreeMap<String, Vec<String>>,
    /// The command that runs tests, before a filter.
    command: &'static str,
    filter: Option<String>,
    bar: ProgressBar,
}

/// The time of a test: from start to end, and on the processors.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    /// From start to end; in a guest, by its own clock.
    pub time: Duration,
    /// On the host's processors.
    pub cpu: Duration,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s, {:.1} s of processor time", self.time.as_secs_f64(), self.cpu.as_secs_f64())
    }
}

/// If there are no more tests than this, the slowest are not listed.
const MANY: usize = 20;

/// The sums of one machine.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
    spent: Spent,
}

impl Report {
    /// An empty one. `command` are the words that run tests again, before the name of one.
    pub fn new(command: &'static str, filter: Option<&str>) -> Report {
        Report {
            counts: BTreeMap::new(),
            spent: Vec::new(),
            runners: BTreeMap::new(),
            failures: Vec::new(),
            unsteady: Vec::new(),
            retries: 0,
            skips: BTreeMap::new(),
            command,
            filter: filter.map(str::to_string),
            bar: ProgressBar::hidden(),
        }
    }

    /// Runs the tests that the filter names: those that need the machine to themselves last, after
    /// `between`. Then prints the account. `before` are the stages so far, and their times.
    pub fn run(
        mut self,
        mut tests: Vec<Test<'_>>,
        between: impl FnOnce(&Mutex<Report>),
        before: &[(&str, Duration)],
        started: Instant,
    ) -> ExitCode {
        tests.retain(|test| self.filter.as_ref().is_none_or(|part| test.full_name().contains(part)));
        self.start(tests.len());
        let report = Mutex::new(self);
        run_all(&tests, false, &report);
        between(&report);
        run_all(&tests, true, &report);
        let report = report.into_inner().expect("no worker panics with the report");
        let all = started.elapsed();
        let run = all.saturating_sub(before.iter().map(|(_, time)| *time).sum());
        let times = [before, &[("run", run), ("in all", all)]].concat();
        report.print(&times)
    }

    /// Shows progress, on a terminal only.
    fn start(&mut self, total: usize) {
        if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
            self.bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} tests, {elapsed}") {
                self.bar.set_style(style);
            }
        }
    }

    /// Counts tests that were found later.
    pub fn expect_more(&mut self, count: usize) {
        self.bar.inc_length(count as u64);
    }

    /// Whether one more test may run again.
    fn take_retry(&mut self) -> bool {
        let left = self.retries.checked_sub(1);
        self.retries = left.unwrap_or(0);
        left.is_some()
    }

    /// Counts a test and prints its line.
    pub fn add(&mut self, name: &str, verdict: Verdict, spent: Option<Spent>) {
        let machine = name.split("::").next().unwrap_or(name);
        let count = self.counts.entry(machine.to_string()).or_default();
        if let Some(spent) = spent {
            count.spent.time += spent.time;
            count.spent.cpu += spent.cpu;
            self.spent.push((name.to_string(), spent));
        }
        let mut line = format!("test {name} ... ");
        match verdict {
            Verdict::Passed => {
                count.passed += 1;
                line.push_str("ok");
            }
            Verdict::Failed(why) => {
                count.failed += 1;
                line.push_str("FAILED");
                self.failures.push((name.to_string(), why));
            }
            Verdict::PassedAgain(why) => {
                count.passed += 1;
                line.push_str("ok, but only when it ran again");
                self.unsteady.push((name.to_string(), why));
            }
            Verdict::Skipped(reason) => {
                count.skipped += 1;
                line += &format!("skipped, {reason}");
                self.skips.entry(reason).or_default().push(name.to_string());
            }
        }
        if let Some(spent) = spent.filter(|spent| spent.time.as_secs() >= 5) {
            line += &format!(" ({:.1} s)", spent.time.as_secs_f64());
        }
        self.bar.inc(1);
        self.bar.suspend(|| process::tell(|out| writeln!(out, "{line}")));
    }

    /// Prints the account; the status says whether all that ran passed, and whether any did.
    fn print(&self, times: &[(&str, Duration)]) -> ExitCode {
        self.bar.finish_and_clear();
        process::tell(|out| self.write(out, times));
        let [passed, failed] = [|count: &Count| count.passed, |count: &Count| count.failed]
            .map(|part| self.counts.values().map(part).sum::<usize>());
        if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn write(&self, out: &mut impl Write, times: &[(&str, Duration)]) -> io::Result<()> {
        let again = |name: &str| format!("{} {name}", self.command);
        for (title, tests) in [("passed only when they ran again", &self.unsteady), ("failures", &self.failures)] {
            if !tests.is_empty() {
                writeln!(out, "\n{title}:")?;
            }
            for (name, why) in tests {
                writeln!(out, "\n---- {name} ----\n{why}\nagain: {}", again(name))?;
            }
        }
        if !self.skips.is_empty() {
            writeln!(out, "\nskipped:")?;
        }
        for (reason, names) in &self.skips {
            writeln!(out, "  {reason}")?;
            names.iter().try_for_each(|name| writeln!(out, "    {name}"))?;
        }
        writeln!(out)?;
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        let width = self.counts.keys().map(String::len).max().unwrap_or(0).max(12);
        for (machine, count) in &self.counts {
            let runner = self.runners.get(machine.as_str()).map_or("not set up", String::as_str);
            let sums = format!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
            writeln!(out, "{machine:<width$} {sums}, {} ({runner})", count.spent)?;
            (passed, failed, skipped) = (passed + count.passed, failed + count.failed, skipped + count.skipped);
        }
        let slowest = [
            ("took longest", (|spent| spent.time) as fn(&Spent) -> Duration),
            ("took most processor time", |spent| spent.cpu),
        ];
        for (what, key) in slowest.into_iter().filter(|_| self.spent.len() > MANY) {
            let mut order: Vec<_> = self.spent.iter().collect();
            order.sort_by_key(|(_, spent)| Reverse(key(spent)));
            writeln!(out, "{what}:")?;
            order.iter().take(5).try_for_each(|(name, spent)| writeln!(out, "  {name}: {spent}"))?;
        }
        let times: Vec<_> = times.iter().map(|(what, time)| format!("{what} {:.1} s", time.as_secs_f64())).collect();
        writeln!(out, "time: {}", times.join(", "))?;
        let run: Duration = self.spent.iter().map(|(_, spent)| spent.cpu).sum();
        let all = process::cpu_time_of_all();
        writeln!(out, "processor time: tests {:.1} s, with builds {:.1} s", run.as_secs_f64(), all.as_secs_f64())?;
        if passed + failed == 0 {
            writeln!(
                out,
                "no test ran{}",
                self.filter.as_ref().map_or(String::new(), |f| format!(": none contains `{f}`"))
            )?;
        }
        writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Runs a test that fails in this one of its runs and in the first, and says whether the run
    /// as a whole passed.
    fn passes(retries: usize, repeats: u32, fails_in: usize) -> bool {
        let runs = AtomicUsize::new(0);
        let run = || match runs.fetch_add(1, Ordering::Relaxed) {
            n if n == 0 || n == fails_in => Verdict::Failed(format!("run {n}")),
            _ => Verdict::Passed,
        };
        let test = Test { repeats, ..Test::new("mips", "some::test", run) };
        let steady = Test::new("mips", "another::test", || Verdict::Passed);
        let mut report = Report::new("again", None);
        report.retries = retries;
        let status = report.run(vec![steady, test], |_| (), &[], Instant::now());
        format!("{status:?}") == format!("{:?}", ExitCode::SUCCESS)
    }

    #[test]
    fn only_if_asked_a_failed_test_runs_again_and_must_pass_each_time() {
        assert!(passes(1, 1, 0));
        assert!(!passes(0, 1, 0));
        assert!(passes(1, 1, 2));
        assert!(passes(1, 3, 0));
        assert!(!passes(1, 3, 1) && !passes(1, 3, 3));
    }

    #[test]
    fn what_fails_twice_has_failed() {
        let fails = || Verdict::Failed("always".to_string());
        let test = Test::new("mips", "some::test", fails);
        let mut report = Report::new("again", None);
        report.retries = 5;
        let report = Mutex::new(report);
        run_all(&[test], false, &report);
        let report = report.into_inner().unwrap();
        assert_eq!((report.failures.len(), report.unsteady.len(), report.retries), (1, 0, 4));
    }
}

//! The selection of metrics, and the output of samples.

use core::fmt::{self, Write as _};
use core::marker::PhantomData;

use crate::Runtime;

/// One run of a program, with its arguments.
pub struct Run<R, A> {
    arguments: A,
    smoke: bool,
    list: bool,
    runtime: PhantomData<R>,
}

impl<R: Runtime, A: Iterator<Item = &'static str> + Clone> Run<R, A> {
    pub(crate) fn new(arguments: A) -> Run<R, A> {
        let has = |flag| arguments.clone().any(|argument| argument == flag);
        Run { smoke: has("--smoke"), list: has("--list"), arguments, runtime: PhantomData }
    }

    pub(crate) fn scaling(&self) -> bool {
        self.arguments.clone().any(|argument| argument == "--scaling")
    }

    /// Whether to measure these metrics. With `--list`, prints their names instead.
    pub(crate) fn wants(&self, metrics: &[&str]) -> bool {
        if self.list {
            for (nr, name) in metrics.iter().enumerate() {
                let _ = write!(Output::<R>::new(1), "{}{name}", if nr == 0 { "" } else { " " });
            }
            let _ = writeln!(Output::<R>::new(1));
            return false;
        }
        let mut names = self.arguments.clone().filter(|argument| !argument.starts_with("--")).peekable();
        names.peek().is_none() || names.any(|name| metrics.contains(&name))
    }

    /// A number of samples, iterations or threads: `many`, or `few` in a smoke test.
    pub(crate) fn of(&self, many: usize, few: usize) -> usize {
        if self.smoke { few } else { many }
    }

    /// Binds the calling thread to a processor. False, with a message on descriptor 2, if that
    /// fails.
    pub(crate) fn pin(&self, cpu: Option<usize>, metric: &str) -> bool {
        let done = R::pin(cpu);
        if let (false, Some(cpu)) = (done, cpu) {
            let _ = writeln!(Output::<R>::new(2), "{metric}: left out, no thread may run on processor {cpu}");
        }
        done
    }

    pub(crate) fn say(&self, name: impl fmt::Display, value: f64, unit: &str) {
        let mut line = Output::<R>::new(1);
        // If the output is closed, nothing is lost.
        let _ = writeln!(line, "{name} {value:.2} {unit}");
    }

    /// Prints the two lines of samples.
    pub(crate) fn say_samples(&self, name: impl fmt::Display, samples: &mut Samples, unit: &str, best: Best) {
        let values = &mut samples.values[..samples.len];
        values.sort_unstable_by(f64::total_cmp);
        let best = if best == Best::High { values[values.len() - 1] } else { values[0] };
        self.say(format_args!("{name}.best"), best, unit);
        self.say(format_args!("{name}.med"), values[values.len() / 2], unit);
    }

    /// Takes samples of `calls` calls each, in nanoseconds per call.
    #[inline(always)]
    pub(crate) fn per_call(&self, name: &str, samples: usize, calls: usize, mut call: impl FnMut()) {
        let calls = self.of(calls, 10);
        let mut taken = Samples::new();
        for _ in 0..self.of(samples, 1) {
            let start = R::now_ns();
            for _ in 0..calls {
                call();
            }
            taken.add((R::now_ns() - start) as f64 / calls as f64);
        }
        self.say_samples(name, &mut taken, "ns", Best::Low);
    }
}

/// Which sample is the best.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Best {
    Low,
    High,
}

/// Up to 15 samples.
pub(crate) struct Samples {
    values: [f64; 15],
    len: usize,
}

impl Samples {
    pub(crate) fn new() -> Samples {
        Samples { values: [0.0; 15], len: 0 }
    }

    pub(crate) fn add(&mut self, value: f64) {
        self.values[self.len] = value;
        self.len += 1;
    }
}

/// A line's text, written at once when the line ends.
struct Output<R: Runtime> {
    fd: i32,
    text: [u8; 256],
    len: usize,
    runtime: PhantomData<R>,
}

impl<R: Runtime> Output<R> {
    fn new(fd: i32) -> Output<R> {
        Output { fd, text: [0; 256], len: 0, runtime: PhantomData }
    }
}

impl<R: Runtime> fmt::Write for Output<R> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

impl<R: Runtime> Drop for Output<R> {
    fn drop(&mut self) {
        R::write(self.fd, &self.text[..self.len]);
    }
}

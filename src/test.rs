//! Test programs: every test in a process of its own, on every machine.
//!
//! [`tests!`](crate::tests) makes the main of such a program from plain functions. A test passes if
//! it returns, unless it says otherwise by an [`Expect`]. `cargo rt0 test` builds the program for
//! each machine, runs its tests there and reports; nothing else is needed of a runner than this
//! protocol:
//!
//! 1. **Listing**: `PROGRAM --list` prints one line per test and ends with status 0. A line is the
//!    test's name, then fields, each behind a tab: `KEY=VALUE`, or `KEY` alone. In a value, `\n` is
//!    a line's end, `\t` a tab, `\\` a backslash.
//! 2. **Running**: `PROGRAM NAME` runs one test. Where the program has no arguments, as the first
//!    process of a kernel, the variable `RT0_TEST` names the test; without it the program lists.
//! 3. **Judging**: a test passes if its process ends as the line says: with status 0, or that of
//!    `exit`, or by the signal of `signal`; and if `stdout` and `stderr`, where they are given, are
//!    parts of what it wrote there.
//! 4. **Skipping**: status [`SKIPPED`] is a skip, unless `exit` says that it is expected. The
//!    reason is in the last line of standard output that begins with `skipped: `.
//! 5. **Surroundings**: the environment has nothing but `PATH` and the variables of
//!    `env=NAME=VALUE`, one field each. Arguments behind the name are those of `arg=VALUE`, one
//!    field each.
//! 6. **Limits**: a test that has not ended after `limit` seconds is killed and has failed.
//! 7. **Where it runs**: with `native=REASON`, not under an emulator; with `alone`, beside no other
//!    test.

use core::fmt::{self, Write as _};

use crate::auxv::Env;
use crate::{print, println, sys};

/// The exit status of a skipped test.
pub const SKIPPED: i32 = 77;

/// The exit status of a panic, see [`Expect::panic`].
const PANICKED: u8 = 101;

/// Defines a test program: its main, and which functions are its tests.
///
/// A test is a function without arguments, or of the [`Env`]. What it expects, if not
/// that it returns, follows it behind `=>`: a constant of type [`Expect`].
///
/// ```ignore
/// #![no_std]
/// #![no_main]
///
/// use rt0::test::Expect;
///
/// rt0::tests! {
///     two_and_two_are_four,
///     an_index_out_of_range_panics => Expect::panic("index out of bounds"),
///     a_status_is_passed_on => Expect::exit(3).limit(10),
/// }
///
/// fn two_and_two_are_four() {
///     assert_eq!(2 + 2, 4);
/// }
///
/// fn an_index_out_of_range_panics(env: rt0::Env) {
///     let _ = [0; 3][env.args().len() + 3];
/// }
///
/// fn a_status_is_passed_on() {
///     rt0::sys::exit_group(3)
/// }
/// ```
#[macro_export]
macro_rules! tests {
    (@expect) => { $crate::test::Expect::success() };
    (@expect $expect:expr) => { $expect };
    ($($test:ident $(=> $expect:expr)?),* $(,)?) => {
        const _: () = {
            $crate::entry!(main);

            fn main(env: $crate::Env) -> i32 {
                const TESTS: &[$crate::test::Test] = &[$($crate::test::Test::new(
                    ::core::stringify!($test),
                    $crate::tests!(@expect $($expect)?),
                    |env| $crate::test::Body::call($test, env),
                )),*];
                $crate::test::run(env, TESTS)
            }
        };
    };
}

/// A test: its name, what it expects, and the function.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    name: &'static str,
    expect: Expect,
    body: fn(Env),
}

impl Test {
    /// A test. The name has no white space in it.
    ///
    /// In handlers: yes.
    pub const fn new(name: &'static str, expect: Expect, body: fn(Env)) -> Test {
        Test { name, expect, body }
    }
}

/// What a test expects of its process; [`Expect::success`] unless something else is said.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    end: End,
    stdout: Option<&'static str>,
    stderr: Option<&'static str>,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    limit: Option<u32>,
    native: Option<&'static str>,
    alone: bool,
    fields: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum End {
    Exit(u8),
    Signal(u32),
}

impl Expect {
    /// The test returns, or ends with status 0.
    ///
    /// In handlers: yes.
    pub const fn success() -> Expect {
        Expect {
            end: End::Exit(0),
            stdout: None,
            stderr: None,
            args: &[],
            env: &[],
            limit: None,
            native: None,
            alone: false,
            fields: &[],
        }
    }

    /// The process ends with this status.
    ///
    /// In handlers: yes.
    pub const fn exit(status: u8) -> Expect {
        Expect { end: End::Exit(status), ..Expect::success() }
    }

    /// The process dies by this signal, such as 11 for `SIGSEGV`.
    ///
    /// In handlers: yes.
    pub const fn signal(signal: u32) -> Expect {
        Expect { end: End::Signal(signal), ..Expect::success() }
    }

    /// The test panics, and this is part of the message.
    ///
    /// In handlers: yes.
    pub const fn panic(message: &'static str) -> Expect {
        Expect::exit(PANICKED).stderr(message)
    }

    /// This is part of what the process writes to standard output.
    ///
    /// In handlers: yes.
    pub const fn stdout(self, part: &'static str) -> Expect {
        Expect { stdout: Some(part), ..self }
    }

    /// This is part of what the process writes to standard error.
    ///
    /// In handlers: yes.
    pub const fn stderr(self, part: &'static str) -> Expect {
        Expect { stderr: Some(part), ..self }
    }

    /// The program's arguments behind the test's name.
    ///
    /// In handlers: yes.
    pub const fn args(self, args: &'static [&'static str]) -> Expect {
        Expect { args, ..self }
    }

    /// Variables of the environment, beside `PATH`: name and value.
    ///
    /// In handlers: yes.
    pub const fn env(self, env: &'static [(&'static str, &'static str)]) -> Expect {
        Expect { env, ..self }
    }

    /// The test has failed if it has not ended after so many seconds. Without it the runner has a
    /// limit of its own, of some minutes.
    ///
    /// In handlers: yes.
    pub const fn limit(self, seconds: u32) -> Expect {
        Expect { limit: Some(seconds), ..self }
    }

    /// The test is skipped under an emulator, for this reason. See [`skip`] for what is known at
    /// run time only.
    ///
    /// In handlers: yes.
    pub const fn native(self, reason: &'static str) -> Expect {
        Expect { native: Some(reason), ..self }
    }

    /// Natively no other test runs at the same time.
    ///
    /// In handlers: yes.
    pub const fn alone(self) -> Expect {
        Expect { alone: true, ..self }
    }

    /// Fields of the protocol as they are written, for rt0's own tests.
    #[doc(hidden)]
    pub const fn fields(self, fields: &'static [&'static str]) -> Expect {
        Expect { fields, ..self }
    }
}

/// A function that can be a test: of no argument, or of the [`Env`].
pub trait Body<Arguments> {
    /// Runs it.
    fn call(self, env: Env);
}

impl<F: FnOnce()> Body<()> for F {
    fn call(self, _env: Env) {
        self();
    }
}

impl<F: FnOnce(Env)> Body<(Env,)> for F {
    fn call(self, env: Env) {
        self(env);
    }
}

/// Lists the tests or runs one, as the program's arguments say; what main returns.
///
/// Panics if the program has no test of that name.
///
/// In handlers: no, it writes to standard output and runs the test.
pub fn run(env: Env, tests: &[Test]) -> i32 {
    let wanted = env.args().nth(1).or_else(|| env.var("RT0_TEST"));
    let wanted = wanted.map_or(b"--list".as_slice(), |wanted| wanted.to_bytes());
    if wanted == b"--list" {
        tests.iter().for_each(|test| print!("{test}"));
        return 0;
    }
    match tests.iter().find(|test| test.name.as_bytes() == wanted) {
        Some(test) => (test.body)(env),
        None => panic!("no test `{}` in this program", wanted.escape_ascii()),
    }
    0
}

/// Ends this test as skipped.
///
/// In handlers: no, it writes to standard output.
pub fn skip(reason: &str) -> ! {
    println!("skipped: {reason}");
    sys::exit_group(SKIPPED)
}

/// The test's line of the list.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expect = &self.expect;
        f.write_str(self.name)?;
        match expect.end {
            End::Exit(0) => {}
            End::Exit(status) => write!(f, "\texit={status}")?,
            End::Signal(signal) => write!(f, "\tsignal={signal}")?,
        }
        let parts = [("stdout", expect.stdout), ("stderr", expect.stderr), ("native", expect.native)];
        for (key, value) in parts.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
            write!(f, "\t{key}={}", Escaped(value))?;
        }
        expect.args.iter().try_for_each(|arg| write!(f, "\targ={}", Escaped(arg)))?;
        expect.env.iter().try_for_each(|(name, value)| write!(f, "\tenv={name}={}", Escaped(value)))?;
        if let Some(seconds) = expect.limit {
            write!(f, "\tlimit={seconds}")?;
        }
        if expect.alone {
            f.write_str("\talone")?;
        }
        expect.fields.iter().try_for_each(|field| write!(f, "\t{field}"))?;
        f.write_char('\n')
    }
}

/// A value as it stands in a line.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\n' => f.write_str("\\n"),
            '\t' => f.write_str("\\t"),
            '\\' => f.write_str("\\\\"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(expect: Expect) -> std::string::String {
        std::format!("{}", Test::new("name", expect, |_| {}))
    }

    #[test]
    fn a_line_says_what_differs_from_success() {
        assert_eq!(line(Expect::success()), "name\n");
        assert_eq!(line(Expect::exit(3).limit(5)), "name\texit=3\tlimit=5\n");
        assert_eq!(line(Expect::signal(11).alone()), "name\tsignal=11\talone\n");
        assert_eq!(line(Expect::panic("a\tb")), "name\texit=101\tstderr=a\\tb\n");
        let surroundings = Expect::success().args(&["a b", ""]).env(&[("K", "v=w"), ("L", "\n\\")]);
        assert_eq!(line(surroundings), "name\targ=a b\targ=\tenv=K=v=w\tenv=L=\\n\\\\\n");
        let rest = Expect::success().stdout("x").native("why").fields(&["close=0"]);
        assert_eq!(line(rest), "name\tstdout=x\tnative=why\tclose=0\n");
    }
}

//! Test programs: every test in a process of its own, on every machine.
//!
//! [`tests!`](crate::tests) makes the main of such a program from plain functions, and
//! [`test_module!`](crate::test_module) names the tests of one of its modules. A test passes if it
//! returns, unless it has another [`Expect`]. `cargo rt0 test` builds the program for each machine,
//! runs its tests there and reports. Another runner needs only this protocol:
//!
//! 1. **Listing**: `PROGRAM --list` prints one line per test and ends with status 0. A line is the
//!    test's name, then fields, each behind a tab: `KEY=VALUE`, or `KEY` alone. In a value, `\n` is
//!    a line's end, `\t` a tab, `\\` a backslash. The name of a module's test begins with the
//!    module's: `parser::an_empty_line_is_no_error`.
//! 2. **Running**: `PROGRAM NAME` runs one test. If the program has no arguments, as the first
//!    process of a kernel, the variable `RT0_TEST` names the test; without it the program lists.
//! 3. **Judging**: a test passes if its process ends as the line says: with status 0, or with the
//!    status of `exit`, or by the signal of `signal`. Its output must contain the texts of `stdout`
//!    and `stderr`, if the line has them.
//! 4. **Skipping**: status [`SKIPPED`] means that the test was skipped, unless `exit` expects that
//!    status. The reason is in the last line of standard output that begins with `skipped: `.
//! 5. **Surroundings**: the environment has only `PATH` and the variables of `env=NAME=VALUE`, one
//!    field each. The arguments after the name are those of `arg=VALUE`, one field each. The soft
//!    limit of the stack is `stack=BYTES` or `stack=unlimited`, and the descriptors of
//!    `close=NUMBER,NUMBER` are closed.
//! 6. **Limits**: a test that has not ended after `limit` seconds is killed and fails.
//! 7. **Where it runs**: with `native=REASON`, not under an emulator; with `alone`, while no other
//!    test runs.

use core::fmt::{self, Write as _};

use crate::auxv::Env;
use crate::{println, sys};

/// The exit status of a skipped test.
pub const SKIPPED: i32 = 77;

/// The exit status of a panic, see [`Expect::panic`].
const PANICKED: u8 = 101;

/// Defines a test program: its main, and which functions are its tests.
///
/// A test is a function without arguments, or with an [`Env`]. Without more, it is expected to
/// return. Another expectation follows it after `=>`: a constant of type [`Expect`].
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
///
/// `module::*` stands for all tests of a module, which [`test_module!`](crate::test_module) lists
/// there.
///
/// ```ignore
/// mod lexer;
/// mod parser;
///
/// rt0::tests! { lexer::*, parser::* }
/// ```
#[macro_export]
macro_rules! tests {
    (@list $($test:ident $(:: $all:tt)? $(=> $expect:expr)?),* $(,)?) => {
        &[$($crate::tests!(@test $test $(:: $all)? $(=> $expect)?)),*]
    };
    (@test $module:ident :: *) => {
        $crate::test::Test::module(::core::stringify!($module), $module::TESTS)
    };
    (@test $test:ident) => { $crate::tests!(@test $test => $crate::test::Expect::success()) };
    (@test $test:ident => $expect:expr) => {
        $crate::test::Test::new(
            ::core::stringify!($test),
            $expect,
            |env| $crate::test::Body::call($test, env),
        )
    };
    ($($list:tt)*) => {
        const _: () = {
            $crate::entry!(main);

            fn main(env: $crate::Env) -> i32 {
                const TESTS: &[$crate::test::Test] = $crate::tests!(@list $($list)*);
                $crate::test::run(env, TESTS)
            }
        };
    };
}

/// Defines which functions of a module are tests, as the constant `TESTS`. It takes the same list
/// as [`tests!`](crate::tests), which takes `module::*` for all of them.
///
/// ```ignore
/// // In lexer.rs:
/// rt0::test_module! { an_empty_line_has_no_words }
///
/// fn an_empty_line_has_no_words() {
///     assert!(super::words("").next().is_none());
/// }
/// ```
#[macro_export]
macro_rules! test_module {
    ($($list:tt)*) => {
        /// The tests of this module.
        pub const TESTS: &[$crate::test::Test] = $crate::tests!(@list $($list)*);
    };
}

/// A test: its name, its expectation, and the function; or a module with its tests.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    name: &'static str,
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Function { expect: Expect, body: fn(Env) },
    Module(&'static [Test]),
}

impl Test {
    /// A test. The name contains neither white space nor `::`.
    ///
    /// In handlers: yes.
    pub const fn new(name: &'static str, expect: Expect, body: fn(Env)) -> Test {
        Test { name, content: Content::Function { expect, body } }
    }

    /// The tests of a module. The name has neither white space nor `::` in it.
    ///
    /// In handlers: yes.
    pub const fn module(name: &'static str, tests: &'static [Test]) -> Test {
        Test { name, content: Content::Module(tests) }
    }
}

/// What a test expects of its process. The default is [`Expect::success`].
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    end: End,
    stdout: Option<&'static str>,
    stderr: Option<&'static str>,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    limit: Option<u32>,
    stack: Option<u64>,
    closed: &'static [u32],
    native: Option<&'static str>,
    alone: bool,
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
            stack: None,
            closed: &[],
            native: None,
            alone: false,
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

    /// The program's arguments after the test's name.
    ///
    /// In handlers: yes.
    pub const fn args(self, args: &'static [&'static str]) -> Expect {
        Expect { args, ..self }
    }

    /// Variables of the environment, besides `PATH`: name and value.
    ///
    /// In handlers: yes.
    pub const fn env(self, env: &'static [(&'static str, &'static str)]) -> Expect {
        Expect { env, ..self }
    }

    /// The test fails if it has not ended after this many seconds. Without this, the runner has a
    /// limit of its own, of some minutes.
    ///
    /// In handlers: yes.
    pub const fn limit(self, seconds: u32) -> Expect {
        Expect { limit: Some(seconds), ..self }
    }

    /// The test is skipped under an emulator, for this reason. If the reason is known only at run
    /// time, use [`skip`].
    ///
    /// In handlers: yes.
    pub const fn native(self, reason: &'static str) -> Expect {
        Expect { native: Some(reason), ..self }
    }

    /// No other test runs at the same time, natively.
    ///
    /// In handlers: yes.
    pub const fn alone(self) -> Expect {
        Expect { alone: true, ..self }
    }

    /// The soft limit of the process's stack, in bytes; [`u64::MAX`] for none: `RLIMIT_STACK` of
    /// getrlimit(2).
    ///
    /// In handlers: yes.
    pub const fn stack_limit(self, bytes: u64) -> Expect {
        Expect { stack: Some(bytes), ..self }
    }

    /// The process starts with these descriptors closed, such as 0 for standard input.
    ///
    /// In handlers: yes.
    pub const fn closed(self, descriptors: &'static [u32]) -> Expect {
        Expect { closed: descriptors, ..self }
    }
}

/// A function that can be a test: without arguments, or with an [`Env`].
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

/// Lists the tests or runs one, as the program's arguments say. Returns the exit status for main.
///
/// Panics if the program has no test of that name.
///
/// ```no_run
/// use rt0::test::{self, Body, Expect, Test};
///
/// fn adds(env: rt0::Env) {
///     let body = || assert_eq!(1 + 1, 2);
///     body.call(env);
/// }
///
/// const EXPECT: Expect = Expect::success().native("an emulator adds wrongly").alone();
/// const ADDS: [Test; 1] = [Test::new("adds", EXPECT, adds)];
/// const SMALL: Expect = Expect::success().stack_limit(1 << 20).closed(&[0]);
/// const TESTS: [Test; 2] = [Test::module("numbers", &ADDS), Test::new("small", SMALL, adds)];
///
/// fn run_all(env: rt0::Env) -> i32 {
///     test::run(env, &TESTS) // The macro `tests!` writes all this.
/// }
/// ```
///
/// In handlers: no, it writes to standard output and runs the test.
pub fn run(env: Env, tests: &[Test]) -> i32 {
    let wanted = env.args().nth(1).or_else(|| env.var("RT0_TEST"));
    let wanted = wanted.map_or(b"--list".as_slice(), |wanted| wanted.to_bytes());
    if wanted == b"--list" {
        list(tests, None);
        return 0;
    }
    match find(tests, wanted) {
        Some(body) => body(env),
        None => panic!("no test `{}` in this program", wanted.escape_ascii()),
    }
    0
}

/// Prints the lines of all these tests, which are in the module of this path.
fn list(tests: &[Test], module: Option<&Path<'_>>) {
    for test in tests {
        let path = Path { module, name: test.name };
        match &test.content {
            Content::Function { expect, .. } => println!("{path}{expect}"),
            Content::Module(tests) => list(tests, Some(&path)),
        }
    }
}

/// The function of the test with this name, which begins with the names of its modules.
fn find(tests: &[Test], wanted: &[u8]) -> Option<fn(Env)> {
    tests.iter().find_map(|test| {
        let rest = wanted.strip_prefix(test.name.as_bytes())?;
        match test.content {
            Content::Function { body, .. } => rest.is_empty().then_some(body),
            Content::Module(tests) => find(tests, rest.strip_prefix(b"::")?),
        }
    })
}

/// Ends this test as skipped.
///
/// In handlers: no, it writes to standard output.
pub fn skip(reason: &str) -> ! {
    println!("skipped: {reason}");
    sys::exit_group(SKIPPED)
}

/// A test's name, with those of its modules.
struct Path<'a> {
    module: Option<&'a Path<'a>>,
    name: &'static str,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = self.module {
            write!(f, "{module}::")?;
        }
        f.write_str(self.name)
    }
}

/// The fields of a test's line.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Exit(0) => {}
            End::Exit(status) => write!(f, "\texit={status}")?,
            End::Signal(signal) => write!(f, "\tsignal={signal}")?,
        }
        let parts = [("stdout", self.stdout), ("stderr", self.stderr), ("native", self.native)];
        for (key, value) in parts.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
            write!(f, "\t{key}={}", Escaped(value))?;
        }
        self.args.iter().try_for_each(|arg| write!(f, "\targ={}", Escaped(arg)))?;
        self.env.iter().try_for_each(|(name, value)| write!(f, "\tenv={name}={}", Escaped(value)))?;
        match self.stack {
            None => {}
            Some(u64::MAX) => f.write_str("\tstack=unlimited")?,
            Some(bytes) => write!(f, "\tstack={bytes}")?,
        }
        for (index, descriptor) in self.closed.iter().enumerate() {
            write!(f, "{}{descriptor}", if index == 0 { "\tclose=" } else { "," })?;
        }
        if let Some(seconds) = self.limit {
            write!(f, "\tlimit={seconds}")?;
        }
        if self.alone {
            f.write_str("\talone")?;
        }
        Ok(())
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

    fn fields(expect: Expect) -> std::string::String {
        std::format!("{expect}")
    }

    #[test]
    fn a_line_says_what_differs_from_success() {
        assert_eq!(fields(Expect::success()), "");
        assert_eq!(fields(Expect::exit(3).limit(5)), "\texit=3\tlimit=5");
        assert_eq!(fields(Expect::signal(11).alone()), "\tsignal=11\talone");
        assert_eq!(fields(Expect::panic("a\tb")), "\texit=101\tstderr=a\\tb");
        let surroundings = Expect::success().args(&["a b", ""]).env(&[("K", "v=w"), ("L", "\n\\")]);
        assert_eq!(fields(surroundings), "\targ=a b\targ=\tenv=K=v=w\tenv=L=\\n\\\\");
        let rest = Expect::success().stdout("x").native("why").closed(&[0, 2]);
        assert_eq!(fields(rest), "\tstdout=x\tnative=why\tclose=0,2");
        assert_eq!(fields(Expect::success().stack_limit(65536)), "\tstack=65536");
        assert_eq!(fields(Expect::success().stack_limit(u64::MAX)), "\tstack=unlimited");
    }

    #[test]
    fn a_name_begins_with_those_of_its_modules() {
        mod lexer {
            use super::Expect;

            crate::test_module! { words, lines => Expect::exit(3), numbers::* }

            fn words() {}
            fn lines() {}

            mod numbers {
                use crate::auxv::Env;

                crate::test_module! { hexadecimal }

                fn hexadecimal(_: Env) {}
            }
        }
        const TESTS: &[Test] = crate::tests!(@list plain, lexer::*);
        fn plain() {}

        let known = ["plain", "lexer::words", "lexer::lines", "lexer::numbers::hexadecimal"];
        assert!(known.iter().all(|name| find(TESTS, name.as_bytes()).is_some()));
        let unknown = ["", "lexer", "lexer::", "words", "lexer::word", "lexer::wordss", "plain::words", "lexer::plain"];
        assert!(unknown.iter().all(|name| find(TESTS, name.as_bytes()).is_none()));
        let lexer = Path { module: None, name: "lexer" };
        let numbers = Path { module: Some(&lexer), name: "numbers" };
        let path = Path { module: Some(&numbers), name: "hexadecimal" };
        assert_eq!(std::format!("{path}"), known[3]);
    }
}

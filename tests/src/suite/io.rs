//! Output and fatal errors: printing, failures to print, and panics.

use core::fmt;

use linux_raw_sys::general as k;
use rt0::io::{stderr, stdin, stdout};
use rt0::signal::{Action, Handler, Signal};
use rt0::test::Expect;
use rt0::{Errno, eprintln, print, println, signal, sys};
use rt0_tests::files::{pipe, pipe_with};
use rt0_tests::prints;

/// Panics when it is printed.
struct Bomb;

impl fmt::Display for Bomb {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a bomb")
    }
}

/// Printed in two parts.
struct Text;

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("te")?;
        f.write_str("xt")
    }
}

/// Refuses to be printed.
struct Refuses;

impl fmt::Display for Refuses {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

rt0::test_module! {
    print_and_its_family_write_what_they_are_given =>
        Expect::success().stdout("one 2 three\nfour\n").stderr("five\n"),
    a_line_longer_than_the_buffer_is_written_whole_and_in_order,
    write_all_goes_on_after_short_writes,
    reads_and_writes_go_on_after_a_signal,
    stdin_at_its_end_reads_nothing,
    errors_of_write_are_returned,
    printing_into_a_closed_pipe_panics => Expect::panic("failed printing to stdout: EPIPE (32)"),
    printing_to_a_closed_descriptor_is_swallowed,
    a_display_that_fails_panics =>
        Expect::panic("a formatting trait implementation returned an error"),
    a_panic_names_thread_and_place_and_ends_with_101 =>
        Expect::panic("thread 'main' panicked at tests/src/suite/io.rs:"),
    a_panic_prints_its_message => Expect::panic(":\nwith 2 arguments\n"),
    a_panic_while_panicking_ends_all_the_same =>
        Expect::panic("(while writing a panic's message)\n"),
    a_panic_without_a_stderr_ends_with_101 => Expect::exit(101),
    an_index_out_of_bounds_is_a_panic => Expect::panic("index out of bounds"),
    what_is_formatted_to_a_descriptor_is_one_write,
    writing_a_display_that_fails_panics =>
        Expect::panic("a formatting trait implementation returned an error"),
    writing_to_a_pipe_without_a_reader_ends_a_program_that_does_not_ignore_it => Expect::signal(13),
    what_is_looked_at_is_told_on_stderr_and_passed_on,
    fmt_write_reaches_the_descriptor,
}

fn print_and_its_family_write_what_they_are_given() {
    print!("one {} ", 2);
    println!("three");
    print!("four");
    println!();
    eprintln!("five");
}

fn a_line_longer_than_the_buffer_is_written_whole_and_in_order() {
    // To a pipe, so that the text can be compared.
    let [read, write] = pipe();
    replace(1, write);
    let text = [b'a'; 1300];
    let text = core::str::from_utf8(&text).unwrap();
    println!("<{text}|{}|{text}>", 42);
    let mut buf = [0; 4096];
    let mut filled = 0;
    while filled < 2 * 1300 + 7 {
        filled += rt0::io::read(rt0_tests::numbered(read), &mut buf[filled..]).unwrap();
    }
    let got = core::str::from_utf8(&buf[..filled]).unwrap();
    let inner = got.strip_prefix('<').and_then(|rest| rest.strip_suffix(">\n")).unwrap();
    assert!(inner.split('|').eq([text, "42", text]));
}

fn write_all_goes_on_after_short_writes() {
    let [read, write] = pipe();
    let writer = rt0::thread::spawn(move || rt0::io::write_all(rt0_tests::numbered(write), &[7; 300_000])).unwrap();
    let mut total = 0;
    let mut buf = [0; 4096];
    while total < 300_000 {
        let count = rt0::io::read(rt0_tests::numbered(read), &mut buf).unwrap();
        assert!(buf[..count].iter().all(|byte| *byte == 7));
        total += count;
    }
    assert_eq!(writer.join(), Ok(()));
}

fn reads_and_writes_go_on_after_a_signal() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: 1. The handler does nothing. Without restart, the kernel returns EINTR.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action { restart: false, ..Action::call(nothing) }) }.unwrap();
    let [read, write] = pipe();
    let (pid, tid) = (sys::getpid(), sys::gettid());
    let other = rt0::thread::spawn(move || {
        for _ in 0..20 {
            rt0::thread::sleep(core::time::Duration::from_millis(2));
            sys::tgkill(pid, tid, Signal::SIGUSR1.raw()).unwrap();
        }
        sys::write(rt0_tests::numbered(write), b"x")
    })
    .unwrap();
    assert_eq!(rt0::io::read(rt0_tests::numbered(read), &mut [0; 8]), Ok(1));
    assert_eq!(other.join(), Ok(1));
}

fn stdin_at_its_end_reads_nothing() {
    assert_eq!(stdin().read(&mut [0; 8]), Ok(0));
}

fn errors_of_write_are_returned() {
    let [read, write] = pipe();
    ignore(Signal::SIGPIPE);
    close(read);
    assert_eq!(rt0::io::write_all(rt0_tests::numbered(write), b"x"), Err(Errno::EPIPE));
    assert_eq!(rt0::io::write_all(rt0_tests::numbered(-1), b"x"), Err(Errno::EBADF));
    assert_eq!(rt0::io::write_all(rt0_tests::numbered(-1), b""), Ok(()));
}

fn printing_into_a_closed_pipe_panics() {
    let [read, write] = pipe();
    ignore(Signal::SIGPIPE);
    close(read);
    replace(1, write);
    println!("lost");
}

fn printing_to_a_closed_descriptor_is_swallowed() {
    close(1);
    println!("lost");
    assert_eq!(stdout().write_all(b"lost"), Err(Errno::EBADF));
}

fn a_display_that_fails_panics() {
    println!("{Refuses}");
}

fn a_panic_names_thread_and_place_and_ends_with_101() {
    panic!("with {} arguments", 2)
}

fn a_panic_prints_its_message() {
    panic!("with {} arguments", 2)
}

fn a_panic_while_panicking_ends_all_the_same() {
    panic!("{Bomb}")
}

fn a_panic_without_a_stderr_ends_with_101() {
    close(2);
    panic!("unheard")
}

fn an_index_out_of_bounds_is_a_panic() {
    let empty: &[u8] = core::hint::black_box(&[]);
    core::hint::black_box(empty[3]);
}

fn what_is_formatted_to_a_descriptor_is_one_write() {
    let packets = packets_from(1);
    writeln!(stdout(), "{Text} and {:>3}", 2).unwrap();
    fmt::Write::write_fmt(&mut stdout(), format_args!("{}{}", "two", "!")).unwrap();
    assert_eq!(write!(stdout(), "{Text}{Text}"), Ok(()));
    for expected in ["text and   2\n", "two!", "texttext"] {
        let mut buf = [0; 64];
        let filled = rt0::io::read(rt0_tests::numbered(packets), &mut buf).unwrap();
        assert_eq!(&buf[..filled], expected.as_bytes());
    }
    close(1);
    assert_eq!(write!(stdout(), "{Text}"), Err(Errno::EBADF));
    assert_eq!(fmt::Write::write_fmt(&mut stdout(), format_args!("{Text}")), Err(fmt::Error));
    assert_eq!(fmt::Write::write_fmt(&mut stderr(), format_args!("{Refuses}")), Err(fmt::Error));
}

fn writing_a_display_that_fails_panics() {
    let _ = write!(stderr(), "{Refuses}");
}

fn writing_to_a_pipe_without_a_reader_ends_a_program_that_does_not_ignore_it() {
    let [read, write] = pipe();
    replace(1, write);
    close(write);
    close(read);
    println!("lost");
}

fn what_is_looked_at_is_told_on_stderr_and_passed_on() {
    let packets = packets_from(2);
    let line = line!() + 1;
    let value = rt0::dbg!(1 + 1);
    assert_eq!((value, rt0::dbg!("a", Some(value),)), (2, ("a", Some(2))));
    rt0::dbg!();
    let told = |expected: fmt::Arguments<'_>| {
        let mut buf = [0; 128];
        let filled = rt0::io::read(rt0_tests::numbered(packets), &mut buf).unwrap();
        let text = core::str::from_utf8(&buf[..filled]).unwrap();
        assert!(prints(expected, text), "{text}");
    };
    told(format_args!("[tests/src/suite/io.rs:{line}:17] 1 + 1 = 2\n"));
    told(format_args!("[tests/src/suite/io.rs:{}:24] \"a\" = \"a\"\n", line + 1));
    told(format_args!("[tests/src/suite/io.rs:{}:24] Some(value) = Some(\n    2,\n)\n", line + 1));
    told(format_args!("[tests/src/suite/io.rs:{}:5]\n", line + 2));
}

fn fmt_write_reaches_the_descriptor() {
    use fmt::Write as _;
    let [read, write] = pipe();
    replace(2, write);
    stderr().write_str("text").unwrap();
    assert_eq!((stderr().flush(), stdout().flush()), (Ok(()), Ok(())));
    let mut buf = [0; 8];
    assert_eq!(rt0::io::read(rt0_tests::numbered(read), &mut buf), Ok(4));
    assert_eq!(&buf[..4], b"text");
}

fn call(nr: u32, args: [usize; 6]) -> usize {
    // SAFETY: 1. Only close and dup3, on descriptors of this test.
    unsafe { sys::syscall(nr as usize, args) }.unwrap()
}

/// Makes `fd` the end of a pipe that keeps writes apart, and returns the other end.
fn packets_from(fd: i32) -> i32 {
    let [read, write] = pipe_with(k::O_DIRECT).unwrap();
    replace(fd, write);
    close(write);
    read
}

fn close(fd: i32) {
    call(k::__NR_close, [fd as usize, 0, 0, 0, 0, 0]);
}

/// Makes `fd` a duplicate of `by`.
fn replace(fd: i32, by: i32) {
    call(k::__NR_dup3, [by as usize, fd as usize, 0, 0, 0, 0]);
}

fn ignore(signal: Signal) {
    let action = Action { handler: Handler::Ignore, ..Action::DEFAULT };
    // SAFETY: 1. No handler.
    unsafe { signal::sigaction(signal, action) }.unwrap();
}

//! The descriptors of a child.

use linux_raw_sys::general as k;
use rt0::process::{self, Command, Stdio};
use rt0::sys::{self, OwnedFd};
use rt0::{Env, Errno, io};
use rt0_tests::children::{self, role};

use super::{LONG, call, descriptors, file, leaves_nothing, read_all};

/// A number that no descriptor of a test uses.
const HIGH: i32 = 57;

rt0::test_module! {
    pipes_lead_to_the_child_and_back,
    waiting_closes_the_childs_input,
    descriptors_change_places,
    a_parent_without_standard_descriptors_starts_children,
}

fn pipes_lead_to_the_child_and_back(env: Env) {
    if role(env) == Some("child") {
        let mut buf = [0; 16];
        let count = io::stdin().read(&mut buf).unwrap();
        assert_eq!(io::stdin().read(&mut buf[count..]), Ok(0));
        io::stdout().write_all(&buf[..count]).unwrap();
        io::stderr().write_all(b"err").unwrap();
        return;
    }
    leaves_nothing(|| {
        let mut child =
            children::with(c"process::descriptors::pipes_lead_to_the_child_and_back", c"ROLE=child", &[], |command| {
                command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped).spawn().unwrap()
            });
        let stdin = child.stdin.take().unwrap();
        io::write_all(&stdin, b"hello").unwrap();
        drop(stdin);
        let mut buf = [0; 64];
        assert_eq!(read_all(child.stdout.as_ref().unwrap(), &mut buf), b"hello");
        assert_eq!(read_all(child.stderr.as_ref().unwrap(), &mut buf), b"err");
        assert!(child.wait().unwrap().success());
    });
}

fn waiting_closes_the_childs_input(env: Env) {
    if role(env) == Some("child") {
        process::exit(io::stdin().read(&mut [0]).unwrap() as i32);
    }
    let spawn = || {
        children::with(c"process::descriptors::waiting_closes_the_childs_input", c"ROLE=child", &[], |command| {
            command.stdin(Stdio::Piped).spawn().unwrap()
        })
    };
    assert!(spawn().wait().unwrap().success());
    assert!(spawn().wait_timeout(LONG).unwrap().unwrap().success());
}

fn descriptors_change_places(env: Env) {
    match role(env) {
        Some("all") => {
            for (fd, text) in [(0, b"a"), (1, b"b"), (HIGH, b"c"), (HIGH + 1, b"a")] {
                let mut buf = [0];
                assert_eq!(sys::pread(rt0_tests::numbered(fd), &mut buf, 0), Ok(1));
                assert_eq!(&buf, text, "{fd}");
            }
            process::exit(3);
        }
        Some(_) => process::exit(
            [HIGH, HIGH + 1].iter().all(|fd| sys::dup(rt0_tests::numbered(*fd)).err() == Some(Errno::EBADF)) as i32,
        ),
        None => {}
    }
    let [a, b, c] = [b"a", b"b", b"c"].map(|text| file(text, 0o600));
    let at = |file: OwnedFd, number: i32| {
        call(k::__NR_dup3, [file.as_raw_fd() as usize, number as usize, k::O_CLOEXEC as usize, 0, 0, 0]).unwrap();
        // SAFETY: 1. Just opened.
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    // The files are at 1, HIGH + 1 and HIGH; in the child they are at 0, 1 and HIGH, one of
    // them twice.
    let (a, b, c) = (at(a, 1), at(b, HIGH + 1), at(c, HIGH));
    let run = |role, f: &dyn Fn(Command) -> Command| {
        children::with(c"process::descriptors::descriptors_change_places", role, &[], |command| f(command).status())
            .unwrap()
            .code()
    };
    let more = [(&c, HIGH), (&a, HIGH + 1)];
    children::with(c"process::descriptors::descriptors_change_places", c"ROLE=all", &[], |command| {
        let status = command.stdin(Stdio::Fd(&a)).stdout(Stdio::Fd(&b)).descriptors(&more).status();
        assert_eq!(status.unwrap().code(), Some(3));
    });
    assert_eq!(run(c"ROLE=none", &|command| command.stdout(Stdio::Null)), Some(1));
}

fn a_parent_without_standard_descriptors_starts_children(env: Env) {
    if role(env) == Some("child") {
        let mut buf = [0; 8];
        let count = io::stdin().read(&mut buf).unwrap();
        io::stdout().write_all(&buf[..count]).unwrap();
        return;
    }
    let before = descriptors();
    for fd in 0..3 {
        call(k::__NR_close, [fd, 0, 0, 0, 0, 0]).unwrap();
    }
    let missing = Command::new(c"/nonexistent");
    assert_eq!(missing.spawn().err(), Some(Errno::ENOENT));
    assert_eq!(missing.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Null).spawn().err(), Some(Errno::ENOENT));
    children::with(
        c"process::descriptors::a_parent_without_standard_descriptors_starts_children",
        c"ROLE=child",
        &[],
        |command| {
            let mut child = command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Null).spawn().unwrap();
            io::write_all(child.stdin.as_ref().unwrap(), b"through").unwrap();
            let mut buf = [0; 8];
            let stdout = child.stdout.take().unwrap();
            drop(child.stdin.take());
            assert_eq!(read_all(&stdout, &mut buf), b"through");
            assert!(child.wait().unwrap().success());
            drop(stdout);
            // Inherited descriptors are closed, and the pipe for errors is not mistaken for one of
            // them.
            assert!(command.stdin(Stdio::Null).status().unwrap().success());
        },
    );
    assert_eq!(descriptors(), before - 3);
}

//! `cargo rt0` as a user meets it: crates of all kinds, and what is said of those that are wrong.
//!
//! Crates are written to the folder for temporary files, outside of this repository's workspace.
//! All are called `standalone`, so that the lock file of examples/standalone fits and no registry
//! is asked; all are built into one folder, so that rt0 is compiled once. Programs of one name take
//! each other's place there, so a test that builds holds a lock.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MANIFEST: &str = r#"
[package]
name = "standalone"
version = "0.0.0"
edition = "2024"

[dependencies]
rt0 = { path = "REPOSITORY" }
"#;

/// It does what its first argument says.
const PROGRAM: &str = r#"
#![no_std]
#![no_main]
use rt0::{Env, println, thread};
rt0::entry!(main);
fn main(env: Env) -> i32 {
    let mut args = env.args().skip(1);
    match args.next().map(|arg| arg.to_bytes()) {
        Some(b"status") => 7,
        Some(b"args") => {
            args.for_each(|arg| println!("{arg:?}"));
            0
        }
        Some(b"wait") => loop {
            println!("ready");
            thread::sleep(core::time::Duration::from_secs(60));
        },
        _ => 0,
    }
}
"#;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it lies in the repository")
}

/// Where crates are written: the same folder each time, and another for each copy of the
/// repository.
fn scratch() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    repository().hash(&mut hasher);
    std::env::temp_dir().join(format!("rt0-crates-{:x}", hasher.finish()))
}

/// A crate with these files, beside the manifest that all have.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = scratch().join(name);
    let _ = fs::remove_dir_all(&folder);
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        let text = text.replace("REPOSITORY", &repository().display().to_string());
        fs::write(path, text).expect("a file");
    }
    fs::copy(repository().join("examples/standalone/Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
    folder
}

/// `cargo rt0 WORDS` in a folder.
fn rt0(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-rt0"));
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    command.arg("rt0").args(words).current_dir(folder).stdin(Stdio::null());
    command.env("RT0_CACHE", scratch.join("cache")).env("CARGO_TERM_COLOR", "never");
    for name in ["RT0_QEMU", "RT0_CORE", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    command
}

/// Held by a test that builds.
fn lock() -> File {
    let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("lock")).expect("a lock file");
    file.lock().expect("a lock");
    file
}

/// The same for commands that build.
fn building(folder: &Path, words: &[&str]) -> Command {
    let (command, words) = words.split_first().expect("a command");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("built");
    let mut all = vec![*command, "--dev", "--target-dir", built.to_str().expect("text")];
    all.extend(words);
    rt0(folder, &all)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn ends_with(output: &Output, status: i32) {
    let said = || format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{}", said());
}

/// It fails, and says all of this.
#[track_caller]
fn refused(mut command: Command, parts: &[&str]) {
    let output = command.output().expect("cargo-rt0 starts");
    ends_with(&output, 1);
    let said = text(&output.stderr);
    parts.iter().for_each(|part| assert!(said.contains(part), "not said: {part}\n{said}"));
}

#[test]
fn a_folder_without_a_crate_is_told_how_to_get_one() {
    let folder = scratch().join("nothing");
    fs::create_dir_all(&folder).expect("a folder");
    refused(rt0(&folder, &["run"]), &["no crate is in", "cargo rt0 new NAME"]);
}

#[test]
fn a_crate_without_a_program_is_told_where_one_is_written() {
    let library = folder("library", &[("Cargo.toml", MANIFEST), ("src/lib.rs", "#![no_std]\n")]);
    refused(rt0(&library, &["run"]), &["the package `standalone` has no program", "src/main.rs"]);
    refused(rt0(&library, &["run", "--example", "x"]), &["the package `standalone` has no example"]);
    refused(rt0(&library, &["test"]), &["no test program", "harness = false"]);
    refused(rt0(&library, &["bench"]), &["no benchmark", "harness = false"]);
}

#[test]
fn of_two_programs_one_must_be_named() {
    let files = [("Cargo.toml", MANIFEST), ("src/bin/one.rs", PROGRAM), ("src/bin/two.rs", PROGRAM)];
    let two = folder("two", &files);
    refused(rt0(&two, &["run"]), &["the package `standalone` has 2 programs", "`--bin` (one, two)", "default-run"]);
    refused(rt0(&two, &["run", "--bin", "three"]), &["has no binary `three`; it has one, two"]);
}

#[test]
fn a_machine_that_does_not_exist_is_answered_with_the_list() {
    let files = [("Cargo.toml", MANIFEST), ("src/main.rs", PROGRAM)];
    let folder = folder("machine", &files);
    refused(rt0(&folder, &["run", "--target", "vax"]), &["`vax`", "powerpc64le-unknown-linux-gnu"]);
    refused(rt0(&folder, &["test", "--target", "x86_64-pc-windows-msvc"]), &["no machine is called"]);
}

#[test]
fn without_a_network_it_is_said_what_must_be_installed() {
    let files = [("Cargo.toml", MANIFEST), ("src/main.rs", PROGRAM)];
    let folder = folder("network", &files);
    // No emulator has that version, so it would have to be fetched; nothing listens on that port.
    let mut command = rt0(&folder, &["run", "--target", "s390x", "--qemu", "99"]);
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    refused(command, &["s390x: no emulator", "qemu-user of 7.2 or newer on PATH"]);
}

#[test]
fn without_a_registry_it_is_said_how_crates_are_fetched() {
    let _lock = lock();
    let manifest = format!("{MANIFEST}rt0-none = \"1\"\n");
    let folder = folder("registry", &[("Cargo.toml", &manifest), ("src/main.rs", PROGRAM)]);
    let mut command = building(&folder, &["run"]);
    command.env("CARGO_NET_OFFLINE", "true");
    refused(command, &["no matching package named `rt0-none`", "if the registry cannot be reached: `cargo fetch`"]);
}

#[test]
fn std_below_a_program_is_named_before_the_linkers_words() {
    let _lock = lock();
    let manifest = format!("{MANIFEST}below = {{ path = \"below\" }}\n");
    let below = "[package]\nname = \"below\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
    let files = [
        ("Cargo.toml", manifest.as_str()),
        ("src/main.rs", &format!("{PROGRAM}\n#[unsafe(no_mangle)] static USED: fn() = below::print;\n")),
        ("below/Cargo.toml", below),
        ("below/src/lib.rs", "pub fn print() { println!(\"std\") }\n"),
    ];
    let folder = folder("std-below", &files);
    let output = building(&folder, &["run"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 1);
    let said = text(&output.stderr);
    let advice = said.find("if a crate below this program uses std").expect(&said);
    let error = said.find("error[E0152]").expect(&said);
    assert!(advice < error, "{said}");
}

#[test]
fn a_program_of_std_is_told_what_one_of_rt0_has() {
    let _lock = lock();
    let main = "fn main() { println!(\"std\") }\n";
    let folder = folder("std", &[("Cargo.toml", MANIFEST), ("src/main.rs", main)]);
    refused(building(&folder, &["run"]), &["rt0: standalone: std is used", "#![no_std]"]);
}

#[test]
fn a_program_without_a_main_is_told_of_entry() {
    let _lock = lock();
    let main = "#![no_std]\n#![no_main]\nuse rt0 as _;\n";
    let folder = folder("no-entry", &[("Cargo.toml", MANIFEST), ("src/main.rs", main)]);
    refused(building(&folder, &["run"]), &["rt0: standalone: the program has no main", "rt0::entry!(main);"]);
}

#[test]
fn a_crate_that_names_libc_links_and_one_that_calls_it_is_told_what() {
    let _lock = lock();
    let manifest = format!("{MANIFEST}\n[build-dependencies]\nrt0-build = {{ path = \"REPOSITORY/rt0-build\" }}\n");
    let script = "fn main() { rt0_build::program(); }\n";
    let named = format!("{PROGRAM}\n#[link(name = \"c\")] unsafe extern \"C\" {{}}\n");
    let called = format!(
        "{PROGRAM}\nunsafe extern \"C\" {{ fn getenv(); }}\n#[used] static USED: unsafe extern \"C\" fn() = getenv;\n"
    );
    let files = |main| [("Cargo.toml", manifest.as_str()), ("build.rs", script), ("src/main.rs", main)];
    let output = building(&folder("libc-named", &files(&named)), &["run"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    refused(building(&folder("libc-called", &files(&called)), &["run"]), &["rt0: `getenv` is called"]);
}

#[test]
fn a_small_program_is_small_and_its_tests_are_programs_as_ever() {
    let _lock = lock();
    let manifest = format!(
        "{MANIFEST}\n[build-dependencies]\nrt0-build = {{ path = \"REPOSITORY/rt0-build\" }}\n\n\
         [[test]]\nname = \"libraries\"\nharness = false\n"
    );
    // What crates over libc name, and C code that a build script compiles.
    let tests = r#"
        #![no_std]
        #![no_main]
        rt0::tests! { a_thread_runs, }
        #[link(name = "c")] #[link(name = "m")] #[link(name = "pthread")] #[link(name = "dl")] #[link(name = "gcc")]
        #[link(name = "gcc_eh")] #[link(name = "rt")] #[link(name = "util")] #[link(name = "unwind")]
        unsafe extern "C" {}
        fn a_thread_runs() { assert_eq!(rt0::thread::spawn(|| 1).unwrap().join(), 1) }
    "#;
    let script = "fn main() { rt0_build::Program::new().small().link(); }\n";
    let files = [
        ("Cargo.toml", manifest.as_str()),
        ("build.rs", script),
        ("src/main.rs", PROGRAM),
        ("tests/libraries.rs", tests),
    ];
    let folder = folder("small", &files);
    let output = building(&folder, &["build"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    let program = fs::read(text(&output.stdout).trim()).expect("the program");
    // e_phnum and e_shnum: code and data, a stack, and no section headers.
    let (segments, sections) = if program[4] == 2 { (56, 60) } else { (44, 48) };
    assert_eq!((program[segments], program[sections]), (3, 0));
    let output = building(&folder, &["run", "--", "status"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 7);
    let output = building(&folder, &["test"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
}

/// A package in a workspace whose other package is a program of std, whose profile unwinds, with a
/// build script, a program and tests.
fn workspace() -> PathBuf {
    let root = "[workspace]\nmembers = [\"plain\", \"small\"]\nresolver = \"3\"\n[profile.dev]\npanic = \"unwind\"\n";
    let small = format!(
        "{MANIFEST}\n[[test]]\nname = \"mine\"\nharness = false\n\n[[test]]\nname = \"theirs\"\n\n\
         [[bench]]\nname = \"speed\"\nharness = false\n"
    );
    let plain = "[package]\nname = \"plain\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
    let script = "fn main() { println!(\"cargo:rustc-env=SCRIPT=ran\") }\n";
    let program = format!("{PROGRAM}\nconst _: &str = env!(\"SCRIPT\");\n");
    let tests = r#"
        #![no_std]
        #![no_main]
        use rt0::test::{Expect, skip};
        rt0::tests! {
            passes,
            skips,
            panics => Expect::panic("of arguments: 3").args(&["a b"]),
            never_ends => Expect::success().limit(1),
        }
        fn passes() {}
        fn skips() { skip("for a reason") }
        fn panics(env: rt0::Env) { panic!("of arguments: {}", env.args().len()) }
        fn never_ends() { loop { rt0::thread::sleep(core::time::Duration::from_secs(9)) } }
    "#;
    let files = [
        ("Cargo.toml", root),
        ("plain/Cargo.toml", plain),
        ("plain/src/main.rs", "fn main() { println!(\"std\") }\n"),
        ("small/Cargo.toml", small.as_str()),
        ("small/build.rs", script),
        ("small/src/main.rs", program.as_str()),
        ("small/tests/mine.rs", tests),
        ("small/tests/theirs.rs", "#[test]\nfn passes() {}\n"),
        ("small/benches/speed.rs", PROGRAM),
    ];
    folder("workspace", &files)
}

#[test]
fn a_package_beside_std_with_a_build_script_runs_and_its_tests_are_judged() {
    let _lock = lock();
    let workspace = workspace();
    refused(rt0(&workspace, &["run"]), &["is a workspace and no package", "`--package` (plain, standalone)"]);
    refused(
        rt0(&workspace, &["run", "--package", "x"]),
        &["no package of this workspace is called `x`; there are plain, standalone"],
    );
    let small = workspace.join("small");

    // The status is the program's, and so are the arguments behind `--`.
    let output = building(&small, &["run", "--", "status"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 7);
    assert!(text(&output.stderr).contains("nothing unwinds on rt0: built with \"abort\""));
    let output = building(&small, &["run", "--", "args", "a b", "--help"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    assert_eq!(text(&output.stdout), "\"a b\"\n\"--help\"\n");

    // On several machines, one after the other; benchmarks are programs of their own.
    let both = ["--target", "x86_64", "--target", "x86_64-dev", "--", "args", "c"];
    if cfg!(target_arch = "x86_64") {
        for command in ["run", "bench"] {
            let output = building(&small, &[&[command], &both[..]].concat()).output().expect("cargo-rt0 starts");
            ends_with(&output, 0);
            assert_eq!(text(&output.stdout), "\"c\"\n\"c\"\n");
            assert!(text(&output.stderr).contains("2 of 2 machines: all went well"));
        }
    }

    // A program that never ends is ended where there is a limit.
    let endless = building(&small, &["run", "--limit", "1", "--", "wait"]);
    refused(endless, &["no end after 1 s, so it was killed", "--limit SECONDS"]);

    // Without one it takes the place of cargo-rt0: a signal is the program's.
    let mut running = building(&small, &["run", "--", "wait"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(running.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    kill(Pid::from_raw(running.id() as i32), Signal::SIGTERM).expect("it runs");
    assert_eq!(running.wait().expect("it ends").signal(), Some(Signal::SIGTERM as i32));

    // An interrupted run ends its programs: else the pipe would stay open.
    let mut running = building(&small, &["run", "--limit", "60", "--", "wait"]);
    let mut running = running.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(running.stdout.take().expect("a pipe"));
    lines.read_line(&mut line).expect("a line");
    kill(Pid::from_raw(running.id() as i32), Signal::SIGTERM).expect("it runs");
    assert_eq!(running.wait().expect("it ends").code(), Some(130));
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(lines.read_to_string(&mut String::new()).is_ok()));
    assert_eq!(ended.recv_timeout(Duration::from_secs(30)), Ok(true), "the program is still there");

    // A run that cannot tell its result fails with a sentence.
    let full = File::options().write(true).open("/dev/full").expect("it can be opened");
    let output = building(&small, &["test"]).stdout(full).output().expect("cargo-rt0 starts");
    ends_with(&output, 1);
    assert!(text(&output.stderr).contains("cannot write to standard output: No space left"), "{output:?}");
    assert!(!text(&output.stderr).contains("panicked"), "{output:?}");

    let output = building(&small, &["test"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 1);
    let said = text(&output.stdout);
    for part in [
        "mine::passes ... ok",
        "mine::skips ... skipped, for a reason",
        "mine::panics ... ok",
        "mine::never_ends ... FAILED",
        "no end after 1 s",
        "theirs ... skipped, it has Rust's own harness",
        "2 passed, 1 failed, 2 skipped",
    ] {
        assert!(said.contains(part), "not said: {part}\n{said}");
    }
    let output = building(&small, &["test", "mine::panics"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    assert!(text(&output.stdout).ends_with("1 passed, 0 failed, 1 skipped\n"), "{}", text(&output.stdout));
}

#[test]
fn the_users_settings_of_cargo_change_nothing() {
    let _lock = lock();
    let settings = r#"
        [build]
        target = "mips-unknown-linux-gnu"
        target-dir = "elsewhere"
        rustflags = ["-Cno-such-flag"]
        rustc-wrapper = "/usr/bin/env"
        [target.x86_64-unknown-linux-gnu]
        runner = "/nonexistent"
    "#;
    let files = [("Cargo.toml", MANIFEST), ("src/main.rs", PROGRAM), (".cargo/config.toml", settings)];
    let folder = folder("with settings", &files);
    let mut command = building(&folder, &["run", "--", "status"]);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        command.env(name, "-Cno-such-flag");
    }
    command.env("CARGO_BUILD_TARGET", "vax").env("RUSTC", "/nonexistent").env("CARGO_TARGET_DIR", "elsewhere");
    let output = command.output().expect("cargo-rt0 starts");
    ends_with(&output, 7);
    assert!(text(&output.stderr).contains("RUSTFLAGS is set and not used"), "{output:?}");
    assert!(!folder.join("elsewhere").exists());
}

#[test]
fn a_folder_whose_name_is_no_text_is_refused_with_a_sentence() {
    let folder = scratch().join(OsStr::from_bytes(b"no text \xff"));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("Cargo.toml"), MANIFEST).expect("a file");
    refused(rt0(&folder, &["run"]), &["is not UTF-8, and cargo needs that"]);
    let files = [("Cargo.toml", MANIFEST), ("src/main.rs", PROGRAM)];
    let mut command = rt0(&self::folder("text", &files), &["run"]);
    command.env("CARGO_TARGET_DIR", &folder);
    refused(command, &["is not UTF-8, and cargo needs that"]);
}

#[test]
fn a_new_crate_runs_and_passes_its_tests() {
    let _lock = lock();
    let parent = scratch().join("new");
    let _ = fs::remove_dir_all(&parent);
    fs::create_dir_all(&parent).expect("a folder");
    let output = rt0(&parent, &["new", "a folder", "--name", "standalone"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    assert!(text(&output.stdout).starts_with("cd 'a folder'\n"), "{output:?}");
    let crate_folder = parent.join("a folder");
    let lock = repository().join("examples/standalone/Cargo.lock");
    fs::copy(lock, crate_folder.join("Cargo.lock")).expect("a lock file");
    let output = building(&crate_folder, &["run"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    assert_eq!(text(&output.stdout), "hello with 1 arguments; a thread says 42\n");
    let output = building(&crate_folder, &["test"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    assert!(text(&output.stdout).ends_with("2 passed, 0 failed, 0 skipped\n"));
    let output = building(&crate_folder, &["build"]).output().expect("cargo-rt0 starts");
    ends_with(&output, 0);
    assert!(Path::new(text(&output.stdout).trim()).is_file());
    refused(rt0(&parent, &["new", "a folder", "--name", "x"]), &["already exists", "cargo's message above"]);
}

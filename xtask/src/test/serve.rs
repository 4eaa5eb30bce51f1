//! Tests of the server in examples/with-rustix, as a client sees it: over sockets. Plain cargo
//! builds the programs there.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use cargo_rt0::process::{self, Running};
use cargo_rt0::protocol::seen;
use cargo_rt0::report::Test;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::repository::{pinned, root, scratch};

/// The time limit for an answer, and for the end of the server.
const LIMIT: Duration = Duration::from_secs(60);

/// The time limit for the build, with two crates to compile.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// The programs of examples/with-rustix, built when the first test needs one.
#[derive(Clone, Default)]
pub struct Programs(Arc<OnceLock<Result<PathBuf, String>>>);

impl Programs {
    /// The path of one; an error says why they were not built.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let built = self.0.get_or_init(|| build().map_err(|error| format!("{error:#}")));
        built.clone().map(|folder| folder.join(name)).map_err(Error::msg)
    }
}

fn build() -> Result<PathBuf> {
    let folder = root().join("examples/with-rustix");
    let mut command = pinned("cargo");
    command.current_dir(&folder).args(["build", "--release", "--locked"]);
    let outcome = process::run(&mut command, BUILD_LIMIT)?;
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    Ok(folder.join("target/release"))
}

/// The tests.
pub fn all(programs: &Programs) -> Vec<Test<'static>> {
    type Run = fn(&Path) -> Result<()>;
    let tests: [(&str, Run); 9] = [
        ("requests_are_answered_or_refused_as_http_says", answers),
        ("no_path_leads_out_of_the_folder", paths),
        ("ranges_are_parts_of_the_file", ranges),
        ("requests_in_a_row_are_answered_in_their_order", pipelining),
        ("a_slow_client_is_served_and_a_silent_one_is_left", slow_clients),
        ("a_client_that_goes_away_is_missed_by_none", early_ends),
        ("a_thread_has_as_many_connections_as_it_may", full),
        ("many_clients_at_once_get_what_they_ask_for", many),
        ("sigterm_lets_answers_on_their_way_be_finished", ends_in_flight),
    ];
    let test = |(name, run): (&str, Run)| {
        let programs = programs.clone();
        Test::new("host", format!("serve::{name}"), move || run(&programs.find("serve")?))
    };
    tests.map(test).into()
}

/// Starts a server that prints its address. It is killed when it is dropped.
pub fn start(command: &mut Command) -> Result<(Running, SocketAddr)> {
    let mut child = Running::leader(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut line = String::new();
    // It prints the line or ends.
    BufReader::new(child.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
    let address = line.trim().strip_prefix("serve: http://").and_then(|address| address.parse().ok());
    Ok((child, address.with_context(|| format!("no address: {line:?}"))?))
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// The content of a file that a server has.
pub fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut stream = connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{END}").as_bytes())?;
    let answer = Answer::read(&mut stream)?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(answer.body)
}

/// A server that runs on a folder of its own.
struct Server {
    child: Running,
    address: SocketAddr,
    folder: PathBuf,
}

/// More than the buffers of two sockets hold.
const BIG: usize = 24 << 20;

impl Server {
    /// Starts one on a folder of its own with some files.
    fn start(serve: &Path, name: &str, options: &[&str]) -> Result<Server> {
        let folder = scratch(&format!("serve-{name}"))?;
        fs::create_dir_all(folder.join("www/sub"))?;
        fs::write(folder.join("secret"), "secret")?;
        fs::write(folder.join("www/index.html"), "0123456789")?;
        fs::write(folder.join("www/sub/a b.txt"), "sub")?;
        let _ = std::os::unix::fs::symlink("../secret", folder.join("www/out")); // It may be there.
        let _ = std::os::unix::fs::symlink("index.html", folder.join("www/in"));
        fs::write(folder.join("www/big"), big())?;
        let mut command = Command::new(serve);
        command.args(options).arg("127.0.0.1:0").arg(folder.join("www"));
        let (child, address) = start(&mut command)?;
        Ok(Server { child, address, folder })
    }

    fn connect(&self) -> Result<TcpStream> {
        connect(self.address)
    }

    /// One request on a connection of its own, and all that comes back.
    fn ask(&self, request: &str) -> Result<Answer> {
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes())?;
        Answer::read(&mut stream)
    }

    /// Sends SIGTERM; returns the exit status.
    fn end(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("the server does not end")
    }
}

/// The same bytes each time; each block of 4 KiB has a number of its own.
fn big() -> Vec<u8> {
    const BLOCK: usize = 4096;
    let pattern: Vec<u8> = (0..BLOCK).map(|at| (at * 7 % 251) as u8).collect();
    let mut bytes = pattern.repeat(BIG / BLOCK);
    for (number, block) in bytes.chunks_mut(BLOCK).enumerate() {
        block[..4].copy_from_slice(&(number as u32).to_le_bytes());
    }
    bytes
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Result<Answer> {
        let mut answer = Answer::read_head(stream)?;
        let length = answer.field("Content-Length").and_then(|length| length.parse().ok()).context("no length")?;
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    fn read_head(stream: &mut TcpStream) -> Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).with_context(|| format!("after {:?}", String::from_utf8_lossy(&head)))?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok(Answer { status, head, body: Vec::new() })
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

const END: &str = "Host: x\r\n\r\n";

/// The rest of a connection: nothing, and then its end.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_ok() && rest.is_empty()
}

fn answers(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "answers", &[])?;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(9000));
    // The status, and whether the connection stays.
    let cases: &[(&str, u16, bool)] = &[
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, true),
        ("\r\nGET /?query HTTP/1.1\r\nhOST: x\r\nConnection: Keep-Alive\r\n\r\n", 200, true),
        ("GET http://x/in HTTP/1.1\r\nHost: x\r\n\r\n", 200, true),
        ("GET /sub/a%20b.txt HTTP/1.1\r\nHost: x\r\n\r\n", 200, true),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200, false),
        ("GET / HTTP/1.0\r\n\r\n", 200, false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, true),
        ("GET /sub HTTP/1.1\r\nHost: x\r\n\r\n", 301, true),
        ("GET /missing HTTP/1.1\r\nHost: x\r\n\r\n", 404, true),
        ("GET /sub/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, true),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 405, false),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 413, false),
        ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413, false),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, false),
        ("GET / HTTP/1.1\r\n\r\n", 400, false),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, false),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, false),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400, false),
        ("GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400, false),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, false),
        ("GET\r\n\r\n", 400, false),
        (&long, 431, false),
    ];
    for (request, status, stays) in cases {
        let about = || format!("{:?}", &request[..request.len().min(100)]);
        let mut stream = server.connect()?;
        stream.write_all(request.as_bytes())?;
        let answer = Answer::read(&mut stream).with_context(about)?;
        ensure!(answer.status == *status, "{}: {answer:?}", about());
        ensure!((answer.field("Connection") == Some("keep-alive")) == *stays, "{}: {answer:?}", about());
        ensure!(answer.status != 200 || !answer.body.is_empty(), "{}: {answer:?}", about());
        if *stays {
            stream.write_all(format!("GET / HTTP/1.1\r\n{END}").as_bytes())?;
            ensure!(Answer::read(&mut stream).with_context(about)?.status == 200);
        } else {
            ensure!(is_closed(&mut stream), "{}: it goes on", about());
        }
    }
    let mut stream = server.connect()?;
    stream.write_all(format!("HEAD /big HTTP/1.1\r\n{END}GET / HTTP/1.1\r\n{END}").as_bytes())?;
    let head = Answer::read_head(&mut stream)?;
    ensure!(head.field("Content-Length") == Some(&BIG.to_string()), "{head:?}");
    ensure!(Answer::read(&mut stream)?.body == b"0123456789", "HEAD has no content");
    server.end()
}

fn paths(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "paths", &[])?;
    ensure!(server.folder.join("www/out").exists(), "a link that leads out");
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/sub/../../secret",
        "/out",
        "//secret",
        "/./../secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/secret%00",
        "/%",
        "/%zz",
        "/..",
        "/%2e%2e/",
        "/proc/self/environ",
    ] {
        let answer = server.ask(&format!("GET {path} HTTP/1.1\r\n{END}"))?;
        ensure!(matches!(answer.status, 301 | 400 | 404), "{path}: {answer:?}");
    }
    let within = server.ask(&format!("GET /sub/../index.html HTTP/1.1\r\n{END}"))?;
    ensure!(within.status == 200, "{within:?}");
    server.end()
}

fn ranges(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "ranges", &[])?;
    // Of "0123456789".
    let cases: [(&str, u16, &str); 10] = [
        ("bytes=0-0", 206, "0"),
        ("bytes=2-4", 206, "234"),
        ("bytes=8-", 206, "89"),
        ("bytes=8-99", 206, "89"),
        ("bytes=-3", 206, "789"),
        ("bytes=-99", 206, "0123456789"),
        ("bytes=10-", 416, ""),
        ("bytes=-0", 416, ""),
        ("bytes=4-2", 200, "0123456789"),
        ("bytes=0-1,3-4", 200, "0123456789"),
    ];
    for (range, status, body) in cases {
        let answer = server.ask(&format!("GET / HTTP/1.1\r\nRange: {range}\r\n{END}"))?;
        ensure!(answer.status == status && answer.body == body.as_bytes(), "{range}: {answer:?}");
    }
    server.end()
}

fn pipelining(serve: &Path) -> Result<()> {
    const ROUNDS: usize = 100;
    let server = Server::start(serve, "pipelining", &[])?;
    let mut stream = server.connect()?;
    let mut writer = stream.try_clone()?;
    let requests: String = (0..ROUNDS)
        .map(|n| format!("GET /{} HTTP/1.1\r\nRange: bytes={n}-{n}\r\n{END}", if n % 2 == 0 { "big" } else { "no" }))
        .collect();
    let sender = thread::spawn(move || writer.write_all(requests.as_bytes()));
    let big = big();
    for n in 0..ROUNDS {
        let answer = Answer::read(&mut stream)?;
        let expected = if n % 2 == 0 { (206, &big[n..=n]) } else { (404, &[][..]) };
        ensure!((answer.status, &answer.body[..]) == expected, "{n}: {answer:?}");
    }
    sender.join().expect("writing does not panic")?;
    server.end()
}

fn slow_clients(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "slow", &["--threads", "1", "--idle", "2"])?;
    let mut slow = server.connect()?;
    for byte in format!("GET / HTTP/1.1\r\n{END}").bytes() {
        slow.write_all(&[byte])?;
        thread::sleep(Duration::from_millis(5));
    }
    ensure!(Answer::read(&mut slow)?.status == 200);
    // One says nothing, one stops within its request, one never stops beginning, one does not read.
    let (mut silent, mut half) = (server.connect()?, server.connect()?);
    half.write_all(b"GET / HT")?;
    let mut drips = server.connect()?;
    let mut deaf = server.connect()?;
    deaf.write_all(format!("GET /big HTTP/1.1\r\n{END}").as_bytes())?;
    drips.write_all(b"GET / HTTP/1.1\r\n")?;
    let dripped = (0..600).any(|_| {
        thread::sleep(Duration::from_millis(50));
        drips.write_all(b"X: y\r\n").is_err()
    });
    ensure!(dripped, "a request that does not end is waited for");
    for (what, stream) in [("silent", &mut silent), ("half", &mut half)] {
        ensure!(is_closed(stream), "the one that is {what} is kept");
    }
    let mut rest = Vec::new();
    let _ = deaf.read_to_end(&mut rest); // Reset, or cut.
    ensure!(rest.len() < BIG, "a client that did not read has all");
    ensure!(server.ask(&format!("GET / HTTP/1.1\r\n{END}"))?.status == 200);
    server.end()
}

fn early_ends(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "early", &["--threads", "1"])?;
    for n in 0..50 {
        let mut stream = server.connect()?;
        let request = format!("GET /big HTTP/1.1\r\n{END}");
        stream.write_all(&request.as_bytes()[..request.len() * (n % 5) / 4])?;
    }
    let answer = server.ask(&format!("GET /big HTTP/1.1\r\n{END}"))?;
    ensure!(answer.body == big(), "the answer is another");
    let open = fs::read_dir(format!("/proc/{}/fd", server.child.id()))?.count();
    ensure!(open < 40, "{open} descriptors are open");
    server.end()
}

fn full(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "full", &["--threads", "1", "--connections", "2"])?;
    let request = format!("GET / HTTP/1.1\r\n{END}");
    let mut first = server.connect()?;
    let mut second = server.connect()?;
    for stream in [&mut first, &mut second] {
        stream.write_all(request.as_bytes())?;
        ensure!(Answer::read(stream)?.status == 200);
    }
    let mut third = server.connect()?;
    third.write_all(request.as_bytes())?;
    third.set_read_timeout(Some(Duration::from_millis(300)))?;
    ensure!(third.read(&mut [0]).is_err(), "a third is served");
    third.set_read_timeout(Some(LIMIT))?;
    drop(first);
    ensure!(Answer::read(&mut third)?.status == 200);
    server.end()
}

fn many(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "many", &["--threads", "3"])?;
    let big = big();
    thread::scope(|scope| {
        let client = |seed: usize| {
            let (server, big) = (&server, &big);
            scope.spawn(move || -> Result<()> {
                let mut stream = server.connect()?;
                for n in 0..100 {
                    let (from, count) = ((seed * 7919 + n * 104_729) % (BIG - 100_000), 1 + n * 991);
                    let range = format!("Range: bytes={from}-{}\r\n", from + count - 1);
                    stream.write_all(format!("GET /big HTTP/1.1\r\n{range}{END}").as_bytes())?;
                    let answer = Answer::read(&mut stream)?;
                    ensure!(answer.body == big[from..from + count], "{seed}, {n}: another part");
                }
                Ok(())
            })
        };
        let clients: Vec<_> = (0..8).map(client).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
    })?;
    server.end()
}

fn ends_in_flight(serve: &Path) -> Result<()> {
    let server = Server::start(serve, "ends", &["--threads", "2"])?;
    let (mut idle, mut busy) = (server.connect()?, server.connect()?);
    idle.write_all(format!("GET / HTTP/1.1\r\n{END}").as_bytes())?;
    ensure!(Answer::read(&mut idle)?.status == 200);
    busy.write_all(format!("GET /big HTTP/1.1\r\n{END}").as_bytes())?;
    let head = Answer::read_head(&mut busy)?;
    let address = server.address;
    let ended = thread::spawn(move || server.end());
    ensure!(is_closed(&mut idle), "an idle connection is kept");
    let mut body = vec![0; BIG];
    busy.read_exact(&mut body)?;
    ensure!(head.status == 200 && body == big(), "the answer is another");
    ensure!(is_closed(&mut busy), "the connection goes on");
    ended.join().expect("waiting does not panic")?;
    ensure!(TcpStream::connect(address).is_err(), "it still listens");
    Ok(())
}

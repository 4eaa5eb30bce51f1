//! A thread that serves: its poller, its connections, and what becomes of each.
//!
//! 1. *A thread never waits for one client*: sockets do not block, and what a client makes it do in
//!    one turn is bounded, by [`TURN`] steps of at most [`CHUNK`] bytes.
//! 2. *No client holds a connection without progress*: a request's head must be there in the idle
//!    time from its first byte on, and an answer must move on in each.
//! 3. *A connection is not lost with an answer on its way*: after the last answer the writing side
//!    is closed, and what the client still sends is read and dropped, for else the kernel would
//!    reset the connection. RFC 9112, 9.6.
//! 4. *The thread ends when it is told to*: answers that have begun are finished, within [`GRACE`].

use core::fmt;
use core::mem::MaybeUninit;
use core::time::Duration;

use rt0::Errno;
use rt0::mapping::Mapping;
use rt0::time::Instant;
use rustix::event::{Timespec, epoll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno as Theirs;
use rustix::net::{self, SendFlags, Shutdown, SocketFlags, sockopt};

use crate::Server;
use crate::answer::{self, Answer, HEAD};
use crate::request::{self, Bad};

/// So many connections a thread has at most.
pub const MOST_CONNECTIONS: usize = 256;

/// A request's head must fit.
const BUFFER: usize = 8 << 10;

/// What a connection has in the mapping: requests come in, and an answer's head goes out.
const SLOT: usize = BUFFER + HEAD;

/// Steps and bytes in one turn of a connection.
const TURN: usize = 32;
const CHUNK: u64 = 256 << 10;

/// How long answers may take when the server ends.
const GRACE: Duration = Duration::from_secs(10);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);

// What the poller says: a connection's place, or one of these.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// A connection.
struct Connection {
    socket: OwnedFd,
    /// Bytes of requests in the buffer.
    filled: usize,
    /// The part of the answer's head that is to be sent.
    head: (usize, usize),
    /// What is to be sent of a file: from where, and how much.
    body: Option<(OwnedFd, u64, u64)>,
    answering: bool,
    /// Whether it ends after this answer.
    last: bool,
    /// Whether all is sent, and what comes is dropped.
    draining: bool,
    deadline: Instant,
}

/// What becomes of a connection after its turn.
#[derive(PartialEq, Eq)]
enum Next {
    /// It waits for the client.
    Wait,
    /// It has more to do.
    Again,
    Close,
}

/// A thread's state.
pub struct Worker<'a> {
    server: &'a Server,
    poller: OwnedFd,
    connections: [Option<Connection>; MOST_CONNECTIONS],
    count: usize,
    listening: bool,
    /// Since when it is to end, at the latest.
    ends: Option<Instant>,
}

type Refused = (&'static str, Errno);

fn refused(what: &'static str) -> impl FnOnce(Theirs) -> Refused {
    move |errno| (what, u16::try_from(errno.raw_os_error()).ok().and_then(Errno::from_raw).unwrap_or(Errno::EIO))
}

impl Worker<'_> {
    /// Serves until the server stops. An error means that this thread cannot serve.
    pub fn run(server: &Server) -> Result<(), Refused> {
        let memory = Mapping::new(MOST_CONNECTIONS * SLOT).map_err(|errno| ("memory for buffers", errno))?;
        // SAFETY: readable and writable zeros, which nothing else uses, as long as `memory` lives.
        let slots = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), MOST_CONNECTIONS * SLOT) };
        let (slots, _) = slots.as_chunks_mut::<SLOT>();
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(refused("a poller"))?;
        // SAFETY: open, and the server outlives this thread.
        let stop = unsafe { BorrowedFd::borrow_raw(server.stop.as_fd().as_raw_fd()) };
        epoll::add(&poller, stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)
            .map_err(refused("a poller"))?;
        let connections = [const { None }; MOST_CONNECTIONS];
        let mut worker = Worker { server, poller, connections, count: 0, listening: false, ends: None };
        worker.listen()?;
        worker.serve(slots)
    }

    fn serve(&mut self, slots: &mut [[u8; SLOT]]) -> Result<(), Refused> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 64];
        let mut tick = Instant::now() + TICK;
        let every_tick = Timespec { tv_sec: TICK.as_secs() as i64, tv_nsec: 0 };
        loop {
            let happened = match epoll::wait(&self.poller, &mut events, Some(&every_tick)) {
                Ok((happened, _)) => happened,
                Err(Theirs::INTR) => continue,
                Err(errno) => return Err(refused("polling")(errno)),
            };
            for event in happened.iter() {
                match event.data.u64() {
                    LISTENER => self.accept(slots),
                    STOP => self.stop(),
                    place => self.turn(place as usize, slots),
                }
            }
            let now = Instant::now();
            if now >= tick {
                tick = now + TICK;
                for place in 0..MOST_CONNECTIONS {
                    if self.connections[place].as_ref().is_some_and(|connection| connection.deadline <= now) {
                        self.close(place);
                    }
                }
                self.listen()?;
            }
            if self.ends.is_some_and(|ends| self.count == 0 || ends <= now) {
                return Ok(());
            }
        }
    }

    /// Has the poller tell of new connections, if there is room for them.
    fn listen(&mut self) -> Result<(), Refused> {
        if !self.listening && self.ends.is_none() && self.count < self.server.connections {
            // Each wakes one thread.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            epoll::add(&self.poller, &self.server.listener, epoll::EventData::new_u64(LISTENER), flags)
                .map_err(refused("polling for connections"))?;
            self.listening = true;
        }
        Ok(())
    }

    fn pause_listening(&mut self) {
        if core::mem::take(&mut self.listening) {
            // It is there, so it cannot fail.
            let _ = epoll::delete(&self.poller, &self.server.listener);
        }
    }

    fn accept(&mut self, slots: &mut [[u8; SLOT]]) {
        while self.listening {
            let socket = match net::accept_with(&self.server.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Theirs::AGAIN) => return, // Another thread may have been faster.
                Err(Theirs::MFILE | Theirs::NFILE | Theirs::NOBUFS | Theirs::NOMEM) => {
                    return self.pause_listening(); // Until the next tick.
                }
                Err(_) => continue, // Of that connection alone: accept(2).
            };
            let _ = sockopt::set_tcp_nodelay(&socket, true); // A matter of speed.
            let Some(place) = self.connections.iter().position(Option::is_none) else { return self.pause_listening() };
            let flags =
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            if epoll::add(&self.poller, &socket, epoll::EventData::new_u64(place as u64), flags).is_err() {
                return self.pause_listening(); // ENOMEM, ENOSPC: the connection is closed.
            }
            self.connections[place] = Some(Connection {
                socket,
                filled: 0,
                head: (0, 0),
                body: None,
                answering: false,
                last: false,
                draining: false,
                deadline: Instant::now() + self.server.idle,
            });
            self.count += 1;
            if self.count == self.server.connections {
                self.pause_listening();
            }
            self.turn(place, slots);
        }
    }

    /// From now on: no new connection, and no second request on one.
    fn stop(&mut self) {
        if self.ends.is_some() {
            return;
        }
        self.ends = Some(Instant::now() + GRACE);
        self.pause_listening();
        // It stays readable: another look is of no use.
        // SAFETY: open, and the server outlives this thread.
        let stop = unsafe { BorrowedFd::borrow_raw(self.server.stop.as_fd().as_raw_fd()) };
        let _ = epoll::delete(&self.poller, stop);
        for place in 0..MOST_CONNECTIONS {
            let waits = |connection: &Connection| connection.filled == 0 && !connection.answering;
            if self.connections[place].as_ref().is_some_and(waits) {
                self.close(place);
            }
        }
    }

    fn close(&mut self, place: usize) {
        if self.connections[place].take().is_some() {
            self.count -= 1;
        }
    }

    fn turn(&mut self, place: usize, slots: &mut [[u8; SLOT]]) {
        let stopping = self.ends.is_some();
        let (Some(Some(connection)), Some(slot)) = (self.connections.get_mut(place), slots.get_mut(place)) else {
            return;
        };
        let (buffer, head) = slot.split_at_mut(BUFFER);
        let mut next = Next::Again;
        for _ in 0..TURN {
            next = connection.step(self.server, stopping, buffer, head);
            if next != Next::Again {
                break;
            }
        }
        if next == Next::Again {
            // Tells again of what is there.
            let flags =
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(place as u64);
            if epoll::modify(&self.poller, &connection.socket, data, flags).is_err() {
                next = Next::Close;
            }
        }
        if next == Next::Close {
            self.close(place);
            // An error is met again at the next tick.
            let _ = self.listen();
        }
    }
}

impl Connection {
    /// One system call, or one request.
    fn step(&mut self, server: &Server, stopping: bool, buffer: &mut [u8], head: &mut [u8]) -> Next {
        let (sent, len) = self.head;
        if sent < len {
            let more = if self.body.is_some() { SendFlags::MORE } else { SendFlags::empty() };
            return match net::send(&self.socket, &head[sent..len], SendFlags::NOSIGNAL | more) {
                Ok(count) => {
                    self.head = (sent + count, len);
                    self.deadline = Instant::now() + server.idle;
                    Next::Again
                }
                Err(errno) => after(errno),
            };
        }
        if let Some((file, from, left)) = &mut self.body {
            if *left == 0 {
                self.body = None;
                return Next::Again;
            }
            return match fs::sendfile(&self.socket, file, Some(from), (*left).min(CHUNK) as usize) {
                Ok(0) => Next::Close, // The file has become shorter, and its length has been sent.
                Ok(count) => {
                    *left -= count as u64;
                    self.deadline = Instant::now() + server.idle;
                    Next::Again
                }
                Err(errno) => after(errno),
            };
        }
        if self.answering {
            self.answering = false;
            self.deadline = Instant::now() + server.idle;
            if self.last || stopping {
                self.draining = true;
                if net::shutdown(&self.socket, Shutdown::Write).is_err() {
                    return Next::Close;
                }
            }
        }
        if self.draining {
            self.filled = 0;
        } else if buffer[..self.filled].starts_with(b"\r\n") {
            self.drop_front(buffer, 2); // Some clients end a request with one line more.
            return Next::Again;
        } else if let Some(len) = request::head_len(&buffer[..self.filled]) {
            self.answer(server, stopping, &buffer[..len], head);
            self.drop_front(buffer, len);
            return Next::Again;
        } else if self.filled == buffer.len() {
            self.refuse("431 Request Header Fields Too Large", format_args!(""), head);
            return Next::Again;
        }
        match rustix::io::read(&self.socket, &mut buffer[self.filled..]) {
            Ok(0) => Next::Close,
            Ok(count) => {
                if self.filled == 0 && !self.draining {
                    self.deadline = Instant::now() + server.idle;
                }
                self.filled += count;
                Next::Again
            }
            Err(errno) => after(errno),
        }
    }

    fn drop_front(&mut self, buffer: &mut [u8], len: usize) {
        buffer.copy_within(len..self.filled, 0);
        self.filled -= len;
    }

    /// Makes the answer to the request that begins with this head.
    fn answer(&mut self, server: &Server, stopping: bool, request: &[u8], head: &mut [u8]) {
        let request = match request::parse(request) {
            Ok(request) => request,
            Err(Bad::Request) => return self.refuse("400 Bad Request", format_args!(""), head),
            Err(Bad::Method) => {
                return self.refuse("405 Method Not Allowed", format_args!("Allow: GET, HEAD\r\n"), head);
            }
            Err(Bad::Content) => return self.refuse("413 Content Too Large", format_args!(""), head),
            Err(Bad::Version) => return self.refuse("505 HTTP Version Not Supported", format_args!(""), head),
        };
        self.last = !request.keep_alive || stopping;
        let mut path = [0; 240];
        let Some(path) = path_of(request.target, &mut path) else {
            return self.reply("404 Not Found", 0, "text/plain", format_args!(""), head);
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = fs::openat2(&server.folder, path, flags, Mode::empty(), inside)
            .and_then(|file| fs::fstat(&file).map(|stat| (file, stat)));
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(errno) => {
                let status = match errno {
                    Theirs::ACCESS | Theirs::PERM => "403 Forbidden",
                    Theirs::MFILE | Theirs::NFILE | Theirs::NOMEM => "503 Service Unavailable",
                    _ => "404 Not Found", // XDEV and LOOP too: it would lead out of the folder.
                };
                return self.reply(status, 0, "text/plain", format_args!(""), head);
            }
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            // Two slashes in front would be another host's name.
            FileType::Directory if !request.target.starts_with(b"//") => {
                let target = core::str::from_utf8(request.target).unwrap_or("/");
                let there = format_args!("Location: {target}/\r\n");
                return self.reply("301 Moved Permanently", 0, "text/plain", there, head);
            }
            _ => return self.reply("403 Forbidden", 0, "text/plain", format_args!(""), head),
        }
        let (kind, all) = (answer::kind(path), stat.st_size as u64);
        let (from, count) = match request.range.map(|range| answer::part(range, all)) {
            None => {
                self.reply("200 OK", all, kind, format_args!("Accept-Ranges: bytes\r\n"), head);
                (0, all)
            }
            Some(Some((from, count))) => {
                let last = from + count - 1;
                let field = format_args!("Content-Range: bytes {from}-{last}/{all}\r\n");
                self.reply("206 Partial Content", count, kind, field, head);
                (from, count)
            }
            Some(None) => {
                let field = format_args!("Content-Range: bytes */{all}\r\n");
                return self.reply("416 Range Not Satisfiable", 0, "text/plain", field, head);
            }
        };
        if !request.head_only && self.head.1 != 0 && count != 0 {
            self.body = Some((file, from, count));
        }
    }

    /// An answer after which the connection is closed.
    fn refuse(&mut self, status: &'static str, field: fmt::Arguments, head: &mut [u8]) {
        self.last = true;
        self.reply(status, 0, "text/plain", field, head);
    }

    fn reply(&mut self, status: &'static str, len: u64, kind: &'static str, field: fmt::Arguments, head: &mut [u8]) {
        let written = Answer { status, len, kind, field, keep_alive: !self.last }.write(head);
        self.last |= written == 0; // No room for a long Location.
        self.head = (0, written);
        self.answering = true;
    }
}

/// What a failed call means for its connection.
fn after(errno: Theirs) -> Next {
    match errno {
        Theirs::AGAIN => Next::Wait,
        Theirs::INTR => Next::Again,
        _ => Next::Close,
    }
}

/// The path of the file that a target names, relative to the folder.
fn path_of<'a>(target: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    const INDEX: &[u8] = b"index.html";
    let len = request::decode(target, buffer)?.len();
    if len > 0 && buffer[len - 1] != b'/' {
        return Some(&buffer[..len]);
    }
    buffer.get_mut(len..len + INDEX.len())?.copy_from_slice(INDEX);
    Some(&buffer[..len + INDEX.len()])
}

//! The protocol of `all_threads` and the thread list, in every order that its steps can be taken
//! in.
//!
//! A step is what a thread does at once as far as others can tell: enter the gate, link a block,
//! clone, close the gate, signal, answer. Two threads make a call on all, one spawns, one ends, and
//! the child ends too. One more signal 33 is sent from outside. In every order each thread comes to
//! an end, each thread that runs the program makes each call once, and no handler runs where none
//! may. In addition one thread may be killed alone before any of its steps; then the others still
//! come to an end. At last one rule at a time is broken, and the model has to find a fault, which
//! shows that it can.

use std::collections::HashSet;
use std::vec::Vec;

/// What the protocol demands, each of which can be left out.
#[derive(Clone, Copy)]
struct Rules {
    /// Property 4: a thread that waits at the gate does not block signal 33.
    unblocked_while_waiting: bool,
    /// Property 3: a thread leaves the list inside the gate.
    ends_inside: bool,
    /// Property 1: a thread is linked and cloned in one stay inside the gate.
    spawns_inside: bool,
    /// Property 1: a thread that closes the gate waits for those inside.
    waits_for_those_inside: bool,
    /// Property 2: a child starts with everything blocked.
    child_starts_blocked: bool,
    /// Property 1: a thread answers once, however many signals come.
    answers_once: bool,
    /// The gate's property 5: a thread that waits releases what an ended one holds.
    releases_for_the_ended: bool,
    /// Property 8: a caller takes back what an earlier one has asked for that was killed.
    takes_back: bool,
    /// Property 7: a caller does not wait for a thread that was killed.
    answers_for_the_killed: bool,
    /// The list's property 3: a thread that was never cloned is removed with the ended ones.
    removes_the_uncloned: bool,
}

const KEPT: Rules = Rules {
    unblocked_while_waiting: true,
    ends_inside: true,
    spawns_inside: true,
    waits_for_those_inside: true,
    child_starts_blocked: true,
    answers_once: true,
    releases_for_the_ended: true,
    takes_back: true,
    answers_for_the_killed: true,
    removes_the_uncloned: true,
};

const THREADS: usize = 5;
const CALLS: usize = 2;
/// The child of `Spawner`.
const CHILD: usize = 4;

/// What a thread runs; the first two make a call each.
const PROGRAMS: [Program; THREADS] = [Program::Call(0), Program::Call(1), Program::Spawn, Program::End, Program::End];

#[derive(Clone, Copy)]
enum Program {
    Call(usize),
    Spawn,
    End,
}

/// Where a thread is in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Not cloned yet.
    Nowhere,
    /// Cloned, and without its signal stack.
    Starting,
    Running,
    /// Everything is blocked, and the gate is tried.
    Trying,
    /// It waits until the gate is not closed by another thread.
    Waiting,
    /// It is inside after it waited, and blocks everything again.
    GotIn,
    /// It has closed the gate, and waits for those inside.
    Closing,
    /// It is inside, or has the gate for itself. The number is how far its work has come.
    Holding(u8),
    /// It has left the gate.
    Released,
    Done,
    Gone,
    /// It was killed alone. What it held is as it was.
    Killed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Thread {
    at: At,
    /// Signal 33 is let through.
    listens: bool,
    pending: bool,
    asked: bool,
    listed: bool,
    /// How often it, or the thread that it descends from, made each call.
    made: [u8; CALLS],
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    threads: [Thread; THREADS],
    /// The thread that has closed the gate.
    closed: Option<usize>,
    inside: [bool; THREADS],
    request: usize,
    remaining: u8,
    /// The signal that means nothing was not sent yet.
    stray_signal: bool,
    /// No thread has been killed.
    may_kill: bool,
}

impl State {
    fn start(may_kill: bool) -> State {
        let thread =
            |at, listed| Thread { at, listens: listed, pending: false, asked: false, listed, made: [0; CALLS] };
        let mut threads = [thread(At::Running, true); THREADS];
        threads[CHILD] = thread(At::Nowhere, false);
        State {
            threads,
            closed: None,
            inside: [false; THREADS],
            request: 0,
            remaining: 0,
            stray_signal: true,
            may_kill,
        }
    }

    /// Every state that one step leads to; an error if a step must not be.
    fn next(&self, rules: &Rules) -> Result<Vec<State>, &'static str> {
        let mut states = Vec::new();
        for who in 0..THREADS {
            let mut handled = self.clone();
            if handled.handler(who, rules)? {
                states.push(handled);
            }
            let mut stepped = self.clone();
            if stepped.step(who, rules)? {
                states.push(stepped);
            }
            let is_there = !matches!(self.threads[who].at, At::Nowhere | At::Gone | At::Killed);
            if self.may_kill && is_there && self.threads[who].at != At::Done {
                let mut killed = self.clone();
                killed.threads[who].at = At::Killed;
                killed.may_kill = false;
                states.push(killed);
            }
            let holds = self.inside[who] || self.closed == Some(who);
            if rules.releases_for_the_ended && holds && self.threads[who].at == At::Killed {
                let mut given_back = self.clone();
                given_back.inside[who] = false;
                given_back.closed = self.closed.filter(|closer| *closer != who);
                states.push(given_back);
            }
            if self.stray_signal && is_there {
                let mut signalled = self.clone();
                signalled.threads[who].pending = true;
                signalled.stray_signal = false;
                states.push(signalled);
            }
        }
        Ok(states)
    }

    /// The handler of signal 33 on a thread, if it can run there now.
    fn handler(&mut self, who: usize, rules: &Rules) -> Result<bool, &'static str> {
        let thread = &mut self.threads[who];
        if !(thread.pending && thread.listens) {
            return Ok(false);
        }
        match thread.at {
            At::Starting => return Err("a handler on half a thread"),
            At::Killed => return Ok(false),
            At::Gone | At::Nowhere => return Err("a handler on no thread"),
            _ => {}
        }
        thread.pending = false;
        if thread.asked {
            thread.asked = !rules.answers_once;
            thread.made[self.request] += 1;
            self.remaining = self.remaining.checked_sub(1).ok_or("an answer to no question")?;
            if thread.made[self.request] > 1 {
                return Err("a call made twice");
            }
        }
        Ok(true)
    }

    /// A thread's next step, if it can take it now.
    fn step(&mut self, who: usize, rules: &Rules) -> Result<bool, &'static str> {
        let at = self.threads[who].at;
        let goes_inside = match PROGRAMS[who] {
            Program::Call(_) => false,
            Program::Spawn => rules.spawns_inside,
            Program::End => rules.ends_inside,
        };
        let next = match (at, PROGRAMS[who]) {
            (At::Nowhere | At::Done | At::Gone | At::Killed, _) => return Ok(false),
            (At::Starting, _) => {
                self.threads[who].listens = true;
                At::Running
            }
            // A caller blocks the program's signals only; the others everything, first of all.
            (At::Running, Program::Call(_)) => {
                self.threads[who].listens = rules.unblocked_while_waiting;
                At::Waiting
            }
            (At::Running, _) => {
                self.threads[who].listens = false;
                if goes_inside { At::Trying } else { At::Holding(0) }
            }
            (At::Trying, _) if self.enter(who) => At::Holding(0),
            (At::Trying, _) => {
                self.threads[who].listens = rules.unblocked_while_waiting;
                At::Waiting
            }
            (At::Waiting, Program::Call(_)) if self.closed.is_none() => {
                self.closed = Some(who);
                At::Closing
            }
            (At::Waiting, Program::Call(_)) => return Ok(false),
            (At::Closing, _) if rules.waits_for_those_inside && self.inside.contains(&true) => return Ok(false),
            (At::Closing, _) => {
                self.threads[who].listens = true;
                At::Holding(0)
            }
            (At::Waiting, _) if !self.enter(who) => return Ok(false),
            (At::Waiting, _) => At::GotIn,
            (At::GotIn, _) => {
                self.threads[who].listens = false;
                At::Holding(0)
            }
            (At::Holding(done), Program::Call(call)) => match self.call(who, call, done, rules)? {
                Some(at) => at,
                None => return Ok(false),
            },
            (At::Holding(0), Program::Spawn) => {
                self.threads[CHILD].listed = rules.spawns_inside;
                At::Holding(1)
            }
            (At::Holding(1), Program::Spawn) => {
                let made = self.threads[who].made;
                let child = &mut self.threads[CHILD];
                *child = Thread { at: At::Starting, listens: !rules.child_starts_blocked, made, ..*child };
                At::Holding(2)
            }
            (At::Holding(_), Program::Spawn) => {
                if !rules.spawns_inside {
                    self.threads[CHILD].listed = true;
                }
                self.release(who)
            }
            (At::Holding(_), Program::End) => {
                self.threads[who].listed = false;
                self.release(who)
            }
            (At::Released, Program::End) => At::Gone,
            (At::Released, _) => {
                self.threads[who].listens = true;
                At::Done
            }
        };
        self.threads[who].at = next;
        Ok(true)
    }

    /// The steps of a call on all threads: one's own, a signal to each other thread, the wait, the
    /// end.
    fn call(&mut self, who: usize, call: usize, done: u8, rules: &Rules) -> Result<Option<At>, &'static str> {
        const FIRST: u8 = 1;
        const LAST: u8 = FIRST + THREADS as u8;
        Ok(Some(match done {
            0 => {
                // It has waited until none is inside, so a thread that is not cloned never will be.
                for thread in &mut self.threads {
                    if thread.at == At::Killed || thread.at == At::Nowhere && rules.removes_the_uncloned {
                        thread.listed = false;
                    }
                    thread.asked &= !rules.takes_back;
                }
                self.threads[who].made[call] += 1;
                self.request = call;
                self.remaining = self.others(who).count() as u8;
                At::Holding(FIRST)
            }
            FIRST..LAST => {
                let other = usize::from(done - FIRST);
                if self.others(who).any(|listed| listed == other) {
                    let thread = &mut self.threads[other];
                    if matches!(thread.at, At::Nowhere | At::Gone) {
                        return Err("a signal to no thread");
                    }
                    (thread.asked, thread.pending) = (true, thread.at != At::Killed);
                }
                At::Holding(done + 1)
            }
            _ if self.remaining > 0 => {
                let lost = |thread: &Thread| thread.at == At::Killed && thread.asked && rules.answers_for_the_killed;
                let Some(lost) = self.threads.iter_mut().find(|thread| lost(thread)) else { return Ok(None) };
                lost.asked = false;
                self.remaining -= 1;
                At::Holding(done)
            }
            _ => {
                let runs = |thread: &&Thread| {
                    !matches!(thread.at, At::Nowhere | At::Released | At::Gone | At::Killed) && thread.listed
                };
                let starting = |thread: &&Thread| thread.at == At::Starting || thread.at == At::Running;
                if self.threads.iter().filter(|t| runs(t) || starting(t)).any(|thread| thread.made[call] != 1) {
                    return Err("a thread without the call");
                }
                self.release(who)
            }
        }))
    }

    fn others(&self, who: usize) -> impl Iterator<Item = usize> + '_ {
        (0..THREADS).filter(move |&other| other != who && self.threads[other].listed)
    }

    fn enter(&mut self, who: usize) -> bool {
        self.inside[who] = self.closed.is_none();
        self.inside[who]
    }

    fn release(&mut self, who: usize) -> At {
        self.inside[who] = false;
        self.closed.take_if(|closer| *closer == who);
        At::Released
    }

    /// Nothing is left to do. The child of a spawner that was killed before clone(2) is nowhere for
    /// good.
    fn is_end(&self) -> bool {
        let is_never_cloned = self.threads[2].at == At::Killed && self.threads[CHILD].at == At::Nowhere;
        self.threads.iter().all(|thread| match thread.at {
            At::Done | At::Gone => !(thread.pending && thread.listens),
            At::Killed => true,
            At::Nowhere => is_never_cloned,
            _ => false,
        })
    }
}

/// Goes through every state; how many there are, or what is wrong in one.
fn explore(rules: Rules) -> Result<usize, &'static str> {
    explore_from(State::start(false), rules)
}

/// The same, where a thread may be killed.
fn explore_with_a_death(rules: Rules) -> Result<usize, &'static str> {
    // The stray signal would make it ten times as many states.
    explore_from(State { stray_signal: false, ..State::start(true) }, rules)
}

fn explore_from(start: State, rules: Rules) -> Result<usize, &'static str> {
    let mut seen = HashSet::from([start]);
    let mut open: Vec<State> = seen.iter().cloned().collect();
    while let Some(state) = open.pop() {
        let next = state.next(&rules)?;
        if next.is_empty() && !state.is_end() {
            return Err("a deadlock");
        }
        if state.is_end() {
            let mut alive = state.threads.iter().filter(|thread| thread.at == At::Done);
            // What a caller asked for that was killed, some threads did and others did not.
            let must = |call: usize| u8::from(state.threads[call].at != At::Killed);
            if alive.any(|thread| (0..CALLS).any(|call| !(must(call)..=1).contains(&thread.made[call]))) {
                return Err("a thread without the call");
            }
        }
        open.extend(next.into_iter().filter(|state| seen.insert(state.clone())));
    }
    Ok(seen.len())
}

#[test]
fn with_its_rules_the_protocol_holds_in_every_order() {
    let states = explore(KEPT).unwrap();
    assert!(states > 10_000, "{states} states are too few to be all");
}

#[test]
fn without_listening_while_waiting_there_is_a_deadlock() {
    assert_eq!(explore(Rules { unblocked_while_waiting: false, ..KEPT }), Err("a deadlock"));
}

#[test]
fn unless_a_thread_ends_inside_one_is_signalled_that_is_gone() {
    assert!(explore(Rules { ends_inside: false, ..KEPT }).is_err());
}

#[test]
fn unless_a_thread_is_cloned_inside_it_is_missed() {
    assert!(explore(Rules { spawns_inside: false, ..KEPT }).is_err());
}

#[test]
fn without_waiting_for_those_inside_a_thread_is_missed_or_signalled_that_is_not_there() {
    assert!(explore(Rules { waits_for_those_inside: false, ..KEPT }).is_err());
}

#[test]
fn a_child_that_listens_from_the_start_has_a_handler_on_half_a_thread() {
    assert_eq!(explore(Rules { child_starts_blocked: false, ..KEPT }), Err("a handler on half a thread"));
}

#[test]
fn without_taking_the_request_back_a_stray_signal_makes_the_call_again() {
    let wrong = explore(Rules { answers_once: false, ..KEPT });
    assert!(wrong == Err("an answer to no question") || wrong == Err("a call made twice"), "{wrong:?}");
}

#[test]
fn with_its_rules_the_protocol_holds_also_when_a_thread_is_killed_before_any_step() {
    let states = explore_with_a_death(KEPT).unwrap();
    assert!(states > 10_000, "{states} states are too few to be all");
}

#[test]
fn unless_a_waiter_gives_back_what_a_killed_thread_held_there_is_a_deadlock() {
    assert_eq!(explore_with_a_death(Rules { releases_for_the_ended: false, ..KEPT }), Err("a deadlock"));
}

#[test]
fn unless_a_caller_takes_back_what_a_killed_one_asked_a_call_is_made_twice_or_never() {
    assert!(explore_with_a_death(Rules { takes_back: false, ..KEPT }).is_err());
}

#[test]
fn a_caller_that_waits_for_a_killed_thread_waits_for_ever() {
    assert_eq!(explore_with_a_death(Rules { answers_for_the_killed: false, ..KEPT }), Err("a deadlock"));
}

#[test]
fn unless_a_thread_that_was_never_cloned_is_buried_it_is_signalled() {
    assert_eq!(explore_with_a_death(Rules { removes_the_uncloned: false, ..KEPT }), Err("a signal to no thread"));
}

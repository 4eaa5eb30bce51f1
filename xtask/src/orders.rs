//! An additional check of the locks: the machine code of their fast paths orders memory as the
//! source says.
//!
//! An emulator on a processor with a strong memory order cannot show a missing barrier, so the
//! machine code itself is checked. `tests/src/suite/sync/ordered.rs` has one function per fast
//! path, whose name says what it must do: `acquires_…` returns only after it acquired, `releases_…`
//! only after it released.
//!
//! The rules, for each of these functions:
//!
//! 1. Each path from its entry to a return must contain the order: an access that orders by itself
//!    (`ldar`, `lr.aq`), or a barrier at the right place. To acquire, the barrier follows an
//!    access; to release, it precedes one. In a function with exclusive accesses (`ldrex`, `lwarx`)
//!    only these accesses count.
//! 2. A call of a function for which the same holds counts as the order. A path with any other call
//!    is left out: there a lock waits, and its loom model covers the waiting.
//! 3. The compiler's helpers for atomic accesses may return without an access, when a comparison
//!    failed. In a helper each access must have the order, and there must be at least one access.
//! 4. The compiler may keep in a condition bit whether an exchange was made. A path remembers what
//!    it last learned about that bit, and takes no branch that contradicts it.
//! 5. A function in which no path counts has no fast path: that is reported too.
//! 6. A function with an unknown instruction that may be an atomic access does not have the order:
//!    otherwise a plain access might count in its place.

use std::collections::{BTreeMap, BTreeSet};

use cargo_rt0::targets::Elf;

use crate::calls::decode::Target;
use crate::calls::{Function, Functions, functions};

mod access;
#[cfg(test)]
mod tests;

use access::{Access, Condition, Kind, Machine};

/// What a function must do before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Later accesses are not made before this one.
    Acquire,
    /// Earlier accesses are made before this one.
    Release,
}

impl Order {
    /// The order that the function's name asks for.
    fn of(name: &str) -> Option<Order> {
        match name.split_once('_')? {
            ("acquires", _) => Some(Order::Acquire),
            ("releases", _) => Some(Order::Release),
            _ => None,
        }
    }
}

/// Whether this machine's instructions are known here.
pub fn knows(elf: &Elf) -> bool {
    access::machine(elf).is_some()
}

/// The functions of this ELF file that lack the order that their name asks for, and the number of
/// functions with such a name. `Err`: the file cannot be read, or the machine's instructions are
/// not known.
pub fn violations(data: &[u8], elf: &Elf) -> Result<(Vec<String>, usize), String> {
    let machine = access::machine(elf).ok_or_else(|| format!("no accesses of machine {} are known", elf.machine))?;
    let (mut found, mut count) = (Vec::new(), 0);
    for functions in functions(data, elf)? {
        let code = Code { functions: &functions, machine };
        for (&start, function) in &functions {
            let Some(order) = Order::of(function.name) else { continue };
            count += 1;
            if let Err(why) = code.check(start, order, &mut BTreeMap::new()) {
                found.push(format!("{}: {why}", function.name));
            }
        }
    }
    Ok((found, count))
}

/// The code of one section.
struct Code<'a> {
    functions: &'a Functions<'a>,
    machine: Machine,
}

/// The called functions, and whether they have the order. While a function is being checked that is
/// `false`, for it may call itself.
type Known = BTreeMap<(u64, Order), bool>;

impl Code<'_> {
    /// The function that contains this address, and its start. (A call may skip a function's first
    /// instructions.)
    fn function(&self, address: u64) -> Option<(u64, &Function<'_>)> {
        let (&start, function) = self.functions.range(..=address).next_back()?;
        function.code.contains_key(&address).then_some((start, function))
    }

    /// Whether the function that is entered at `entry` has the order on each path that counts; the
    /// error says where it does not.
    fn check(&self, entry: u64, order: Order, known: &mut Known) -> Result<(), String> {
        let (start, function) = self.function(entry).ok_or("there is no function")?;
        let bytes = |at: u64| {
            let from = (at - start) as usize;
            let length = function.code.get(&at).map_or(0, |instruction| instruction.length);
            function.bytes.get(from..from + length).unwrap_or_default()
        };
        let access = |at: u64| (self.machine.access)(bytes(at));
        if let Some(at) = function.code.keys().find(|&&at| access(at).kind == Kind::Unknown) {
            return Err(format!("the instruction at {at:#x} may make an atomic access, and it is not known"));
        }
        if function.name.contains("__aarch64_") {
            return helper(function.code.keys().map(|&at| (at, access(at))), order);
        }
        // `__sync_val_compare_and_swap_4` and its kin, on processors without exclusive accesses:
        // these are full barriers by their definition.
        if function.name.contains("__sync_") {
            return Ok(());
        }
        let exclusive = function.code.keys().any(|&at| matches!(access(at).kind, Kind::Exclusive { .. }));
        let (mut seen, mut counted) = (BTreeSet::new(), false);
        let mut work = vec![(entry, State::Nothing, Fact::None)];
        while let Some((at, state, fact)) = work.pop() {
            let Some(instruction) = function.code.get(&at) else {
                // The jump leaves the function: a call that does not return here.
                counted |= self.called(at, state, order, known) == Some(State::Ordered);
                continue;
            };
            if !seen.insert((at, state, fact)) {
                continue;
            }
            let condition = (self.machine.condition)(bytes(at));
            let next = at + instruction.length as u64;
            for (runs, fact) in fact.ways(condition) {
                if !runs {
                    work.push((next, state, fact));
                    continue;
                }
                let state = state.after(access(at), order, exclusive);
                if instruction.returns {
                    if state != State::Ordered {
                        return Err(format!("it may return at {at:#x} without the order {order:?}"));
                    }
                    counted = true;
                }
                match instruction.target {
                    Target::Address(to) => work.push((to, state, fact)),
                    Target::Unknown if state != State::Ordered => {
                        return Err(format!("where the jump at {at:#x} leads is not known"));
                    }
                    _ => {}
                }
                let leaves = instruction.returns || instruction.target != Target::None;
                if !instruction.falls_through || (leaves && condition.asks()) {
                    continue;
                }
                match instruction.calls {
                    None => work.push((next, state, fact)),
                    Some(to) => {
                        let state = self.called(to, state, order, known);
                        work.extend(state.map(|state| (next, state, Fact::None)));
                    }
                }
            }
        }
        if counted { Ok(()) } else { Err("it has no fast path".to_string()) }
    }

    /// The state after a call; `None` if the path is left out.
    fn called(&self, to: u64, state: State, order: Order, known: &mut Known) -> Option<State> {
        if state == State::Ordered {
            return Some(state);
        }
        let ordered = match known.get(&(to, order)) {
            Some(&ordered) => ordered,
            None => {
                known.insert((to, order), false);
                let ordered = self.check(to, order, known).is_ok();
                known.insert((to, order), ordered);
                ordered
            }
        };
        ordered.then_some(State::Ordered)
    }
}

/// A function of the compiler's that makes one atomic access: see 3.
fn helper(accesses: impl Iterator<Item = (u64, Access)>, order: Order) -> Result<(), String> {
    let mut any = false;
    for (at, access) in accesses {
        let matters = match (access.kind, order) {
            (Kind::Exclusive { loads, .. }, Order::Acquire) => loads,
            (Kind::Exclusive { stores, .. }, Order::Release) => stores,
            _ => false,
        };
        if matters && !access.has(order) {
            return Err(format!("the access at {at:#x} has not the order {order:?}"));
        }
        any |= matters;
    }
    if any { Ok(()) } else { Err("it has no access".to_string()) }
}

/// What a path knows about one condition bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    /// Nothing.
    None,
    /// The bit with this number has this value.
    Bit(u32, bool),
}

impl Fact {
    /// Whether an instruction runs, and what is known then. There are two results if it may run or
    /// not.
    fn ways(self, condition: Condition) -> Vec<(bool, Fact)> {
        let asks = |bit, wanted, then: Fact, other: Fact| match self {
            Fact::Bit(known, is) if known == bit => vec![if is == wanted { (true, then) } else { (false, self) }],
            _ => vec![(true, then), (false, other)],
        };
        match condition {
            Condition::None => vec![(true, self)],
            Condition::Sets(bit, value) => vec![(true, Fact::Bit(bit, value))],
            Condition::Changes(first, count) => match self {
                Fact::Bit(bit, _) if (first..first + count).contains(&bit) => vec![(true, Fact::None)],
                _ => vec![(true, self)],
            },
            Condition::Asks { bit, wanted, learns: true } => {
                asks(bit, wanted, Fact::Bit(bit, wanted), Fact::Bit(bit, !wanted))
            }
            Condition::Asks { bit, wanted, learns: false } => asks(bit, wanted, self, self),
            Condition::AsksAndChanges { bit, wanted } => asks(bit, wanted, Fact::None, Fact::Bit(bit, !wanted)),
        }
    }
}

/// How much of the order a path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// No part of it.
    Nothing,
    /// The first half: to acquire, the access; to release, the barrier.
    Half,
    /// All.
    Ordered,
}

impl State {
    /// The state after this instruction. `exclusive`: the function has exclusive accesses.
    fn after(self, access: Access, order: Order, exclusive: bool) -> State {
        if self == State::Ordered {
            return self;
        }
        let (loads, stores) = match access.kind {
            Kind::Exclusive { loads, stores } => (loads, stores),
            Kind::Plain { loads, stores } => (loads && !exclusive, stores && !exclusive),
            Kind::Barrier => {
                return match (order, self, access.has(order)) {
                    (Order::Acquire, State::Half, true) => State::Ordered,
                    (Order::Release, _, true) => State::Half,
                    _ => self,
                };
            }
            Kind::None | Kind::Unknown => return self,
        };
        match order {
            Order::Acquire if loads && access.acquires => State::Ordered,
            Order::Acquire if loads => State::Half,
            Order::Release if stores && (access.releases || self == State::Half) => State::Ordered,
            _ => self,
        }
    }
}

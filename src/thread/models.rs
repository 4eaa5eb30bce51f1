//! Models of a thread's life, of the cache of stacks, of the list's gate and of scopes: each runs
//! in every way in which its threads can follow each other, with at most so many preemptions in
//! each as the first argument of [`model`] says.
//!
//! A thread of the model is a thread of rt0's from its closure's return on; at its end the model's
//! kernel clears the tid word and wakes. The stack and the result are values whose accesses loom
//! watches: one that nothing orders is reported, as is a thread that waits for ever. (`park` and
//! `unpark` are the `Parker`'s, which has its models.) The cache has two slots.

use core::ptr::NonNull;
use std::sync::Arc;

use loom::thread;

use super::cache::{Cache, Keep};
use super::gate::{Gate, Held, Latch};
use super::life::Life;
use super::scope::{CountedBy, Running};
use crate::futex::fake_kernel::{Watched, interrupt, model};

/// A thread's mapping.
struct Memory {
    life: Life,
    units: u32,
    stack: Watched,
    result: Watched,
    /// How often the result was dropped or taken, and the mapping seen to.
    dropped: Watched,
    freed: Watched,
}

impl Keep for Memory {
    fn units(&self) -> u32 {
        self.units
    }

    fn is_idle(&self) -> bool {
        self.life.tid() == 0
    }
}

impl Memory {
    fn new(units: u32) -> Arc<Memory> {
        let [stack, result, dropped, freed] = Default::default();
        Arc::new(Memory { life: Life::new(), units, stack, result, dropped, freed })
    }

    /// Of a thread that has ended and has no owner left.
    fn idle(units: u32) -> Arc<Memory> {
        let memory = Memory::new(units);
        assert!(!memory.life.release() && memory.life.release());
        memory
    }

    /// Starts its thread, which ends as `rust_thread` does; `keep` is for the last reference if
    /// that is the thread's own.
    fn start(self: &Arc<Memory>, keep: impl FnOnce(&Arc<Memory>) + 'static) -> thread::JoinHandle<()> {
        self.life.kernel_starts(7);
        let this = self.clone();
        thread::spawn(move || {
            this.stack.add(1);
            this.result.add(5);
            if !this.life.finish() {
                this.dropped.add(1);
            }
            this.stack.add(1);
            if this.life.release() {
                keep(&this);
            }
            this.stack.add(1); // It runs on to its exit(2).
            this.life.kernel_clears();
        })
    }

    /// What the owner of the last reference does, if it is not the thread.
    fn free(&self) {
        self.life.wait_for_end(|| false);
        self.stack.add(10);
        self.unmap();
    }

    /// Touches all that others did.
    fn unmap(&self) {
        for value in [&self.stack, &self.result, &self.dropped] {
            value.add(0);
        }
        self.freed.add(1);
    }
}

fn pointer(memory: &Arc<Memory>) -> NonNull<Memory> {
    NonNull::from_ref(&**memory)
}

#[test]
fn loom_a_join_sees_the_result_and_has_the_stack() {
    model(10, || {
        let memory = Memory::new(1);
        let thread = memory.start(|memory| memory.unmap());
        interrupt();
        memory.life.wait_for_end(|| false);
        assert!(memory.life.is_finished());
        assert_eq!(memory.result.add(1), 6);
        memory.dropped.add(1);
        assert!(memory.life.release(), "a thread that has ended has given up its reference");
        memory.free();
        thread.join().unwrap();
        assert_eq!((memory.stack.add(0), memory.freed.add(0)), (13, 1));
    });
}

#[test]
fn loom_a_thread_that_is_finished_has_left_its_result() {
    model(12, || {
        let memory = Memory::new(1);
        let thread = memory.start(|memory| memory.unmap());
        if memory.life.is_finished() {
            assert_eq!(memory.result.add(0), 5);
        }
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_result_is_dropped_once_and_the_mapping_freed_once_when_a_handle_goes() {
    model(12, || {
        let memory = Memory::new(1);
        let thread = memory.start(|memory| memory.unmap());
        if memory.life.detach() {
            assert_eq!(memory.result.add(1), 6);
            memory.dropped.add(1);
        }
        if memory.life.release() {
            memory.free();
        }
        thread.join().unwrap();
        assert_eq!((memory.dropped.add(0), memory.freed.add(0)), (1, 1));
    });
}

#[test]
fn loom_the_last_of_three_who_have_a_thread_frees_it() {
    model(5, || {
        let memory = Memory::new(1);
        memory.life.retain();
        let thread = memory.start(|memory| memory.unmap());
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                if memory.life.release() {
                    memory.free();
                }
            })
        };
        interrupt();
        memory.life.wait_for_end(|| false);
        memory.dropped.add(1);
        if memory.life.release() {
            memory.free();
        }
        other.join().unwrap();
        thread.join().unwrap();
        assert_eq!((memory.dropped.add(0), memory.freed.add(0)), (1, 1));
    });
}

#[test]
fn loom_a_stack_that_its_thread_put_away_is_taken_when_the_thread_is_off_it() {
    model(8, || {
        let cache = Arc::new(Cache::new());
        let memory = Memory::new(1);
        let thread = {
            let cache = cache.clone();
            memory.start(move |memory| assert!(cache.put(pointer(memory))))
        };
        if memory.life.detach() {
            memory.result.add(1);
        }
        if memory.life.release() {
            assert!(cache.put(pointer(&memory)));
        }
        let mut taken = cache.take(1, |_| unreachable!("there is room"));
        if taken.is_none() {
            thread.join().unwrap();
            taken = cache.take(1, |_| unreachable!("there is room"));
        }
        assert_eq!(taken, Some(pointer(&memory)));
        assert_eq!(memory.stack.add(10), 13);
        memory.result.add(10);
    });
}

#[test]
fn loom_what_two_take_is_not_the_same_and_nothing_is_lost() {
    model(4, || {
        let cache = Arc::new(Cache::new());
        let both = [Memory::idle(1), Memory::idle(1)];
        let putter = {
            let (cache, memory) = (cache.clone(), both[0].clone());
            thread::spawn(move || {
                memory.stack.add(1);
                assert!(cache.put(pointer(&memory)));
            })
        };
        both[1].stack.add(1);
        assert!(cache.put(pointer(&both[1])));
        let take = |cache: &Cache<Memory>| {
            let taken = cache.take(1, |_| unreachable!("there is room"));
            // SAFETY: `both` keeps it.
            taken.map_or(0, |memory| unsafe { memory.as_ref() }.stack.add(10) / 10)
        };
        let taker = {
            let cache = cache.clone();
            thread::spawn(move || take(&cache))
        };
        let mine = take(&cache);
        let taken = mine + taker.join().unwrap();
        putter.join().unwrap();
        let left = take(&cache) + take(&cache);
        assert_eq!(taken + left, 2);
        assert_eq!(take(&cache), 0);
        assert_eq!(both.map(|memory| memory.stack.add(0)), [11, 11]);
    });
}

#[test]
fn loom_the_bounds_hold_when_two_put_away_at_once() {
    model(8, || {
        let cache = Arc::new(Cache::new());
        cache.limit(2, 3);
        let both = [Memory::idle(2), Memory::idle(2)];
        let other = {
            let (cache, memory) = (cache.clone(), both[0].clone());
            thread::spawn(move || cache.put(pointer(&memory)))
        };
        let mine = cache.put(pointer(&both[1]));
        let kept = u32::from(mine) + u32::from(other.join().unwrap());
        assert_eq!(kept, 1, "one fits, and one of two is not turned away for the other that was");
        assert!(cache.take_any(|_| unreachable!("there is room")).is_some());
        assert!(cache.put(pointer(&both[0])), "what was taken is no longer counted");
    });
}

#[test]
fn loom_what_finds_no_slot_is_not_counted() {
    model(8, || {
        let cache = Arc::new(Cache::new());
        cache.limit(1, 4);
        let both = [Memory::idle(2), Memory::idle(2)];
        let other = {
            let (cache, memory) = (cache.clone(), both[0].clone());
            thread::spawn(move || cache.put(pointer(&memory)))
        };
        let mine = cache.put(pointer(&both[1]));
        assert!(mine != other.join().unwrap(), "there is one slot");
        assert!(cache.take_any(|_| unreachable!("there is room")).is_some());
        cache.limit(1, 2);
        assert!(cache.put(pointer(&both[0])));
    });
}

#[test]
fn loom_a_look_at_what_does_not_fit_loses_nothing() {
    model(6, || {
        let cache = Arc::new(Cache::new());
        let (busy, small, late) = (Memory::idle(2), Memory::idle(1), Memory::idle(2));
        busy.life.kernel_starts(7);
        assert!(cache.put(pointer(&busy)) && cache.put(pointer(&small)));
        let freed = Arc::new(Watched::default());
        let taker = {
            let (cache, freed) = (cache.clone(), freed.clone());
            thread::spawn(move || {
                let taken = cache.take(2, |memory| {
                    // SAFETY: it was put there by the thread that runs the model, and lives as
                    // long.
                    unsafe { memory.as_ref() }.free();
                    freed.add(1);
                });
                u32::from(taken.is_some())
            })
        };
        let put = u32::from(cache.put(pointer(&late)));
        busy.life.kernel_clears();
        let mut out = taker.join().unwrap() + freed.add(0);
        while cache.take_any(|_| unreachable!("there is room")).is_some() {
            out += 1;
        }
        assert_eq!(out, 2 + put);
    });
}

type Guarded = (Gate, Latch, Watched, Watched);

/// The latch, for a thread that does not end in it.
fn with_latch<T>(latch: &Latch, f: impl FnOnce() -> T) -> T {
    let mut word = 1;
    latch.lock(&raw mut word, |_| false);
    let done = f();
    latch.wake(latch.unlock());
    done
}

/// Starts a thread, or ends.
fn pass((gate, latch, links, _): &Guarded) {
    let held = Held::new();
    if !gate.try_enter(&held) {
        gate.draw(&held);
        gate.wait_for_turn(&held, || ());
        gate.enter_in_turn(&held);
    }
    with_latch(latch, || links.add(1));
    gate.woken(gate.leave(&held));
}

/// Makes a call on all threads.
fn close((gate, _, links, request): &Guarded) {
    let held = Held::new();
    gate.draw(&held);
    gate.wait_for_turn(&held, || ());
    gate.close(|| ());
    links.add(1);
    request.add(1);
    gate.open(&held);
}

/// Makes a dump: closes the gate if no other thread closes it, and gives up at the first wait.
fn try_close((gate, _, links, request): &Guarded) {
    let held = Held::new();
    if gate.try_draw(&held) {
        if gate.close_while(|| false) {
            links.add(1);
            request.add(1);
        }
        gate.open(&held);
    }
}

/// Two others do this and that while the model's own thread does the third.
fn at_the_gate(first: fn(&Guarded), second: fn(&Guarded), third: fn(&Guarded)) -> (u32, u32) {
    let guarded = Arc::new((Gate::new(), Latch::new(), Watched::default(), Watched::default()));
    let others = [first, second].map(|act| {
        let guarded = guarded.clone();
        thread::spawn(move || act(&guarded))
    });
    interrupt();
    third(&guarded);
    for other in others {
        other.join().unwrap();
    }
    (guarded.2.get(), guarded.3.get())
}

#[test]
fn loom_nobody_is_inside_a_closed_gate_and_all_come_through() {
    model(3, || assert_eq!(at_the_gate(pass, pass, close), (3, 1)));
}

#[test]
fn loom_a_dump_closes_the_gate_alone_or_not_at_all() {
    model(3, || {
        let (links, requests) = at_the_gate(pass, try_close, close);
        assert!(links == 1 + requests && (1..=2).contains(&requests));
    });
}

#[test]
fn loom_two_who_close_the_gate_do_so_one_after_the_other() {
    model(3, || assert_eq!(at_the_gate(close, pass, close), (3, 2)));
}

#[test]
fn loom_who_finds_the_gate_closed_waits_for_nobody_else() {
    model(8, || {
        let shared = Arc::new((Gate::new(), Watched::default()));
        let held = Held::new();
        shared.0.draw(&held);
        shared.0.close(|| ());
        let late = {
            let shared = shared.clone();
            thread::spawn(move || {
                let held = Held::new();
                let at_once = shared.0.try_enter(&held);
                if !at_once {
                    shared.0.draw(&held);
                    shared.0.wait_for_turn(&held, || ());
                    shared.0.enter_in_turn(&held);
                }
                assert_eq!(shared.1.get(), 1);
                shared.0.woken(shared.0.leave(&held));
            })
        };
        shared.1.add(1);
        shared.0.open(&held);
        assert!(shared.0.try_enter(&held), "no thread has closed it");
        shared.0.woken(shared.0.leave(&held));
        late.join().unwrap();
    });
}

#[test]
fn loom_the_latch_is_one_threads_at_a_time() {
    model(3, || {
        let shared = Arc::new((Latch::new(), Watched::default()));
        let others: [_; 2] = core::array::from_fn(|_| {
            let shared = shared.clone();
            thread::spawn(move || with_latch(&shared.0, || shared.1.add(1)))
        });
        with_latch(&shared.0, || shared.1.add(1));
        interrupt();
        for thread in others {
            thread.join().unwrap();
        }
        assert_eq!(with_latch(&shared.0, || shared.1.get()), 3);
    });
}

/// One thread does `last` and is killed; two others close the gate and pass it. A fourth that
/// waits, here the model's own, gives back what the killed one held, each thing once.
fn killed_after(last: fn(&Gate, &Held)) {
    model(3, move || {
        let guarded = Arc::new((Gate::new(), Latch::new(), Watched::default(), Watched::default()));
        let held = Held::new();
        last(&guarded.0, &held);
        let others = [close, pass].map(|act| {
            let guarded = guarded.clone();
            thread::spawn(move || act(&guarded))
        });
        while guarded.0.is_awaited(&held) {
            if !guarded.0.give_back(&held) {
                thread::yield_now(); // Its turn is yet to come.
            }
        }
        assert!(!guarded.0.give_back(&held), "given back once");
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!((guarded.2.get(), guarded.3.get()), (2, 1));
        close(&guarded);
    });
}

#[test]
fn loom_a_thread_killed_inside_the_gate_keeps_no_other_out() {
    killed_after(|gate, held| assert!(gate.try_enter(held)));
}

#[test]
fn loom_a_thread_killed_with_a_ticket_keeps_no_other_out() {
    killed_after(Gate::draw);
}

#[test]
fn loom_a_thread_killed_with_the_gate_closed_keeps_no_other_out() {
    killed_after(|gate, held| {
        gate.draw(held);
        gate.wait_for_turn(held, || ());
        gate.close(|| ());
    });
}

/// # Safety
///
/// 1. As for [`Running::leave`].
unsafe fn leave(running: &Running) {
    // SAFETY: the caller guarantees 1.
    if unsafe { Running::leave(running) } {
        crate::futex::base::wake((&raw const *running).cast(), 1, crate::futex::base::ANY);
    }
}

#[test]
fn loom_a_scope_ends_after_its_last_thread_also_if_threads_start_threads() {
    model(6, || {
        let shared = Arc::new((Running::new(), Watched::default(), Watched::default()));
        shared.0.enter();
        let first = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.0.enter();
                let second = {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        shared.1.add(1);
                        // SAFETY: 1. The thread that started it has counted it.
                        unsafe { leave(&shared.0) };
                    })
                };
                shared.2.add(1);
                // SAFETY: 1. Counted below.
                unsafe { leave(&shared.0) };
                second
            })
        };
        interrupt();
        assert!(shared.0.wait_for_all());
        assert_eq!((shared.1.add(1), shared.2.add(1)), (2, 2));
        first.join().unwrap().join().unwrap();
    });
}

#[test]
fn loom_a_thread_that_was_lost_is_not_waited_for_and_is_not_forgotten() {
    model(8, || {
        let shared = Arc::new((Running::new(), Watched::default()));
        shared.0.enter();
        shared.0.enter();
        let leaves = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.add(1);
                // SAFETY: 1. Counted above.
                unsafe { leave(&shared.0) };
            })
        };
        let buries = {
            let shared = shared.clone();
            // SAFETY: 1. Counted above; it is the lost one's count.
            thread::spawn(move || unsafe { Running::lose(&shared.0) })
        };
        interrupt();
        assert!(!shared.0.wait_for_all());
        assert_eq!(shared.1.add(1), 2);
        leaves.join().unwrap();
        buries.join().unwrap();
    });
}

#[test]
fn loom_a_thread_that_leaves_its_scope_is_not_taken_for_lost() {
    model(8, || {
        let shared = Arc::new((Running::new(), CountedBy::new()));
        shared.1.set(&shared.0);
        shared.0.enter();
        let leaves = {
            let shared = shared.clone();
            thread::spawn(move || {
                // SAFETY: 1. Counted above.
                if unsafe { shared.1.leave(&shared.0) } {
                    crate::futex::base::wake((&raw const shared.0).cast(), 1, crate::futex::base::ANY);
                }
            })
        };
        let listed = usize::from(shared.1.is(&shared.0));
        shared.0.lose_all_but(listed);
        assert!(shared.0.wait_for_all());
        leaves.join().unwrap();
    });
}

//! A thread's lifecycle, its answer about its processors, and the cache of stacks. The cache has
//! two slots.

use core::ptr::NonNull;
use std::sync::Arc;

use loom::thread;

use crate::errno::Errno;
use crate::futex::fake_kernel::{Watched, interrupt, model};
use crate::thread::affinity::Answer;
use crate::thread::cache::{Cache, Keep};
use crate::thread::lifecycle::Lifecycle;

/// A thread's mapping.
struct Memory {
    lifecycle: Lifecycle,
    units: u32,
    stack: Watched,
    result: Watched,
    /// How often the result was dropped or taken, and the mapping freed.
    dropped: Watched,
    freed: Watched,
}

impl Keep for Memory {
    fn units(&self) -> u32 {
        self.units
    }

    fn is_idle(&self) -> bool {
        self.lifecycle.tid() == 0
    }
}

impl Memory {
    fn new(units: u32) -> Arc<Memory> {
        let [stack, result, dropped, freed] = Default::default();
        Arc::new(Memory { lifecycle: Lifecycle::new(), units, stack, result, dropped, freed })
    }

    /// The memory of a thread that has ended, without an owner.
    fn idle(units: u32) -> Arc<Memory> {
        let memory = Memory::new(units);
        assert!(!memory.lifecycle.release() && memory.lifecycle.release());
        memory
    }

    /// Starts its thread, which ends as `rust_thread` does. The thread calls `keep` if its own
    /// reference was the last one.
    fn start(self: &Arc<Memory>, keep: impl FnOnce(&Arc<Memory>) + 'static) -> thread::JoinHandle<()> {
        self.lifecycle.kernel_starts(7);
        let this = self.clone();
        thread::spawn(move || {
            this.stack.add(1);
            this.result.add(5);
            if !this.lifecycle.finish() {
                this.dropped.add(1);
            }
            this.stack.add(1);
            if this.lifecycle.release() {
                keep(&this);
            }
            this.stack.add(1); // It runs on to its exit(2).
            this.lifecycle.kernel_clears();
        })
    }

    /// What the owner of the last reference does, if it is not the thread.
    fn free(&self) {
        self.lifecycle.wait_for_end(|| false);
        self.stack.add(10);
        self.unmap();
    }

    /// Accesses everything that other threads accessed.
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
        memory.lifecycle.wait_for_end(|| false);
        assert!(memory.lifecycle.is_finished());
        assert_eq!(memory.result.add(1), 6);
        memory.dropped.add(1);
        assert!(memory.lifecycle.release(), "a thread that has ended has given up its reference");
        memory.free();
        thread.join().unwrap();
        assert_eq!((memory.stack.add(0), memory.freed.add(0)), (13, 1));
    });
}

#[test]
fn loom_a_refused_thread_leaves_its_closure_and_then_its_stack() {
    model(10, || {
        let memory = Memory::new(1);
        memory.lifecycle.kernel_starts(7);
        let answer = Arc::new(Answer::new());
        let thread = thread::spawn({
            let (memory, answer) = (memory.clone(), answer.clone());
            move || {
                memory.stack.add(1);
                memory.result.add(1); // The closure, which it leaves.
                // SAFETY: 1. It is there, and is given here only.
                unsafe { Answer::give(&raw const *answer, Err(Errno::EPERM)) };
                memory.stack.add(1); // It runs on to its exit(2).
                memory.lifecycle.kernel_clears();
            }
        });
        interrupt();
        assert_eq!(answer.wait(|| memory.lifecycle.tid() == 0), Err(Errno::EPERM));
        assert_eq!(memory.result.add(1), 2);
        memory.lifecycle.wait_for_end(|| false);
        assert_eq!(memory.stack.add(1), 3);
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_thread_that_is_finished_has_left_its_result() {
    model(12, || {
        let memory = Memory::new(1);
        let thread = memory.start(|memory| memory.unmap());
        if memory.lifecycle.is_finished() {
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
        if memory.lifecycle.detach() {
            assert_eq!(memory.result.add(1), 6);
            memory.dropped.add(1);
        }
        if memory.lifecycle.release() {
            memory.free();
        }
        thread.join().unwrap();
        assert_eq!((memory.dropped.add(0), memory.freed.add(0)), (1, 1));
    });
}

#[test]
fn loom_the_last_of_three_owners_of_a_thread_frees_it() {
    model(5, || {
        let memory = Memory::new(1);
        memory.lifecycle.retain();
        let thread = memory.start(|memory| memory.unmap());
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                if memory.lifecycle.release() {
                    memory.free();
                }
            })
        };
        interrupt();
        memory.lifecycle.wait_for_end(|| false);
        memory.dropped.add(1);
        if memory.lifecycle.release() {
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
        if memory.lifecycle.detach() {
            memory.result.add(1);
        }
        if memory.lifecycle.release() {
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
        busy.lifecycle.kernel_starts(7);
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
        busy.lifecycle.kernel_clears();
        let mut out = taker.join().unwrap() + freed.add(0);
        while cache.take_any(|_| unreachable!("there is room")).is_some() {
            out += 1;
        }
        assert_eq!(out, 2 + put);
    });
}

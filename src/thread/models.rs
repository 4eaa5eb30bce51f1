//! Models of a thread's lifecycle, of its answer about its processors, of the cache of stacks, of
//! the list's gate and of scopes. Each runs in every interleaving of its threads. The first
//! argument of `model` limits the preemptions of one run.
//!
//! A model's thread does what a thread of rt0 does after its closure returned; at its end the
//! model's kernel clears the tid word and wakes. The stack and the result are values whose accesses
//! loom checks: it reports two accesses that nothing orders, and a thread that waits for ever.
//! (`park` and `unpark` are tested by the models of `Parker`.)

mod gate;
mod memory;
mod scope;

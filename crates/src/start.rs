//! What is done or collected before main.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

static STARTED: AtomicU32 = AtomicU32::new(0);

#[ctor::ctor(unsafe)]
fn start() {
    STARTED.fetch_add(1, Relaxed);
}

/// A constructor has run, once.
pub fn constructor() -> bool {
    STARTED.load(Relaxed) == 1
}

struct Collected(u32);

inventory::collect!(Collected);
inventory::submit!(Collected(40));
inventory::submit!(Collected(2));

/// Constructors have run before main.
pub fn collected_by_constructors() -> bool {
    inventory::iter::<Collected>.into_iter().map(|item| item.0).sum::<u32>() == 42
}

#[linkme::distributed_slice]
static SLICE: [u32];
#[linkme::distributed_slice(SLICE)]
static FORTY: u32 = 40;
#[linkme::distributed_slice(SLICE)]
static TWO: u32 = 2;

/// The linker script has a place for the slice, and its ends.
pub fn collected_by_the_linker() -> bool {
    SLICE.iter().sum::<u32>() == 42
}

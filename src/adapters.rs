//! Implementations of other crates' system interfaces: one optional feature of the crate `rt0` for
//! each.
//!
//! | feature | crate | what it gets |
//! |---|---|---|
//! | `allocator` | [talc] 4 | a `#[global_allocator]` for threads, over pages of the kernel |
//! | `allocator-api2` | [allocator-api2] 0.2 | `Allocator` for [`Pages`](crate::mapping::Pages) |
//! | `critical-section` | [critical-section] 1 | its implementation, also for signal handlers |
//! | `embedded-io` | [embedded-io] 0.7 | `Read` and `Write` for the standard descriptors |
//! | `lock_api` | [lock_api] 0.4 | raw locks, and `Mutex`, `RwLock`, `ReentrantMutex` |
//! | `lock_api_05` | [lock_api 0.5] | the same, and `Condvar` |
//! | `log` | [log] 0.4 | a logger to standard error, with the level from `RT0_LOG` |
//! | `rustix` | [rustix] 1 | conversions of descriptors and error numbers |
//!
//! No feature is on by default, and a program that uses none has none of these crates. The backend
//! of [getrandom] needs no feature: see [`getrandom_backend!`](crate::getrandom_backend!), and for
//! version 0.2 [`getrandom_02_backend!`](crate::getrandom_02_backend!).
//!
//! They are features of this crate, not a crate of their own, because the raw locks are private to
//! it, and because Rust's orphan rule requires the trait or the type to be the crate's own.
//!
//! [allocator-api2]: https://docs.rs/allocator-api2/0.2
//! [critical-section]: https://docs.rs/critical-section/1
//! [embedded-io]: https://docs.rs/embedded-io/0.7
//! [getrandom]: https://docs.rs/getrandom/0.4
//! [lock_api]: https://docs.rs/lock_api/0.4
//! [lock_api 0.5]: https://docs.rs/lock_api/0.5
//! [log]: https://docs.rs/log/0.4
//! [rustix]: https://docs.rs/rustix/1
//! [talc]: https://docs.rs/talc/4

#[cfg(feature = "allocator")]
pub mod allocator;
#[cfg(feature = "allocator-api2")]
mod allocator_api2;
#[cfg(feature = "critical-section")]
mod critical_section;
#[cfg(feature = "embedded-io")]
mod embedded_io;
#[cfg(feature = "lock_api")]
pub mod lock_api;
#[cfg(feature = "lock_api_05")]
pub mod lock_api_05;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "rustix")]
mod rustix;

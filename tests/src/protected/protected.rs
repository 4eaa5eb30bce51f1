//! Functions that the compiler protects against writes beyond an array on their stack. build.rs
//! compiles this file alone for each machine, with `-Zstack-protector=all`: there is no `core`
//! compiled in this way, so the file defines the few lang items that it needs.
#![feature(no_core, lang_items, intrinsics)]
#![allow(internal_features)]
#![no_core]

#[lang = "pointee_sized"]
trait PointeeSized {}
#[lang = "meta_sized"]
trait MetaSized: PointeeSized {}
#[lang = "sized"]
trait Sized: MetaSized {}
#[lang = "copy"]
trait Copy {}
impl Copy for u8 {}

/// Calls `f` with the addresses of 64 bytes of its own stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rt0_test_protected_by_rustc(f: extern "C" fn(*mut u8)) {
    let mut bytes = [0u8; 64];
    f(&raw mut bytes as *mut u8);
}

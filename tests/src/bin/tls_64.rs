//! PT_TLS with an alignment of 64; see `rt0_tests::tls_tests`. A program has one alignment.
#![feature(thread_local)]
#![no_std]
#![no_main]

rt0_tests::tls_tests!(64);

//! A stream in pieces of any order: what waits is what came, what is told is what waits, and all of it comes out once.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/tcp/tests/support/bare.rs"]
mod support;

fuzz_target!(|pieces: Vec<(u16, u16)>| {
    if let Err(fault) = support::pieces::take_in(&pieces) {
        panic!("{fault}");
    }
});

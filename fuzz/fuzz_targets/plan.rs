//! A plan's TOML form, prefix lists and ports: any text is a value or an error.
#![no_main]

use irl_targets::{Plan, PortSet, PrefixSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(plan) = Plan::from_toml(text) {
        assert_eq!(Plan::from_toml(&plan.to_toml()).ok(), Some(plan));
    }
    let _ = PrefixSet::parse_items(text.lines());
    let _ = text.parse::<PortSet>();
});

//! What both orders claim: to be a bijection that seeks both ways, as their written specifications say.

#![allow(dead_code, unreachable_pub)]

use irl_targets::{Permutation, Spread};
use proptest::prelude::*;

/// An order of targets by position.
pub trait Order {
    fn index(&self, position: u128) -> u128;
    fn position(&self, index: u128) -> u128;
}

impl Order for Permutation {
    fn index(&self, position: u128) -> u128 {
        Self::index(self, position)
    }

    fn position(&self, index: u128) -> u128 {
        Self::position(self, index)
    }
}

impl Order for Spread {
    fn index(&self, position: u128) -> u128 {
        Self::index(self, position.try_into().unwrap()).into()
    }

    fn position(&self, index: u128) -> u128 {
        Self::position(self, index.try_into().unwrap()).into()
    }
}

/// Every index has one position, which the index leads back to.
pub fn assert_bijection(size: u128, order: &impl Order) {
    let mut seen = vec![false; size as usize];
    for position in 0..size {
        let index = order.index(position);
        assert!(!std::mem::replace(&mut seen[index as usize], true), "size {size} visits {index} twice");
        assert_eq!(order.position(index), position, "size {size}");
    }
}

/// Checks the pairs of a specification of this version, and returns how many there were.
pub fn check_vectors<O: Order>(text: &str, version: u32, make: impl Fn(u128, u64) -> O) -> usize {
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(document["version"], version);
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<u128>().unwrap();
    let mut checked = 0;
    for vector in document["vectors"].as_array().unwrap() {
        let size = number(&vector["size"]);
        let order = make(size, number(&vector["seed"]) as u64);
        for pair in vector["position_index"].as_array().unwrap() {
            let (position, index) = (number(&pair[0]), number(&pair[1]));
            assert_eq!(order.index(position), index, "size {size} position {position}");
            assert_eq!(order.position(index), position, "size {size} index {index}");
            checked += 1;
        }
    }
    checked
}

/// Any position leads to an index below the size, and that leads back.
pub fn check_both_ways(size: u128, order: &impl Order, at: u128) -> Result<(), TestCaseError> {
    let at = at % size;
    let index = order.index(at);
    prop_assert!(index < size);
    prop_assert_eq!(order.position(index), at);
    prop_assert_eq!(order.index(order.position(at)), at);
    Ok(())
}

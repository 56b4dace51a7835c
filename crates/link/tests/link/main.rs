//! Stacks on a real link: a veth pair between two network namespaces of the test's own. Needs root.
#![cfg(target_os = "linux")]

mod engine;
mod live;
mod neighbours;
mod speed;
mod stack;
mod wire;

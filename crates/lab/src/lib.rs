//! The ground truth of a synthetic Internet, and the links and responders that act it out.
//!
//! A [`World`] says what every (address, port) is; [`Responder`] answers frames accordingly; [`sim`] is a network in
//! this process that leads to one, through links that lose, delay and repeat as they are told.
#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod baseline;
#[cfg(target_os = "linux")]
pub mod hosts;
pub mod impairment;
#[cfg(target_os = "linux")]
pub mod relay;
pub mod responder;
#[cfg(target_os = "linux")]
pub mod serve;
pub mod service;
pub mod sim;
#[cfg(target_os = "linux")]
pub mod sink;
pub mod world;
#[cfg(target_os = "linux")]
pub mod xdp;

pub use impairment::{Direction, Impairment};
pub use responder::Responder;
pub use service::Service;
pub use sim::{SimConfig, SimNetwork};
pub use world::{Class, Truth, World, WorldConfig};

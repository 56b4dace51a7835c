//! Lists of targets that are read while the run goes on.

mod batch;
mod entries;
mod index;
mod pending;
mod ports;

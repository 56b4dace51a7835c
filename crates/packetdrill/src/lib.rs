//! The client TCP as packetdrill wants to have it: socket calls, packets, and a clock, in a shared object.
//!
//! packetdrill runs scripts of system calls and packets against whatever it loads by `--so_filename`. Its time is ours:
//! it passes only while packetdrill asks for it, so that a script of minutes is over at once and every run is the same.
//! `interface` declares what the two agree on, `sockets` is the machine behind it.

mod interface;
mod sockets;

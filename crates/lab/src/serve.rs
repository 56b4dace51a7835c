//! A World's hosts at the end of a real link: a loop over a packet socket, for what the responder in the kernel can't do
//! or isn't there for. A few 100,000 frames a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use irl_link::LinkError;
use irl_link::packet::Tap;
use irl_targets::PrefixSet;
use irl_wire::packet::{Arp, Ethernet, Icmp, Packet, ethertype, protocol};

use crate::responder::Responder;

/// The longest wait before the stop flag is looked at.
const NAP: Duration = Duration::from_millis(20);
/// Frames handled between two kicks.
const BATCH: usize = 64;

/// What a responder at the end of a link did so far.
#[derive(Debug, Default)]
pub struct ServeCounters {
    /// Frames to its addresses.
    pub received: AtomicU64,
    /// Answers.
    pub answered: AtomicU64,
    /// Answers that found the device's queue full.
    pub dropped: AtomicU64,
}

/// Answers for the addresses in `ranges` on an interface of the calling thread's namespace, until told to stop. What is
/// not to them is the kernel's, untouched. `ready` is called when it listens.
///
/// # Errors
/// Those of [`Tap`].
pub fn serve(
    interface: &str,
    responder: &mut Responder,
    ranges: &[PrefixSet],
    stop: &AtomicBool,
    counters: &ServeCounters,
    ready: impl FnOnce(),
) -> Result<(), LinkError> {
    let mut tap = Tap::open(interface)?;
    ready();
    let mut answers: Vec<Vec<u8>> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let got = tap.receive(BATCH, &mut |frame| {
            if is_for(frame, ranges) {
                counters.received.fetch_add(1, Ordering::Relaxed);
                responder.respond(frame, &mut |answer| answers.push(answer.to_vec()));
            }
        })?;
        for answer in answers.drain(..) {
            let counter = if tap.send(&answer)? { &counters.answered } else { &counters.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        tap.flush()?;
        if got == 0 {
            tap.wait(NAP)?;
        }
    }
    Ok(())
}

/// Whether a frame is to, or asks for, an address in these ranges.
fn is_for(frame: &[u8], ranges: &[PrefixSet]) -> bool {
    let Some(ethernet) = Ethernet::parse(frame) else { return false };
    let (v6, address) = if ethernet.ethertype == ethertype::ARP {
        let Some(arp) = Arp::parse(ethernet.payload) else { return false };
        (false, u128::from(arp.target))
    } else {
        let Some(packet) = Packet::parse(&ethernet) else { return false };
        let asked = Icmp::parse(packet.payload)
            .filter(|icmp| packet.v6 && packet.protocol == protocol::ICMPV6 && icmp.kind == 135)
            .and_then(|icmp| icmp.payload.first_chunk::<16>().copied());
        (packet.v6, asked.map_or(packet.destination, u128::from_be_bytes))
    };
    ranges.iter().any(|range| (range.family() == irl_targets::Family::V6) == v6 && range.contains(address))
}

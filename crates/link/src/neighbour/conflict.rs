//! Duplicate-address detection for spare addresses, before anything is sent from them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::frames::{Heard, Us};
use crate::engine::Sender;
use crate::error::LinkError;
use crate::netdev::Interface;
use crate::packet::{PacketSender, Ring};

/// How carefully to look whether somebody already has our spare addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dad {
    /// Three probes, 100 ms apart: enough on a wired network.
    #[default]
    Fast,
    /// The times of RFC 5227: up to ten seconds.
    Rfc5227,
    /// Not at all.
    Off,
}

struct Times {
    between: Duration,
    after: Duration,
    announcements: u32,
}

const PROBES: u32 = 3;
/// Probes sent at once before listening: a burst that no switch minds.
const BURST: usize = 64;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

impl Dad {
    fn times(self) -> Option<Times> {
        match self {
            Self::Fast => {
                let pause = Duration::from_millis(100);
                Some(Times { between: pause, after: pause, announcements: 0 })
            }
            // PROBE_MIN..PROBE_MAX is 1 to 2 s, ANNOUNCE_WAIT 2 s, ANNOUNCE_NUM 2.
            Self::Rfc5227 => {
                Some(Times { between: Duration::from_millis(1500), after: Duration::from_secs(2), announcements: 2 })
            }
            Self::Off => None,
        }
    }
}

impl std::str::FromStr for Dad {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text {
            "fast" => Ok(Self::Fast),
            "rfc5227" => Ok(Self::Rfc5227),
            "off" => Ok(Self::Off),
            _ => {
                Err(LinkError::config(format!("{text:?} is no way of detecting duplicates: use fast, rfc5227 or off")))
            }
        }
    }
}

/// Looks whether somebody on the link has one of our spare addresses. Returns the number of frames it sent.
///
/// # Errors
/// [`LinkError::AddressConflict`] naming the address and who has it.
pub(crate) fn refuse_conflicts(
    interface: &Interface,
    vlan: Option<u16>,
    spare: &[IpAddr],
    dad: Dad,
) -> Result<u64, LinkError> {
    let Some(times) = dad.times().filter(|_| !spare.is_empty()) else { return Ok(0) };
    let us = Us { mac: interface.mac, vlan };
    let wanted: HashSet<IpAddr> = spare.iter().copied().collect();
    let mut ring = Ring::open(interface, LISTEN_BYTES)?;
    let mut sender = PacketSender::open(interface, 90)?;
    for probe in 1..=PROBES {
        for burst in spare.chunks(BURST) {
            send(&mut sender, burst.iter().map(|address| us.conflict_probe(*address)))?;
            listen(&mut ring, us, &wanted, Duration::from_millis(1))?;
        }
        listen(&mut ring, us, &wanted, if probe < PROBES { times.between } else { times.after })?;
    }
    for announcement in 0..times.announcements {
        if announcement > 0 {
            listen(&mut ring, us, &wanted, ANNOUNCE_INTERVAL)?;
        }
        for burst in spare.chunks(BURST) {
            send(&mut sender, burst.iter().map(|address| us.announcement(*address)))?;
        }
    }
    Ok(sender.completed())
}

const LISTEN_BYTES: usize = 2 << 20;
/// The part of a tag that names the VLAN.
const VLAN_ID: u16 = 0x0fff;

fn send(sender: &mut PacketSender, frames: impl Iterator<Item = Vec<u8>>) -> Result<(), LinkError> {
    for frame in frames {
        let mut batch = sender.reserve(1, frame.len())?;
        if let Some(slot) = batch.slot() {
            slot[..frame.len()].copy_from_slice(&frame);
            batch.push(frame.len());
            sender.commit(1);
        }
    }
    let patience = Instant::now() + Duration::from_secs(1);
    while sender.pending() > 0 && Instant::now() < patience {
        if sender.kick()?.refused > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn listen(ring: &mut Ring, us: Us, wanted: &HashSet<IpAddr>, time: Duration) -> Result<(), LinkError> {
    let end = Instant::now() + time;
    loop {
        while let Some(arrival) = ring.next() {
            // The same address in another VLAN is another network's. A tag of 0 is a priority alone.
            if arrival.vlan.map(|tci| tci & VLAN_ID).filter(|vlan| *vlan != 0) != us.vlan {
                continue;
            }
            let (address, mac) = match Heard::parse(arrival.bytes) {
                Some(Heard::Answer { address, mac }) => (address, mac),
                // Somebody who uses the address asks for another; or looks for conflicts at the same moment.
                Some(Heard::Question { asker: Some(asker), mac, .. }) => (asker, mac),
                Some(Heard::Question { target, asker: None, mac }) => (target, mac),
                None => continue,
            };
            if mac != us.mac && wanted.contains(&address) {
                return Err(LinkError::AddressConflict { address, mac });
            }
        }
        let now = Instant::now();
        if now >= end {
            return Ok(());
        }
        thread::sleep((end - now).min(Duration::from_millis(2)));
    }
}

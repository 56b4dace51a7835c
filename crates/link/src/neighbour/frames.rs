//! ARP (RFC 826, 5227) and neighbour discovery (RFC 4861) frames: the few that we send, and those that we understand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use irl_wire::{Mac, checksum};

const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ICMP_V6: u8 = 58;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
/// Advertisement flags: solicited, override.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Who we are on the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Us {
    pub(super) mac: Mac,
    pub(super) vlan: Option<u16>,
}

impl Us {
    /// Asks everybody for the MAC of `target`.
    pub(super) fn question(self, source: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                Some(self.arp(Mac::BROADCAST, ARP_REQUEST, source, Mac([0; 6]), target))
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let option = (SOURCE_LINK_ADDRESS, self.mac);
                Some(self.discovery(
                    solicited_mac(target),
                    source,
                    solicited(target),
                    SOLICITATION,
                    0,
                    target,
                    Some(option),
                ))
            }
            _ => None,
        }
    }

    /// Asks whether somebody has `address`, without saying that we are about to (RFC 5227, 2.1.1; RFC 4862, 5.4.2).
    pub(super) fn conflict_probe(self, address: IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(v4) => self.arp(Mac::BROADCAST, ARP_REQUEST, Ipv4Addr::UNSPECIFIED, Mac([0; 6]), v4),
            IpAddr::V6(v6) => {
                let nobody = Ipv6Addr::UNSPECIFIED;
                self.discovery(solicited_mac(v6), nobody, solicited(v6), SOLICITATION, 0, v6, None)
            }
        }
    }

    /// Says that we have `address` now (RFC 5227, 2.3; RFC 4861, 7.2.6).
    pub(super) fn announcement(self, address: IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(v4) => self.arp(Mac::BROADCAST, ARP_REQUEST, v4, Mac([0; 6]), v4),
            IpAddr::V6(v6) => self.advertisement(v6, None),
        }
    }

    /// Answers an ARP request for `ours`.
    pub(super) fn arp_answer(self, ours: Ipv4Addr, asker: Ipv4Addr, asker_mac: Mac) -> Vec<u8> {
        self.arp(asker_mac, ARP_REPLY, ours, asker_mac, asker)
    }

    /// Answers a solicitation for `ours`; `None` when the asker has no address yet, and everybody is told.
    pub(super) fn advertisement(self, ours: Ipv6Addr, asker: Option<(Ipv6Addr, Mac)>) -> Vec<u8> {
        let everybody = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Mac([0x33, 0x33, 0, 0, 0, 1]));
        let flags = if asker.is_some() { SOLICITED | OVERRIDE } else { OVERRIDE };
        let (to, mac) = asker.unwrap_or(everybody);
        self.discovery(mac, ours, to, ADVERTISEMENT, flags, ours, Some((TARGET_LINK_ADDRESS, self.mac)))
    }

    fn ethernet(self, to: Mac, ethertype: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(90);
        frame.extend(to.0);
        frame.extend(self.mac.0);
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame
    }

    fn arp(self, to: Mac, operation: u8, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = self.ethernet(to, 0x0806);
        frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(self.mac.0);
        frame.extend(sender.octets());
        frame.extend(target_mac.0);
        frame.extend(target.octets());
        frame
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message, each needed")]
    fn discovery(
        self,
        to_mac: Mac,
        source: Ipv6Addr,
        to: Ipv6Addr,
        kind: u8,
        flags: u8,
        target: Ipv6Addr,
        option: Option<(u8, Mac)>,
    ) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target.octets());
        if let Some((kind, mac)) = option {
            message.extend([kind, 1]);
            message.extend(mac.0);
        }
        let length = message.len() as u16;
        let pseudo = checksum::pseudo_v6(source.to_bits(), to.to_bits(), ICMP_V6, length.into());
        let sum = checksum::finish(checksum::add(pseudo, &message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());

        let mut frame = self.ethernet(to_mac, 0x86dd);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        // Hop limit 255 shows that no router has touched it.
        frame.extend([ICMP_V6, 255]);
        frame.extend(source.octets());
        frame.extend(to.octets());
        frame.extend(message);
        frame
    }
}

/// A neighbour frame that says something to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks where an address is.
    Question {
        /// The address asked for.
        target: IpAddr,
        /// The address of who asks; `None` from one who looks for conflicts.
        asker: Option<IpAddr>,
        /// Where the answer goes.
        mac: Mac,
    },
    /// Somebody says where an address is.
    Answer {
        /// The address.
        address: IpAddr,
        /// Where it is.
        mac: Mac,
    },
}

impl Heard {
    /// Reads a frame; `None` for one that is no neighbour frame, cut short or wrong. A group's MAC is never believed.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let at = if frame.get(12..14)? == [0x81, 0x00] { 16 } else { 12 };
        let body = frame.get(at + 2..)?;
        let link_source = Mac(frame.get(6..12)?.try_into().ok()?);
        if link_source.is_multicast() {
            return None;
        }
        match frame.get(at..at + 2)? {
            [0x08, 0x06] => Self::parse_arp(body),
            [0x86, 0xdd] => Self::parse_discovery(body, link_source),
            _ => None,
        }
    }

    fn parse_arp(arp: &[u8]) -> Option<Self> {
        let arp: &[u8; 28] = arp.first_chunk()?;
        if arp[..7] != [0, 1, 8, 0, 6, 4, 0] {
            return None;
        }
        let mac = Mac(arp[8..14].try_into().ok()?);
        let sender = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
        let target = IpAddr::V4(Ipv4Addr::new(arp[24], arp[25], arp[26], arp[27]));
        if mac.is_multicast() {
            return None;
        }
        match arp[7] {
            ARP_REQUEST if sender.is_unspecified() => Some(Self::Question { target, asker: None, mac }),
            // An announcement is a question for one's own address.
            ARP_REQUEST if target == IpAddr::V4(sender) => Some(Self::Answer { address: target, mac }),
            ARP_REQUEST => Some(Self::Question { target, asker: Some(IpAddr::V4(sender)), mac }),
            ARP_REPLY => Some(Self::Answer { address: IpAddr::V4(sender), mac }),
            _ => None,
        }
    }

    fn parse_discovery(packet: &[u8], link_source: Mac) -> Option<Self> {
        let header: &[u8; 40] = packet.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let message = packet.get(40..40 + length)?;
        if header[6] != ICMP_V6 || header[7] != 255 || message.len() < 24 || message[1] != 0 {
            return None;
        }
        let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from);
        let (source, destination) = (address(&header[8..24])?, address(&header[24..40])?);
        let pseudo = checksum::pseudo_v6(source.to_bits(), destination.to_bits(), ICMP_V6, length as u32);
        if !checksum::verifies(pseudo, message) {
            return None;
        }
        let target = address(&message[8..24])?;
        if target.is_multicast() {
            return None;
        }
        let option = |kind| link_option(&message[24..], kind);
        match message[0] {
            SOLICITATION if source.is_unspecified() => {
                Some(Self::Question { target: IpAddr::V6(target), asker: None, mac: link_source })
            }
            SOLICITATION => Some(Self::Question {
                target: IpAddr::V6(target),
                asker: Some(IpAddr::V6(source)),
                mac: option(SOURCE_LINK_ADDRESS).unwrap_or(link_source),
            }),
            ADVERTISEMENT => Some(Self::Answer {
                address: IpAddr::V6(target),
                mac: option(TARGET_LINK_ADDRESS).unwrap_or(link_source),
            }),
            _ => None,
        }
    }
}

/// The link address in an option of this kind. An option without length ends the search, as it would never end itself.
fn link_option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 {
            return None;
        }
        let option = options.get(..length)?;
        if kind == wanted && length == 8 {
            let mac = Mac(option[2..8].try_into().ok()?);
            return (!mac.is_multicast()).then_some(mac);
        }
        options = &options[length..];
    }
    None
}

/// ff02::1:ff and the address's last three bytes.
fn solicited(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | address.to_bits() & 0x00ff_ffff)
}

fn solicited_mac(address: Ipv6Addr) -> Mac {
    crate::packet::solicited_node_mac(&address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: Us = Us { mac: Mac([2, 0, 0, 0, 0, 1]), vlan: None };
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_we_send_is_understood_as_meant() {
        for vlan in [None, Some(7)] {
            let us = Us { vlan, ..US };
            for (ours, theirs) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
                let (ours, theirs) = (ip(ours), ip(theirs));
                let heard = Heard::parse(&us.question(ours, theirs).unwrap());
                assert_eq!(heard, Some(Heard::Question { target: theirs, asker: Some(ours), mac: us.mac }));
                let heard = Heard::parse(&us.conflict_probe(ours));
                assert_eq!(heard, Some(Heard::Question { target: ours, asker: None, mac: us.mac }));
                let heard = Heard::parse(&us.announcement(ours));
                assert_eq!(heard, Some(Heard::Answer { address: ours, mac: us.mac }));
            }
            let answer = us.arp_answer("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), PEER);
            assert_eq!(Heard::parse(&answer), Some(Heard::Answer { address: ip("10.0.0.1"), mac: us.mac }));
            assert_eq!(answer[..6], PEER.0, "an answer goes to the asker alone");
            let answer = us.advertisement("fd00::1".parse().unwrap(), Some(("fd00::2".parse().unwrap(), PEER)));
            assert_eq!(Heard::parse(&answer), Some(Heard::Answer { address: ip("fd00::1"), mac: us.mac }));
            assert_eq!(answer[..6], PEER.0);
        }
        assert_eq!(US.question(ip("10.0.0.1"), ip("fd00::1")), None);
    }

    #[test]
    fn frames_that_crossed_a_router_or_are_damaged_are_not_believed() {
        let good = US.advertisement("fd00::1".parse().unwrap(), None);
        let mut routed = good.clone();
        routed[21] = 254;
        assert_eq!(Heard::parse(&routed), None);
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(Heard::parse(&damaged), None);
        for length in 0..good.len() {
            assert_eq!(Heard::parse(&good[..length]), None);
        }
    }

    #[test]
    fn a_group_has_no_mac_and_no_mac_is_a_groups() {
        for frame in [US.announcement(ip("10.0.0.1")), US.announcement(ip("fd00::1"))] {
            let mut from_a_group = frame;
            from_a_group[6] |= 1;
            assert_eq!(Heard::parse(&from_a_group), None);
        }
        assert_eq!(Heard::parse(&US.advertisement("ff02::1".parse().unwrap(), None)), None);
    }

    #[test]
    fn an_option_without_length_ends_the_search() {
        assert_eq!(link_option(&[9, 0, 1, 1, 2, 2, 2, 2, 2, 2], TARGET_LINK_ADDRESS), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Heard::parse(&bytes);
            let mut discovery = US.announcement(ip("fd00::1"));
            for pair in bytes.chunks_exact(2) {
                let at = usize::from(pair[0]) % discovery.len();
                discovery[at] = pair[1];
            }
            let _ = Heard::parse(&discovery);
        }
    }
}

//! What the policy says of a frame.

use std::fmt;

/// The policy's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may leave.
    Permitted,
    /// It may not.
    Refused(RefusedBecause),
}

/// The rule that a refused frame broke. Each is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefusedBecause {
    /// The frame is cut short, longer than its packet, or its headers contradict each other.
    Malformed = 0,
    /// Neither IPv4 nor IPv6.
    NotIp = 1,
    /// More than one VLAN tag.
    StackedTags = 2,
    /// A fragment of a packet.
    Fragment = 3,
    /// Another packet inside.
    Tunnel = 4,
    /// A source route or routing header, which would choose another destination than the one judged.
    SourceRoute = 5,
    /// The source address is not ours.
    ForeignSource = 6,
    /// To a group, by its MAC or IP address.
    Multicast = 7,
    /// To everybody on a link.
    Broadcast = 8,
    /// To the loopback network.
    Loopback = 9,
    /// To 0.0.0.0/8, the unspecified address or an IPv4-mapped address.
    ThisNetwork = 10,
    /// To an address of ours.
    OwnAddress = 11,
    /// To an address in the deny file.
    Denied = 12,
    /// To an address denied while running.
    DeniedNow = 13,
    /// To special-purpose space that was not itself the target.
    SpecialPurpose = 14,
    /// To an address that was not among the targets.
    NotATarget = 15,
    /// To an address that needs settings which were not given.
    NotAuthorised = 16,
}

impl RefusedBecause {
    /// How many rules there are.
    pub const COUNT: usize = 17;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::NotIp,
        Self::StackedTags,
        Self::Fragment,
        Self::Tunnel,
        Self::SourceRoute,
        Self::ForeignSource,
        Self::Multicast,
        Self::Broadcast,
        Self::Loopback,
        Self::ThisNetwork,
        Self::OwnAddress,
        Self::Denied,
        Self::DeniedNow,
        Self::SpecialPurpose,
        Self::NotATarget,
        Self::NotAuthorised,
    ];

    /// The name under which metadata and status show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotIp => "not_ip",
            Self::StackedTags => "stacked_tags",
            Self::Fragment => "fragment",
            Self::Tunnel => "tunnel",
            Self::SourceRoute => "source_route",
            Self::ForeignSource => "foreign_source",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Loopback => "loopback",
            Self::ThisNetwork => "this_network",
            Self::OwnAddress => "own_address",
            Self::Denied => "denied",
            Self::DeniedNow => "denied_now",
            Self::SpecialPurpose => "special_purpose",
            Self::NotATarget => "not_a_target",
            Self::NotAuthorised => "not_authorised",
        }
    }
}

impl fmt::Display for RefusedBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the frame is not one whole packet: its headers and its length contradict each other",
            Self::NotIp => "only whole IPv4 and IPv6 packets may be sent",
            Self::StackedTags => "frames with stacked VLAN tags may not be sent",
            Self::Fragment => "fragments may not be sent",
            Self::Tunnel => "packets inside packets (tunnels) may not be sent, nor protocols outside the known list",
            Self::SourceRoute => "packets with a source route may not be sent, because it hides their destination",
            Self::ForeignSource => "the source address is not one of this stack's: name it with --source-ip",
            Self::Multicast => "multicast destinations are never sent to",
            Self::Broadcast => "broadcast destinations are never sent to",
            Self::Loopback => "loopback destinations are never sent to",
            Self::ThisNetwork => "0.0.0.0/8, :: and IPv4-mapped addresses are never sent to",
            Self::OwnAddress => "our own addresses are never sent to",
            Self::Denied => "the destination is in the deny file",
            Self::DeniedNow => "the destination was denied while running",
            Self::SpecialPurpose => {
                "the destination is special-purpose space, which is cut out of a wider target: name it as a target itself"
            }
            Self::NotATarget => "the destination is not among the targets",
            Self::NotAuthorised => "the destination may not be sent to with these settings",
        })
    }
}

//! The engine `packet`: AF_PACKET, which every Linux device can do.

pub(crate) mod bare;
mod checksum;
mod receiver;
mod ring;
mod sender;
pub mod socket;
mod tap;

pub use receiver::{PacketPump, PacketReceiver};
pub(crate) use ring::Ring;
pub use sender::PacketSender;
pub use socket::Groups;
pub(crate) use socket::solicited_node_mac;
pub use tap::Tap;

//! AF_PACKET sockets and their options.

use std::io;
use std::mem::size_of;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use irl_wire::Mac;

use crate::error::LinkError;
use crate::netdev::{Interface, os_error};

/// Makes a raw packet socket in the calling thread's namespace; it receives nothing before [`bind`].
///
/// # Errors
/// [`LinkError::Privilege`] without CAP_NET_RAW, [`LinkError::Os`].
pub fn open(interface: &str) -> Result<OwnedFd, LinkError> {
    // SAFETY: plain system call without pointers; the descriptor, if there is one, is owned by nobody else.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        let source = io::Error::last_os_error();
        return Err(match source.raw_os_error() {
            Some(libc::EPERM) => {
                LinkError::Privilege { capability: "CAP_NET_RAW", what: "opening a packet socket".to_owned() }
            }
            _ => os_error(interface, "opening a packet socket", source),
        });
    }
    // SAFETY: as above: a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Binds to an interface. Protocol 0 receives nothing, which keeps a sender free of frames it doesn't read.
///
/// # Errors
/// [`LinkError::InterfaceGone`], [`LinkError::Os`].
pub fn bind(socket: &OwnedFd, interface: &Interface, protocol: u16) -> Result<(), LinkError> {
    // SAFETY: a sockaddr_ll of zeros is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface.index as i32;
    // SAFETY: the pointer and the length describe a live sockaddr_ll.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if result < 0 {
        return Err(interface.error("binding a packet socket", io::Error::last_os_error()));
    }
    Ok(())
}

/// Sets an option from a plain value.
///
/// # Errors
/// What the kernel says.
pub fn set<T: Copy>(socket: RawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe a live value, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(socket, level, option, std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads an option into a plain value, for which any bytes are valid.
pub(super) fn get<T: Plain>(socket: RawFd, level: i32, option: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe a live value, and any bytes are a valid `Plain`.
    let result = unsafe { libc::getsockopt(socket, level, option, (&raw mut value).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Values for which any bytes are valid.
pub(super) trait Plain: Copy + Default {}
impl Plain for i32 {}
impl Plain for [u32; 3] {}

/// The error that waits on a socket, such as ENETDOWN once the interface went down.
pub(super) fn pending_error(socket: RawFd) -> Option<io::Error> {
    match get::<i32>(socket, libc::SOL_SOCKET, libc::SO_ERROR) {
        Ok(0) => None,
        Ok(code) => Some(io::Error::from_raw_os_error(code)),
        Err(error) => Some(error),
    }
}

/// Membership in multicast groups of an interface, for as long as it lives: a device hands us neighbour solicitations
/// for spare IPv6 addresses only then.
#[derive(Debug)]
pub struct Groups {
    _socket: OwnedFd,
}

impl Groups {
    /// Joins the solicited-node groups of these addresses (RFC 4291, 2.7.1).
    ///
    /// # Errors
    /// [`LinkError::Privilege`], [`LinkError::InterfaceGone`], [`LinkError::Os`].
    pub fn join(interface: &Interface, addresses: &[Ipv6Addr]) -> Result<Self, LinkError> {
        let socket = open(&interface.name)?;
        bind(&socket, interface, 0)?;
        let mut groups: Vec<Mac> = addresses.iter().map(solicited_node_mac).collect();
        groups.sort_unstable();
        groups.dedup();
        // A device's own list is short: beyond this many it is told to take all groups.
        const MOST_GROUPS: usize = 64;
        // SAFETY: a packet_mreq of zeros is a valid one.
        let mut membership: libc::packet_mreq = unsafe { std::mem::zeroed() };
        membership.mr_ifindex = interface.index as i32;
        let mut join = |kind: i32, group: &[u8]| {
            membership.mr_type = kind as u16;
            membership.mr_alen = group.len() as u16;
            membership.mr_address[..group.len()].copy_from_slice(group);
            set(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
                .map_err(|source| interface.error("joining a multicast group", source))
        };
        if groups.len() > MOST_GROUPS {
            join(libc::PACKET_MR_ALLMULTI, &[])?;
        } else {
            groups.iter().try_for_each(|group| join(libc::PACKET_MR_MULTICAST, &group.0))?;
        }
        Ok(Self { _socket: socket })
    }
}

/// 33:33:ff and the address's last three bytes.
pub(crate) fn solicited_node_mac(address: &Ipv6Addr) -> Mac {
    let bytes = address.octets();
    Mac([0x33, 0x33, 0xff, bytes[13], bytes[14], bytes[15]])
}

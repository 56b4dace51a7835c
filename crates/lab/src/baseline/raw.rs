//! A raw IP socket, a frame a call.
#![allow(unsafe_code, reason = "sends as its users do: by the plain system call")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use irl_link::LinkError;
use irl_link::netdev::Interface;

use super::syn::{ETHERNET, Syns};
use super::{Left, until_taken};

pub(super) fn send(interface: &Interface, mut syns: Syns, mut left: Left<'_>) -> Result<u64, LinkError> {
    // SAFETY: plain system call without pointers; the descriptor, if there is one, is owned by nobody else.
    let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if descriptor < 0 {
        return Err(LinkError::os("opening a raw IP socket", io::Error::last_os_error()));
    }
    // SAFETY: as above: a fresh descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let name = interface.name.as_bytes();
    // SAFETY: the pointer and the length describe a live name, which the kernel only reads.
    let bound = unsafe {
        libc::setsockopt(descriptor, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), name.len() as u32)
    };
    if bound < 0 {
        return Err(LinkError::os("binding a raw IP socket", io::Error::last_os_error()));
    }
    // SAFETY: a sockaddr_in of zeros is a valid one.
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::AF_INET as u16;
    let mut frame = *syns.template();
    let mut sent = 0;
    while left.next(1) == 1 {
        to.sin_addr.s_addr = u32::from_ne_bytes(syns.write(&mut frame).octets());
        let packet = &frame[ETHERNET..];
        let call = || {
            // SAFETY: both pointers and lengths describe live memory, which the kernel only reads.
            unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    0,
                    (&raw const to).cast(),
                    size_of::<libc::sockaddr_in>() as libc::socklen_t,
                )
            }
        };
        if until_taken(&left, "sending by a raw IP socket", call)?.is_none() {
            break;
        }
        sent += 1;
    }
    Ok(sent)
}

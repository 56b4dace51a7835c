//! A packet socket past the queueing discipline: a frame a call, and 256.
#![allow(unsafe_code, reason = "sends as its users do: by the plain system calls")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use irl_link::LinkError;
use irl_link::netdev::Interface;
use irl_link::packet::socket;

use super::syn::{FRAME_LEN, Syns};
use super::{Left, until_taken};

const FRAMES_PER_CALL: usize = 256;
const SENDING: &str = "sending by a packet socket";

/// A packet socket that sends past the queueing discipline and receives nothing.
pub(super) fn open(interface: &Interface) -> Result<OwnedFd, LinkError> {
    let socket = socket::open(&interface.name)?;
    socket::set(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1)
        .map_err(|error| LinkError::os("setting PACKET_QDISC_BYPASS", error))?;
    Ok(socket)
}

pub(super) fn send_each(interface: &Interface, mut syns: Syns, mut left: Left<'_>) -> Result<u64, LinkError> {
    let socket = open(interface)?;
    socket::bind(&socket, interface, 0)?;
    let mut frame = *syns.template();
    let mut sent = 0;
    while left.next(1) == 1 {
        syns.write(&mut frame);
        let call = || {
            // SAFETY: the pointer and the length describe live memory, which the kernel only reads.
            unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) }
        };
        if until_taken(&left, SENDING, call)?.is_none() {
            break;
        }
        sent += 1;
    }
    Ok(sent)
}

pub(super) fn send_batches(interface: &Interface, mut syns: Syns, mut left: Left<'_>) -> Result<u64, LinkError> {
    let socket = open(interface)?;
    socket::bind(&socket, interface, 0)?;
    let mut frames = vec![*syns.template(); FRAMES_PER_CALL];
    let mut vectors: Vec<libc::iovec> = frames
        .iter_mut()
        .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: FRAME_LEN })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: an mmsghdr of zeros is a valid one: no name, no data, no control.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = ptr::from_mut(vector);
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    let mut sent = 0;
    loop {
        let count = left.next(FRAMES_PER_CALL as u64) as usize;
        if count == 0 {
            return Ok(sent);
        }
        frames[..count].iter_mut().for_each(|frame| {
            syns.write(frame);
        });
        let mut done = 0;
        while done < count {
            let rest = &mut headers[done..count];
            let call = || {
                // SAFETY: the headers are live and initialised; each points to a live vector, which points to a live
                // frame of its length, and nobody else touches them during the call.
                unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) as isize }
            };
            let Some(taken) = until_taken(&left, SENDING, call)? else {
                return Ok(sent);
            };
            done += taken as usize;
            sent += taken;
        }
    }
}

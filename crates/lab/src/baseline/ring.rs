//! A packet socket's mapped transmit ring, TPACKET_V2, past the queueing discipline.
#![allow(unsafe_code, reason = "shares memory with the kernel, as this interface is used")]

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use irl_link::LinkError;
use irl_link::netdev::Interface;
use irl_link::packet::socket;
use memmap2::{MmapMut, MmapOptions};

use super::syn::{FRAME_LEN, Syns};
use super::{Left, is_full, packet};

const PACKET_VERSION: i32 = 10;
const PACKET_TX_RING: i32 = 13;
const TPACKET_V2: i32 = 1;
const STATUS_AVAILABLE: u32 = 0;
const STATUS_SEND_REQUEST: u32 = 1;
const STATUS_WRONG_FORMAT: u32 = 4;

const BLOCK_BYTES: u32 = 1 << 16;
const BLOCKS: u32 = 8;
const SLOT_BYTES: u32 = 128;
const SLOTS: usize = (BLOCK_BYTES / SLOT_BYTES * BLOCKS) as usize;
/// `struct tpacket2_hdr`: status, len, snaplen, ...; the frame begins behind it.
const HEADER_BYTES: usize = 32;
const FRAMES_PER_CALL: usize = 256;

/// `struct tpacket_req`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    block_size: u32,
    block_count: u32,
    frame_size: u32,
    frame_count: u32,
}

struct Ring {
    memory: MmapMut,
}

impl Ring {
    fn status(&self, slot: usize) -> &AtomicU32 {
        let pointer = self.memory[slot * SLOT_BYTES as usize..][..4].as_ptr();
        // SAFETY: four bytes inside the mapping, aligned as slots are; both sides access them atomically.
        unsafe { AtomicU32::from_ptr(pointer.cast_mut().cast()) }
    }

    fn frame(&mut self, slot: usize) -> &mut [u8; FRAME_LEN] {
        let start = slot * SLOT_BYTES as usize + HEADER_BYTES;
        (&mut self.memory[start..start + FRAME_LEN]).try_into().expect("a slice of this length")
    }
}

pub(super) fn send(interface: &Interface, mut syns: Syns, mut left: Left<'_>) -> Result<u64, LinkError> {
    let socket = packet::open(interface)?;
    let descriptor = socket.as_raw_fd();
    socket::set(descriptor, libc::SOL_PACKET, PACKET_VERSION, &TPACKET_V2)
        .map_err(|error| LinkError::os("setting PACKET_VERSION", error))?;
    let request =
        Request { block_size: BLOCK_BYTES, block_count: BLOCKS, frame_size: SLOT_BYTES, frame_count: SLOTS as u32 };
    socket::set(descriptor, libc::SOL_PACKET, PACKET_TX_RING, &request)
        .map_err(|error| LinkError::os("making a packet socket's transmit ring", error))?;
    // SAFETY: the mapping is the kernel's ring, made just now for this socket alone and of this length; the kernel reads a
    // slot only while its status says so, and we write one only while it doesn't.
    let memory = unsafe { MmapOptions::new().len((BLOCK_BYTES * BLOCKS) as usize).map_mut(descriptor) }
        .map_err(|error| LinkError::os("mapping a packet socket's transmit ring", error))?;
    let mut ring = Ring { memory };
    for slot in 0..SLOTS {
        *ring.frame(slot) = *syns.template();
        let start = slot * SLOT_BYTES as usize + 4;
        ring.memory[start..start + 4].copy_from_slice(&(FRAME_LEN as u32).to_ne_bytes());
    }
    socket::bind(&socket, interface, 0)?;

    // Position of the next slot; all behind it are requested, and those before `done` have left.
    let (mut filled, mut done) = (0_u64, 0_u64);
    loop {
        let free = SLOTS as u64 - (filled - done);
        let count = left.next(free.min(FRAMES_PER_CALL as u64));
        for _ in 0..count {
            let slot = filled as usize % SLOTS;
            syns.write(ring.frame(slot));
            ring.status(slot).store(STATUS_SEND_REQUEST, Ordering::Release);
            filled += 1;
        }
        // After a stop, too, what was requested leaves and is counted.
        if filled == done {
            return Ok(done);
        }
        // SAFETY: no memory is handed over but the ring.
        if unsafe { libc::send(descriptor, ptr::null(), 0, libc::MSG_DONTWAIT) } < 0 {
            let error = io::Error::last_os_error();
            if !is_full(&error) {
                return Err(LinkError::os("sending by a packet socket's transmit ring", error));
            }
        }
        while done < filled {
            match ring.status(done as usize % SLOTS).load(Ordering::Acquire) {
                STATUS_AVAILABLE => done += 1,
                status if status & STATUS_WRONG_FORMAT != 0 => {
                    return Err(LinkError::config("the kernel refuses the format of a frame in its transmit ring"));
                }
                _ => break,
            }
        }
    }
}

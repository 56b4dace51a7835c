//! A TPACKET_V3 receive ring: blocks of frames in memory shared with the kernel.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::socket;
use crate::error::LinkError;
use crate::netdev::Interface;

const BLOCK_BYTES: usize = 1 << 18;
const FRAME_BYTES: usize = 1 << 11;
/// A block that is not full is handed over after so long.
const RETIRE_MS: u32 = 1;

/// Kernel status bits of a frame (`linux/if_packet.h`).
const STATUS_USER: u32 = 1;
const STATUS_CHECKSUM_NOT_READY: u32 = 1 << 3;
const STATUS_VLAN_VALID: u32 = 1 << 4;

const PACKET_VERSION: i32 = 10;
const PACKET_RX_RING: i32 = 5;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const PACKET_STATISTICS: i32 = 6;
const TPACKET_V3: i32 = 2;
const ETH_P_ALL: u16 = 3;

/// `struct tpacket_req3`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    block_size: u32,
    block_count: u32,
    frame_size: u32,
    frame_count: u32,
    retire_ms: u32,
    private_bytes: u32,
    features: u32,
}

// Offsets inside `struct tpacket_block_desc` and `struct tpacket3_hdr`.
const BLOCK_STATUS: usize = 8;
const BLOCK_FRAMES: usize = 12;
const BLOCK_FIRST: usize = 16;
const FRAME_NEXT: usize = 0;
const FRAME_SECONDS: usize = 4;
const FRAME_NANOSECONDS: usize = 8;
const FRAME_CAPTURED: usize = 12;
const FRAME_STATUS: usize = 20;
const FRAME_MAC_OFFSET: usize = 24;
const FRAME_VLAN_TCI: usize = 32;

/// A received frame.
pub(crate) struct Arrival<'a> {
    /// Its bytes; a VLAN tag that the kernel took out is in `vlan` instead.
    pub(crate) bytes: &'a [u8],
    pub(crate) vlan: Option<u16>,
    /// Sent by a local peer that left the transport checksum to a device that never was.
    pub(crate) checksum_not_ready: bool,
    /// CLOCK_REALTIME, ns.
    pub(crate) realtime_ns: u64,
}

pub(crate) struct Ring {
    // Declared before the socket: unmapped first.
    memory: memmap2::MmapMut,
    socket: OwnedFd,
    blocks: usize,
    /// The block to be read next, and how far it is read.
    block: usize,
    frames_left: u32,
    next_frame: usize,
    dropped: u64,
}

impl Ring {
    /// Opens a ring that sees every frame the interface receives.
    pub(crate) fn open(interface: &Interface, bytes: usize) -> Result<Self, LinkError> {
        let socket = socket::open(&interface.name)?;
        let descriptor = socket.as_raw_fd();
        let must = |option: i32, name: &str, value: i32| {
            socket::set(descriptor, libc::SOL_PACKET, option, &value)
                .map_err(|source| interface.error(&format!("setting {name} on a packet socket"), source))
        };
        must(PACKET_VERSION, "PACKET_VERSION", TPACKET_V3)?;
        // From Linux 4.20; on older kernels our own frames come back and are judged like any others.
        let _ = must(PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING", 1);
        let blocks = bytes.div_ceil(BLOCK_BYTES).clamp(8, 4096);
        let request = Request {
            block_size: BLOCK_BYTES as u32,
            block_count: blocks as u32,
            frame_size: FRAME_BYTES as u32,
            frame_count: (blocks * (BLOCK_BYTES / FRAME_BYTES)) as u32,
            retire_ms: RETIRE_MS,
            private_bytes: 0,
            features: 0,
        };
        socket::set(descriptor, libc::SOL_PACKET, PACKET_RX_RING, &request)
            .map_err(|source| interface.error("making a packet socket's receive ring", source))?;
        // SAFETY: the mapping is the kernel's ring, made just now for this socket alone and of this length; the kernel
        // writes to a block only while its status says so, and we read one only while it doesn't.
        let memory = unsafe { memmap2::MmapOptions::new().len(blocks * BLOCK_BYTES).map_mut(descriptor) }
            .map_err(|source| interface.error("mapping a packet socket's receive ring", source))?;
        socket::bind(&socket, interface, ETH_P_ALL)?;
        Ok(Self { memory, socket, blocks, block: 0, frames_left: 0, next_frame: 0, dropped: 0 })
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.socket
    }

    /// The next frame, if one has arrived. It stays valid until the next call.
    pub(crate) fn next(&mut self) -> Option<Arrival<'_>> {
        while self.frames_left == 0 {
            if self.next_frame != 0 {
                self.status(self.block).store(0, Ordering::Release);
                self.block = (self.block + 1) % self.blocks;
                self.next_frame = 0;
            }
            if self.status(self.block).load(Ordering::Acquire) & STATUS_USER == 0 {
                return None;
            }
            let start = self.block * BLOCK_BYTES;
            self.frames_left = self.word(start + BLOCK_FRAMES);
            self.next_frame = start + self.word(start + BLOCK_FIRST) as usize;
        }
        self.frames_left -= 1;
        let frame = self.next_frame;
        self.next_frame = frame + self.word(frame + FRAME_NEXT) as usize;
        let status = self.word(frame + FRAME_STATUS);
        let start = frame + usize::from(self.half(frame + FRAME_MAC_OFFSET));
        let realtime_ns = u64::from(self.word(frame + FRAME_SECONDS)) * 1_000_000_000
            + u64::from(self.word(frame + FRAME_NANOSECONDS));
        Some(Arrival {
            bytes: self.memory.get(start..start + self.word(frame + FRAME_CAPTURED) as usize).unwrap_or_default(),
            vlan: (status & STATUS_VLAN_VALID != 0).then(|| self.word(frame + FRAME_VLAN_TCI) as u16),
            checksum_not_ready: status & STATUS_CHECKSUM_NOT_READY != 0,
            realtime_ns,
        })
    }

    /// Frames that found the ring full, since it was opened.
    pub(crate) fn dropped(&mut self) -> u64 {
        // tpacket_stats_v3: packets, drops, freezes; reading resets them.
        if let Ok([_, drops, _]) = socket::get::<[u32; 3]>(self.socket.as_raw_fd(), libc::SOL_PACKET, PACKET_STATISTICS)
        {
            self.dropped += u64::from(drops);
        }
        self.dropped
    }

    /// The error that waits on the socket.
    pub(crate) fn pending_error(&self) -> Option<io::Error> {
        socket::pending_error(self.socket.as_raw_fd())
    }

    fn status(&self, block: usize) -> &AtomicU32 {
        let pointer = self.memory[block * BLOCK_BYTES + BLOCK_STATUS..][..4].as_ptr();
        // SAFETY: four bytes inside the mapping, aligned as blocks begin at pages; both sides access them atomically.
        unsafe { AtomicU32::from_ptr(pointer.cast_mut().cast()) }
    }

    fn word(&self, at: usize) -> u32 {
        self.memory.get(at..at + 4).map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
    }

    fn half(&self, at: usize) -> u16 {
        self.memory.get(at..at + 2).map_or(0, |bytes| u16::from_ne_bytes(bytes.try_into().expect("two bytes")))
    }
}

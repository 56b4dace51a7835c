//! Sends batches of frames with `sendmmsg`, past the queueing discipline.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use crate::engine::{Batch, Kicked, Sender};
use crate::error::LinkError;
use crate::netdev::{Interface, os_error};

use super::bare::{self, Ways};
use super::socket;

/// Frames in the arena.
const SLOTS: usize = 2048;
/// Frames a system call. More gains nothing: the call's fixed cost is spread thin by then.
const FRAMES_PER_CALL: usize = 512;
/// Slots begin at multiples of this, so that small frames share no more cache lines than they must.
const ALIGNMENT: usize = 16;
/// Memory the kernel may hold for frames that the device has not finished with.
const SEND_BUFFER_BYTES: i32 = 8 << 20;

/// The sending half of the engine `packet`.
///
/// Frames lie in an arena used as a ring; the arrays that `sendmmsg` wants point into it and are made once, so that a
/// call costs nothing but the call. `sendmmsg` copies, so that a frame's memory is free when the kernel took it.
#[derive(Debug)]
pub struct PacketSender {
    socket: OwnedFd,
    interface: String,
    max_frame: usize,
    arena: Arena,
    /// The slot of the oldest committed frame.
    head: usize,
    pending: usize,
    completed: u64,
}

impl PacketSender {
    /// Opens a sender on an interface, in the calling thread's namespace. `frame_len` is the longest frame expected
    /// often; longer ones work too, and cost a new arena once.
    ///
    /// # Errors
    /// [`LinkError::Privilege`] without CAP_NET_RAW, [`LinkError::InterfaceGone`], [`LinkError::Os`].
    pub fn open(interface: &Interface, frame_len: usize) -> Result<Self, LinkError> {
        let socket = socket::open(&interface.name)?;
        let descriptor = socket.as_raw_fd();
        let must = |option: i32, name: &str, value: i32| {
            socket::set(descriptor, libc::SOL_PACKET, option, &value)
                .map_err(|source| interface.error(&format!("setting {name} on a packet socket"), source))
        };
        must(libc::PACKET_QDISC_BYPASS, "PACKET_QDISC_BYPASS", 1)?;
        // Without CAP_NET_ADMIN the buffer stays at the system's limit: slower at worst.
        if socket::set(descriptor, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER_BYTES).is_err() {
            let _ = socket::set(descriptor, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER_BYTES);
        }
        socket::bind(&socket, interface, 0)?;
        let bare = (!interface.ethernet).then(|| Box::new(Ways::of(interface)));
        Ok(Self {
            socket,
            interface: interface.name.clone(),
            max_frame: interface.mtu as usize + ETHERNET_HEADER,
            arena: Arena::new(frame_len.max(NEIGHBOUR_FRAME), bare),
            head: 0,
            pending: 0,
            completed: 0,
        })
    }

    fn tail(&self) -> usize {
        (self.head + self.pending) % SLOTS
    }
}

const ETHERNET_HEADER: usize = 14;
/// Neighbour frames must fit at any time, tagged ones too: they cannot wait for an empty arena.
const NEIGHBOUR_FRAME: usize = 90;

impl Sender for PacketSender {
    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn reserve(&mut self, frames: usize, frame_len: usize) -> Result<Batch<'_>, LinkError> {
        if frame_len > self.max_frame {
            return Err(LinkError::config(format!(
                "a frame of {frame_len} bytes is longer than {} allows ({} bytes): shorten it or raise the MTU",
                self.interface, self.max_frame
            )));
        }
        let mut free = SLOTS - self.pending;
        if frame_len > self.arena.stride {
            // Frames on their way lie in the old arena, so that it is changed only when there are none.
            if self.pending == 0 {
                self.arena = Arena::new(frame_len, self.arena.bare.take());
                self.head = 0;
            } else {
                free = 0;
            }
        }
        let tail = self.tail();
        // A batch does not wrap around the arena's end.
        let frames = frames.min(free).min(SLOTS - tail);
        Ok(self.arena.batch(tail, frames))
    }

    fn commit(&mut self, frames: usize) {
        self.arena.set_lengths(self.tail(), frames);
        self.pending += frames;
    }

    fn kick(&mut self) -> Result<Kicked, LinkError> {
        let mut kicked = Kicked::default();
        while self.pending > 0 {
            let frames = self.pending.min(SLOTS - self.head).min(FRAMES_PER_CALL);
            match self.arena.send(&self.socket, self.head, frames) {
                Ok(taken) => {
                    self.head = (self.head + taken) % SLOTS;
                    self.pending -= taken;
                    self.completed += taken as u64;
                    kicked.accepted += taken as u64;
                    if taken < frames {
                        // The call stopped at a frame that was refused, and kept the reason to itself; should it be
                        // worse than a full queue, the next kick says so.
                        kicked.refused += 1;
                        return Ok(kicked);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    // The device's queue or the socket's buffer is full: this frame and those behind it stay.
                    Some(libc::ENOBUFS | libc::EAGAIN) => {
                        kicked.refused += 1;
                        return Ok(kicked);
                    }
                    Some(libc::EINTR) => {}
                    _ => return Err(os_error(&self.interface, "sending frames", error)),
                },
            }
        }
        Ok(kicked)
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn completed(&self) -> u64 {
        self.completed
    }
}

/// Slots for frames, and the kernel's view of them. The headers point into the others, which are never moved or resized:
/// they are replaced together.
struct Arena {
    stride: usize,
    bytes: Box<[u8]>,
    lengths: Box<[u16]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Where packets go on a device without Ethernet: frames leave without their header.
    bare: Option<Box<Ways>>,
}

// SAFETY: the pointers lead to memory that the arena itself owns, and are followed only through `&mut self`.
unsafe impl Send for Arena {}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arena({} slots of {} bytes)", self.lengths.len(), self.stride)
    }
}

impl Arena {
    fn new(frame_len: usize, bare: Option<Box<Ways>>) -> Self {
        let skipped = if bare.is_some() { bare::HEADER } else { 0 };
        let stride = frame_len.next_multiple_of(ALIGNMENT);
        let mut bytes = vec![0; SLOTS * stride].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = bytes
            .chunks_exact_mut(stride)
            .map(|slot| libc::iovec { iov_base: slot[skipped..].as_mut_ptr().cast(), iov_len: 0 })
            .collect();
        let headers = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: an mmsghdr of zeros is a valid one: no name, no data, no control.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = ptr::from_mut(vector);
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Self { stride, bytes, lengths: vec![0; SLOTS].into_boxed_slice(), vectors, headers, bare }
    }

    fn batch(&mut self, first: usize, frames: usize) -> Batch<'_> {
        let bytes = &mut self.bytes[first * self.stride..(first + frames) * self.stride];
        Batch::new(bytes, &mut self.lengths[first..first + frames], self.stride)
    }

    fn set_lengths(&mut self, first: usize, frames: usize) {
        let range = first..first + frames;
        if let Some(ways) = &mut self.bare {
            for slot in range {
                let packet = self.stride * slot + bare::HEADER;
                self.vectors[slot].iov_len = usize::from(self.lengths[slot]).saturating_sub(bare::HEADER);
                let header = &mut self.headers[slot].msg_hdr;
                header.msg_name = ways.for_packet(&self.bytes[packet..packet + 1]).cast();
                header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            }
            return;
        }
        for (vector, length) in self.vectors[range.clone()].iter_mut().zip(&self.lengths[range]) {
            vector.iov_len = usize::from(*length);
        }
    }

    /// Offers frames to the kernel and returns how many it took, at least one.
    fn send(&mut self, socket: &OwnedFd, first: usize, frames: usize) -> io::Result<usize> {
        let headers = &mut self.headers[first..first + frames];
        // SAFETY: the headers are live and initialised; each points to a live vector, which points to a live slot of at
        // least its length, and nobody else touches them during the call.
        let taken = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, libc::MSG_DONTWAIT as _)
        };
        if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(taken as usize) }
    }
}

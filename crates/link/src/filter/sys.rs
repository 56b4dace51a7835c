//! The system calls that the filter needs beside aya: links without fall-back, mapped maps, ring buffers.
//!
//! All of the filter's `unsafe` is here and in `layout.rs`, but for the mappings of `ebpf`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use crate::ebpf::{Mapping, page_size};
use crate::prefetch::prefetch;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_F_INNER_MAP: u32 = 1 << 12;
const BPF_XDP: u32 = 37;

/// How a program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// In the driver.
    Native = 1 << 2,
    /// In the kernel's receive path, after the driver made an skb.
    Generic = 1 << 1,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct MapElem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_long, attribute: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attribute`, which is a repr(C) value that outlives the call;
    // the pointers inside `MapElem` are made from live references by its one constructor.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(descriptor: libc::c_long) -> OwnedFd {
    // SAFETY: called only with the result of a bpf(2) command that has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) }
}

/// Attaches an XDP program by a link that lives as long as the returned descriptor; never by netlink.
pub(super) fn link_xdp(program: BorrowedFd<'_>, ifindex: u32, attachment: Attachment) -> io::Result<OwnedFd> {
    let attribute = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: attachment as u32,
    };
    bpf(BPF_LINK_CREATE, &attribute).map(owned)
}

/// Makes a BPF ring buffer of `bytes` (a power of two, at least a page).
pub(super) fn create_ring(bytes: u32) -> io::Result<OwnedFd> {
    let mut attribute = MapCreate { map_type: BPF_MAP_TYPE_RINGBUF, max_entries: bytes, ..MapCreate::default() };
    attribute.name[..8].copy_from_slice(b"irl_ring");
    bpf(BPF_MAP_CREATE, &attribute).map(owned)
}

/// Makes an array of so many values of `bytes` bytes each, to be mapped, and to be put into an array of maps.
pub(super) fn create_inner_array(bytes: u32, values: u32) -> io::Result<OwnedFd> {
    let mut attribute = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: bytes,
        max_entries: values,
        map_flags: BPF_F_MMAPABLE | BPF_F_INNER_MAP,
        ..MapCreate::default()
    };
    attribute.name[..9].copy_from_slice(b"irl_lanes");
    bpf(BPF_MAP_CREATE, &attribute).map(owned)
}

/// Puts a map into an array of maps.
pub(super) fn set_inner_map(outer: BorrowedFd<'_>, index: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let value = inner.as_raw_fd() as u32;
    let attribute = MapElem {
        map_fd: outer.as_raw_fd() as u32,
        pad: 0,
        key: std::ptr::from_ref(&index) as u64,
        value: std::ptr::from_ref(&value) as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &attribute).map(drop)
}

/// Takes a map out of an array of maps.
pub(super) fn remove_inner_map(outer: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let attribute = MapElem {
        map_fd: outer.as_raw_fd() as u32,
        pad: 0,
        key: std::ptr::from_ref(&index) as u64,
        value: 0,
        flags: 0,
    };
    bpf(BPF_MAP_DELETE_ELEM, &attribute).map(drop)
}

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const SAMPLE_HEADER: usize = 8;
/// So far ahead samples are fetched: eight compact records.
const AHEAD: u64 = 512;

/// The consumer's side of a BPF ring buffer: one page of ours with the consumer's position, one of the kernel's with
/// the producer's, and the data, mapped twice in a row so that no sample is ever split.
#[derive(Debug)]
pub(super) struct Ring {
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    size: usize,
    position: u64,
}

impl Ring {
    /// Maps the ring buffer `map` of `size` bytes. There may be one consumer only.
    pub(super) fn new(map: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        let page = page_size();
        let consumer = Mapping::new(map, page, 0, true)?;
        let producer = Mapping::new(map, page + 2 * size, page as i64, false)?;
        let position = consumer.u64(0).load(Ordering::Relaxed);
        Ok(Self { consumer, producer, page, size, position })
    }

    /// Whether something was written that has not been consumed.
    pub(super) fn has_data(&self) -> bool {
        self.producer.u64(0).load(Ordering::SeqCst) != self.position
    }

    /// Hands over at most `max` samples, oldest first; `each` says whether one counts. Their memory is the producer's
    /// again afterwards.
    pub(super) fn consume(&mut self, max: usize, mut each: impl FnMut(&[u8]) -> bool) -> usize {
        let mut taken = 0;
        while taken < max {
            let produced = self.producer.u64(0).load(Ordering::Acquire);
            let before = self.position;
            while self.position != produced && taken < max {
                // `size` is a power of two, so the mask keeps the offset inside the data.
                let offset = self.page + (self.position as usize & (self.size - 1));
                let header = self.producer.u32(offset).load(Ordering::Acquire);
                // Another core wrote the samples; what it is writing just now is better left with it.
                if produced - self.position > AHEAD {
                    prefetch(self.producer.u32(self.page + ((self.position + AHEAD) as usize & (self.size - 1))));
                }
                if header & BUSY != 0 {
                    break;
                }
                let len = (header & !(BUSY | DISCARDED)) as usize;
                if header & DISCARDED == 0 {
                    // SAFETY: the sample is committed (not BUSY, read with acquire) and lies between the consumer's
                    // position and the producer's, where the kernel does not write until we move the former.
                    let sample = unsafe { self.producer.bytes(offset + SAMPLE_HEADER, len) };
                    taken += usize::from(each(sample));
                }
                self.position += (len + SAMPLE_HEADER).next_multiple_of(8) as u64;
            }
            if self.position == before {
                break;
            }
            self.consumer.u64(0).store(self.position, Ordering::Release);
        }
        taken
    }
}

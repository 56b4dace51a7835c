//! Memory shared with the kernel: maps that are mapped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

/// Memory shared with the kernel.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is accessed through atomics only (or, in a ring, through slices that the ring's protocol leaves to
// the one consumer), and the mapping lives as long as the value.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a map from `offset` on.
    pub(crate) fn new(map: BorrowedFd<'_>, len: usize, offset: i64, writable: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, map.as_raw_fd(), offset as libc::off_t)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The 16-bit word at index `index`.
    pub(crate) fn u16(&self, index: usize) -> &AtomicU16 {
        assert!((index + 1) * 2 <= self.len, "an index lies inside its mapping");
        // SAFETY: inside the mapping by the check above, aligned because mappings start at a page, valid as long as
        // `self`, and shared only through atomic operations.
        unsafe { &*self.start.as_ptr().add(index * 2).cast() }
    }

    /// The 32-bit word at byte `offset`.
    pub(crate) fn u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len, "an aligned offset inside the mapping");
        // SAFETY: inside the mapping and aligned by the check above, valid as long as `self`, shared by atomics.
        unsafe { &*self.start.as_ptr().add(offset).cast() }
    }

    /// The 64-bit word at byte `offset`.
    pub(crate) fn u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "an aligned offset inside the mapping");
        // SAFETY: inside the mapping and aligned by the check above, valid as long as `self`, shared by atomics.
        unsafe { &*self.start.as_ptr().add(offset).cast() }
    }

    /// `len` bytes at `offset`.
    ///
    /// # Safety
    /// Nobody may write these bytes as long as the slice lives.
    pub(crate) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "a range inside the mapping");
        // SAFETY: inside the mapping by the check above; the caller keeps writers away.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), len) }
    }

    /// `len` bytes at `offset`, to write.
    ///
    /// # Safety
    /// Nobody else may read or write these bytes as long as the slice lives.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the ranges apart, as the contract says")]
    pub(crate) unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "a range inside the mapping");
        // SAFETY: inside the mapping by the check above; the caller keeps everybody else away.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset), len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`. Failure would leak, nothing worse.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Bytes of a page of memory.
pub(crate) fn page_size() -> usize {
    // SAFETY: no memory is touched. The page size is always known, so the result is positive.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

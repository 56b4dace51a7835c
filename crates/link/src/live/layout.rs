//! What user space shares with the transmit program: twin of `bpf/transmit.h`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::ebpf::Mapping;

/// Frames begin at multiples of this.
pub(super) const CELL_BYTES: usize = 16;
/// Cells of the ring.
pub(super) const CELLS: usize = 32_768;
/// Before each frame: its length and its cells, 16 bits each.
pub(super) const HEADER_BYTES: usize = 4;
/// The shortest frame that the program sends.
pub(super) const FRAME_MIN: usize = 14;
/// The longest: what a page holds beside the kernel's own data.
pub(super) const FRAME_MAX: usize = 3300;
/// Bytes of the ring and the slack behind it.
pub(super) const RING_BYTES: usize = CELLS * CELL_BYTES + HEADER_BYTES + FRAME_MAX + CELL_BYTES;
/// Bytes of the control block.
pub(super) const CONTROL_BYTES: usize = 192;

/// The control block, by field.
#[derive(Debug)]
pub(super) struct Control(pub(super) Mapping);

impl Control {
    /// How far frames are written, in cells. Ours.
    pub(super) fn produced(&self) -> &AtomicU64 {
        self.0.u64(0)
    }

    /// Odd: the program consumes. Even: it does not. Ours.
    pub(super) fn order(&self) -> &AtomicU64 {
        self.0.u64(8)
    }

    /// Tells the program to stop reading, whoever told it to begin.
    pub(super) fn take_back(&self) {
        // An error says that it was told already.
        let odd_to_even = |order: u64| (order % 2 == 1).then_some(order + 1);
        let _ = self.order().fetch_update(Ordering::AcqRel, Ordering::Acquire, odd_to_even);
    }

    /// The order in force, once the program has obeyed it.
    pub(super) fn obeyed(&self) -> Option<u64> {
        let order = self.order().load(Ordering::Acquire);
        (self.seen().load(Ordering::Acquire) == order).then_some(order)
    }

    /// Where the program begins when `order` becomes odd. Ours.
    pub(super) fn start(&self) -> &AtomicU64 {
        self.0.u64(16)
    }

    /// The device. Ours.
    pub(super) fn ifindex(&self) -> &AtomicU32 {
        self.0.u32(24)
    }

    /// The length that frames of the call begin with. Ours.
    pub(super) fn usual_len(&self) -> &AtomicU32 {
        self.0.u32(28)
    }

    /// How far frames are copied, in cells: their memory is ours again.
    pub(super) fn consumed(&self) -> &AtomicU64 {
        self.0.u64(64)
    }

    /// Frames copied, ever.
    pub(super) fn frames(&self) -> &AtomicU64 {
        self.0.u64(72)
    }

    /// The order that the program obeys.
    pub(super) fn seen(&self) -> &AtomicU64 {
        self.0.u64(80)
    }

    /// As `consumed`, to the last frame: for when no call runs.
    pub(super) fn position(&self) -> &AtomicU64 {
        self.0.u64(128)
    }

    /// As `frames`, to the last one: for when no call runs, and as a sign of life.
    pub(super) fn count(&self) -> &AtomicU64 {
        self.0.u64(144)
    }

    /// Turns that found nothing to send.
    pub(super) fn idle(&self) -> &AtomicU64 {
        self.0.u64(152)
    }

    /// Frames that could not be handed to the device.
    pub(super) fn failed(&self) -> &AtomicU64 {
        self.0.u64(168)
    }
}

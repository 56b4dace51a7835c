//! The memory of all connections: hot and cold lines side by side in blocks, slots used again.

use crate::connection::{Cold, Extra, Hot, NONE};
use crate::prefetch::prefetch;

/// Slots of a block.
const BLOCK: usize = 4096;

/// Connections by slot. Blocks are added as they are needed, so that nothing is ever copied, and kept.
#[derive(Debug)]
pub(crate) struct Slab<S> {
    hot: Vec<Box<[Hot]>>,
    cold: Vec<Box<[Cold<S>]>>,
    free: u32,
    used: usize,
    extras: Vec<Extra>,
    unused_extras: Vec<u32>,
}

impl<S: Copy + Default> Slab<S> {
    pub(crate) fn new() -> Self {
        const { assert!(size_of::<Cold<S>>() == 64, "an owner has 16 bytes with each connection") };
        Self { hot: Vec::new(), cold: Vec::new(), free: NONE, used: 0, extras: Vec::new(), unused_extras: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Slots there are, free ones included.
    pub(crate) fn slots(&self) -> u32 {
        (self.hot.len() * BLOCK) as u32
    }

    /// A free slot. What it held is still in it.
    pub(crate) fn take(&mut self) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let slot = self.free;
        self.free = self.hot(slot).next;
        self.used += 1;
        slot
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: u32) {
        let free = self.free;
        *self.hot_mut(slot) = Hot { next: free, ..Hot::FREE };
        self.free = slot;
        self.used -= 1;
    }

    #[inline]
    pub(crate) fn hot(&self, slot: u32) -> &Hot {
        &self.hot[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    #[inline]
    pub(crate) fn hot_mut(&mut self, slot: u32) -> &mut Hot {
        &mut self.hot[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    #[inline]
    pub(crate) fn cold(&self, slot: u32) -> &Cold<S> {
        &self.cold[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    #[inline]
    pub(crate) fn cold_mut(&mut self, slot: u32) -> &mut Cold<S> {
        &mut self.cold[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    #[inline]
    pub(crate) fn both(&mut self, slot: u32) -> (&mut Hot, &mut Cold<S>) {
        let (block, place) = (slot as usize / BLOCK, slot as usize % BLOCK);
        (&mut self.hot[block][place], &mut self.cold[block][place])
    }

    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        prefetch(self.hot(slot));
        prefetch(self.cold(slot));
    }

    #[inline]
    pub(crate) fn prefetch_hot(&self, slot: u32) {
        if slot != NONE {
            prefetch(self.hot(slot));
        }
    }

    /// What a connection has more, if it has.
    #[inline]
    pub(crate) fn extra(&mut self, slot: u32) -> Option<&mut Extra> {
        let place = self.cold(slot).extra;
        self.extras.get_mut(place as usize)
    }

    /// The same, made when there is none.
    pub(crate) fn extra_or_new(&mut self, slot: u32) -> &mut Extra {
        let mut place = self.cold(slot).extra;
        if place == NONE {
            place = self.unused_extras.pop().unwrap_or_else(|| {
                self.extras.push(Extra::default());
                self.extras.len() as u32 - 1
            });
            self.cold_mut(slot).extra = place;
        }
        &mut self.extras[place as usize]
    }

    /// Takes away what a connection has more.
    pub(crate) fn drop_extra(&mut self, slot: u32) {
        let place = std::mem::replace(&mut self.cold_mut(slot).extra, NONE);
        if place != NONE {
            self.extras[place as usize] = Extra::default();
            self.unused_extras.push(place);
        }
    }

    /// Bytes of memory, without what waits out of order.
    pub(crate) fn memory(&self) -> usize {
        self.hot.len() * BLOCK * (size_of::<Hot>() + size_of::<Cold<S>>()) + self.extras.capacity() * size_of::<Extra>()
    }

    fn grow(&mut self) {
        let first = self.slots();
        let fresh = Cold {
            iss: Default::default(),
            irs: Default::default(),
            rcv_edge: Default::default(),
            ts_recent: 0,
            srtt_us: 0,
            rttvar_us: 0,
            resend_at: 0,
            cwnd: 0,
            limit: 0,
            extra: NONE,
            mss: 0,
            unacked: 0,
            retransmits: 0,
            snd_scale: 0,
            rcv_scale: 0,
            state: S::default(),
        };
        let mut hot = vec![Hot::FREE; BLOCK].into_boxed_slice();
        for (place, each) in hot.iter_mut().enumerate() {
            let next = place as u32 + 1;
            each.next = if next as usize == BLOCK { self.free } else { first + next };
        }
        self.hot.push(hot);
        self.cold.push(vec![fresh; BLOCK].into_boxed_slice());
        self.free = first;
    }
}

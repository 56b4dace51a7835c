//! What became known of targets between two commits: slots of the answered map, two to three bytes each.

/// Slots that were marked, by what they were marked as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Of these an answer came.
    answered: Vec<u64>,
    /// Of these one that the probe hoped for.
    succeeded: Vec<u64>,
}

impl Marks {
    /// Adds a slot.
    #[inline]
    pub(crate) fn push(&mut self, slot: u64, success: bool) {
        if success { &mut self.succeeded } else { &mut self.answered }.push(slot);
    }

    /// Takes those so far out, and makes room for as many.
    pub(crate) fn take(&mut self) -> Self {
        let room = |slots: &Vec<u64>| Vec::with_capacity(slots.len());
        let next = Self { answered: room(&self.answered), succeeded: room(&self.succeeded) };
        std::mem::replace(self, next)
    }

    /// Takes over those of another.
    pub(crate) fn append(&mut self, mut other: Self) {
        if self.answered.is_empty() && self.succeeded.is_empty() {
            *self = other;
            return;
        }
        self.answered.append(&mut other.answered);
        self.succeeded.append(&mut other.succeeded);
    }

    /// As bytes: of both lists the length, and the distance of each slot from the one before it, in seven bits a byte.
    pub(super) fn encode(mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 * (self.answered.len() + self.succeeded.len()) + 8);
        for slots in [&mut self.answered, &mut self.succeeded] {
            slots.sort_unstable();
            put(&mut bytes, slots.len() as u64);
            let mut before = 0;
            for slot in slots {
                put(&mut bytes, *slot - before);
                before = *slot;
            }
        }
        bytes
    }

    /// Hands over each slot that was encoded, and whether it was a success; `None` when the bytes are no such thing.
    pub(super) fn decode(mut bytes: &[u8], mut each: impl FnMut(u64, bool)) -> Option<()> {
        for success in [false, true] {
            let mut slot = 0u64;
            for _ in 0..get(&mut bytes)? {
                slot = slot.checked_add(get(&mut bytes)?)?;
                each(slot, success);
            }
        }
        bytes.is_empty().then_some(())
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(first & 0x7f);
        // The tenth byte has room for one bit.
        value |= if shift == 63 && part > 1 { return None } else { part << shift };
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_as_they_were_pushed() {
        let mut marks = Marks::default();
        let slots = [5, 0, u64::MAX, 1 << 40, 127, 128, 5];
        for (number, slot) in slots.into_iter().enumerate() {
            marks.push(slot, number % 2 == 0);
        }
        let mut more = Marks::default();
        more.push(77, true);
        marks.append(more);
        let bytes = marks.encode();
        let mut back = Vec::new();
        Marks::decode(&bytes, |slot, success| back.push((slot, success))).unwrap();
        let expected = [(0, false), (128, false), (1 << 40, false), (5, true), (5, true), (77, true), (127, true)];
        assert_eq!(back[..7], expected);
        assert_eq!(back[7..], [(u64::MAX, true)]);
    }

    #[test]
    fn a_million_of_four_billion_slots_take_about_two_bytes_each() {
        let mut marks = Marks::default();
        (0..1_000_000_u64).for_each(|number| marks.push(number * 4271 % (1 << 32), true));
        assert!(marks.encode().len() < 2_100_000);
    }

    #[test]
    fn bytes_that_are_no_marks_are_refused() {
        for bytes in
            [&[][..], &[0], &[1, 0], &[0, 0, 0], &[0, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1]]
        {
            assert_eq!(Marks::decode(bytes, |_, _| {}), None, "{bytes:?}");
        }
        assert_eq!(Marks::decode(&[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], |_, _| {}), None);
    }
}

//! Targets of a list that came together, and what the list says further about each.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use irl_targets::{Family, Target};

/// The most targets of a batch: a row is numbered with 16 bits.
pub(super) const MOST: usize = 1 << 16;

/// Targets of a list that came together.
#[derive(Debug)]
pub(super) struct Batch {
    addresses: Addresses,
    ports: Vec<u16>,
    /// The row of the further columns for each target; empty where they are the same number.
    rows: Vec<u16>,
    /// The further columns.
    pub(super) further: Vec<ArrayRef>,
}

#[derive(Debug)]
enum Addresses {
    V4(Vec<u32>),
    /// High half, low half: a `u128` would be aligned to 16 and is no smaller.
    V6(Vec<[u64; 2]>),
}

impl Batch {
    /// An empty one.
    pub(super) fn new(family: Family) -> Self {
        let addresses = match family {
            Family::V4 => Addresses::V4(Vec::new()),
            Family::V6 => Addresses::V6(Vec::new()),
        };
        Self { addresses, ports: Vec::new(), rows: Vec::new(), further: Vec::new() }
    }

    /// Adds a target that a row of the further columns tells of.
    pub(super) fn push(&mut self, target: Target, row: usize) {
        debug_assert!(self.ports.len() < MOST);
        // There are at most as many rows as targets.
        let row = row as u16;
        if self.rows.is_empty() && usize::from(row) != self.ports.len() {
            self.rows.extend(0..self.ports.len() as u16);
        }
        if !self.rows.is_empty() || usize::from(row) != self.ports.len() {
            self.rows.push(row);
        }
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses.push(target.address as u32),
            Addresses::V6(addresses) => addresses.push([(target.address >> 64) as u64, target.address as u64]),
        }
        self.ports.push(target.port);
    }

    pub(super) fn len(&self) -> usize {
        self.ports.len()
    }

    #[inline]
    pub(super) fn target(&self, number: u16) -> Target {
        let number = usize::from(number);
        let address = match &self.addresses {
            Addresses::V4(addresses) => u128::from(addresses[number]),
            Addresses::V6(addresses) => {
                let [high, low] = addresses[number];
                u128::from(high) << 64 | u128::from(low)
            }
        };
        Target { address, port: self.ports[number] }
    }

    /// The row of the further columns that tells of a target.
    pub(super) fn row(&self, number: u16) -> u32 {
        u32::from(self.rows.get(usize::from(number)).copied().unwrap_or(number))
    }

    /// Bytes of memory. Columns that share a buffer with other batches count by the part that is theirs.
    pub(super) fn bytes(&self) -> usize {
        let addresses = match &self.addresses {
            Addresses::V4(addresses) => addresses.capacity() * 4,
            Addresses::V6(addresses) => addresses.capacity() * 16,
        };
        let further = self
            .further
            .iter()
            .map(|array| array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()));
        addresses + (self.ports.capacity() + self.rows.capacity()) * 2 + further.sum::<usize>()
    }

    /// Gives back what growing reserved.
    pub(super) fn shrink(&mut self) {
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses.shrink_to_fit(),
            Addresses::V6(addresses) => addresses.shrink_to_fit(),
        }
        self.ports.shrink_to_fit();
        self.rows.shrink_to_fit();
    }
}

/// The bytes of a text or binary value; `None` where it is null, or of another type.
pub(super) fn bytes(array: &dyn Array, row: usize) -> Option<&[u8]> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        _ => text(array, row)?.as_bytes(),
    })
}

/// A text value; `None` where it is null, or of another type.
pub(super) fn text(array: &dyn Array, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        DataType::Utf8View => array.as_string_view().value(row),
        _ => return None,
    })
}

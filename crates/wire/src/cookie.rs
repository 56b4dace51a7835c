//! The cookie: what lets an answer be recognised without remembering the probe. Written spec: `docs/cookie.md`.
//!
//! Version 1 is SipHash-1-3 under a 128-bit key of our address, the target's address and the target's port, each in
//! network byte order, one after the other: 10 bytes for IPv4, 34 for IPv6. Only 64-bit addition, exclusive or and
//! rotation, so that the filter computes the same in the kernel (`crates/link/bpf/cookie.h`).

/// The version of this spec; part of every plan.
pub const VERSION: u8 = 1;

/// The secret of a plan. Its `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    low: u64,
    high: u64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl Key {
    /// The key of 16 secret bytes.
    pub fn new(secret: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(secret);
        Self { low: whole as u64, high: (whole >> 64) as u64 }
    }

    /// The two halves, little-endian, as the C twin wants them.
    pub fn halves(&self) -> [u64; 2] {
        [self.low, self.high]
    }

    /// The cookie of an IPv4 target.
    #[inline]
    pub fn v4(&self, ours: u32, target: u32, port: u16) -> Cookie {
        let mut state = State::new(self);
        state.absorb(u64::from(ours.swap_bytes()) | u64::from(target.swap_bytes()) << 32);
        state.absorb(u64::from(port.swap_bytes()) | 10 << 56);
        Cookie(state.finish())
    }

    /// The cookie of an IPv6 target.
    #[inline]
    pub fn v6(&self, ours: u128, target: u128, port: u16) -> Cookie {
        let mut state = State::new(self);
        for address in [ours, target] {
            state.absorb(((address >> 64) as u64).swap_bytes());
            state.absorb((address as u64).swap_bytes());
        }
        state.absorb(u64::from(port.swap_bytes()) | 34 << 56);
        Cookie(state.finish())
    }

    /// What is added to a TSval, in microseconds, so that it does not show how long the host has been up.
    pub fn timestamp_offset(&self) -> u32 {
        self.time_offset() as u32
    }

    /// What is added to a send time in an echo's payload, in nanoseconds.
    pub fn time_offset(&self) -> u64 {
        let mut state = State::new(self);
        state.absorb(0);
        state.finish()
    }
}

/// 64 bits that only the holder of the key can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    /// A TCP probe's sequence number: the low 32 bits.
    #[inline]
    pub fn seq(self) -> u32 {
        self.0 as u32
    }

    /// What the source port is made of: bits 32 to 47.
    #[inline]
    pub fn port_part(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The IPv4 identification: bits 48 to 63.
    #[inline]
    pub fn ip_id(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// An echo's identifier: bits 0 to 15.
    #[inline]
    pub fn echo_id(self) -> u16 {
        self.0 as u16
    }

    /// An echo's sequence number: bits 16 to 31.
    #[inline]
    pub fn echo_seq(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// SipHash's state (Aumasson and Bernstein, 2012), with one round a word and three at the end.
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn new(key: &Key) -> Self {
        Self {
            v0: key.low ^ 0x736f_6d65_7073_6575,
            v1: key.high ^ 0x646f_7261_6e64_6f6d,
            v2: key.low ^ 0x6c79_6765_6e65_7261,
            v3: key.high ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    #[test]
    fn is_siphash_1_3_of_the_bytes_in_network_order() {
        let secret: [u8; 16] = std::array::from_fn(|i| i as u8 * 7 + 1);
        let key = Key::new(secret);
        let sip = |bytes: &[u8]| {
            let mut hasher = siphasher::sip::SipHasher13::new_with_key(&secret);
            hasher.write(bytes);
            hasher.finish()
        };
        assert_eq!(key.v4(0xc612_000a, 0x0a01_0203, 443).0, sip(&[198, 18, 0, 10, 10, 1, 2, 3, 1, 187]));
        let (ours, target) = (0xfd00_u128 << 112 | 10, 0xfd00_u128 << 112 | 0xffff_0102);
        let bytes = [&ours.to_be_bytes()[..], &target.to_be_bytes(), &80u16.to_be_bytes()].concat();
        assert_eq!(key.v6(ours, target, 80).0, sip(&bytes));
    }
}

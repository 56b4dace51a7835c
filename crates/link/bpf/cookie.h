/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * The cookie, version 1: C twin of crates/wire/src/cookie.rs; docs/cookie.md is the specification and
 * crates/wire/vectors/cookie-v1.json the vectors that both must meet.
 *
 * SipHash-1-3 of (our address || target's address || target's port), all in network order: 10 bytes for IPv4, 34 for
 * IPv6. The key is given as SipHash's two 64-bit words. Needs u16, u32 and u64; works in BPF and in ordinary C.
 */
#ifndef IRL_COOKIE_H
#define IRL_COOKIE_H

#define COOKIE_VERSION 1

/* What a cookie is cut into. */
#define cookie_seq(cookie) ((u32)(cookie))
#define cookie_port_part(cookie) ((u16)((cookie) >> 32))
#define cookie_ip_id(cookie) ((u16)((cookie) >> 48))
#define cookie_echo_id(cookie) ((u16)(cookie))
#define cookie_echo_seq(cookie) ((u16)((cookie) >> 16))

struct sip {
	u64 v0, v1, v2, v3;
};

static inline __attribute__((always_inline)) u64 sip_rotate(u64 x, int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static inline __attribute__((always_inline)) void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = sip_rotate(s->v1, 13) ^ s->v0;
	s->v0 = sip_rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = sip_rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = sip_rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = sip_rotate(s->v1, 17) ^ s->v2;
	s->v2 = sip_rotate(s->v2, 32);
}

static inline __attribute__((always_inline)) void sip_start(struct sip *s, u64 k0, u64 k1)
{
	s->v0 = k0 ^ 0x736f6d6570736575ULL;
	s->v1 = k1 ^ 0x646f72616e646f6dULL;
	s->v2 = k0 ^ 0x6c7967656e657261ULL;
	s->v3 = k1 ^ 0x7465646279746573ULL;
}

/* One 8-byte block, as SipHash reads it: least significant byte first. */
static inline __attribute__((always_inline)) void sip_block(struct sip *s, u64 block)
{
	s->v3 ^= block;
	sip_round(s);
	s->v0 ^= block;
}

static inline __attribute__((always_inline)) u64 sip_finish(struct sip *s)
{
	s->v2 ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Words that were loaded from memory as they lay there, made into SipHash's little-endian blocks. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define sip_le16(x) ((u64)(u16)(x))
#define sip_le32(x) ((u64)(u32)(x))
#define sip_le64(x) ((u64)(x))
#else
#define sip_le16(x) ((u64)__builtin_bswap16((u16)(x)))
#define sip_le32(x) ((u64)__builtin_bswap32((u32)(x)))
#define sip_le64(x) ((u64)__builtin_bswap64((u64)(x)))
#endif

/* Addresses and port as loaded from the wire, not converted. */
static inline __attribute__((always_inline)) u64 cookie_v4(u64 k0, u64 k1, u32 ours, u32 target, u16 port)
{
	struct sip s;

	sip_start(&s, k0, k1);
	sip_block(&s, sip_le32(ours) | sip_le32(target) << 32);
	sip_block(&s, sip_le16(port) | 10ULL << 56);
	return sip_finish(&s);
}

/* Each address as two words loaded from the wire, first half first. */
static inline __attribute__((always_inline)) u64 cookie_v6(u64 k0, u64 k1, const u64 ours[2], const u64 target[2],
							     u16 port)
{
	struct sip s;

	sip_start(&s, k0, k1);
	sip_block(&s, sip_le64(ours[0]));
	sip_block(&s, sip_le64(ours[1]));
	sip_block(&s, sip_le64(target[0]));
	sip_block(&s, sip_le64(target[1]));
	sip_block(&s, sip_le16(port) | 34ULL << 56);
	return sip_finish(&s);
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Whether the checksums of a frame that is ours are right.
 */
#ifndef IRL_CHECKSUMS_H
#define IRL_CHECKSUMS_H

#include "maps.h"

/* Adds up the 16-bit words of `size` bytes and says whether they make a right checksum together with `seed`. The
 * bytes after an odd end are zeroed for the sum and put back. */
NOINLINE int checksum_right(struct scratch *s, u32 offset, u32 size, u32 seed)
{
	u32 start = offset & (HEAD_LEN - 1), end = (offset + size) & (2 * HEAD_LEN - 1), saved;
	u64 sum;

	if (size > HEAD_LEN || end > HEAD_LEN)
		return 0;
	saved = *(u32 *)&s->frame[end];
	*(u32 *)&s->frame[end] = 0;
	size = (size + 3) & (HEAD_LEN * 2 - 4);
	if (size == 0 || size > HEAD_LEN)
		sum = seed;
	else
		sum = (u32)bpf_csum_diff((void *)0, 0, &s->frame[start], size, seed);
	*(u32 *)&s->frame[end] = saved;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

INLINE int header_right(struct scratch *s, const struct packet *p)
{
	u32 n = p->network;
	u64 sum;

	if (unlikely(p->transport - n != 20))
		return checksum_right(s, n, p->transport - n, 0);
	sum = (u64)load32(s, n) + load32(s, n + 4) + load32(s, n + 8) + load32(s, n + 12) + load32(s, n + 16);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* The pseudo header's share of a transport checksum. */
INLINE u32 pseudo_header(const struct scratch *s, const struct packet *p, u32 protocol, u32 length)
{
	u64 sum = (u64)net32(length) + net32(protocol);

	if (p->v6) {
		u64 a = load64(s, p->saddr), b = load64(s, p->saddr + 8);
		u64 c = load64(s, p->daddr), d = load64(s, p->daddr + 8);

		sum += (u32)a + (a >> 32) + (u32)b + (b >> 32) + (u32)c + (c >> 32) + (u32)d + (d >> 32);
	} else {
		sum += (u64)load32(s, p->saddr) + load32(s, p->daddr);
	}
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

/* Looks at the checksums of a frame that is ours, and flags what it finds. */
GLOBAL int flag_checksums(void)
{
	struct scratch *s = scratch();
	u32 seed = 0, length;
	struct packet *p;

	if (!s)
		return 0;
	p = &s->packet;
	length = p->end - p->transport;
	if (!p->v6 && !header_right(s, p))
		p->flags |= FLAG_BAD_CHECKSUM;
	if (p->protocol == PROTO_UDP && !p->v6 && load16(s, p->transport + 6) == 0)
		return 0; /* RFC 768: no checksum was made */
	if (p->transport + length > HEAD_LEN) {
		p->flags |= FLAG_UNCHECKED;
		return 0;
	}
	if (p->protocol != PROTO_ICMP)
		seed = pseudo_header(s, p, p->protocol, length);
	if (!checksum_right(s, p->transport, length, seed))
		p->flags |= FLAG_BAD_CHECKSUM;
	return 0;
}

#endif

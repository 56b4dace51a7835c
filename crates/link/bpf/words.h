/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * Words of a packet where they lie, and their checksum. Offsets and sizes are constants: pointers into a packet bear no
 * other arithmetic without CAP_PERFMON.
 */
#ifndef IRL_WORDS_H
#define IRL_WORDS_H

#include "kernel.h"

/* As they lie in the packet, in network order. An IP header begins at an odd half word: clang must not join accesses. */
#define at16(p, offset) (*(volatile u16 *)((p) + (offset)))
#define at32(p, offset) (*(volatile u32 *)((p) + (offset)))
#define at64(p, offset) (*(volatile u64 *)((p) + (offset)))

/* The 32-bit words of so many bytes, at most 40, added up. */
INLINE u64 sum_words(const u8 *p, u32 bytes)
{
	u64 sum = 0;

#pragma unroll
	for (u32 at = 0; at < 40; at += 4)
		if (at < bytes)
			sum += at32(p, at);
	return sum;
}

/* A sum as 16 bits, not complemented. */
INLINE u16 fold_sum(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Whether it is the sum of something whose checksum is right. */
INLINE int sum_right(u64 sum)
{
	return fold_sum(sum) == 0xffff;
}

#endif

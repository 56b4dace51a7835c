/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * What the services of open ports say, without memory: the twin of src/service.rs and of `exchange` in src/responder.rs.
 */
#ifndef IRL_DIALOGUE_H
#define IRL_DIALOGUE_H

#include "answer.h"

/* How far behind its start a connection's acknowledgements are believed. */
#define MOST_SAID (1 << 20)
enum { WINDOW = 65160, TIMESTAMPS_LEN = 12 };

/* The flags with which a service answers so many bytes and these flags; 0 for no answer. */
INLINE u8 said_flags(const struct config *conf, u32 data, u8 flags)
{
	if (data)
		return ACK | PSH | (conf->fin || flags & FIN ? FIN : 0);
	if (flags & FIN)
		return ACK | (conf->fin ? 0 : FIN);
	return 0;
}

/* Whether an acknowledgement is of a connection that began with this number. */
INLINE int is_ours(u32 isn, u32 ack)
{
	return ack - isn - 1 <= MOST_SAID;
}

/* Eight hexadecimal digits of 32 bits, as they lie in memory. */
INLINE u64 hex(u32 value)
{
	u64 x = value;

	x = (x | x << 16) & 0x0000ffff0000ffffULL;
	x = (x | x << 8) & 0x00ff00ff00ff00ffULL;
	x = (x | x << 4) & 0x0f0f0f0f0f0f0f0fULL;
	/* From ten on it is as far again from '0' as 'a' is from ':'. */
	x += 0x3030303030303030ULL + ((x + 0x0606060606060606ULL) >> 4 & 0x0101010101010101ULL) * ('a' - ':');
	return net64(x);
}

/* Digits of a reply and its checksum, in the order of memory. */
struct said {
	u64 digits[2];
	u64 sum;
};

INLINE struct said say(const struct config *conf, u64 response)
{
	struct said said = { { hex(response >> 32), hex(response) }, conf->sum };

	for (int i = 0; i < 2; i++)
		said.sum += (said.digits[i] & 0xffffffff) + (said.digits[i] >> 32);
	return said;
}

/* Writes a reply at this offset of a frame that has room for it. */
INLINE long store_reply(struct xdp_md *ctx, const struct config *conf, u32 at, struct said *said)
{
	u32 length = conf->length;

	if (length < DIGITS || length > MAX_REPLY)
		return -1;
	return bpf_xdp_store_bytes(ctx, at, (void *)conf->reply, length) ||
	       bpf_xdp_store_bytes(ctx, at + (conf->digits_at & 2047), said->digits, DIGITS);
}

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * What every (address, port) of a World is: the twin of src/world.rs. Specification: docs/world.md, version 1.
 */
#ifndef IRL_WORLD_H
#define IRL_WORLD_H

#include "kernel.h"

enum world_class {
	WORLD_ABSENT = 0,
	WORLD_CLOSED,
	WORLD_OPEN,
	WORLD_FILTERED,
	WORLD_DUPLICATE,
	WORLD_MIDDLEBOX,
	WORLD_WRONG_ACK,
};
enum world_flags { WORLD_ALIVE = 1, WORLD_ECHO = 2, WORLD_UDP_ECHO = 4 };
enum world_draw { DRAW_REGION = 1, DRAW_BLOCK, DRAW_HOST, DRAW_PORT, DRAW_RESPONSE, DRAW_UDP, DRAW_ISN };
enum world_host { HOST_ALIVE = 1, HOST_ECHO = 2, HOST_FIREWALL = 4, HOST_MIDDLEBOX = 8 };

/* An address as the two halves of a 128-bit integer in host order. */
struct address {
	u64 high;
	u64 low;
};

struct truth {
	u64 response; /* the draw */
	u16 response_id;
	u8 class;
	u8 flags;
};

INLINE u64 world_mix(u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

INLINE u64 world_draw(u64 seed, u64 draw, u64 high, u64 low, u64 extra)
{
	u64 start = world_mix(seed + draw * 0x9e3779b97f4a7c15ULL);

	return world_mix(world_mix(world_mix(start ^ high) + low) ^ extra);
}

INLINE u64 world_host(u64 seed, struct address at)
{
	u64 region = world_draw(seed, DRAW_REGION, at.high >> 16, at.high << 48 | at.low >> 16, 0) & 0xff;
	u64 block, host, density;

	if (region < 96)
		return 0;
	density = region < 192 ? 1000 : region < 240 ? 8000 : 40000;
	block = world_draw(seed, DRAW_BLOCK, at.high >> 8, at.high << 56 | at.low >> 8, 0) & 0xff;
	if (block < 2)
		return HOST_ALIVE | HOST_ECHO | HOST_MIDDLEBOX;
	if (block < 66)
		return 0;
	host = world_draw(seed, DRAW_HOST, at.high, at.low, 0);
	if ((host & 0xffff) >= density)
		return 0;
	return HOST_ALIVE | (host >> 16 & 7 ? HOST_ECHO : 0) | (host >> 19 & 1 ? HOST_FIREWALL : 0) |
	       (host & 31ULL << 32);
}

INLINE u8 world_class(u64 seed, u64 host, struct address at, u16 port)
{
	u64 draw = world_draw(seed, DRAW_PORT, at.high, at.low, port), open;

	if (host & HOST_MIDDLEBOX)
		return WORLD_MIDDLEBOX;
	if (port == 80 || port == 443)
		open = 128;
	else if (port == 22 || port == 53)
		open = 64;
	else if (port == 21 || port == 25 || port == 8080)
		open = 32;
	else
		open = 4;
	if ((draw & 0xff) >= open) {
		u64 temper = draw >> 8 & 3;

		if (!(host & HOST_FIREWALL) || temper == 3)
			return WORLD_CLOSED;
		return temper == 2 ? WORLD_FILTERED : WORLD_ABSENT;
	}
	switch (host >> 32 & 31) {
	case 0:
		return WORLD_DUPLICATE;
	case 1:
		return WORLD_WRONG_ACK;
	default:
		return WORLD_OPEN;
	}
}

INLINE struct truth world_truth(u64 seed, int everything_open, struct address at, u16 port)
{
	struct truth truth = {};
	u64 host;

	truth.response = world_draw(seed, DRAW_RESPONSE, at.high, at.low, port);
	truth.response_id = truth.response;
	if (everything_open) {
		truth.class = WORLD_OPEN;
		truth.flags = WORLD_ALIVE | WORLD_ECHO | WORLD_UDP_ECHO;
		return truth;
	}
	host = world_host(seed, at);
	if (!(host & HOST_ALIVE))
		return truth;
	truth.flags = WORLD_ALIVE | (host & HOST_ECHO ? WORLD_ECHO : 0) |
		      (world_draw(seed, DRAW_UDP, at.high, at.low, port) & 3 ? 0 : WORLD_UDP_ECHO);
	truth.class = world_class(seed, host, at, port);
	return truth;
}

INLINE u32 world_isn(u64 seed, struct address at, u16 port, struct address ours, u16 our_port)
{
	u64 peer = ours.low ^ (ours.high << 32 | ours.high >> 32) ^ (u64)our_port << 48;

	return world_draw(seed, DRAW_ISN, at.high, at.low, port ^ peer);
}

#endif

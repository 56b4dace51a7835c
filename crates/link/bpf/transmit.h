/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What the transmit program shares with user space. Its twin is crates/link/src/live/layout.rs.
 */
#ifndef IRL_TRANSMIT_H
#define IRL_TRANSMIT_H

#include "kernel.h"

/* Frames begin at multiples of this. */
#define CELL_BYTES 16
#define CELLS 32768
#define RING_BYTES (CELLS * CELL_BYTES)
/* Before each frame: its length (16 bits) and its cells (16 bits). Length 0: nothing, so many cells on. */
#define HEADER_BYTES 4
#define FRAME_MIN 14
#define FRAME_MAX 3300
/* How often user space learns how far the program is. */
#define PUBLISH_FRAMES 32

struct control {
	/* User space writes this cache line. */
	u64 produced;
	/* Odd: consume from `start` on. Even: don't. */
	u64 order;
	u64 start;
	u32 ifindex;
	/* The length that the call's frames begin with. */
	u32 usual_len;
	u64 unused[4];
	/* The program writes this one, and user space reads it. */
	u64 consumed;
	u64 frames;
	u64 seen;
	u64 unused2[5];
	/* The program's own. User space reads it when no call runs. */
	u64 position;
	u64 limit;
	u64 count;
	u64 idle;
	u64 barrier;
	/* Frames that could not be handed to the device. */
	u64 failed;
	u64 unused3[2];
};

struct ring {
	u8 bytes[RING_BYTES];
	/* So that a frame at the last cell lies inside for the verifier. */
	u8 slack[HEADER_BYTES + FRAME_MAX + CELL_BYTES];
};

#endif

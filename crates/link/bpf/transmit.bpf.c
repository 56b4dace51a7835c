// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The sending half of the engine `live`: frames from a ring that user space fills (paper, section 3.2, with today's means).
 *
 * One BPF_PROG_TEST_RUN call with BPF_F_TEST_XDP_LIVE_FRAMES runs `irl_transmit` again and again over pages of the
 * kernel's; each turn copies the ring's next frame into such a page and redirects it to the device, which takes what
 * came together in one go. Nothing but the call's thread is needed, and no driver support but ndo_xdp_xmit.
 *
 * The ring has one producer, a worker, and one consumer: this program while `order` is odd, else the worker itself,
 * which then sends by a packet socket. Positions count cells and only grow. Its user-space side is
 * crates/link/src/live/.
 *
 * Least kernel: 5.18 (live frames, bpf_xdp_store_bytes).
 */
#include "kernel.h"

#include "transmit.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ring);
} ring SEC(".maps");

/* Shows user space how far we are. An atomic addition orders it behind the reading of the frames. */
INLINE void publish(struct control *c)
{
	__sync_fetch_and_add(&c->consumed, c->position - c->consumed);
	c->frames = c->count;
}

/* Nothing left of what we knew of: shows how far we are, obeys, and looks for more. Returns whether there is more. */
INLINE int look(struct control *c)
{
	u64 order, produced;

	if (c->consumed != c->position || c->frames != c->count)
		publish(c);
	order = *(volatile u64 *)&c->order;
	if (order != c->seen) {
		if (order & 1)
			c->position = c->limit = c->start;
		/* After `start` was read, and after everything above. */
		__sync_fetch_and_add(&c->seen, order - c->seen);
	}
	if (!(order & 1))
		return 0;
	produced = *(volatile u64 *)&c->produced;
	if (produced == c->position)
		return 0;
	/* Orders the reading of frames behind that of `produced`; once for many frames. */
	__sync_fetch_and_add(&c->barrier, 1);
	c->limit = produced;
	return 1;
}

/* The longest frame that is copied here, word by word: those of a scan. */
#define COPIED_MAX 96

/* Copies a short frame over one of the same length; 0 when it is too long. Half of what bpf_xdp_store_bytes takes. */
INLINE int copy_short(struct xdp_md *ctx, const u8 *from)
{
	u8 *data = (u8 *)(long)ctx->data;
	const u8 *end = (const u8 *)(long)ctx->data_end;

#pragma unroll
	for (u32 at = 0; at < COPIED_MAX; at += 4) {
		if (data + at + 4 > end) {
			/* The rest; offsets are constants, as pointers into a packet want. */
			if (data + at + 2 > end) {
				if (data + at + 1 > end)
					return 1;
				data[at] = from[at];
				return 1;
			}
			*(u16 *)(data + at) = *(const u16 *)(from + at);
			if (data + at + 3 > end)
				return 1;
			data[at + 2] = from[at + 2];
			return 1;
		}
		*(u32 *)(data + at) = *(const u32 *)(from + at);
	}
	return data + COPIED_MAX >= end;
}

SEC("xdp")
int irl_transmit(struct xdp_md *ctx)
{
	u32 zero = 0, at, header, len;
	struct control *c = bpf_map_lookup_elem(&control, &zero);
	struct ring *r = bpf_map_lookup_elem(&ring, &zero);

	if (!c || !r)
		return XDP_DROP;
	if (c->position == c->limit && !look(c)) {
		c->idle++;
		return XDP_DROP;
	}
	at = (u32)(c->position & (CELLS - 1)) * CELL_BYTES;
	header = *(u32 *)(r->bytes + at);
	len = header & 0xffff;
	c->position += header >> 16;
	/* The rest of the ring was too short for the next frame. */
	if (len == 0)
		return XDP_DROP;
	c->count++;
	if ((c->count & (PUBLISH_FRAMES - 1)) == 0)
		publish(c);
	if (len < FRAME_MIN || len > FRAME_MAX ||
	    (len != c->usual_len && bpf_xdp_adjust_tail(ctx, (s32)len - (s32)c->usual_len)) ||
	    (!copy_short(ctx, r->bytes + at + HEADER_BYTES) &&
	     bpf_xdp_store_bytes(ctx, 0, r->bytes + at + HEADER_BYTES, len))) {
		c->failed++;
		return XDP_DROP;
	}
	return bpf_redirect(c->ifindex, 0);
}

char irl_license[] SEC("license") = "Dual MIT/GPL";

/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Handing a frame to its owner: as a compact record, or whole.
 */
#ifndef IRL_DELIVER_H
#define IRL_DELIVER_H

#include "maps.h"
#include "record.h"

/* After a record is committed: wakes the receiver if it sleeps. The commit's atomic exchange stands between the
 * record and this look at the flag, and the receiver sets the flag before it looks at the ring: one of us sees the
 * other. */
INLINE void wake(void *ring, struct owner_state *state)
{
	void *nothing;

	if (likely(!*(volatile u32 *)&state->waiting))
		return;
	*(volatile u32 *)&state->waiting = 0;
	nothing = bpf_ringbuf_reserve(ring, 8, 0);
	if (nothing)
		bpf_ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
}

INLINE void overrun(struct owner_state *state)
{
	__sync_fetch_and_add(&state->overruns, 1);
}

/* This CPU's lane to an owner, if it has room for a record. One writer: XDP programs run with softirqs off, so that none
 * comes between on this CPU. */
INLINE struct lane *free_lane(u32 owner)
{
	void *of_owner = bpf_map_lookup_elem(&lanes, &owner);
	u32 cpu = bpf_get_smp_processor_id();
	struct lane *lane;

	if (!of_owner)
		return 0;
	lane = bpf_map_lookup_elem(of_owner, &cpu);
	if (!lane)
		return 0;
	if (unlikely(lane->written == lane->limit)) {
		lane->limit = *(volatile u64 *)&lane->taken + LANE_RECORDS;
		if (lane->written == lane->limit)
			return 0;
	}
	return lane;
}

INLINE void *lane_slot(struct lane *lane)
{
	return lane->slots + (lane->written & (LANE_RECORDS - 1)) * LANE_SLOT;
}

/* Hands over the record in the slot. An exchange: the record is seen before the count, and the receiver's flag is looked at
 * after it, as with a ring buffer's commit. */
INLINE void lane_commit(struct lane *lane, u32 owner, struct owner_state *state)
{
	void *ring;

	__sync_lock_test_and_set(&lane->written, lane->written + 1);
	if (likely(!*(volatile u32 *)&state->waiting))
		return;
	/* Whoever sleeps does so at the ring buffer. */
	ring = bpf_map_lookup_elem(&rings, &owner);
	if (ring)
		wake(ring, state);
}

INLINE void fill_header(struct record_header *h, u32 kind, u32 flags, u32 length, u32 owner)
{
	h->version = RECORD_VERSION;
	h->kind = kind;
	h->flags = flags;
	h->length = length;
	h->owner = owner;
	h->time_ns = bpf_ktime_get_ns();
}

/* Hands the whole frame to an owner; 0 when it was lost. */
GLOBAL int deliver_frame(struct xdp_md *ctx, u32 owner, u32 len, u32 flags)
{
	struct owner_state *state = bpf_map_lookup_elem(&states, &owner);
	void *ring = bpf_map_lookup_elem(&rings, &owner);
	struct scratch *s = scratch();
	u32 rest;

	if (!state || !ring || !s)
		return 0;
	if (len > MAX_FRAME_BODY) {
		len = MAX_FRAME_BODY;
		flags |= FLAG_CUT;
	}
	if (len > HEAD_LEN) {
		rest = len - HEAD_LEN;
		if (rest > MAX_FRAME_BODY - HEAD_LEN)
			return 0;
		if (bpf_xdp_load_bytes(ctx, HEAD_LEN, &s->frame[HEAD_LEN], rest))
			return 0;
	}
	fill_header(&s->header, KIND_FRAME, flags, len, owner);
	if (bpf_ringbuf_output(ring, &s->header, sizeof(s->header) + len, BPF_RB_NO_WAKEUP)) {
		overrun(state);
		return 0;
	}
	wake(ring, state);
	return 1;
}

/* One TCP option, read like a hostile peer wrote it; 1 when it was the last. A turn of bpf_loop, here and below: the
 * verifier follows a turn once, where a plain loop costs a process without CAP_PERFMON more than the kernel allows. */
static long read_option(u32 turn, void *context)
{
	struct scratch *s = scratch();
	struct tcp_fields *tcp;
	u32 at, end, kind, length;

	(void)turn;
	(void)context;
	if (!s)
		return 1;
	tcp = &s->tcp;
	at = s->at;
	end = s->packet.payload;
	if (at >= end)
		return 1;
	kind = read8(s, at);
	if (kind == 0)
		return 1;
	if (kind == 1) {
		s->at = at + 1;
		return 0;
	}
	length = at + 1 < end ? read8(s, at + 1) : 0;
	if (length < 2 || at + length > end) {
		tcp->options |= OPTION_MALFORMED;
		return 1;
	}
	s->at = at + length;
	if (kind == 2 && length == 4) {
		tcp->mss = load16(s, at + 2);
	} else if (kind == 3 && length == 3) {
		tcp->window_scale = read8(s, at + 2);
	} else if (kind == 4 && length == 2) {
		tcp->options |= OPTION_SACK_PERMITTED;
	} else if (kind == 8 && length == 10) {
		tcp->options |= OPTION_TIMESTAMPS;
		tcp->tsval = load32(s, at + 2);
		tcp->tsecr = load32(s, at + 6);
	} else if (kind == 5) {
		s->sacks = 1;
	}
	return 0;
}

/* The fields of a TCP segment, into the scratch. */
INLINE int read_tcp(struct scratch *s)
{
	struct tcp_fields *tcp;
	struct packet *p;
	u32 t;

	p = &s->packet;
	tcp = &s->tcp;
	t = p->transport;
	tcp->sport = load16(s, t);
	tcp->dport = load16(s, t + 2);
	tcp->seq = load32(s, t + 4);
	tcp->ack = load32(s, t + 8);
	tcp->window = load16(s, t + 14);
	tcp->flags = read8(s, t + 13);
	tcp->ttl = p->ttl;
	tcp->ip_id = p->ip_id;
	tcp->mss = 0;
	tcp->window_scale = 255;
	tcp->options = 0;
	tcp->payload_len = net16(p->end - p->payload);
	tcp->tsval = 0;
	tcp->tsecr = 0;
	s->sacks = 0;
	if (t + 20 >= p->payload)
		return 0;
	s->at = t + 20;
	bpf_loop(40, read_option, (void *)0, 0);
	return 0;
}

/* An address as records carry it where one layout serves both families: IPv4 mapped into IPv6. */
INLINE void map_address(const struct scratch *s, const struct packet *p, u32 offset, u64 out[2])
{
	if (p->v6) {
		out[0] = load64(s, offset);
		out[1] = load64(s, offset + 8);
	} else {
		out[0] = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		out[1] = 0xffff0000ULL | (u64)load32(s, offset) << 32;
#else
		out[1] = 0x0000ffff00000000ULL | load32(s, offset);
#endif
	}
}

INLINE void fill_udp(const struct scratch *s, const struct packet *p, struct udp_body *b)
{
	map_address(s, p, p->saddr, b->saddr);
	map_address(s, p, p->daddr, b->daddr);
	b->sport = load16(s, p->transport);
	b->dport = load16(s, p->transport + 2);
	b->length = load16(s, p->transport + 4);
	b->ttl = p->ttl;
	b->zero0 = 0;
	b->ip_id = p->ip_id;
	b->zero1 = 0;
	b->payload_len = net16(p->end - p->payload);
	b->zero2 = 0;
}

/* A mask of a loaded word's first `n` bytes in memory. */
INLINE u64 first_bytes(u32 n)
{
	if (n >= 8)
		return ~0ULL;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return ~(~0ULL << (8 * n));
#else
	return ~(~0ULL >> (8 * n));
#endif
}

INLINE void fill_icmp(const struct scratch *s, const struct packet *p, const struct claim *c, struct icmp_body *b)
{
	u32 t = p->transport, n = p->end - p->payload, available;
	u64 *words = (u64 *)b->payload;

	map_address(s, p, p->saddr, b->saddr);
	map_address(s, p, p->daddr, b->daddr);
	b->type = read8(s, t);
	b->code = read8(s, t + 1);
	b->ttl = p->ttl;
	b->ip_id = p->ip_id;
	b->payload_len = net16(n);
	b->quoted_seq = 0;
	b->quoted_daddr[0] = 0;
	b->quoted_daddr[1] = 0;
	words[0] = 0;
	words[1] = 0;
	if (p->quoted) {
		b->quoted_protocol = p->v6 && c->protocol == PROTO_ICMP ? PROTO_ICMP6 : c->protocol;
		b->quoted_seq = c->protocol == PROTO_TCP ? net32(c->seq) : load32(s, t + 4);
		map_address(s, p, c->target, b->quoted_daddr);
		if (c->protocol == PROTO_ICMP) {
			b->id = net16(c->id);
			b->sequence = net16(c->sequence);
		} else {
			b->id = net16(c->our_port);
			b->sequence = c->target_port;
		}
		return;
	}
	b->quoted_protocol = 0;
	b->id = load16(s, t + 4);
	b->sequence = load16(s, t + 6);
	available = p->payload + n < p->limit ? n : p->limit - p->payload;
	if (available > 0)
		words[0] = load64(s, p->payload) & first_bytes(available);
	if (available > 8)
		words[1] = load64(s, p->payload + 8) & first_bytes(available - 8);
}

/* Hands the frame to its owner as a compact record where that suffices; 0 when it was lost. */
GLOBAL int deliver(struct xdp_md *ctx, u32 owner, u32 frames)
{
	struct owner_state *state = bpf_map_lookup_elem(&states, &owner);
	void *ring = bpf_map_lookup_elem(&rings, &owner);
	struct scratch *s = scratch();
	const struct packet *p;
	const struct claim *c;
	u32 flags, size;

	if (!state || !ring || !s)
		return 0;
	p = &s->packet;
	c = &s->claim;
	flags = p->flags;
	if (frames == FRAMES_ALWAYS || (frames == FRAMES_PAYLOAD && is_tcp_or_udp(p->protocol) && p->end > p->payload))
		return deliver_frame(ctx, owner, p->len, flags);

	if (p->protocol == PROTO_TCP) {
		read_tcp(s);
		forget();
		if (frames == FRAMES_PAYLOAD && s->sacks)
			return deliver_frame(ctx, owner, p->len, flags);
	}
	if (p->protocol == PROTO_TCP && !p->v6) {
		struct tcp4_body *b = &s->compact.tcp4.body;

		b->saddr = load32(s, p->saddr);
		b->daddr = load32(s, p->daddr);
		b->tcp = s->tcp;
		size = sizeof(*b);
		fill_header(&s->compact.tcp4.header, KIND_TCP4, flags, size, owner);
	} else if (p->protocol == PROTO_TCP) {
		struct tcp6_body *b = &s->compact.tcp6.body;

		b->saddr[0] = load64(s, p->saddr);
		b->saddr[1] = load64(s, p->saddr + 8);
		b->daddr[0] = load64(s, p->daddr);
		b->daddr[1] = load64(s, p->daddr + 8);
		b->tcp = s->tcp;
		size = sizeof(*b);
		fill_header(&s->compact.tcp6.header, KIND_TCP6, flags, size, owner);
	} else if (p->protocol == PROTO_UDP) {
		fill_udp(s, p, &s->compact.udp.body);
		size = sizeof(struct udp_body);
		fill_header(&s->compact.udp.header, KIND_UDP, flags, size, owner);
	} else {
		fill_icmp(s, p, c, &s->compact.icmp.body);
		size = sizeof(struct icmp_body);
		fill_header(&s->compact.icmp.header, KIND_ICMP, flags, size, owner);
	}
	if (bpf_ringbuf_output(ring, &s->compact, sizeof(struct record_header) + size, BPF_RB_NO_WAKEUP)) {
		overrun(state);
		return 0;
	}
	wake(ring, state);
	return 1;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The short way for answers as nearly all of them look: a TCP segment to an address of ours, no IP options or extension
 * headers, no TCP options or those of the common stacks, no payload or, for an exchange, a little, checksums right. They
 * are read in place and written straight to the owner's lane or ring buffer. Whatever is not just so goes the long way,
 * which gives the same record, and the same verdict, for these too.
 */
#ifndef IRL_PLAIN_H
#define IRL_PLAIN_H

#include "cookie.h"
#include "deliver.h"
#include "maps.h"
#include "words.h"

#define IP4_LEN 20
#define IP6_LEN 40
#define TCP_LEN 20
/* The longest frame with data that goes this way. */
#define PLAIN_FRAME_LEN 256

/* What a segment's options say, where they are of a layout known here, and what they add to the checksum. */
struct plain_options {
	u64 sum;
	u32 tsval;
	u32 tsecr;
	u16 mss;
	u8 window_scale;
	u8 bits;
};

/* Reads the options of a TCP header of so many bytes; 0 when the layout is another. */
INLINE int read_plain_options(const u8 *tcp, const u8 *end, u32 header, struct plain_options *o)
{
	o->sum = 0;
	o->tsval = 0;
	o->tsecr = 0;
	o->mss = 0;
	o->window_scale = 255;
	o->bits = 0;
	if (header == TCP_LEN)
		return 1;
	/* Two NOPs and timestamps: segments behind a handshake. */
	if (header == TCP_LEN + 12 && tcp + TCP_LEN + 12 <= end && at32(tcp, 20) == net32(0x0101080a)) {
		o->bits = OPTION_TIMESTAMPS;
		o->tsval = at32(tcp, 24);
		o->tsecr = at32(tcp, 28);
		o->sum = sum_words(tcp + TCP_LEN, 12);
		return 1;
	}
	if (tcp + TCP_LEN + 4 > end || at16(tcp, 20) != net16(0x0204))
		return 0;
	o->mss = at16(tcp, 22);
	if (header == TCP_LEN + 4) {
		o->sum = at32(tcp, 20);
		return 1;
	}
	/* MSS, SACK permitted, timestamps, NOP, window scale: Linux, and with it most hosts. */
	if (header != TCP_LEN + 20 || tcp + TCP_LEN + 20 > end || at32(tcp, 24) != net32(0x0402080a) ||
	    (at32(tcp, 36) & net32(0xffffff00)) != net32(0x01030300))
		return 0;
	o->bits = OPTION_SACK_PERMITTED | OPTION_TIMESTAMPS;
	o->tsval = at32(tcp, 28);
	o->tsecr = at32(tcp, 32);
	o->window_scale = tcp[39];
	o->sum = sum_words(tcp + TCP_LEN, 20);
	return 1;
}

INLINE void fill_plain_tcp(struct tcp_fields *t, const u8 *tcp, const struct plain_options *o, u32 ttl, u32 ip_id)
{
	t->sport = at16(tcp, 0);
	t->dport = at16(tcp, 2);
	t->seq = at32(tcp, 4);
	t->ack = at32(tcp, 8);
	t->window = at16(tcp, 14);
	t->flags = tcp[13];
	t->ttl = ttl;
	t->ip_id = ip_id;
	t->mss = o->mss;
	t->window_scale = o->window_scale;
	t->options = o->bits;
	t->payload_len = 0;
	t->tsval = o->tsval;
	t->tsecr = o->tsecr;
}

INLINE void fill_plain_tcp4(struct tcp4_record *r, const u8 *ip, const u8 *tcp, const struct plain_options *o, u32 flags,
			    u32 owner)
{
	fill_header(&r->header, KIND_TCP4, flags | FLAG_COOKIE, sizeof(r->body), owner);
	r->body.saddr = at32(ip, 12);
	r->body.daddr = at32(ip, 16);
	fill_plain_tcp(&r->body.tcp, tcp, o, ip[8], at16(ip, 4));
}

/* Whether every address of the box around our addresses of this kind is one of them: then no table is asked. */
INLINE u32 plain_kind4(u32 address)
{
	u32 host = net32(address);

	if ((settings.whole4 & WHOLE_SPARE) && in_box4(&settings.spare4, host))
		return ADDRESS_SPARE;
	if ((settings.whole4 & WHOLE_HOST) && in_box4(&settings.host4, host))
		return ADDRESS_HOST;
	return kind_of4(address);
}

/* A record of a frame that is copied before it is known to be right. */
struct plain_frame {
	struct record_header header;
	u8 frame[PLAIN_FRAME_LEN];
};

/* Hands a whole frame to its owner, which is an IP header of `header_len` bytes and `length` bytes behind it. `seed` is the
 * pseudo header's sum. 0: the long way decides. */
INLINE int deliver_copy(struct xdp_md *ctx, u32 owner, u32 header_len, u32 length, u32 seed, u32 flags)
{
	u32 len = ETH_LEN + header_len + length, size = (length + 3) & ~3U;
	struct owner_state *state = bpf_map_lookup_elem(&states, &owner);
	void *ring = bpf_map_lookup_elem(&rings, &owner);
	struct plain_frame *r;

	if (!state || !ring || bpf_xdp_get_buff_len(ctx) != len)
		return 0;
	/* The bounds are checked of the very registers that the verifier sees used. */
	opaque(len);
	opaque(size);
	if (len < ETH_LEN || len > PLAIN_FRAME_LEN || size == 0 || size > PLAIN_FRAME_LEN - ETH_LEN - header_len)
		return 0;
	r = bpf_ringbuf_reserve(ring, sizeof(*r), 0);
	if (!r)
		return 0;
	/* Behind the frame's end the checksum wants zeros. */
#pragma unroll
	for (u32 at = 0; at < PLAIN_FRAME_LEN; at += 8)
		*(u64 *)(r->frame + at) = 0;
	if (bpf_xdp_load_bytes(ctx, 0, r->frame, len) ||
	    !sum_right((u32)bpf_csum_diff((void *)0, 0, (void *)(r->frame + ETH_LEN + header_len), size, seed))) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	fill_header(&r->header, KIND_FRAME, flags, len, owner);
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	wake(ring, state);
	count_delivered();
	return 1;
}

/* One function for each family: offsets are constants. */
GLOBAL int deliver_copy4(struct xdp_md *ctx, u32 owner, u32 length, u32 seed, u32 flags)
{
	return deliver_copy(ctx, owner, IP4_LEN, length, seed, flags);
}

GLOBAL int deliver_copy6(struct xdp_md *ctx, u32 owner, u32 length, u32 seed, u32 flags)
{
	return deliver_copy(ctx, owner, IP6_LEN, length, seed, flags);
}

/* Hands a plain answer to its owner. 0: it is none, and the long way decides. `flags` are the record's. */
INLINE int deliver_plain(struct xdp_md *ctx, const u8 *ip, const u8 *end, u32 v6, u32 flags)
{
	const u8 *tcp = ip + (v6 ? IP6_LEN : IP4_LEN);
	struct plain_options options;
	struct owner_state *state;
	struct steering *st;
	u32 zero = 0, header, id, total, distance, kind;
	struct owner *o;
	u64 cookie, sum;
	void *ring;

	if (tcp + TCP_LEN > end || !(tcp[13] & TCP_ACK))
		return 0;
	header = (tcp[12] >> 4) * 4;
	if (v6) {
		struct address6 ours = { { at64(ip, 24), at64(ip, 32) } };

		u32 *known;

		/* Version and next header. */
		total = IP6_LEN + net16(at16(ip, 4));
		if (ip[0] >> 4 != 6 || ip[6] != PROTO_TCP || total < IP6_LEN + header)
			return 0;
		known = bpf_map_lookup_elem(&addresses6, &ours);
		if (!known)
			return 0;
		kind = *known;
	} else {
		/* Version and length of the header; no fragment. */
		total = net16(at16(ip, 2));
		if (ip[0] != 0x45 || ip[9] != PROTO_TCP || (at16(ip, 6) & net16(0x3fff)) != 0 || total < IP4_LEN + header)
			return 0;
		kind = plain_kind4(at32(ip, 16));
		if (kind == ADDRESS_FOREIGN)
			return 0;
	}
	st = bpf_map_lookup_elem(&steering, &zero);
	if (!st)
		return 0;
	id = st->port[net16(at16(tcp, 2))];
	o = bpf_map_lookup_elem(&owners, &id);
	if (!o || o->protocol != PROTO_TCP || o->accept != ACCEPT_COOKIE || o->frames == FRAMES_ALWAYS || o->rule_count)
		return 0;
	if (v6) {
		u64 ours[2] = { at64(ip, 24), at64(ip, 32) }, target[2] = { at64(ip, 8), at64(ip, 16) };

		cookie = cookie_v6(o->key[0], o->key[1], ours, target, at16(tcp, 0));
	} else {
		cookie = cookie_v4(o->key[0], o->key[1], at32(ip, 16), at32(ip, 12), at16(tcp, 0));
	}
	/* Within what the owner may have sent; where that leaves room for doubt, the host comes first. */
	distance = net32(at32(tcp, 8)) - 1 - cookie_seq(cookie);
	if (distance > o->max_data || (distance != 0 && kind != ADDRESS_SPARE))
		return 0;
	if (total != (v6 ? IP6_LEN : IP4_LEN) + header) {
		u32 header_len = v6 ? IP6_LEN : IP4_LEN, length = total - header_len;

		if (o->frames != FRAMES_PAYLOAD || (flags & FLAG_VLAN) || total > PLAIN_FRAME_LEN ||
		    (!v6 && !sum_right(sum_words(ip, IP4_LEN))))
			return 0;
		sum = v6 ? sum_words(ip + 8, 32) : sum_words(ip + 12, 8);
		sum += net32(length) + net32(PROTO_TCP);
		sum = (sum & 0xffffffff) + (sum >> 32);
		sum = (sum & 0xffffffff) + (sum >> 32);
		return v6 ? deliver_copy6(ctx, id, length, sum, flags | FLAG_COOKIE) :
			    deliver_copy4(ctx, id, length, sum, flags | FLAG_COOKIE);
	}
	if (!read_plain_options(tcp, end, header, &options))
		return 0;
	/* The pseudo header's addresses are those of the header. */
	sum = sum_words(tcp, TCP_LEN) + options.sum + net32(header) + net32(PROTO_TCP);
	sum += v6 ? sum_words(ip + 8, 32) : sum_words(ip + 12, 8);
	if (!sum_right(sum) || (!v6 && !sum_right(sum_words(ip, IP4_LEN))))
		return 0;
	state = bpf_map_lookup_elem(&states, &id);
	if (!state)
		return 0;
	/* An exchange has its order from the ring buffer, where segments with data go too. */
	if (!v6 && o->frames == FRAMES_NEVER) {
		struct lane *lane = free_lane(id);

		if (likely(lane)) {
			fill_plain_tcp4(lane_slot(lane), ip, tcp, &options, flags, id);
			lane_commit(lane, id, state);
			count_delivered();
			return 1;
		}
	}
	ring = bpf_map_lookup_elem(&rings, &id);
	if (!ring)
		return 0;
	if (v6) {
		struct tcp6_record *r = bpf_ringbuf_reserve(ring, sizeof(*r), 0);

		if (!r)
			goto full;
		fill_header(&r->header, KIND_TCP6, flags | FLAG_COOKIE, sizeof(r->body), id);
		r->body.saddr[0] = at64(ip, 8);
		r->body.saddr[1] = at64(ip, 16);
		r->body.daddr[0] = at64(ip, 24);
		r->body.daddr[1] = at64(ip, 32);
		fill_plain_tcp(&r->body.tcp, tcp, &options, ip[7], 0);
		bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	} else {
		struct tcp4_record *r = bpf_ringbuf_reserve(ring, sizeof(*r), 0);

		if (!r)
			goto full;
		fill_plain_tcp4(r, ip, tcp, &options, flags, id);
		bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	}
	wake(ring, state);
	count_delivered();
	return 1;
full:
	overrun(state);
	count(REASON_RING_FULL);
	return 1;
}

#endif

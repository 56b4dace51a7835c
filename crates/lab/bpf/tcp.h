/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * Answers to TCP segments: SYN-ACKs with the options that were offered, RSTs, or nothing.
 */
#ifndef IRL_TCP_H
#define IRL_TCP_H

#include "dialogue.h"

/* A TCP segment before so many bytes of data and their sum; `options` bytes of options lie in the answer already. */
INLINE int segment(struct xdp_md *ctx, const u8 *data, const struct frame *frame, struct answer *answer, u16 id, u32 seq,
		   u32 ack, u8 flags, u16 window, u32 options, u32 bytes, u64 sum)
{
	u32 at = ETH + frame->header;
	u8 *tcp = answer->bytes + at;
	const u8 *asked = data + at;
	u32 length = TCP + (options & 63);

	envelope(answer, data, frame, PROTO_TCP, length + bytes, id);
	answer->length = at + length;
	__builtin_memcpy(tcp, asked + 2, 2);
	__builtin_memcpy(tcp + 2, asked, 2);
	store32(tcp + 4, seq);
	store32(tcp + 8, ack);
	tcp[12] = length << 2;
	tcp[13] = flags;
	store16(tcp + 14, window);
	store32(tcp + 16, 0);
	sum += pseudo(frame, answer->bytes + ETH, PROTO_TCP, length + bytes);
	for (u32 i = 0; i < TCP + 40; i += 2) {
		if (i >= length)
			break;
		sum += *(u16 *)(tcp + i);
	}
	*(u16 *)(tcp + 16) = checksum(sum);
	return transmit(ctx, answer, bytes);
}

/* The options of a SYN, and what was found in them so far. */
struct offer {
	u8 bytes[64];
	u32 at;
	u32 length;
	u32 ts_val;
	u8 mss;
	u8 sack;
	u8 timestamps;
	u8 window_scale;
};

/* Reads one option; the turn of a bpf_loop, so that it is verified once. Ends at the first that is malformed. */
static long read_option(u64 turn, struct offer *offer)
{
	u32 at = offer->at & 63, size;
	u8 kind = offer->bytes[at];

	(void)turn;
	if (offer->at >= offer->length || kind == 0)
		return 1;
	if (kind == 1) {
		offer->at++;
		return 0;
	}
	size = offer->bytes[(at + 1) & 63];
	if (at + 1 >= offer->length || size < 2 || at + size > offer->length)
		return 1;
	if (kind == 2 && size == 4)
		offer->mss = 1;
	if (kind == 3 && size == 3)
		offer->window_scale = 1;
	if (kind == 4 && size == 2)
		offer->sack = 1;
	if (kind == 8 && size == 10) {
		offer->timestamps = 1;
		offer->ts_val = (u32)offer->bytes[(at + 2) & 63] << 24 | (u32)offer->bytes[(at + 3) & 63] << 16 |
				(u32)offer->bytes[(at + 4) & 63] << 8 | offer->bytes[(at + 5) & 63];
	}
	offer->at += size;
	return 0;
}

/* Writes the options of a SYN-ACK, in the order of src/responder.rs; every group has four bytes or twelve. */
INLINE u32 write_options(u8 *out, const struct offer *offer, u8 v6, u32 isn)
{
	u32 at = 0;

	if (offer->mss) {
		store32(out, 0x02040000 | (v6 ? 1440 : 1460));
		at = 4;
	}
	opaque(at);
	if (offer->timestamps) {
		store32(out + at, (offer->sack ? 0x04020000 : 0x01010000) | 0x080a);
		store32(out + at + 4, isn << 16 | isn >> 16);
		store32(out + at + 8, offer->ts_val);
		at += 12;
	} else if (offer->sack) {
		store32(out + at, 0x01010402);
		at += 4;
	}
	opaque(at);
	if (offer->window_scale) {
		store32(out + at, 0x01030307);
		at += 4;
	}
	return at;
}

/* Reads the options of a segment, `length` bytes of them. */
INLINE long read_options(struct xdp_md *ctx, const struct frame *frame, struct offer *offer, u32 length)
{
	if (length == 0 || length > 40)
		return 0;
	if (bpf_xdp_load_bytes(ctx, ETH + frame->header + TCP, offer->bytes, length))
		return -1;
	offer->length = length;
	bpf_loop(40, read_option, offer, 0);
	return 0;
}

/* Answers data or a FIN at an open port. */
INLINE int answer_said(struct xdp_md *ctx, const struct config *conf, const u8 *data, const struct frame *frame,
		       struct answer *answer, const struct truth *truth, const struct offer *offer, u32 isn, u32 bytes)
{
	const u8 *tcp = data + ETH + frame->header;
	u8 *out = answer->bytes + ETH + frame->header + TCP, flags = said_flags(conf, bytes, tcp[13]);
	u32 ack = load32(tcp + 4) + bytes + !!(tcp[13] & FIN), options = offer->timestamps ? TIMESTAMPS_LEN : 0;
	struct said said = {};
	u32 length = 0;
	int action;

	if (options) {
		store32(out, 0x0101080a);
		store32(out + 4, isn << 16 | isn >> 16);
		store32(out + 8, offer->ts_val);
	}
	if (bytes) {
		length = conf->length;
		said = say(conf, truth->response);
	}
	opaque(length);
	action = segment(ctx, data, frame, answer, truth->response_id, load32(tcp + 8), ack, flags, WINDOW, options, length,
			 said.sum);
	if (action != XDP_REDIRECT || !length)
		return action;
	if (store_reply(ctx, conf, ETH + frame->header + TCP + options, &said))
		return XDP_DROP;
	return count(SERVED, action);
}

INLINE int answer_tcp(struct xdp_md *ctx, const struct config *conf, const u8 *data, const u8 *end,
		      const struct frame *frame, struct answer *answer)
{
	const u8 *tcp = data + ETH + frame->header;
	struct offer offer = {};
	u32 seq, ack, isn, header, taken, length;
	u16 port, our_port;
	struct truth truth;
	u8 flags;

	if (tcp + TCP > end || frame->payload < TCP)
		return count(PASSED, XDP_PASS);
	port = load16(tcp + 2);
	our_port = load16(tcp);
	seq = load32(tcp + 4);
	ack = load32(tcp + 8);
	header = (u32)(tcp[12] >> 4) * 4;
	flags = tcp[13];
	if (header < TCP || header > frame->payload)
		return count(PASSED, XDP_PASS);
	if (conf->hold && (flags & (SYN | ACK)) != SYN)
		return count(HELD, XDP_DROP);
	if (flags & RST)
		return count(SILENT, XDP_DROP);
	truth = world_truth(conf->seed, conf->everything_open, frame->destination, port);
	taken = frame->payload - header + !!(flags & SYN) + !!(flags & FIN);
	switch (truth.class) {
	case WORLD_ABSENT:
		return count(SILENT, XDP_DROP);
	case WORLD_FILTERED:
		return frame->v6 ? unreachable(ctx, data, end, frame, answer, 1, 1) :
				   unreachable(ctx, data, end, frame, answer, 3, 13);
	case WORLD_CLOSED:
		return segment(ctx, data, frame, answer, truth.response_id, flags & ACK ? ack : 0, seq + taken,
			       flags & ACK ? RST : RST | ACK, 0, 0, 0, 0);
	}
	/* Nobody here has sent a SYN (RFC 9293, 3.10.7.2). */
	if ((flags & (SYN | ACK)) == (SYN | ACK))
		return segment(ctx, data, frame, answer, truth.response_id, ack, seq + taken, RST, 0, 0, 0, 0);
	isn = world_isn(conf->seed, frame->destination, port, frame->source, our_port);
	if ((flags & (SYN | ACK)) != SYN) {
		/* A bare ACK is not answered. */
		if (!taken)
			return count(SILENT, XDP_DROP);
		if (!conf->length)
			return count(PASSED, XDP_PASS);
		if ((flags & (SYN | ACK)) != ACK)
			return count(SILENT, XDP_DROP);
		if (!is_ours(isn, ack))
			return segment(ctx, data, frame, answer, truth.response_id, ack, seq + taken, RST, 0, 0, 0, 0);
		if (read_options(ctx, frame, &offer, header - TCP))
			return count(PASSED, XDP_PASS);
		return answer_said(ctx, conf, data, frame, answer, &truth, &offer, isn, frame->payload - header);
	}
	if (truth.class == WORLD_DUPLICATE)
		return count(PASSED, XDP_PASS);
	if (read_options(ctx, frame, &offer, header - TCP))
		return count(PASSED, XDP_PASS);
	length = write_options(answer->bytes + ETH + frame->header + TCP, &offer, frame->v6, isn);
	return segment(ctx, data, frame, answer, truth.response_id, isn,
		       seq + (truth.class == WORLD_WRONG_ACK ? 12345 : 1), SYN | ACK, WINDOW, length, 0, 0);
}

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * The hosts of a World as an XDP program: the short answers, millions a second. It is the twin of src/responder.rs, byte
 * for byte. What it can't do (two answers to one frame, answers that find no room in the frame) it passes on to the
 * responder in user space, which listens on the same interface; so it does with everything that is not to its ranges.
 */
#include "answer.h"
#include "in_place.h"
#include "tcp.h"

/* Sends a frame back as it is but for its headers: the transport's checksum holds when only both ends change places. */
INLINE int reflect(struct xdp_md *ctx, const u8 *data, const struct frame *frame, struct answer *answer, u16 id,
		   u32 transport)
{
	u32 length = ETH + frame->header + (transport & 15);
	long delta = (long)ETH + frame->header + frame->payload - (long)(ctx->data_end - ctx->data);

	envelope(answer, data, frame, frame->protocol, frame->payload, id);
	if (delta && bpf_xdp_adjust_tail(ctx, delta))
		return count(NO_ROOM, XDP_PASS);
	if (length > 127 || bpf_xdp_store_bytes(ctx, 0, answer->bytes, length & 127))
		return count(NO_ROOM, XDP_DROP);
	return back(ctx);
}

INLINE int answer_udp(struct xdp_md *ctx, const struct config *conf, const u8 *data, const u8 *end,
		      const struct frame *frame, struct answer *answer)
{
	const u8 *udp = data + ETH + frame->header;
	struct truth truth;
	u8 *out;

	if (udp + 8 > end || frame->payload < 8 || load16(udp + 4) != frame->payload || load16(udp + 6) == 0)
		return count(PASSED, XDP_PASS);
	truth = world_truth(conf->seed, conf->everything_open, frame->destination, load16(udp + 2));
	if (!(truth.flags & WORLD_ALIVE))
		return count(SILENT, XDP_DROP);
	if (!(truth.flags & WORLD_UDP_ECHO))
		return frame->v6 ? unreachable(ctx, data, end, frame, answer, 1, 4) :
				   unreachable(ctx, data, end, frame, answer, 3, 3);
	out = answer->bytes + ETH + frame->header;
	__builtin_memcpy(out, udp + 2, 2);
	__builtin_memcpy(out + 2, udp, 2);
	__builtin_memcpy(out + 4, udp + 4, 4);
	return reflect(ctx, data, frame, answer, truth.response_id, 8);
}

INLINE int answer_echo(struct xdp_md *ctx, const struct config *conf, const u8 *data, const u8 *end,
		       const struct frame *frame, struct answer *answer)
{
	const u8 *icmp = data + ETH + frame->header;
	u8 request = frame->v6 ? 128 : 8, reply = frame->v6 ? 129 : 0;
	struct truth truth;
	u64 sum;
	u8 *out;

	if (icmp + ICMP > end || frame->payload < ICMP || icmp[0] != request || icmp[1])
		return count(PASSED, XDP_PASS);
	truth = world_truth(conf->seed, conf->everything_open, frame->destination, 0);
	if (!(truth.flags & WORLD_ECHO))
		return count(SILENT, XDP_DROP);
	out = answer->bytes + ETH + frame->header;
	/* RFC 1624: the checksum after the word of type and code changed. */
	sum = (u64)(u16)~load16(icmp + 2) + (u16)~((u16)request << 8) + ((u16)reply << 8);
	store16(out, (u16)reply << 8);
	store16(out + 2, checksum(sum));
	return reflect(ctx, data, frame, answer, truth.response_id, 4);
}

SEC("xdp")
int responder(struct xdp_md *ctx)
{
	struct answer answer = {};
	struct frame frame = {};
	struct config *conf;
	const u8 *end;
	u32 key = 0;
	int action;
	u8 *data;

	conf = bpf_map_lookup_elem(&config, &key);
	if (!conf)
		return XDP_PASS;
	action = answer_in_place(ctx, conf);
	if (action >= 0)
		return action;
	/* The verifier does not know that the frame is as it came. */
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!parse(data, end, &frame) || !in_range(conf, &frame))
		return XDP_PASS;
	/* Nobody answers what came broken. What is too long to tell is looked at in user space. */
	switch (intact(ctx, frame.v6, frame.protocol, frame.payload)) {
	case 0:
		return count(SILENT, XDP_DROP);
	case 2:
		return count(PASSED, XDP_PASS);
	}
	/* The verifier must see that header lengths are constants. */
	if (frame.v6) {
		frame.header = IP6;
		switch (frame.protocol) {
		case PROTO_TCP:
			return answer_tcp(ctx, conf, data, end, &frame, &answer);
		case PROTO_UDP:
			return answer_udp(ctx, conf, data, end, &frame, &answer);
		case PROTO_ICMP6:
			return answer_echo(ctx, conf, data, end, &frame, &answer);
		}
	} else {
		frame.header = IP4;
		switch (frame.protocol) {
		case PROTO_TCP:
			return answer_tcp(ctx, conf, data, end, &frame, &answer);
		case PROTO_UDP:
			return answer_udp(ctx, conf, data, end, &frame, &answer);
		case PROTO_ICMP:
			return answer_echo(ctx, conf, data, end, &frame, &answer);
		}
	}
	return count(PASSED, XDP_PASS);
}

char irl_license[] SEC("license") = "Dual MIT/GPL";

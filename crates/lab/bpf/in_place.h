/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * The short way for what nearly all frames are in a scan, and in exchanges of one request.
 */
#ifndef IRL_IN_PLACE_H
#define IRL_IN_PLACE_H

#include "dialogue.h"

/* What a SYN's options are, and the answer's in the order of src/responder.rs: those of Linux, or none. */
#define OPTIONS_LEN 20

/* What is known of a plain IPv4 segment, addresses and ports as they lie in the packet. */
struct plain {
	struct frame frame;
	u32 saddr;
	u32 daddr;
	u32 header; /* of TCP */
	u32 total; /* of IP */
};

/* Answers a plain segment that is no SYN: with options it has timestamps only, as Linux writes them. Returns as
 * `answer_in_place`. */
INLINE int speak_in_place(struct xdp_md *ctx, const struct config *conf, u8 *data, const u8 *end,
			  const struct plain *plain)
{
	u8 *ip = data + ETH, *tcp = ip + IP4;
	u32 header = plain->header, bytes, length = 0, isn, seq, ack, ts_val = 0;
	u16 sport, dport, mac[6];
	struct said said = {};
	struct truth truth;
	u64 options = 0;
	u8 flags;

	flags = tcp[13];
	if ((flags & (SYN | ACK)) != ACK || !conf->length || plain->total < IP4 + header ||
	    end - data < ETH + plain->total)
		return -1;
	if (header == TCP + TIMESTAMPS_LEN) {
		if (tcp + TCP + TIMESTAMPS_LEN > end || at32(tcp, 20) != net32(0x0101080a))
			return -1;
		ts_val = at32(tcp, 24);
	} else if (header != TCP) {
		return -1;
	}
	bytes = plain->total - IP4 - header;
	sport = at16(tcp, 0);
	dport = at16(tcp, 2);
	truth = world_truth(conf->seed, conf->everything_open, plain->frame.destination, net16(dport));
	if (truth.class != WORLD_OPEN && truth.class != WORLD_MIDDLEBOX)
		return -1;
	/* Whether it came whole does not matter for what is not answered. */
	if (!bytes && !(flags & FIN))
		return count(SILENT, XDP_DROP);
	if (intact(ctx, 0, PROTO_TCP, header + bytes) != 1)
		return -1;
	isn = world_isn(conf->seed, plain->frame.destination, net16(dport), plain->frame.source, net16(sport));
	ack = at32(tcp, 8);
	if (!is_ours(isn, net32(ack)))
		return -1;
	seq = net32(at32(tcp, 4)) + bytes + !!(flags & FIN);
	flags = said_flags(conf, bytes, flags);
	if (bytes) {
		length = conf->length;
		said = say(conf, truth.response);
	}

#pragma unroll
	for (int i = 0; i < 6; i++)
		mac[i] = at16(data, 2 * i);
	if (resize(ctx, (long)ETH + IP4 + header + length - (end - data)))
		return count(NO_ROOM, XDP_PASS);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip = data + ETH;
	tcp = ip + IP4;
	if (tcp + TCP > end || (header != TCP && tcp + TCP + TIMESTAMPS_LEN > end))
		return count(NO_ROOM, XDP_DROP);
#pragma unroll
	for (int i = 0; i < 6; i++)
		at16(data, 2 * i) = mac[(i + 3) % 6];
	at16(data, 12) = net16(ETHERTYPE_IP4);
	at16(ip, 0) = net16(0x4500);
	at16(ip, 2) = net16(IP4 + header + length);
	at16(ip, 4) = net16(truth.response_id);
	at16(ip, 6) = net16(0x4000);
	at16(ip, 8) = net16(TTL << 8 | PROTO_TCP);
	at16(ip, 10) = 0;
	at32(ip, 12) = plain->daddr;
	at32(ip, 16) = plain->saddr;
	at16(ip, 10) = checksum(sum_words(ip, IP4));
	at16(tcp, 0) = dport;
	at16(tcp, 2) = sport;
	at32(tcp, 4) = ack;
	at32(tcp, 8) = net32(seq);
	at16(tcp, 12) = net16(header << 10 | flags);
	at16(tcp, 14) = net16(WINDOW);
	at32(tcp, 16) = 0;
	if (header != TCP) {
		at32(tcp, 20) = net32(0x0101080a);
		at32(tcp, 24) = net32(isn << 16 | isn >> 16);
		at32(tcp, 28) = ts_val;
		options = sum_words(tcp + TCP, TIMESTAMPS_LEN);
	}
	said.sum += (u64)plain->saddr + plain->daddr + net32(PROTO_TCP) + net32(header + length);
	at16(tcp, 16) = checksum(said.sum + sum_words(tcp, TCP) + options);
	if (!length)
		return back(ctx);
	if (store_reply(ctx, conf, ETH + IP4 + header, &said))
		return count(NO_ROOM, XDP_DROP);
	count(SERVED, 0);
	return back(ctx);
}

/* Answers a plain SYN to an IPv4 host where it lies, its answer being of the same length; a plain RST is not answered.
 * Returns the action, or -1: the long way decides, and would answer the same. */
INLINE int answer_in_place(struct xdp_md *ctx, const struct config *conf)
{
	u8 *data = (void *)(long)ctx->data, *ip = data + ETH, *tcp = ip + IP4;
	const u8 *end = (void *)(long)ctx->data_end;
	struct plain plain = {};
	u32 header, saddr, daddr, isn, tsval;
	u16 sport, dport, mac[3];
	struct truth truth;
	u64 sum, options = 0;

	if (tcp + TCP > end || at16(data, 12) != net16(ETHERTYPE_IP4) || ip[0] != 0x45 || ip[9] != PROTO_TCP ||
	    (at16(ip, 6) & net16(0x3fff)))
		return -1;
	header = (tcp[12] >> 4) * 4;
	saddr = at32(ip, 12);
	daddr = at32(ip, 16);
	plain.frame.source.low = net32(saddr);
	plain.frame.destination.low = net32(daddr);
	if (!in_range(conf, &plain.frame))
		return -1;
	if (tcp[13] != SYN) {
		/* Whether it came whole does not matter. */
		if (conf->hold && !(tcp[13] & SYN))
			return count(HELD, XDP_DROP);
		if (tcp[13] & RST)
			return header == TCP ? count(SILENT, XDP_DROP) : -1;
		plain.saddr = saddr;
		plain.daddr = daddr;
		plain.header = header;
		plain.total = net16(at16(ip, 2));
		return speak_in_place(ctx, conf, data, end, &plain);
	}
	if (net16(at16(ip, 2)) != IP4 + header)
		return -1;
	if (header == TCP + OPTIONS_LEN) {
		/* MSS, SACK permitted, timestamps, NOP, window scale. */
		if (tcp + TCP + OPTIONS_LEN > end || at16(tcp, 20) != net16(0x0204) || at32(tcp, 24) != net32(0x0402080a) ||
		    (at32(tcp, 36) & net32(0xffffff00)) != net32(0x01030300))
			return -1;
		options = sum_words(tcp + TCP, OPTIONS_LEN);
	} else if (header != TCP) {
		return -1;
	}
	sum = (u64)saddr + daddr + net32(PROTO_TCP) + net32(header);
	if (!sum_right(sum_words(ip, IP4)) || !sum_right(sum + sum_words(tcp, TCP) + options))
		return -1;
	sport = at16(tcp, 0);
	dport = at16(tcp, 2);
	truth = world_truth(conf->seed, conf->everything_open, plain.frame.destination, net16(dport));
	if (truth.class == WORLD_ABSENT)
		return count(SILENT, XDP_DROP);
	if (truth.class != WORLD_OPEN && truth.class != WORLD_MIDDLEBOX)
		return -1;
	isn = world_isn(conf->seed, plain.frame.destination, net16(dport), plain.frame.source, net16(sport));

#pragma unroll
	for (int i = 0; i < 3; i++) {
		mac[i] = at16(data, 2 * i);
		at16(data, 2 * i) = at16(data, 6 + 2 * i);
		at16(data, 6 + 2 * i) = mac[i];
	}
	at16(ip, 0) = net16(0x4500);
	at16(ip, 4) = net16(truth.response_id);
	at16(ip, 6) = net16(0x4000);
	at16(ip, 8) = net16(TTL << 8 | PROTO_TCP);
	at16(ip, 10) = 0;
	at32(ip, 12) = daddr;
	at32(ip, 16) = saddr;
	at16(ip, 10) = checksum(sum_words(ip, IP4));
	at16(tcp, 0) = dport;
	at16(tcp, 2) = sport;
	at32(tcp, 8) = net32(net32(at32(tcp, 4)) + 1);
	at32(tcp, 4) = net32(isn);
	at16(tcp, 12) = net16(header << 10 | SYN | ACK);
	at16(tcp, 14) = net16(WINDOW);
	at32(tcp, 16) = 0;
	options = 0;
	if (header == TCP + OPTIONS_LEN) {
		tsval = isn << 16 | isn >> 16;
		at16(tcp, 22) = net16(1460);
		at32(tcp, 32) = at32(tcp, 28);
		at32(tcp, 28) = net32(tsval);
		at32(tcp, 36) = net32(0x01030307);
		options = sum_words(tcp + TCP, OPTIONS_LEN);
	}
	at16(tcp, 16) = checksum(sum + sum_words(tcp, TCP) + options);
	return back(ctx);
}

#endif

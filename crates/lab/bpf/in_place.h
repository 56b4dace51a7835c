/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * The short way for what nearly all frames are in a scan.
 */
#ifndef IRL_IN_PLACE_H
#define IRL_IN_PLACE_H

#include "answer.h"

/* What a SYN's options are, and the answer's in the order of src/responder.rs: those of Linux, or none. */
#define OPTIONS_LEN 20

/* Answers a plain SYN to an IPv4 host where it lies, its answer being of the same length; a plain RST is not answered.
 * Returns the action, or -1: the long way decides, and would answer the same. */
INLINE int answer_in_place(struct xdp_md *ctx, const struct config *conf, u8 *data, const u8 *end)
{
	u8 *ip = data + ETH, *tcp = ip + IP4;
	struct frame frame = {};
	u32 header, saddr, daddr, isn, tsval;
	u16 sport, dport, mac[3];
	struct truth truth;
	u64 sum, options = 0;

	if (tcp + TCP > end || at16(data, 12) != net16(ETHERTYPE_IP4) || ip[0] != 0x45 || ip[9] != PROTO_TCP ||
	    (at16(ip, 6) & net16(0x3fff)))
		return -1;
	header = (tcp[12] >> 4) * 4;
	if (net16(at16(ip, 2)) != IP4 + header)
		return -1;
	saddr = at32(ip, 12);
	daddr = at32(ip, 16);
	frame.source.low = net32(saddr);
	frame.destination.low = net32(daddr);
	if (!in_range(conf, &frame))
		return -1;
	/* Whether it came whole does not matter. */
	if ((tcp[13] & RST) && header == TCP)
		return count(SILENT, XDP_DROP);
	if (tcp[13] != SYN)
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
	truth = world_truth(conf->seed, conf->everything_open, frame.destination, net16(dport));
	if (truth.class == WORLD_ABSENT)
		return count(SILENT, XDP_DROP);
	if (truth.class != WORLD_OPEN && truth.class != WORLD_MIDDLEBOX)
		return -1;
	isn = world_isn(conf->seed, frame.destination, net16(dport), frame.source, net16(sport));

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
	at16(tcp, 14) = net16(65160);
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

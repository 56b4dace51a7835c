/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * What answers of every kind share: the hosts' ranges, a frame read and checked, an answer written and sent back.
 */
#ifndef IRL_ANSWER_H
#define IRL_ANSWER_H

#include "words.h"
#include "world.h"

enum { ETH = 14, IP4 = 20, IP6 = 40, TCP = 20, ICMP = 8, MAX_RANGES = 16, TTL = 64 };
enum { ETHERTYPE_IP4 = 0x0800, ETHERTYPE_IP6 = 0x86dd };
enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ICMP6 = 58 };
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };
enum counter { ANSWERED = 0, SILENT, PASSED, NO_ROOM, SERVED, HELD, COUNTERS };
/* See src/service.rs. */
enum { MAX_REPLY = 1428, DIGITS = 16 };

struct range {
	struct address first;
	struct address last;
	u64 v6;
};

struct config {
	u64 seed;
	u32 everything_open;
	u32 ranges;
	struct range range[MAX_RANGES];
	u32 hold; /* SYNs are answered, and no other segment */
	u32 fin; /* whether a FIN goes with the reply */
	u32 digits_at; /* even */
	u16 sum; /* of the reply, its digits being 0 */
	u16 length; /* of the reply; 0 when user space says it */
	u8 reply[(MAX_REPLY + 7) & ~7];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

/* What is known of a frame once its headers were read. */
struct frame {
	struct address source;
	struct address destination;
	u8 v6;
	u8 protocol;
	u8 header; /* bytes of the IP header */
	u16 payload; /* bytes behind it */
};

/* An answer's headers, from the Ethernet header on, and how long it is. */
struct answer {
	u8 bytes[128];
	u32 length;
};

INLINE int count(enum counter which, int action)
{
	u32 key = which;
	u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += 1;
	return action;
}

/* The checksum that a sum comes to. */
INLINE u16 checksum(u64 sum)
{
	return ~fold_sum(sum);
}

/* Sends the frame back where it came from. Not by XDP_TX: on a veth pair that wakes the other end only when an XDP program
 * is attached there too, so that ordinary programs would get no answers. */
INLINE int back(struct xdp_md *ctx)
{
	return count(ANSWERED, bpf_redirect(ctx->ingress_ifindex, 0));
}

/* Makes a frame so much longer or shorter. Frames of the kernel's senders often have no room behind them, but all have some
 * before: whoever calls this writes the whole frame anew, from its first byte on. */
INLINE long resize(struct xdp_md *ctx, long delta)
{
	if (!delta || !bpf_xdp_adjust_tail(ctx, delta))
		return 0;
	return delta > 0 ? bpf_xdp_adjust_head(ctx, -delta) : -1;
}

/* The longest transport part whose checksum is looked at, in steps of sixteen bytes. */
#define MAX_STEPS 256

/* Whether the checksums of a packet are right; 2 when it is too long to tell. Its transport part has `length` bytes. */
GLOBAL int intact(struct xdp_md *ctx, u32 v6, u32 protocol, u32 length)
{
	const u8 *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *next;
	u32 header = 0;
	u64 sum = 0;

	if (length > MAX_STEPS * 16)
		return 2;
	at += ETH;
	if (v6) {
		if (at + IP6 > end)
			return 0;
		for (int i = 8; i < IP6; i += 4)
			sum += *(const u32 *)(at + i);
		at += IP6;
	} else {
		if (at + IP4 > end)
			return 0;
		for (int i = 0; i < IP4; i += 2)
			header += *(const u16 *)(at + i);
		if (checksum(header))
			return 0;
		sum = (u64)*(const u32 *)(at + 12) + *(const u32 *)(at + 16);
		at += IP4;
		/* RFC 768: no checksum was made. */
		if (protocol == PROTO_UDP && at + 8 <= end && *(const u16 *)(at + 6) == 0)
			return 1;
	}
	sum = protocol == PROTO_ICMP ? 0 : sum + net16(protocol) + net16(length);
	for (u32 i = 0; i < MAX_STEPS; i++) {
		if (length < 16)
			break;
		next = at + 16;
		opaque(next);
		if (next > end)
			return 0;
		sum += sum_words(at, 16);
		at = next;
		length -= 16;
	}
	for (u32 i = 0; i < 3; i++) {
		if (length < 4)
			break;
		next = at + 4;
		opaque(next);
		if (next > end)
			return 0;
		sum += at32(at, 0);
		at = next;
		length -= 4;
	}
	if (length & 2) {
		next = at + 2;
		opaque(next);
		if (next > end)
			return 0;
		sum += *(const u16 *)at;
		at = next;
	}
	if (length & 1) {
		next = at + 1;
		opaque(next);
		if (next > end)
			return 0;
		sum += net16((u16)*at << 8);
	}
	return checksum(sum) == 0;
}

INLINE u16 load16(const u8 *at)
{
	return (u16)at[0] << 8 | at[1];
}

INLINE u32 load32(const u8 *at)
{
	return (u32)load16(at) << 16 | load16(at + 2);
}

INLINE u64 load64(const u8 *at)
{
	return (u64)load32(at) << 32 | load32(at + 4);
}

INLINE void store16(u8 *at, u16 value)
{
	at[0] = value >> 8;
	at[1] = value;
}

INLINE void store32(u8 *at, u32 value)
{
	store16(at, value >> 16);
	store16(at + 2, value);
}

INLINE int below(struct address a, struct address b)
{
	return a.high < b.high || (a.high == b.high && a.low < b.low);
}

INLINE int in_range(const struct config *conf, const struct frame *frame)
{
	for (u32 i = 0; i < MAX_RANGES; i++) {
		if (i >= conf->ranges)
			return 0;
		if (conf->range[i].v6 == frame->v6 && !below(frame->destination, conf->range[i].first) &&
		    !below(conf->range[i].last, frame->destination))
			return 1;
	}
	return 0;
}

/* Reads Ethernet and IP; 0 unless it is a whole IPv4 packet without options or an IPv6 packet without extensions. */
INLINE int parse(const u8 *data, const u8 *end, struct frame *frame)
{
	const u8 *ip = data + ETH;
	u16 ethertype;

	if (ip + IP4 > end)
		return 0;
	ethertype = load16(data + 12);
	if (ethertype == ETHERTYPE_IP4) {
		u16 total = load16(ip + 2);

		if (ip[0] != 0x45 || load16(ip + 6) & 0x3fff || total < IP4)
			return 0;
		frame->source = (struct address){ 0, load32(ip + 12) };
		frame->destination = (struct address){ 0, load32(ip + 16) };
		frame->v6 = 0;
		frame->protocol = ip[9];
		frame->header = IP4;
		frame->payload = total - IP4;
	} else if (ethertype == ETHERTYPE_IP6) {
		if (ip + IP6 > end || ip[0] >> 4 != 6)
			return 0;
		frame->source = (struct address){ load64(ip + 8), load64(ip + 16) };
		frame->destination = (struct address){ load64(ip + 24), load64(ip + 32) };
		frame->v6 = 1;
		frame->protocol = ip[6];
		frame->header = IP6;
		frame->payload = load16(ip + 4);
	} else {
		return 0;
	}
	return ip + frame->header + frame->payload <= end;
}

/* The sum of the pseudo header, in the order of memory as bpf_csum_diff counts. */
INLINE u64 pseudo(const struct frame *frame, const u8 *ip, u8 protocol, u16 length)
{
	u64 sum = 0;

	if (frame->v6) {
		for (int i = 8; i < IP6; i += 2)
			sum += *(const u16 *)(ip + i);
	} else {
		for (int i = 12; i < IP4; i += 2)
			sum += *(const u16 *)(ip + i);
	}
	return sum + net16(protocol) + net16(length);
}

/* Writes Ethernet and IP headers of an answer whose transport part has `length` bytes. */
INLINE void envelope(struct answer *answer, const u8 *data, const struct frame *frame, u8 protocol, u16 length, u16 id)
{
	u8 *out = answer->bytes, *ip = out + ETH;

	__builtin_memcpy(out, data + 6, 6);
	__builtin_memcpy(out + 6, data, 6);
	__builtin_memcpy(out + 12, data + 12, 2);
	if (frame->v6) {
		store32(ip, 0x60000000);
		store16(ip + 4, length);
		ip[6] = protocol;
		ip[7] = TTL;
		__builtin_memcpy(ip + 8, data + ETH + 24, 16);
		__builtin_memcpy(ip + 24, data + ETH + 8, 16);
	} else {
		u64 sum = 0;

		store16(ip, 0x4500);
		store16(ip + 2, IP4 + length);
		store16(ip + 4, id);
		store16(ip + 6, 0x4000);
		ip[8] = TTL;
		ip[9] = protocol;
		store16(ip + 10, 0);
		__builtin_memcpy(ip + 12, data + ETH + 16, 4);
		__builtin_memcpy(ip + 16, data + ETH + 12, 4);
		for (int i = 0; i < IP4; i += 2)
			sum += *(u16 *)(ip + i);
		*(u16 *)(ip + 10) = checksum(sum);
	}
	answer->length = ETH + frame->header + length;
}

/* Puts the answer in the frame's place, before so many bytes that are still to be written, and sends it back. */
INLINE int transmit(struct xdp_md *ctx, struct answer *answer, u32 data)
{
	u32 length = answer->length & 127;
	long delta = (long)length + data - (long)(ctx->data_end - ctx->data);

	if (resize(ctx, delta))
		return count(NO_ROOM, XDP_PASS);
	if (length < ETH || bpf_xdp_store_bytes(ctx, 0, answer->bytes, length))
		return count(NO_ROOM, XDP_DROP);
	return back(ctx);
}

/* ICMP destination unreachable that quotes the IP header and eight bytes. */
INLINE int unreachable(struct xdp_md *ctx, const u8 *data, const u8 *end, const struct frame *frame,
		       struct answer *answer, u8 type, u8 code)
{
	u32 at = ETH + frame->header;
	u8 *icmp = answer->bytes + at;
	u16 length = ICMP + frame->header + 8;
	u8 protocol = frame->v6 ? PROTO_ICMP6 : PROTO_ICMP;
	u64 sum;

	if (frame->payload < 8 || data + ETH + IP6 + 8 > end)
		return count(PASSED, XDP_PASS);
	envelope(answer, data, frame, protocol, length, 0);
	store16(icmp, (u16)type << 8 | code);
	store16(icmp + 2, 0);
	store32(icmp + 4, 0);
	if (frame->v6)
		__builtin_memcpy(icmp + ICMP, data + ETH, IP6 + 8);
	else
		__builtin_memcpy(icmp + ICMP, data + ETH, IP4 + 8);
	sum = frame->v6 ? pseudo(frame, answer->bytes + ETH, protocol, length) : 0;
	for (u32 i = 0; i < ICMP + IP6 + 8; i += 2) {
		if (i >= length)
			break;
		sum += *(u16 *)(icmp + i);
	}
	*(u16 *)(icmp + 2) = checksum(sum);
	return transmit(ctx, answer, 0);
}

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * The hosts of a World as an XDP program: the short answers, millions a second. It is the twin of src/responder.rs, byte
 * for byte. What it can't do (two answers to one frame, data, answers that find no room in the frame) it passes on to the
 * responder in user space, which listens on the same interface; so it does with everything that is not to its ranges.
 */
#include "words.h"
#include "world.h"

enum { ETH = 14, IP4 = 20, IP6 = 40, TCP = 20, ICMP = 8, MAX_RANGES = 16, TTL = 64 };
enum { ETHERTYPE_IP4 = 0x0800, ETHERTYPE_IP6 = 0x86dd };
enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ICMP6 = 58 };
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10 };
enum counter { ANSWERED = 0, SILENT, PASSED, NO_ROOM, COUNTERS };

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

INLINE u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(u16)sum;
}

/* Sends the frame back where it came from. Not by XDP_TX: on a veth pair that wakes the other end only when an XDP program
 * is attached there too, so that ordinary programs would get no answers. */
INLINE int back(struct xdp_md *ctx)
{
	return count(ANSWERED, bpf_redirect(ctx->ingress_ifindex, 0));
}

/* Hides from the compiler what it knows of a value: it would turn `pointer + number` into an OR, or compare with an address
 * derived from the end, and the verifier refuses both. */
#define opaque(x) __asm__ volatile("" : "+r"(x))

/* The longest transport part whose checksum is looked at, in words of four bytes. */
#define MAX_WORDS 1024

/* Whether the checksums of a packet are right; 2 when it is too long to tell. Its transport part has `length` bytes. */
GLOBAL int intact(struct xdp_md *ctx, u32 v6, u32 protocol, u32 length)
{
	const u8 *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *next;
	u32 header = 0;
	u64 sum = 0;

	if (length > MAX_WORDS * 4)
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
		if (fold(header))
			return 0;
		sum = (u64)*(const u32 *)(at + 12) + *(const u32 *)(at + 16);
		at += IP4;
		/* RFC 768: no checksum was made. */
		if (protocol == PROTO_UDP && at + 8 <= end && *(const u16 *)(at + 6) == 0)
			return 1;
	}
	sum = protocol == PROTO_ICMP ? 0 : sum + net16(protocol) + net16(length);
	for (u32 i = 0; i < MAX_WORDS; i++) {
		if (length < 4)
			break;
		next = at + 4;
		opaque(next);
		if (next > end)
			return 0;
		sum += *(const u32 *)at;
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
	return fold(sum) == 0;
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
		*(u16 *)(ip + 10) = fold(sum);
	}
	answer->length = ETH + frame->header + length;
}

/* Puts the answer in the frame's place and sends it back. */
INLINE int transmit(struct xdp_md *ctx, struct answer *answer)
{
	u32 length = answer->length & 127;
	long delta = (long)length - (long)(ctx->data_end - ctx->data);

	if (delta && bpf_xdp_adjust_tail(ctx, delta))
		return count(NO_ROOM, XDP_PASS);
	if (length < ETH || bpf_xdp_store_bytes(ctx, 0, answer->bytes, length))
		return count(NO_ROOM, XDP_DROP);
	return back(ctx);
}

/* A TCP segment without data; `options` bytes of options lie in the answer already. */
INLINE int segment(struct xdp_md *ctx, const u8 *data, const struct frame *frame, struct answer *answer, u16 id, u32 seq,
		   u32 ack, u8 flags, u16 window, u32 options)
{
	u32 at = ETH + frame->header;
	u8 *tcp = answer->bytes + at;
	const u8 *asked = data + at;
	u32 length = TCP + (options & 63);
	u64 sum;

	envelope(answer, data, frame, PROTO_TCP, length, id);
	__builtin_memcpy(tcp, asked + 2, 2);
	__builtin_memcpy(tcp + 2, asked, 2);
	store32(tcp + 4, seq);
	store32(tcp + 8, ack);
	tcp[12] = length << 2;
	tcp[13] = flags;
	store16(tcp + 14, window);
	store32(tcp + 16, 0);
	sum = pseudo(frame, answer->bytes + ETH, PROTO_TCP, length);
	for (u32 i = 0; i < TCP + 40; i += 2) {
		if (i >= length)
			break;
		sum += *(u16 *)(tcp + i);
	}
	*(u16 *)(tcp + 16) = fold(sum);
	return transmit(ctx, answer);
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
	*(u16 *)(icmp + 2) = fold(sum);
	return transmit(ctx, answer);
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
			       flags & ACK ? RST : RST | ACK, 0, 0);
	}
	if ((flags & (SYN | ACK)) != SYN) {
		/* Data and FINs are answered in user space; a bare ACK is not answered at all. */
		if (taken)
			return count(PASSED, XDP_PASS);
		return count(SILENT, XDP_DROP);
	}
	if (truth.class == WORLD_DUPLICATE)
		return count(PASSED, XDP_PASS);
	isn = world_isn(conf->seed, frame->destination, port, frame->source, our_port);
	length = header - TCP;
	if (length > 0 && length <= 40) {
		if (bpf_xdp_load_bytes(ctx, ETH + frame->header + TCP, offer.bytes, length))
			return count(PASSED, XDP_PASS);
		offer.length = length;
		bpf_loop(40, read_option, &offer, 0);
	}
	length = write_options(answer->bytes + ETH + frame->header + TCP, &offer, frame->v6, isn);
	return segment(ctx, data, frame, answer, truth.response_id, isn,
		       seq + (truth.class == WORLD_WRONG_ACK ? 12345 : 1), SYN | ACK, 65160, length);
}

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
	store16(out + 2, fold(sum));
	return reflect(ctx, data, frame, answer, truth.response_id, 4);
}

/* What a SYN's options are, and the answer's in the order of src/responder.rs: those of Linux, or none. */
#define OPTIONS_LEN 20

/* Answers a plain SYN to an IPv4 host where it lies, its answer being of the same length. Returns the action, or -1: the
 * long way decides, and would answer the same. */
INLINE int answer_in_place(struct xdp_md *ctx, const struct config *conf, u8 *data, const u8 *end)
{
	u8 *ip = data + ETH, *tcp = ip + IP4;
	struct frame frame = {};
	u32 header, saddr, daddr, isn, tsval;
	u16 sport, dport, mac[3];
	struct truth truth;
	u64 sum, options = 0;

	if (tcp + TCP > end || at16(data, 12) != net16(ETHERTYPE_IP4) || ip[0] != 0x45 || ip[9] != PROTO_TCP ||
	    (at16(ip, 6) & net16(0x3fff)) || tcp[13] != SYN)
		return -1;
	header = (tcp[12] >> 4) * 4;
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
	saddr = at32(ip, 12);
	daddr = at32(ip, 16);
	sum = (u64)saddr + daddr + net32(PROTO_TCP) + net32(header);
	if (!sum_right(sum_words(ip, IP4)) || !sum_right(sum + sum_words(tcp, TCP) + options))
		return -1;
	frame.source.low = net32(saddr);
	frame.destination.low = net32(daddr);
	if (!in_range(conf, &frame))
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
	at16(ip, 10) = ~fold_sum(sum_words(ip, IP4));
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
	at16(tcp, 16) = ~fold_sum(sum + sum_words(tcp, TCP) + options);
	return back(ctx);
}

SEC("xdp")
int responder(struct xdp_md *ctx)
{
	u8 *data = (void *)(long)ctx->data;
	const u8 *end = (void *)(long)ctx->data_end;
	struct answer answer = {};
	struct frame frame = {};
	struct config *conf;
	u32 key = 0;
	int action;

	conf = bpf_map_lookup_elem(&config, &key);
	if (!conf)
		return XDP_PASS;
	action = answer_in_place(ctx, conf, data, end);
	if (action >= 0)
		return action;
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

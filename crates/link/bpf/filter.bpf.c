// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The filter: which received frames are ours (design decision 4).
 *
 * Two stages. `filter` looks at the packet in place and lets the host's own traffic go after a few comparisons with
 * global data, before any map look-up. What may be ours goes to `divert`: the frame's first HEAD_LEN bytes are copied
 * into a scratch buffer of this CPU, parsed there, checked against the owner's cookie or match rules, and written to
 * the owner's ring buffer. Its twin in safe Rust is crates/link/src/filter/twin.rs; a test runs both on the same
 * frames and compares verdicts and records.
 *
 * Least kernel: 5.18 (bpf_xdp_load_bytes).
 */
#include "kernel.h"

#include "cookie.h"
#include "filter.h"
#include "record.h"

#define ETH_LEN 14
#define VLAN_LEN 4
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_QINQ 0x88a8

#define PROTO_HOP_BY_HOP 0
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_FRAGMENT 44
#define PROTO_ICMP6 58
#define PROTO_DEST_OPTIONS 60
#define MAX_EXTENSIONS 4

#define TCP_ACK 0x10

#define ICMP6_SOLICITATION 135
#define ICMP6_ADVERTISEMENT 136
#define ARP_REPLY 2

/* A frame as `divert` has parsed it. Offsets count from the frame's start. */
struct packet {
	u32 len; /* of the whole frame */
	u32 limit; /* nothing beyond this may be read from the scratch copy */
	u32 network;
	u32 transport;
	u32 end; /* of the IP packet; what follows is padding */
	u32 saddr;
	u32 daddr;
	u16 flags; /* of the record */
	u16 ip_id;
	u8 v6;
	u8 protocol;
	u8 ttl;
	u8 fragment; /* 0: none, 1: the first, 2: a later one */
	u32 quoted; /* the transport header of the packet that an ICMP error quotes, or 0 */
	u32 payload; /* what follows the transport header */
};

/* What has to be shown for the frame to be an owner's. */
struct claim {
	u32 owner;
	u32 target; /* offset of the target's address */
	u16 target_port; /* network order */
	u16 our_port;
	u8 protocol; /* of the probe that is answered or quoted */
	u8 has_seq; /* TCP: whether `seq` can be compared */
	u32 seq; /* relative to the cookie's sequence number once that is taken off */
	u16 id;
	u16 sequence;
};

/* One frame's working memory. That it lies in a map and not on the stack is what keeps verification short: the verifier
 * forgets what it knew of a value stored here, so paths through the parser meet again. Nothing is trusted when it is
 * read back: every offset is masked, every length compared. */
struct scratch {
	struct packet packet;
	struct claim claim;
	struct tcp_fields tcp;
	u32 at; /* cursor in the TCP options */
	u32 sacks; /* whether SACK blocks were there */
	u32 frames; /* how the owner wants it */
	u32 proven; /* whether the cookie leaves no room for doubt */
	u32 failed_class; /* while match rules are tried */
	u32 with_cookie;
	u32 found;
	u32 bases[4]; /* where the rules' offsets count from, by enum rule_base */
	u64 cookie;
	union {
		struct tcp4_record tcp4;
		struct tcp6_record tcp6;
		struct icmp_record icmp;
		struct udp_record udp;
	} compact;
	struct record_header header; /* of the frame record that the frame below may become */
	u8 frame[MAX_FRAME_BODY + 64];
};

struct settings settings SEC(".data.settings");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ADDRESSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u32);
} addresses4 SEC(".maps");

struct address6 {
	u64 half[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ADDRESSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address6);
	__type(value, u32);
} addresses6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct steering);
} steering SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_OWNERS);
	__type(key, u32);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_OWNERS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct owner_state);
} states SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_OWNERS);
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

INLINE u8 read8(const struct scratch *s, u32 offset)
{
	return s->frame[offset & (HEAD_LEN - 1)];
}

/* Volatile, or clang splits unaligned loads into bytes when it merges comparisons. */
INLINE u16 load16(const struct scratch *s, u32 offset)
{
	return *(const volatile u16 *)&s->frame[offset & (HEAD_LEN - 1)];
}

INLINE u32 load32(const struct scratch *s, u32 offset)
{
	return *(const volatile u32 *)&s->frame[offset & (HEAD_LEN - 1)];
}

INLINE u64 load64(const struct scratch *s, u32 offset)
{
	return *(const volatile u64 *)&s->frame[offset & (HEAD_LEN - 1)];
}

#define read16(s, offset) net16(load16(s, offset))
#define read32(s, offset) net32(load32(s, offset))

INLINE int is_tcp_or_udp(u32 protocol)
{
	return protocol == PROTO_TCP || protocol == PROTO_UDP;
}

INLINE struct scratch *scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

GLOBAL int count(u32 reason)
{
	u32 zero = 0;
	struct counters *c = bpf_map_lookup_elem(&counters, &zero);

	if (c)
		c->count[reason & 15]++;
	return 0;
}

/* The same for the one reason worth a call less. */
INLINE void count_delivered(void)
{
	u32 zero = 0;
	struct counters *c = bpf_map_lookup_elem(&counters, &zero);

	if (c)
		c->count[REASON_DELIVERED]++;
}

INLINE int in_box4(const struct box4 *box, u32 address)
{
	return address >= box->first && address <= box->last;
}

INLINE int in_box6(const struct box6 *box, u64 high, u64 low)
{
	return high >= box->high_first && high <= box->high_last && low >= box->low_first && low <= box->low_last;
}

INLINE u32 kind_of4(u32 address)
{
	u32 *kind = bpf_map_lookup_elem(&addresses4, &address);

	return kind ? *kind : ADDRESS_FOREIGN;
}

INLINE u32 kind_of6(const struct scratch *s, u32 offset)
{
	struct address6 address = { { load64(s, offset), load64(s, offset + 8) } };
	u32 *kind;

	if (!in_box6(&settings.spare6, net64(address.half[0]), net64(address.half[1])) &&
	    !in_box6(&settings.host6, net64(address.half[0]), net64(address.half[1])))
		return ADDRESS_FOREIGN;
	kind = bpf_map_lookup_elem(&addresses6, &address);
	return kind ? *kind : ADDRESS_FOREIGN;
}

/* Adds up the 16-bit words of `size` bytes and says whether they make a right checksum together with `seed`. The
 * bytes after an odd end are zeroed for the sum and put back. */
NOINLINE int checksum_right(struct scratch *s, u32 offset, u32 size, u32 seed)
{
	u32 start = offset & (HEAD_LEN - 1), end = (offset + size) & (2 * HEAD_LEN - 1), saved;
	u64 sum;

	if (size > HEAD_LEN || end > HEAD_LEN)
		return 0;
	saved = *(u32 *)&s->frame[end];
	*(u32 *)&s->frame[end] = 0;
	size = (size + 3) & (HEAD_LEN * 2 - 4);
	if (size == 0 || size > HEAD_LEN)
		sum = seed;
	else
		sum = (u32)bpf_csum_diff((void *)0, 0, &s->frame[start], size, seed);
	*(u32 *)&s->frame[end] = saved;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

INLINE int header_right(struct scratch *s, const struct packet *p)
{
	u32 n = p->network;
	u64 sum;

	if (unlikely(p->transport - n != 20))
		return checksum_right(s, n, p->transport - n, 0);
	sum = (u64)load32(s, n) + load32(s, n + 4) + load32(s, n + 8) + load32(s, n + 12) + load32(s, n + 16);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* The pseudo header's share of a transport checksum. */
INLINE u32 pseudo_header(const struct scratch *s, const struct packet *p, u32 protocol, u32 length)
{
	u64 sum = (u64)net32(length) + net32(protocol);

	if (p->v6) {
		u64 a = load64(s, p->saddr), b = load64(s, p->saddr + 8);
		u64 c = load64(s, p->daddr), d = load64(s, p->daddr + 8);

		sum += (u32)a + (a >> 32) + (u32)b + (b >> 32) + (u32)c + (c >> 32) + (u32)d + (d >> 32);
	} else {
		sum += (u64)load32(s, p->saddr) + load32(s, p->daddr);
	}
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

/* Looks at the checksums of a frame that is ours, and flags what it finds. */
GLOBAL int flag_checksums(void)
{
	struct scratch *s = scratch();
	u32 seed = 0, length;
	struct packet *p;

	if (!s)
		return 0;
	p = &s->packet;
	length = p->end - p->transport;
	if (!p->v6 && !header_right(s, p))
		p->flags |= FLAG_BAD_CHECKSUM;
	if (p->protocol == PROTO_UDP && !p->v6 && load16(s, p->transport + 6) == 0)
		return 0; /* RFC 768: no checksum was made */
	if (p->transport + length > HEAD_LEN) {
		p->flags |= FLAG_UNCHECKED;
		return 0;
	}
	if (p->protocol != PROTO_ICMP)
		seed = pseudo_header(s, p, p->protocol, length);
	if (!checksum_right(s, p->transport, length, seed))
		p->flags |= FLAG_BAD_CHECKSUM;
	return 0;
}

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
	/* How most hosts answer: MSS, SACK permitted, timestamps, NOP, window scale. The same result, without a loop. */
	if (p->payload == t + 40 && read16(s, t + 20) == 0x0204 && read32(s, t + 24) == 0x0402080a &&
	    read32(s, t + 36) >> 8 == 0x010303) {
		tcp->mss = load16(s, t + 22);
		tcp->options = OPTION_SACK_PERMITTED | OPTION_TIMESTAMPS;
		tcp->tsval = load32(s, t + 28);
		tcp->tsecr = load32(s, t + 32);
		tcp->window_scale = read8(s, t + 39);
		return 0;
	}
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

/* Whether a socket of the host wants this segment or datagram. */
GLOBAL int host_socket(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple = {};
	struct scratch *s = scratch();
	u32 ports, saddr, protocol;
	struct bpf_sock *sock;

	if (!s)
		return 0;
	ports = s->packet.transport;
	saddr = s->packet.saddr;
	protocol = s->packet.protocol;
	if (s->packet.v6) {
		*(u64 *)&tuple.ipv6.saddr[0] = load64(s, saddr);
		*(u64 *)&tuple.ipv6.saddr[2] = load64(s, saddr + 8);
		*(u64 *)&tuple.ipv6.daddr[0] = load64(s, saddr + 16);
		*(u64 *)&tuple.ipv6.daddr[2] = load64(s, saddr + 24);
		tuple.ipv6.sport = load16(s, ports);
		tuple.ipv6.dport = load16(s, ports + 2);
		if (protocol == PROTO_TCP)
			sock = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
		else
			sock = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv4.saddr = load32(s, saddr);
		tuple.ipv4.daddr = load32(s, saddr + 4);
		tuple.ipv4.sport = load16(s, ports);
		tuple.ipv4.dport = load16(s, ports + 2);
		if (protocol == PROTO_TCP)
			sock = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
		else
			sock = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sock)
		return 0;
	bpf_sk_release(sock);
	return 1;
}

/* ARP that concerns our spare addresses, or that answers our resolver. */
INLINE int divert_arp(struct xdp_md *ctx, struct scratch *s, struct packet *p)
{
	u32 a = p->network, sender, target, owner = settings.neighbour_owner;

	if (a + 28 > p->limit || load32(s, a) != net32(0x00010800) || load16(s, a + 4) != net16(0x0604))
		return XDP_PASS;
	sender = kind_of4(load32(s, a + 14));
	target = kind_of4(load32(s, a + 24));
	if (sender != ADDRESS_SPARE && target != ADDRESS_SPARE &&
	    !(target == ADDRESS_HOST && read16(s, a + 6) == ARP_REPLY))
		return XDP_PASS;
	if (owner == NO_OWNER)
		count(REASON_NO_OWNER);
	else if (deliver_frame(ctx, owner, p->len, p->flags | FLAG_NEIGHBOUR))
		count(REASON_NEIGHBOUR);
	else
		count(REASON_RING_FULL);
	return target == ADDRESS_SPARE ? XDP_DROP : XDP_PASS;
}

/* Neighbour discovery, by the same rules; -1 when the frame is something else. */
INLINE int divert_discovery(struct xdp_md *ctx, struct scratch *s, struct packet *p, u32 daddr_kind)
{
	u32 owner = settings.neighbour_owner, type, target_kind;
	int action;

	/* RFC 4861: hop limit 255 shows that no router has touched it. Extension headers are allowed, and never used. */
	if (p->protocol != PROTO_ICMP6 || p->transport != p->network + 40 || p->ttl != 255 ||
	    p->transport + 24 > p->limit || p->transport + 24 > p->end)
		return -1;
	if (daddr_kind == ADDRESS_FOREIGN && read8(s, p->daddr) != 0xff)
		return -1;
	type = read8(s, p->transport);
	if (type != ICMP6_SOLICITATION && type != ICMP6_ADVERTISEMENT)
		return -1;
	target_kind = kind_of6(s, p->transport + 8);
	if (type == ICMP6_SOLICITATION && target_kind == ADDRESS_SPARE)
		action = XDP_DROP;
	else if (type == ICMP6_ADVERTISEMENT && daddr_kind == ADDRESS_SPARE)
		action = XDP_DROP;
	else if (type == ICMP6_ADVERTISEMENT && (daddr_kind == ADDRESS_HOST || target_kind == ADDRESS_SPARE))
		action = XDP_PASS;
	else
		return -1;
	if (owner == NO_OWNER)
		count(REASON_NO_OWNER);
	else if (deliver_frame(ctx, owner, p->len, p->flags | FLAG_NEIGHBOUR))
		count(REASON_NEIGHBOUR);
	else
		count(REASON_RING_FULL);
	return action;
}

/* IPv4's header; 0 when it is cut short or contradicts itself. */
INLINE int parse_ipv4(const struct scratch *s, struct packet *p)
{
	u32 n = p->network, header, total, fragment;

	if (n + 20 > p->limit)
		return 0;
	header = (read8(s, n) & 15) * 4;
	total = read16(s, n + 2);
	if (read8(s, n) >> 4 != 4 || header < 20 || total < header || n + total > p->len || n + header > p->limit)
		return 0;
	fragment = read16(s, n + 6) & 0x3fff;
	p->fragment = fragment == 0 ? 0 : (fragment & 0x1fff) == 0 ? 1 : 2;
	p->ip_id = load16(s, n + 4);
	p->ttl = read8(s, n + 8);
	p->protocol = read8(s, n + 9);
	p->transport = n + header;
	p->end = n + total;
	return 1;
}

/* IPv6's header and those extension headers that may precede an answer to us. */
GLOBAL int parse_ipv6(void)
{
	struct scratch *s = scratch();
	u32 n, next, at, i;
	struct packet *p;

	if (!s)
		return 0;
	p = &s->packet;
	n = p->network;
	if (n + 40 > p->limit || read8(s, n) >> 4 != 6)
		return 0;
	p->end = n + 40 + read16(s, n + 4);
	if (p->end > p->len)
		return 0;
	next = read8(s, n + 6);
	p->ttl = read8(s, n + 7);
	at = n + 40;
	for (i = 0; i < MAX_EXTENSIONS; i++) {
		if (next != PROTO_HOP_BY_HOP && next != PROTO_DEST_OPTIONS && next != PROTO_FRAGMENT)
			break;
		if (at + 8 > p->limit || at + 8 > p->end)
			return 0;
		if (next == PROTO_FRAGMENT) {
			u32 fragment = read16(s, at + 2);

			next = read8(s, at);
			at += 8;
			/* RFC 6946: an atomic fragment is a whole packet */
			if ((fragment & 0xfff9) != 0)
				p->fragment = (fragment & 0xfff8) == 0 ? 1 : 2;
			if (p->fragment)
				break;
			continue;
		}
		next = read8(s, at);
		at += (read8(s, at + 1) + 1) * 8;
	}
	p->protocol = next;
	p->transport = at;
	return at <= p->end;
}

/* The packet that an ICMP error quotes: who sent it, to whom, and what of it shows that it was ours. */
GLOBAL int parse_quoted(void)
{
	struct scratch *s = scratch();
	u32 zero = 0, q, t, protocol, limit;
	struct steering *st;
	struct packet *p;
	struct claim *c;

	st = bpf_map_lookup_elem(&steering, &zero);
	if (!s || !st)
		return 0;
	p = &s->packet;
	c = &s->claim;
	q = p->transport + 8;
	limit = p->end < p->limit ? p->end : p->limit;
	if (p->v6) {
		if (q + 48 > limit || read8(s, q) >> 4 != 6 || load64(s, q + 8) != load64(s, p->daddr) ||
		    load64(s, q + 16) != load64(s, p->daddr + 8))
			return 0;
		protocol = read8(s, q + 6);
		c->target = q + 24;
		t = q + 40;
	} else {
		u32 header;

		if (q + 28 > limit || read8(s, q) >> 4 != 4 || load32(s, q + 12) != load32(s, p->daddr))
			return 0;
		header = (read8(s, q) & 15) * 4;
		if (header < 20 || q + header + 8 > limit || (read16(s, q + 6) & 0x1fff) != 0)
			return 0;
		protocol = read8(s, q + 9);
		c->target = q + 16;
		t = q + header;
	}
	if (is_tcp_or_udp(protocol)) {
		c->protocol = protocol;
		c->our_port = read16(s, t);
		c->target_port = load16(s, t + 2);
		c->seq = read32(s, t + 4);
		c->has_seq = 1;
		c->owner = st->port[c->our_port];
	} else if ((protocol == PROTO_ICMP && !p->v6 && read8(s, t) == 8) ||
		   (protocol == PROTO_ICMP6 && p->v6 && read8(s, t) == 128)) {
		c->protocol = PROTO_ICMP;
		c->id = read16(s, t + 4);
		c->sequence = read16(s, t + 6);
		c->owner = st->echo[c->id];
	} else {
		return 0;
	}
	p->quoted = t;
	return 1;
}

INLINE int is_icmp_error(u32 v6, u32 type)
{
	if (v6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

INLINE int is_echo_reply(u32 v6, u32 type)
{
	return type == (v6 ? 129 : 0);
}

INLINE u64 cookie_of(const struct owner *o, const struct scratch *s, const struct packet *p, const struct claim *c)
{
	if (p->v6) {
		u64 ours[2] = { load64(s, p->daddr), load64(s, p->daddr + 8) };
		u64 target[2] = { load64(s, c->target), load64(s, c->target + 8) };

		return cookie_v6(o->key[0], o->key[1], ours, target, c->target_port);
	}
	return cookie_v4(o->key[0], o->key[1], load32(s, p->daddr), load32(s, c->target), c->target_port);
}

/* Whether the port is one that a probe to this target was sent from. */
INLINE int port_fits(const struct owner *o, u64 cookie, u32 port)
{
	u32 count = o->port_count, number;

	if (count == 0 || count > 65536)
		return 0;
	number = (port - o->port_first + count - cookie_port_part(cookie) % count) % count;
	return number < o->probes;
}

/* One match rule; 1 when a class has held and `found` says which. */
static long try_rule(u32 turn, void *context)
{
	struct scratch *s = scratch();
	u32 at, value, expected, limit, protocol, holds = 1, owner;
	const struct packet *p;
	const struct owner *o;
	const struct rule *r;

	(void)context;
	if (!s)
		return 1;
	owner = s->claim.owner;
	o = bpf_map_lookup_elem(&owners, &owner);
	if (!o)
		return 1;
	r = &o->rules[turn & (MAX_RULES - 1)];
	p = &s->packet;
	if (r->class_index == s->failed_class)
		return 0;
	protocol = p->protocol == PROTO_ICMP6 ? PROTO_ICMP : p->protocol;
	limit = p->end < p->limit ? p->end : p->limit;
	if (r->protocol != protocol) {
		holds = 0;
	} else if (r->width != 0) {
		at = s->bases[r->base & 3];
		expected = r->value;
		if (r->flags & RULE_COOKIE) {
			expected += (u32)(s->cookie >> (r->shift & 63));
			s->with_cookie = FLAG_COOKIE;
		}
		value = read32(s, at + r->offset) >> ((32 - 8 * r->width) & 31);
		expected &= ~0U >> ((32 - 8 * r->width) & 31);
		holds = at != 0 && at + r->offset + r->width <= limit && ((value ^ expected) & r->mask) == 0;
	}
	if (!holds) {
		s->failed_class = r->class_index;
		s->with_cookie = 0;
		return 0;
	}
	if (r->flags & RULE_LAST) {
		s->found = (r->class_index + 1) | s->with_cookie;
		return 1;
	}
	return 0;
}

/* The first answer class all of whose rules hold, counted from 1, with FLAG_COOKIE when one of its rules compared a
 * part of the cookie; 0 when there is none. */
GLOBAL int match_classes(u32 rules, u64 cookie)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	s->cookie = cookie;
	s->bases[BASE_NETWORK] = s->packet.network;
	s->bases[BASE_TRANSPORT] = s->packet.transport;
	s->bases[BASE_PAYLOAD] = s->packet.payload;
	s->bases[BASE_QUOTED] = s->packet.quoted;
	s->failed_class = ~0U;
	s->with_cookie = 0;
	s->found = 0;
	bpf_loop(rules & (2 * MAX_RULES - 1), try_rule, (void *)0, 0);
	return s->found;
}

/* Why a frame is not the owner's (a reason), or REASON_DELIVERED when it is. Notes in the scratch how it is to be
 * delivered and whether the cookie leaves no room for doubt. */
GLOBAL int examine(u32 owner)
{
	const struct owner *o = bpf_map_lookup_elem(&owners, &owner);
	struct scratch *s = scratch();
	struct packet *p;
	struct claim *c;
	u32 distance;
	u64 cookie;

	if (!o || !s)
		return REASON_NO_OWNER;
	p = &s->packet;
	c = &s->claim;
	s->frames = o->frames;
	s->proven = 0;
	if (o->accept == ACCEPT_ANY)
		return REASON_DELIVERED;
	cookie = cookie_of(o, s, p, c);
	if (o->rule_count) {
		u32 found;

		if (c->protocol != PROTO_ICMP && !port_fits(o, cookie, c->our_port))
			return REASON_BAD_COOKIE;
		found = match_classes(o->rule_count, cookie);
		if (!found)
			return REASON_BAD_COOKIE;
		p->flags |= found;
		s->frames = FRAMES_ALWAYS;
		s->proven = (found & FLAG_COOKIE) != 0;
		return REASON_DELIVERED;
	}
	if (c->protocol == PROTO_TCP) {
		if (!c->has_seq)
			return o->max_data ? REASON_DELIVERED : REASON_NO_ACKNOWLEDGEMENT;
		distance = c->seq - cookie_seq(cookie);
		if (!p->quoted)
			distance -= 1;
		if (distance > o->max_data)
			return REASON_BAD_COOKIE;
		s->proven = distance == 0;
	} else if (c->protocol == PROTO_UDP) {
		if (!port_fits(o, cookie, c->our_port))
			return REASON_BAD_COOKIE;
		s->proven = 1;
	} else {
		if (c->id != cookie_echo_id(cookie) || c->sequence != cookie_echo_seq(cookie))
			return REASON_BAD_COOKIE;
		s->proven = 1;
	}
	p->flags |= FLAG_COOKIE;
	return REASON_DELIVERED;
}

/* A frame to a spare address that nobody has a claim to: for the owner that takes everything, or for nobody. */
INLINE int stray(struct xdp_md *ctx, const struct packet *p, u32 reason)
{
	u32 owner = settings.stray_owner;

	if (owner != NO_OWNER)
		reason = deliver_frame(ctx, owner, p->len, p->flags | FLAG_UNCHECKED) ? REASON_DELIVERED :
											      REASON_RING_FULL;
	count(reason);
	return XDP_DROP;
}

/* A fragment. The kernel may have those of a host address, but not the first one of an answer to us: it would put the
 * answer together and reset the connection. */
INLINE int divert_fragment(struct xdp_md *ctx, struct scratch *s, struct packet *p, u32 kind)
{
	u32 zero = 0, id;
	struct steering *st;
	struct owner *o;

	if (kind == ADDRESS_SPARE) {
		id = settings.neighbour_owner;
		if (id == NO_OWNER)
			count(REASON_NO_OWNER);
		else if (deliver_frame(ctx, id, p->len, p->flags | FLAG_FRAGMENT))
			count(REASON_FRAGMENT);
		else
			count(REASON_RING_FULL);
		return XDP_DROP;
	}
	if (p->fragment != 1 || !is_tcp_or_udp(p->protocol) || p->transport + 8 > p->end || p->transport + 8 > p->limit)
		return XDP_PASS;
	st = bpf_map_lookup_elem(&steering, &zero);
	if (!st)
		return XDP_PASS;
	id = st->port[read16(s, p->transport + 2)];
	o = bpf_map_lookup_elem(&owners, &id);
	if (!o || (o->protocol != p->protocol && o->accept != ACCEPT_ANY))
		return XDP_PASS;
	if (host_socket(ctx)) {
		count(REASON_HOST_SOCKET);
		return XDP_PASS;
	}
	count(REASON_HOST_FRAGMENT);
	return XDP_DROP;
}

/* What the transport header claims, and who would own that: into the scratch's claim. Returns the reason to count when
 * it turns out that nobody does. */
GLOBAL int read_claim(void)
{
	struct scratch *s = scratch();
	struct steering *st;
	u32 zero = 0, length, type, reason;
	struct packet *p;
	struct claim *c;

	st = bpf_map_lookup_elem(&steering, &zero);
	if (!s || !st)
		return REASON_MALFORMED;
	p = &s->packet;
	c = &s->claim;
	p->payload = p->end;
	length = p->end - p->transport;
	reason = REASON_NO_OWNER;
	if (p->protocol == PROTO_TCP) {
		u32 header = (read8(s, p->transport + 12) >> 4) * 4;

		if (length < 20 || p->transport + 20 > p->limit || header < 20 || header > length ||
		    p->transport + header > p->limit) {
			reason = REASON_MALFORMED;
		} else {
			p->payload = p->transport + header;
			c->protocol = PROTO_TCP;
			c->target_port = load16(s, p->transport);
			c->our_port = read16(s, p->transport + 2);
			c->seq = read32(s, p->transport + 8);
			c->has_seq = (read8(s, p->transport + 13) & TCP_ACK) != 0;
			c->owner = st->port[c->our_port];
		}
	} else if (p->protocol == PROTO_UDP) {
		u32 udp_len = read16(s, p->transport + 4);

		if (length < 8 || p->transport + 8 > p->limit || udp_len < 8 || udp_len > length) {
			reason = REASON_MALFORMED;
		} else {
			p->end = p->transport + udp_len;
			p->payload = p->transport + 8;
			c->protocol = PROTO_UDP;
			c->target_port = load16(s, p->transport);
			c->our_port = read16(s, p->transport + 2);
			c->owner = st->port[c->our_port];
		}
	} else if (p->protocol == (p->v6 ? PROTO_ICMP6 : PROTO_ICMP)) {
		type = read8(s, p->transport);
		if (length < 8 || p->transport + 8 > p->limit) {
			reason = REASON_MALFORMED;
		} else if (is_echo_reply(p->v6, type)) {
			p->payload = p->transport + 8;
			c->protocol = PROTO_ICMP;
			c->id = read16(s, p->transport + 4);
			c->sequence = read16(s, p->transport + 6);
			c->owner = st->echo[c->id];
		} else if (is_icmp_error(p->v6, type)) {
			p->payload = p->transport + 8;
			if (!parse_quoted())
				reason = REASON_FOREIGN_ICMP;
		} else {
			reason = REASON_FOREIGN_ICMP;
		}
	} else {
		reason = REASON_FOREIGN_PROTOCOL;
	}
	return reason;
}

/* Everything that the first stage could not let go. */
GLOBAL int divert(struct xdp_md *ctx)
{
	u32 id, kind, head, reason, ethertype;
	struct scratch *s;
	struct packet *p;
	struct claim *c;
	struct owner *o;
	int action, whole;

	s = scratch();
	if (!s)
		return XDP_PASS;
	p = &s->packet;
	c = &s->claim;
	__builtin_memset(p, 0, sizeof(*p));
	__builtin_memset(c, 0, sizeof(*c));
	p->len = bpf_xdp_get_buff_len(ctx);
	head = p->len < HEAD_LEN ? p->len : HEAD_LEN;
	if (head < ETH_LEN || bpf_xdp_load_bytes(ctx, 0, s->frame, head))
		return XDP_PASS;
	p->limit = head;
	p->network = ETH_LEN;
	ethertype = read16(s, 12);
	if (ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ) {
		if (head < ETH_LEN + VLAN_LEN)
			return XDP_PASS;
		ethertype = read16(s, 16);
		p->network += VLAN_LEN;
		p->flags |= FLAG_VLAN;
	}
	forget();
	if (ethertype == ETHERTYPE_ARP)
		return divert_arp(ctx, s, p);

	if (ethertype == ETHERTYPE_IPV4) {
		p->saddr = p->network + 12;
		p->daddr = p->network + 16;
		if (p->daddr + 4 > head)
			return XDP_PASS;
		kind = kind_of4(load32(s, p->daddr));
		if (kind == ADDRESS_FOREIGN)
			return XDP_PASS;
		forget();
		whole = parse_ipv4(s, p);
	} else if (ethertype == ETHERTYPE_IPV6) {
		p->v6 = 1;
		p->saddr = p->network + 8;
		p->daddr = p->network + 24;
		if (p->daddr + 16 > head)
			return XDP_PASS;
		kind = kind_of6(s, p->daddr);
		forget();
		whole = parse_ipv6();
		forget();
		if (whole && !p->fragment) {
			action = divert_discovery(ctx, s, p, kind);
			if (action >= 0)
				return action;
		}
		if (kind == ADDRESS_FOREIGN)
			return XDP_PASS;
	} else {
		return XDP_PASS;
	}
	forget();
	if (whole && p->fragment)
		return divert_fragment(ctx, s, p, kind);

	reason = REASON_MALFORMED;
	c->owner = NO_OWNER;
	c->target = p->saddr;
	if (whole)
		reason = read_claim();
	forget();
	o = (void *)0;
	id = c->owner;
	if (id < MAX_OWNERS) {
		o = bpf_map_lookup_elem(&owners, &id);
		if (o && o->protocol != c->protocol && o->accept != ACCEPT_ANY)
			o = (void *)0;
	}
	if (!o)
		return kind == ADDRESS_HOST ? XDP_PASS : stray(ctx, p, reason);

	reason = examine(id);
	forget();
	if (kind == ADDRESS_HOST && !s->proven) {
		/* The host comes first wherever the cookie leaves room for doubt. */
		if (!is_tcp_or_udp(p->protocol)) {
			if (reason != REASON_DELIVERED)
				return XDP_PASS;
		} else if (host_socket(ctx)) {
			count(REASON_HOST_SOCKET);
			return XDP_PASS;
		}
	}
	if (reason == REASON_DELIVERED) {
		flag_checksums();
		if (deliver(ctx, id, s->frames)) {
			count_delivered();
			return XDP_DROP;
		}
		reason = REASON_RING_FULL;
	}
	count(reason);
	return XDP_DROP;
}

/* The first stage on IPv4: 1 when the frame may be ours. */
INLINE int may_be_ours4(const u8 *ip, const u8 *end)
{
	u32 daddr, port, protocol;
	const u8 *transport;

	if (ip + 20 > end)
		return 0;
	daddr = net32(*(const u32 *)(ip + 16));
	if (in_box4(&settings.spare4, daddr))
		return 1;
	if (!in_box4(&settings.host4, daddr))
		return 0;
	/* With options the transport header's place varies, and arithmetic of that kind on packet pointers takes
	 * CAP_PERFMON, which we do without: the second stage reads such headers. */
	if (unlikely(ip[0] != 0x45))
		return 1;
	protocol = ip[9];
	transport = ip + 20;
	if (transport + 8 > end)
		return 0;
	if (is_tcp_or_udp(protocol)) {
		port = net16(*(const u16 *)(transport + 2));
		return port >= settings.port_first && port <= settings.port_last;
	}
	if (protocol != PROTO_ICMP)
		return 0;
	return transport[0] == 0 ? settings.echo_owned != 0 : is_icmp_error(0, transport[0]);
}

/* The first stage on IPv6. */
INLINE int may_be_ours6(const u8 *ip, const u8 *end)
{
	const u8 *transport = ip + 40;
	u64 high, low;
	u32 port;

	if (transport > end)
		return 0;
	high = net64(*(const u64 *)(ip + 24));
	low = net64(*(const u64 *)(ip + 32));
	if (in_box6(&settings.spare6, high, low))
		return 1;
	if (transport + 8 > end)
		return 0;
	if (!in_box6(&settings.host6, high, low))
		return ip[24] == 0xff && ip[6] == PROTO_ICMP6 &&
		       (transport[0] == ICMP6_SOLICITATION || transport[0] == ICMP6_ADVERTISEMENT);
	if (is_tcp_or_udp(ip[6])) {
		port = net16(*(const u16 *)(transport + 2));
		return port >= settings.port_first && port <= settings.port_last;
	}
	if (ip[6] != PROTO_ICMP6)
		return ip[6] == PROTO_HOP_BY_HOP || ip[6] == PROTO_DEST_OPTIONS || ip[6] == PROTO_FRAGMENT;
	if (transport[0] == 129)
		return settings.echo_owned != 0;
	return is_icmp_error(1, transport[0]) || transport[0] == ICMP6_ADVERTISEMENT ||
	       transport[0] == ICMP6_SOLICITATION;
}

/* The first stage on ARP. */
INLINE int may_be_ours_arp(const u8 *arp, const u8 *end)
{
	u32 sender, target;

	if (arp + 28 > end)
		return 0;
	/* ARP's addresses lie at odd half words */
	sender = (u32)net16(*(const u16 *)(arp + 14)) << 16 | net16(*(const u16 *)(arp + 16));
	target = (u32)net16(*(const u16 *)(arp + 24)) << 16 | net16(*(const u16 *)(arp + 26));
	if (in_box4(&settings.spare4, target) || in_box4(&settings.spare4, sender))
		return 1;
	return arp[7] == ARP_REPLY && in_box4(&settings.host4, target);
}

INLINE int judge(struct xdp_md *ctx)
{
	const u8 *data = (const u8 *)(long)ctx->data, *end = (const u8 *)(long)ctx->data_end, *network;
	u32 ethertype;
	int ours = 0;

	if (data + ETH_LEN + VLAN_LEN > end)
		return XDP_PASS;
	ethertype = net16(*(const u16 *)(data + 12));
	network = data + ETH_LEN;
	if (unlikely(ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ)) {
		ethertype = net16(*(const u16 *)(data + 16));
		network += VLAN_LEN;
	}
	if (ethertype == ETHERTYPE_IPV4)
		ours = may_be_ours4(network, end);
	else if (ethertype == ETHERTYPE_IPV6)
		ours = may_be_ours6(network, end);
	else if (ethertype == ETHERTYPE_ARP)
		ours = may_be_ours_arp(network, end);
	return likely(!ours) ? XDP_PASS : divert(ctx);
}

SEC("xdp")
int irl_filter(struct xdp_md *ctx)
{
	return judge(ctx);
}

/* The same for devices that receive long frames in pieces. */
SEC("xdp.frags")
int irl_filter_frags(struct xdp_md *ctx)
{
	return judge(ctx);
}

/* Passes everything: what the filter's cost is measured against. */
SEC("xdp")
int irl_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

char irl_license[] SEC("license") = "Dual MIT/GPL";

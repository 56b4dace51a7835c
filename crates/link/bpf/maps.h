/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The filter's maps, the working memory of one frame, and how both are read.
 */
#ifndef IRL_MAPS_H
#define IRL_MAPS_H

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

#define TCP_SYN 0x02
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

/* One for each CPU; the loader knows how many there may be. Sizes and no types: clang leaves out what `struct lane` is. */
struct lanes {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(struct lane));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_OWNERS);
	__type(key, u32);
	__array(values, struct lanes);
} lanes SEC(".maps");

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

#endif

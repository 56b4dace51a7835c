/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * What the filter hands to user space: C twin of crates/link/src/record.rs, which describes every field. Version 1 is
 * frozen. Header fields are in the host's byte order; every field of a body is in network byte order, lengths too.
 */
#ifndef IRL_RECORD_H
#define IRL_RECORD_H

#define RECORD_VERSION 1
#define MAX_FRAME_BODY 3520

enum record_kind { KIND_TCP4 = 1, KIND_TCP6 = 2, KIND_ICMP = 3, KIND_UDP = 4, KIND_FRAME = 5 };

enum record_flags {
	FLAG_CLASS_MASK = 0x00ff,
	FLAG_COOKIE = 0x0100,
	FLAG_BAD_CHECKSUM = 0x0200,
	FLAG_UNCHECKED = 0x0400,
	FLAG_VLAN = 0x0800,
	FLAG_CUT = 0x1000,
	FLAG_FRAGMENT = 0x2000,
	FLAG_NEIGHBOUR = 0x4000,
};

enum tcp_option_bits { OPTION_SACK_PERMITTED = 1, OPTION_TIMESTAMPS = 2, OPTION_MALFORMED = 4 };

struct record_header {
	u8 version;
	u8 kind;
	u16 flags;
	u16 length;
	u16 owner;
	u64 time_ns;
};

/* What TCP4 and TCP6 bodies have in common, after the addresses. */
struct tcp_fields {
	u16 sport;
	u16 dport;
	u32 seq;
	u32 ack;
	u16 window;
	u8 flags;
	u8 ttl;
	u16 ip_id;
	u16 mss;
	u8 window_scale;
	u8 options;
	u16 payload_len;
	u32 tsval;
	u32 tsecr;
};

struct tcp4_body {
	u32 saddr;
	u32 daddr;
	struct tcp_fields tcp;
};

struct tcp6_body {
	u64 saddr[2];
	u64 daddr[2];
	struct tcp_fields tcp;
};

struct icmp_body {
	u64 saddr[2];
	u64 daddr[2];
	u8 type;
	u8 code;
	u8 ttl;
	u8 quoted_protocol;
	u16 ip_id;
	u16 id;
	u16 sequence;
	u16 payload_len;
	u32 quoted_seq;
	u64 quoted_daddr[2];
	u8 payload[16];
};

struct udp_body {
	u64 saddr[2];
	u64 daddr[2];
	u16 sport;
	u16 dport;
	u16 length;
	u8 ttl;
	u8 zero0;
	u16 ip_id;
	u16 zero1;
	u16 payload_len;
	u16 zero2;
};

struct tcp4_record {
	struct record_header header;
	struct tcp4_body body;
};

struct tcp6_record {
	struct record_header header;
	struct tcp6_body body;
};

struct icmp_record {
	struct record_header header;
	struct icmp_body body;
};

struct udp_record {
	struct record_header header;
	struct udp_body body;
};

#endif

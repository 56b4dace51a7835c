/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * What the filter and its loader share: the values of its maps. Rust twin: crates/link/src/filter/layout.rs.
 */
#ifndef IRL_FILTER_H
#define IRL_FILTER_H

#define MAX_OWNERS 256
#define MAX_ADDRESSES 65536
#define MAX_RULES 64
/* The filter looks at a frame's first bytes, this many; a power of two. */
#define HEAD_LEN 512
#define NO_OWNER 0xffff

enum address_kind { ADDRESS_FOREIGN = 0, ADDRESS_SPARE = 1, ADDRESS_HOST = 2 };
enum accept { ACCEPT_COOKIE = 0, ACCEPT_ANY = 1 };
enum frames { FRAMES_NEVER = 0, FRAMES_PAYLOAD = 1, FRAMES_ALWAYS = 2 };
enum rule_base { BASE_NETWORK = 0, BASE_TRANSPORT = 1, BASE_PAYLOAD = 2, BASE_QUOTED = 3 };
enum rule_flags { RULE_COOKIE = 1, RULE_LAST = 2 };

/* What became of a frame that was not simply the host's; names and meanings in filter/config.rs. */
enum reason {
	REASON_DELIVERED,
	REASON_NEIGHBOUR,
	REASON_FRAGMENT,
	REASON_HOST_SOCKET,
	REASON_NO_OWNER,
	REASON_BAD_COOKIE,
	REASON_NO_ACKNOWLEDGEMENT,
	REASON_MALFORMED,
	REASON_FOREIGN_PROTOCOL,
	REASON_FOREIGN_ICMP,
	REASON_HOST_FRAGMENT,
	REASON_RING_FULL,
	REASONS,
};

/* Smallest boxes around our addresses, inclusive; an empty one has first > last. */
struct box4 {
	u32 first;
	u32 last;
};

struct box6 {
	u64 high_first;
	u64 high_last;
	u64 low_first;
	u64 low_last;
};

enum whole { WHOLE_SPARE = 1, WHOLE_HOST = 2 };

struct settings {
	struct box6 spare6;
	struct box6 host6;
	struct box4 spare4;
	struct box4 host4;
	u16 port_first; /* around the ports of all owners; empty: first > last */
	u16 port_last;
	u16 neighbour_owner;
	u16 stray_owner;
	u32 echo_owned; /* whether any owner has echo identifiers */
	u32 whole4; /* enum whole: the boxes of which every address is ours */
};

struct rule {
	u8 class_index;
	u8 protocol; /* IP's number; 1 for ICMPv6 too */
	u8 base;
	u8 width; /* 1 to 4 bytes; 0: the rule always holds */
	u16 offset;
	u8 flags;
	u8 shift;
	u32 mask;
	u32 value; /* what is expected, or what is added to the cookie's part */
};

struct owner {
	u64 key[2];
	u32 max_data;
	u32 port_count;
	u16 port_first;
	u16 probes;
	u8 protocol; /* IP's number; 1 for ICMPv6 too */
	u8 accept;
	u8 frames;
	u8 zero0;
	u32 rule_count;
	u32 zero1;
	struct rule rules[MAX_RULES];
};

/* Mapped by the loader too. One cache line, so that owners on different cores do not share. */
struct owner_state {
	u32 waiting; /* set by a receiver before it sleeps, cleared by whoever wakes it */
	u32 zero;
	u64 overruns;
	u64 spare[6];
};

/* Plain answers of a scan go through a lane, one for each owner and CPU, which both sides map: it needs no lock, and no look
 * at the receiver's position for each record, as a ring buffer does. What finds no room goes to the ring buffer. */
#define LANE_RECORDS 1024
#define LANE_SLOT 64

struct lane {
	/* The receiver writes this cache line: how many records it has taken. */
	u64 taken;
	u64 spare0[7];
	/* The CPU writes this one: how many it has written, and how far that may go by its last look at `taken`. */
	u64 written;
	u64 limit;
	u64 spare1[6];
	u8 slots[LANE_RECORDS * LANE_SLOT];
};

/* Mapped by the loader too: who has a source port, who an echo identifier. */
struct steering {
	u16 port[65536];
	u16 echo[65536];
};

struct counters {
	u64 count[16];
};

#endif

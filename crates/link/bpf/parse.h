/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * IP and transport headers, read into the scratch: what a frame claims, and who would own that.
 */
#ifndef IRL_PARSE_H
#define IRL_PARSE_H

#include "maps.h"

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

#endif

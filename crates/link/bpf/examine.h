/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Whether what a frame claims holds: cookie, source port, match rules.
 */
#ifndef IRL_EXAMINE_H
#define IRL_EXAMINE_H

#include "cookie.h"
#include "maps.h"

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

#endif

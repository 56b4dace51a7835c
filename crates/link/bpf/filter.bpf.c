// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The filter: which received frames are ours (design decision 4).
 *
 * Two stages. The first looks at the packet in place and lets the host's own traffic go after a few comparisons with
 * global data, before any map look-up. What may be ours and looks as answers usually do is recognised in place too
 * (plain.h). All else goes to `divert`: the frame's first HEAD_LEN bytes are copied into a scratch buffer of this CPU,
 * parsed there, checked against the owner's cookie or match rules, and written to the owner's ring buffer. Its twin in safe Rust is crates/link/src/filter/twin.rs; a test runs both on the same
 * frames and compares verdicts and records.
 *
 * Least kernel: 5.18 (bpf_xdp_load_bytes).
 */
#include "kernel.h"

#include "cookie.h"
#include "filter.h"
#include "record.h"

#include "maps.h"

#include "checksums.h"
#include "deliver.h"
#include "examine.h"
#include "parse.h"
#include "plain.h"

/* Whether a segment is a SYN-ACK. No listening socket wants one (RFC 9293, 3.10.7.2): the kernel would reset it. */
INLINE int is_handshake_answer(const struct scratch *s, const struct packet *p)
{
	u32 at = p->transport + 13;

	return at < p->end && at < p->limit && (read8(s, at) & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

/* Whether a socket of the host wants this segment or datagram. */
GLOBAL int host_socket(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple = {};
	struct scratch *s = scratch();
	u32 ports, saddr, size, listens;
	struct bpf_sock *sock;

	if (!s)
		return 0;
	ports = s->packet.transport;
	saddr = s->packet.saddr;
	if (s->packet.v6) {
		*(u64 *)&tuple.ipv6.saddr[0] = load64(s, saddr);
		*(u64 *)&tuple.ipv6.saddr[2] = load64(s, saddr + 8);
		*(u64 *)&tuple.ipv6.daddr[0] = load64(s, saddr + 16);
		*(u64 *)&tuple.ipv6.daddr[2] = load64(s, saddr + 24);
		tuple.ipv6.sport = load16(s, ports);
		tuple.ipv6.dport = load16(s, ports + 2);
		size = sizeof(tuple.ipv6);
	} else {
		tuple.ipv4.saddr = load32(s, saddr);
		tuple.ipv4.daddr = load32(s, saddr + 4);
		tuple.ipv4.sport = load16(s, ports);
		tuple.ipv4.dport = load16(s, ports + 2);
		size = sizeof(tuple.ipv4);
	}
	if (s->packet.protocol == PROTO_TCP) {
		sock = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
		if (!sock)
			return 0;
		listens = sock->state == BPF_TCP_LISTEN;
		bpf_sk_release(sock);
		return !listens || !is_handshake_answer(s, &s->packet);
	}
	sock = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
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
	u32 ethertype, flags = 0;
	int ours = 0;

	if (data + ETH_LEN + VLAN_LEN > end)
		return XDP_PASS;
	ethertype = net16(*(const u16 *)(data + 12));
	network = data + ETH_LEN;
	if (unlikely(ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ)) {
		ethertype = net16(*(const u16 *)(data + 16));
		network += VLAN_LEN;
		flags = FLAG_VLAN;
	}
	if (ethertype == ETHERTYPE_IPV4) {
		ours = may_be_ours4(network, end);
		if (unlikely(ours) && deliver_plain(ctx, network, end, 0, flags))
			return XDP_DROP;
	} else if (ethertype == ETHERTYPE_IPV6) {
		ours = may_be_ours6(network, end);
		if (unlikely(ours) && deliver_plain(ctx, network, end, 1, flags))
			return XDP_DROP;
	} else if (ethertype == ETHERTYPE_ARP) {
		ours = may_be_ours_arp(network, end);
	}
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

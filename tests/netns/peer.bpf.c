// Somebody else's Internet: an XDP program in which every host of 10.0.0.0/8 and of fd00::/64 answers a TCP SYN to any
// port with a SYN-ACK. Written for the tests alone, from the RFCs and not from our crates, so that both can be wrong
// in different ways. Everything else goes to the kernel of the far end.
//
// -DHALF_DEAF: a SYN from an odd port is lost on its way.
// -DWRONG_ACK: hosts whose last octet is 7 acknowledge a number that was never sent.
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define BE16(x) ((__u16)__builtin_bswap16(x))
#define BE32(x) ((__u32)__builtin_bswap32(x))
static long (*xdp_adjust_tail)(void *ctx, int delta) = (void *)65;
static long (*redirect)(__u32 ifindex, __u64 flags) = (void *)23;

struct ethernet {
    __u8 to[6], from[6];
    __u16 type;
} __attribute__((packed));
struct ipv4 {
    __u8 version_ihl, tos;
    __u16 length, id, fragment;
    __u8 ttl, protocol;
    __u16 checksum;
    __u32 from, to;
} __attribute__((packed));
struct ipv6 {
    __u32 version;
    __u16 length;
    __u8 next, hops;
    __u32 from[4], to[4];
} __attribute__((packed));
struct tcp {
    __u16 from, to;
    __u32 sequence, acknowledgement;
    __u8 offset, flags;
    __u16 window, checksum, urgent;
} __attribute__((packed));
enum { SYN = 2, RST = 4, ACK = 16 };

INLINE __u16 fold(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

INLINE __u32 add(__u32 sum, const __u16 *words, int count)
{
#pragma unroll
    for (int i = 0; i < count; i++)
        sum += words[i];
    return sum;
}

INLINE void swap_macs(struct ethernet *e)
{
#pragma unroll
    for (int i = 0; i < 6; i++) {
        __u8 byte = e->to[i];
        e->to[i] = e->from[i];
        e->from[i] = byte;
    }
}

INLINE void answer(struct tcp *t, __u32 salt, int wrong)
{
    __u16 port = t->from;
    t->from = t->to;
    t->to = port;
    t->acknowledgement = BE32(BE32(t->sequence) + (wrong ? 0x01000000 : 1));
    t->sequence = salt ^ 0x5bd1e995;
    t->offset = 5 << 4;
    t->flags = SYN | ACK;
    t->window = BE16(65535);
    t->urgent = 0;
    t->checksum = 0;
}

// Not XDP_TX: on a veth pair that wakes the other end only when an XDP program is attached there too.
INLINE int back(struct xdp_md *ctx)
{
    return redirect(ctx->ingress_ifindex, 0);
}

SEC("xdp") int peer(struct xdp_md *ctx)
{
    void *start = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethernet *e = start;
    if ((void *)(e + 1) > end)
        return XDP_PASS;
    if (e->type == BE16(0x0800)) {
        struct ipv4 *ip = (void *)(e + 1);
        struct tcp *t = (void *)(ip + 1);
        if ((void *)(t + 1) > end || ip->version_ihl != 0x45 || ip->protocol != 6 || (ip->to & 0xff) != 10)
            return XDP_PASS;
        if ((t->flags & (SYN | ACK | RST)) != SYN)
            return XDP_DROP;
#ifdef HALF_DEAF
        if (BE16(t->from) & 1)
            return XDP_DROP;
#endif
        __u32 host = ip->to;
        int wrong = 0;
#ifdef WRONG_ACK
        wrong = (host >> 24) == 7;
#endif
        swap_macs(e);
        ip->to = ip->from;
        ip->from = host;
        ip->length = BE16(40);
        ip->ttl = 64;
        ip->checksum = 0;
        ip->checksum = fold(add(0, (void *)ip, 10));
        answer(t, host, wrong);
        t->checksum = fold(add(add(BE16(6) + BE16(20), (void *)&ip->from, 4), (void *)t, 10));
        xdp_adjust_tail(ctx, 54 - (int)(end - start));
        return back(ctx);
    }
    if (e->type == BE16(0x86dd)) {
        struct ipv6 *ip = (void *)(e + 1);
        struct tcp *t = (void *)(ip + 1);
        if ((void *)(t + 1) > end || ip->next != 6 || ip->to[0] != BE32(0xfd000000) || ip->to[1] != 0)
            return XDP_PASS;
        if ((t->flags & (SYN | ACK | RST)) != SYN)
            return XDP_DROP;
        swap_macs(e);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __u32 word = ip->to[i];
            ip->to[i] = ip->from[i];
            ip->from[i] = word;
        }
        ip->length = BE16(20);
        ip->hops = 64;
        answer(t, ip->from[3], 0);
        t->checksum = fold(add(add(BE16(6) + BE16(20), (void *)ip->from, 16), (void *)t, 10));
        xdp_adjust_tail(ctx, 74 - (int)(end - start));
        return back(ctx);
    }
    return XDP_PASS;
}
char terms[] SEC("license") = "Dual MIT/GPL";

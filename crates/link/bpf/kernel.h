/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * The part of the kernel's BPF interface that our programs use, declared here so that building needs clang alone:
 * no kernel headers, no libbpf. Numbers and layouts are the kernel's user-space ABI (include/uapi/linux/bpf.h).
 */
#ifndef IRL_KERNEL_H
#define IRL_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
/* Verified once, on its own, whatever its callers know: takes only scalars and the context. */
#define GLOBAL __attribute__((noinline))
/* Makes the compiler load again what lies in memory, so that the verifier forgets what it knew of it. */
#define forget() __asm__ volatile("" ::: "memory")

/* Hides from the compiler what it knows of a value, so that what is checked of it and what is used are one register. Else it
 * turns `pointer + number` into an OR, or compares with what it has computed elsewhere, and the verifier refuses both. */
#define opaque(x) __asm__ volatile("" : "+r"(x))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Map definitions in the form of BTF, as libbpf and aya read them. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#define __array(name, value) typeof(value) *name[]

/* The bytes of a value that lies in memory in network order, read as the host's integer, and back. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define net16(x) ((u16)__builtin_bswap16((u16)(x)))
#define net32(x) ((u32)__builtin_bswap32((u32)(x)))
#define net64(x) ((u64)__builtin_bswap64((u64)(x)))
#else
#define net16(x) ((u16)(x))
#define net32(x) ((u32)(x))
#define net64(x) ((u64)(x))
#endif

enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_ARRAY_OF_MAPS = 12 };
enum { BPF_MAP_TYPE_RINGBUF = 27 };
enum { BPF_F_NO_PREALLOC = 1 << 0, BPF_F_MMAPABLE = 1 << 10, BPF_F_INNER_MAP = 1 << 12 };
enum { BPF_RB_NO_WAKEUP = 1 << 0, BPF_RB_FORCE_WAKEUP = 1 << 1 };
enum xdp_action { XDP_ABORTED = 0, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
#define BPF_F_CURRENT_NETNS (-1L)

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

enum { BPF_TCP_LISTEN = 10 };
struct bpf_sock {
	u32 bound_dev_if;
	u32 family;
	u32 type;
	u32 protocol;
	u32 mark;
	u32 priority;
	u32 src_ip4;
	u32 src_ip6[4];
	u32 src_port;
	u16 dst_port;
	u16 unused;
	u32 dst_ip4;
	u32 dst_ip6[4];
	u32 state;
};
struct bpf_sock_tuple {
	union {
		struct {
			u32 saddr;
			u32 daddr;
			u16 sport;
			u16 dport;
		} ipv4;
		struct {
			u32 saddr[4];
			u32 daddr[4];
			u16 sport;
			u16 dport;
		} ipv6;
	};
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static s64 (*bpf_csum_diff)(const void *from, u32 from_size, const void *to, u32 to_size, u32 seed) = (void *)28;
static struct bpf_sock *(*bpf_sk_lookup_udp)(void *ctx, struct bpf_sock_tuple *tuple, u32 size, u64 netns,
					     u64 flags) = (void *)85;
static long (*bpf_sk_release)(struct bpf_sock *sock) = (void *)86;
static struct bpf_sock *(*bpf_skc_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, u32 size, u64 netns,
					      u64 flags) = (void *)99;
static long (*bpf_xdp_adjust_head)(struct xdp_md *ctx, s32 delta) = (void *)44;
static long (*bpf_xdp_adjust_tail)(struct xdp_md *ctx, s32 delta) = (void *)65;
static long (*bpf_ringbuf_output)(void *ringbuf, void *data, u64 size, u64 flags) = (void *)130;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static long (*bpf_loop)(u32 turns, void *turn, void *context, u64 flags) = (void *)181;
static u64 (*bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;
static long (*bpf_xdp_load_bytes)(struct xdp_md *ctx, u32 offset, void *buf, u32 len) = (void *)189;
static long (*bpf_xdp_store_bytes)(struct xdp_md *ctx, u32 offset, void *buf, u32 len) = (void *)190;

#endif

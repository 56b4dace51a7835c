// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Counts what really left: the live frames that a device took and refused, by the kernel's own tracepoint. The transmit
 * program cannot know, because frames go to the device after it has run.
 *
 * Needs CAP_PERFMON and the kernel's BTF; the engine `live` works without it.
 */
#include "kernel.h"

#define CORE __attribute__((preserve_access_index))

/* The parts of the kernel's types that we read; their places come from the kernel's BTF when the program is loaded. */
struct ns_common {
	u32 inum;
} CORE;

struct net {
	struct ns_common ns;
} CORE;

typedef struct {
	struct net *net;
} CORE possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} CORE;

struct left {
	u64 sent;
	u64 refused;
	/* User space writes these: which device of which network namespace. */
	u32 ifindex;
	u32 namespace;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct left);
} left SEC(".maps");

/* The loopback device: where live frames seem to come from. */
#define LOOPBACK 1

/* xdp_devmap_xmit(from_dev, to_dev, sent, drops, err). Of type tp_btf: the kernel knows what the pointers point to, so that
 * they are followed without a call for each. */
SEC("tp_btf/xdp_devmap_xmit")
int irl_left(u64 *args)
{
	const struct net_device *from = (const void *)args[0], *to = (const void *)args[1];
	u32 zero = 0;
	struct left *l = bpf_map_lookup_elem(&left, &zero);

	if (!l || to->ifindex != (int)l->ifindex || from->ifindex != LOOPBACK || to->nd_net.net->ns.inum != l->namespace)
		return 0;
	__sync_fetch_and_add(&l->sent, (u64)(u32)args[2]);
	if (args[3])
		__sync_fetch_and_add(&l->refused, (u64)(u32)args[3]);
	return 0;
}

char irl_license[] SEC("license") = "Dual MIT/GPL";

/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0
 *
 * The far end of the transmit benchmarks: counts TCP frames to 10.0.0.0/8 and drops them. All else goes on to the kernel,
 * which answers ARP.
 */
#include "kernel.h"

enum { ETH = 14, IP4_PROTOCOL = ETH + 9, IP4_DESTINATION = ETH + 16, HEADERS = ETH + 20 };
enum { ETHERTYPE_IP4 = 0x0800, PROTO_TCP = 6, NETWORK = 10 };

struct total {
	u64 frames;
	u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct total);
} totals SEC(".maps");

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
	struct total *total;
	u32 zero = 0;

	if (data + HEADERS > end || *(u16 *)(data + ETH - 2) != net16(ETHERTYPE_IP4) || data[IP4_PROTOCOL] != PROTO_TCP ||
	    data[IP4_DESTINATION] != NETWORK)
		return XDP_PASS;
	total = bpf_map_lookup_elem(&totals, &zero);
	if (!total)
		return XDP_PASS;
	total->frames++;
	total->bytes += (u64)(end - data);
	return XDP_DROP;
}

char irl_license[] SEC("license") = "Dual MIT/GPL";

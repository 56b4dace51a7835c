// SPDX-License-Identifier: MIT OR GPL-2.0
/* A program that no kernel takes: it reads a frame without asking how long it is. For a test of what we say then. */
#include "kernel.h"

SEC("xdp")
int irl_refused(struct xdp_md *ctx)
{
	return *(u8 *)(long)ctx->data;
}

char irl_license[] SEC("license") = "Dual MIT/GPL";

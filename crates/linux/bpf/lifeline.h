// What is open while no gateway runs.
#pragma once
#include "clock.h"

// By interface: the TCP port of the machine that stays open while no gateway runs.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} lifelines SEC(".maps");

enum { DEAD_AFTER_MS = 10000 };

static __always_inline int user_space_is_dead(void)
{
	return !was_seen_within(DEAD_AFTER_MS);
}

// A packet of the machine itself, to or from the port that the administrator keeps for this case.
static __always_inline int is_lifeline(struct __sk_buff *skb, enum hook hook)
{
	__u32 ifindex = skb->ifindex;
	__be16 port;
	int at;
	__u8 protocol;
	struct bpf_fib_lookup route = { .ifindex = ifindex };
	__u32 *open = bpf_map_lookup_elem(&lifelines, &ifindex);
	if (!open) return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl != 5 || ip.frag_off & bpf_htons(0x3fff)) return 0;
		protocol = ip.protocol;
		at = ETH_HLEN + sizeof(ip);
		route.family = 2;
		route.ipv4_src = ip.saddr;
		route.ipv4_dst = ip.daddr;
	} else {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip))) return 0;
		protocol = ip.nexthdr;
		at = ETH_HLEN + sizeof(ip);
		route.family = 10;
		__builtin_memcpy(route.ipv6_src, &ip.saddr, sizeof(route.ipv6_src));
		__builtin_memcpy(route.ipv6_dst, &ip.daddr, sizeof(route.ipv6_dst));
	}
	if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, at + (hook == INGRESS ? 2 : 0), &port, sizeof(port))) return 0;
	if (bpf_ntohs(port) != *open) return 0;
	if (hook == EGRESS) return 1;
	// Not what the kernel would forward.
	int to = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	return to == BPF_FIB_LKUP_RET_NOT_FWDED || to == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

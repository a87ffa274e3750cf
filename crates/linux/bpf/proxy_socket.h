// Packets for the socket of a transparent proxy (tproxy): user space has found that one listens, and names it.
#pragma once
#include "carrier.h"

// From user space, in the place of `struct next_hop`: where the socket listens.
struct proxy {
	__u8 is_v6;
	__u8 protocol;
	__be16 port;
	__be32 address[4];
} __attribute__((packed));

_Static_assert(sizeof(struct proxy) == sizeof(struct next_hop), "they have the same place");

// Gives a packet to the socket, before it goes into the local stack. If that has closed meanwhile, the stack answers as to any packet that nobody takes.
static __always_inline void give_to_proxy(struct __sk_buff *skb, const struct proxy *proxy)
{
	// Without a peer it is a socket of no connection that is found.
	struct bpf_sock_tuple tuple = {};
	__u32 length = sizeof(tuple.ipv4);
	if (proxy->is_v6) {
		__builtin_memcpy(tuple.ipv6.daddr, proxy->address, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.dport = proxy->port;
		length = sizeof(tuple.ipv6);
	} else {
		tuple.ipv4.daddr = proxy->address[0];
		tuple.ipv4.dport = proxy->port;
	}
	struct bpf_sock *socket = proxy->protocol == IPPROTO_TCP ? bpf_skc_lookup_tcp(skb, &tuple, length, BPF_F_CURRENT_NETNS, 0)
								  : bpf_sk_lookup_udp(skb, &tuple, length, BPF_F_CURRENT_NETNS, 0);
	if (!socket) return;
	bpf_sk_assign(skb, socket, 0);
	bpf_sk_release(socket);
}

// What is asked of packets before they are looked up.
#pragma once
#include "config.h"

// Router solicitation to redirect.
static __always_inline int is_neighbour_discovery(struct __sk_buff *skb)
{
	struct ipv6hdr ip;
	__u8 type;
	if (skb->protocol != bpf_htons(ETH_P_IPV6)) return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != ICMPV6) return 0;
	// RFC 4861: none of them has passed a router.
	return ip.hop_limit == 255 && !bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &type, 1) && type >= 133 && type <= 137;
}

// As netfilter: what a packet socket sends has passed no hook of IP.
static __always_inline int is_from_packet_socket(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;
	if (!socket) return 0;
	socket = bpf_sk_fullsock(socket);
	return socket && socket->family == AF_PACKET;
}

static __always_inline int has_full_socket(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;
	return socket && bpf_sk_fullsock(socket);
}

// Is it for a DHCP client (RFC 2131)?
static __always_inline int is_to_dhcp_client(struct __sk_buff *skb)
{
	struct iphdr ip;
	__be16 port;
	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip))) return 0;
	if (ip.protocol != IPPROTO_UDP || ip.frag_off & bpf_htons(0x3fff)) return 0;
	return !bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4 + 2, &port, sizeof(port)) && port == bpf_htons(68);
}

// Segments and datagrams that the kernel may send on: user space has to see the first segments of connections, and resets. `told` are those that user space has to know of.
static __always_inline int is_ordinary(__u8 protocol, void *transport, void *end, int *told)
{
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;
		if ((void *)(tcp + 1) > end || tcp->rst || !tcp->ack || tcp->doff < 5) return 0;
		*told = tcp->syn || tcp->fin;
		return 1;
	}
	struct { __be16 source, dest, len, check; } *udp = transport;
	return protocol == IPPROTO_UDP && (void *)(udp + 1) <= end && bpf_ntohs(udp->len) >= 8;
}

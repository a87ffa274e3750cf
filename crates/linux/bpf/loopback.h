// What the machine sends to itself: user space is asked of first packets, if its rules translate what the machine sends, and gets all packets of connections that it has translated.
#pragma once
#include "carrier.h"
#include "lifeline.h"

// Flows of the machine to itself. The oldest make room.
struct looped_key {
	__be32 saddr[4], daddr[4];
	__be16 sport, dport;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct looped_key);
	__type(value, __u32); // 0: to user space; else it was let on under this generation of the known flows
} looped SEC(".maps");

// Is user space asked of first packets?
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} loopback_asks SEC(".maps");

// Reads the ends of the IP packet at an offset; of an ICMP error those of an answer to the packet that it quotes.
static __always_inline int read_ends(struct __sk_buff *skb, int at, struct looped_key *key, int quoted)
{
	__be32 saddr[4] = {}, daddr[4] = {};
	__be16 ports[2] = {};
	__u8 first, protocol, type;
	if (bpf_skb_load_bytes(skb, at, &first, 1)) return -1;
	if (first >> 4 == 4) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.ihl < 5 || ip.frag_off & bpf_htons(0x3fff)) return -1;
		saddr[0] = ip.saddr;
		daddr[0] = ip.daddr;
		protocol = ip.protocol;
		at += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip))) return -1;
		__builtin_memcpy(saddr, &ip.saddr, sizeof(saddr));
		__builtin_memcpy(daddr, &ip.daddr, sizeof(daddr));
		protocol = ip.nexthdr;
		at += sizeof(ip);
	}
	if (protocol == IPPROTO_ICMP || protocol == ICMPV6) {
		if (bpf_skb_load_bytes(skb, at, &type, 1)) return -1;
		int is_error = protocol == ICMPV6 ? type < 128 : type == 3 || type == 11 || type == 12;
		if (is_error && !quoted) return at + 8;
		if (bpf_skb_load_bytes(skb, at + 4, ports, 2)) return -1;
		ports[1] = ports[0];
	} else if (bpf_skb_load_bytes(skb, at, ports, 4)) {
		return -1;
	}
	__builtin_memcpy(key->saddr, quoted ? daddr : saddr, sizeof(saddr));
	__builtin_memcpy(key->daddr, quoted ? saddr : daddr, sizeof(daddr));
	key->sport = ports[quoted];
	key->dport = ports[!quoted];
	key->protocol = protocol;
	return 0;
}

// May the packet be the first of a connection?
static __always_inline int may_begin(struct __sk_buff *skb, __u32 protocol)
{
	int at = ETH_HLEN + sizeof(struct ipv6hdr);
	__u8 byte;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &byte, 1)) return 0;
		at = ETH_HLEN + (byte & 15) * 4;
	}
	if (protocol == IPPROTO_UDP) return 1;
	if (protocol == IPPROTO_TCP) return !bpf_skb_load_bytes(skb, at + 13, &byte, 1) && (byte & 0x12) == 0x02;
	if (protocol != IPPROTO_ICMP && protocol != ICMPV6) return 0;
	return !bpf_skb_load_bytes(skb, at, &byte, 1) && byte == (protocol == ICMPV6 ? 128 : 8);
}

// A machine whose gateway has died speaks with itself, if not by the rules, after so long.
enum { LOOP_BEAT_MS = 1000 };

static __always_inline int goes_to_user(struct __sk_buff *skb, struct config *now, struct looped_key *key, int is_error)
{
	__u32 zero = 0, *known = bpf_map_lookup_elem(&looped, key);
	if (known && !*known) return 1;
	if (known && *known == now->generation) return 0;
	__u32 *asks = bpf_map_lookup_elem(&loopback_asks, &zero);
	struct heartbeat *user = bpf_map_lookup_elem(&heartbeat, &zero);
	if (!asks || !*asks || !user || is_error || !may_begin(skb, key->protocol)) return 0;
	return is_alive(user, clock_now(), LOOP_BEAT_MS);
}

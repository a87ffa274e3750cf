// What the machine sends to itself as an answer to packets of its own.
#pragma once
#include "carrier.h"

// What the machine may send to itself as an answer to packets of its own that user space has led to it: only that is taken from the loopback interface. The oldest make room.
struct looped_key {
	__be32 saddr[4], daddr[4];
	__be16 sport, dport;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct looped_key);
	__type(value, __u32);
} looped SEC(".maps");

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

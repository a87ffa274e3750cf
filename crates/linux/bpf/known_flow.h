// Packets of known flows at tc's hooks: translated, and sent on.
#pragma once
#include "clock.h"
#include "packet.h"
#include "segment_note.h"

enum { SEEN_SLOW = -100 }; // user space is to see the packet

// For how long packets go on by known flows while no gateway runs; nothing: without an end. User space says so when it loads the programs.
volatile const __u32 unattended_ms = 0;

// Makes the headers' bytes readable: those of TCP, or as many as there are, since a datagram may be shorter.
static __always_inline int pull_headers(struct __sk_buff *skb, __u32 ip_len)
{
	__u32 wanted = ETH_HLEN + ip_len + sizeof(struct tcphdr);
	if ((void *)(long)skb->data + wanted <= (void *)(long)skb->data_end) return 0;
	return bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted);
}

static __always_inline int fits(struct __sk_buff *skb, __u32 oif)
{
	__u32 mtu = 0;
	return !bpf_check_mtu(skb, oif, &mtu, 0, skb->gso_size ? BPF_MTU_CHK_SEGS : 0);
}

// What becomes of a packet that goes on.
struct translation {
	__be32 saddr, daddr, hop;
	__u32 ports, mark, oif;
	__u8 what; // as `target`
};

// Translates a packet, and sends it on its way.
static __always_inline int send_on_v4(struct __sk_buff *skb, struct config *now, const struct flow_key *key, __u32 ports, __u8 protocol,
				      const struct translation *to)
{
	if (to->what & SETS_MARK) skb->mark = to->mark;
	int check = ETH_HLEN + sizeof(struct iphdr) + (protocol == IPPROTO_TCP ? 16 : 6);
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be32 saddr = to->saddr, daddr = to->daddr;
	__u32 ports_after = to->ports;
	if (saddr != key->saddr) {
		bpf_l4_csum_replace(skb, check, key->saddr, saddr, 4 | BPF_F_PSEUDO_HDR | flags);
		bpf_l3_csum_replace(skb, ETH_HLEN + 10, key->saddr, saddr, 4);
		bpf_skb_store_bytes(skb, ETH_HLEN + 12, &saddr, 4, 0);
	}
	if (daddr != key->daddr) {
		bpf_l4_csum_replace(skb, check, key->daddr, daddr, 4 | BPF_F_PSEUDO_HDR | flags);
		bpf_l3_csum_replace(skb, ETH_HLEN + 10, key->daddr, daddr, 4);
		bpf_skb_store_bytes(skb, ETH_HLEN + 16, &daddr, 4, 0);
	}
	if (ports != ports_after) {
		bpf_l4_csum_replace(skb, check, ports, ports_after, 4 | flags);
		bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &ports_after, 4, 0);
	}
	if ((to->what & TARGET) != FORWARD) return ON;
	if (!(to->what & KEEPS_HOPS)) {
		void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
		struct iphdr *ip = data + ETH_HLEN;
		if ((void *)(ip + 1) > end) return drop(BROKEN);
		ip->ttl--;
		__u32 sum = ip->check + bpf_htons(0x0100);
		ip->check = (sum & 0xffff) + (sum >> 16);
	}
	skb->cb[0] = now->cookie[0];
	skb->cb[1] = now->cookie[1];
	struct bpf_redir_neigh neighbour = { .nh_family = 2 };
	neighbour.ipv4_nh = to->hop;
	return bpf_redirect_neigh(to->oif, &neighbour, sizeof(neighbour), 0);
}

// Sends a packet of a known flow on its way. What user space has to see beside what is not ordinary: fragments, options, a TTL at its end, and what the next link cannot carry.
static __always_inline int known_v4(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	if (pull_headers(skb, sizeof(struct iphdr))) return SEEN_SLOW;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	if ((void *)(ip + 1) + 8 > end) return SEEN_SLOW;
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff)) return SEEN_SLOW;
	__u32 length = bpf_ntohs(ip->tot_len);
	// A packet of many segments may be longer than its length field says.
	if (length < 28 || (!skb->gso_size && length + ETH_HLEN > skb->len)) return SEEN_SLOW;
	__be16 *ports = (void *)(ip + 1);
	int told = 0;
	__u32 number = 0;
	if (!is_ordinary(ip->protocol, ports, end, &told)) return SEEN_SLOW;
	struct flow_key key = { ip->saddr, ip->daddr, ports[0], ports[1], ip->protocol, hook, (__u16)skb->ifindex };
	struct flow *flow = find_v4(now, &key, &number);
	if (!flow) return SEEN_SLOW;
	__u8 what = flow->target, target = what & TARGET, protocol = ip->protocol;
	__u32 oif = flow->oif, mark = flow->mark;
	if (what & UNMARKED_ONLY && skb->mark) return SEEN_SLOW;
	if (what & PLAIN_TOS_ONLY && ip->tos & 0xfc) return SEEN_SLOW;
	__be32 hop = flow->next_hop, saddr = flow->new_saddr, daddr = flow->new_daddr;
	__u32 ports_before = *(__u32 *)ports, ports_after = (__u32)flow->new_dport << 16 | flow->new_sport;
	if (target == FORWARD && ((ip->ttl <= 1 && !(what & KEEPS_HOPS)) || !fits(skb, oif))) return SEEN_SLOW;
	__u8 live = flow->live;
	if ((told || live & ~(LIVE | WITHOUT_FIN)) && protocol == IPPROTO_TCP && !may_go_on(skb, number, live, sizeof(*ip), length, 0)) return SEEN_SLOW;
	flow->seen = clock_now().ms;
	// As netfilter counts: a packet of many segments is one.
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, length);
	count(KNOWN);
	struct translation to = { saddr, daddr, hop, ports_after, mark, oif, what };
	return send_on_v4(skb, now, &key, ports_before, protocol, &to);
}

static __always_inline int is_same_address(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

// Replaces an IPv6 address. No checksum of the IP header balances it: the packet's sum stays what it was, which the helper does not know of.
static __always_inline void replace_address_v6(struct __sk_buff *skb, int at, int check, __be32 *before, __be32 *after, __u64 flags)
{
	if (is_same_address(before, after)) return;
	__s64 difference = bpf_csum_diff(before, 16, after, 16, 0);
	bpf_l4_csum_replace(skb, check, 0, difference, BPF_F_PSEUDO_HDR | flags);
	bpf_csum_update(skb, difference);
	bpf_skb_store_bytes(skb, at, after, 16, 0);
}

// The same of IPv6, by a line of the table.
static __always_inline int send_on_v6(struct __sk_buff *skb, struct config *now, struct flow_key_v6 *key, __u32 ports_before, __u8 hops,
				      const struct flow_v6 *flow)
{
	__u8 what = flow->target, protocol = key->protocol;
	__u32 oif = flow->oif, ports_after = (__u32)flow->new_dport << 16 | flow->new_sport;
	if (what & SETS_MARK) skb->mark = flow->mark;
	int check = ETH_HLEN + sizeof(struct ipv6hdr) + (protocol == IPPROTO_TCP ? 16 : 6);
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be32 saddr[4], daddr[4];
	struct bpf_redir_neigh neighbour = { .nh_family = 10 };
	__builtin_memcpy(saddr, flow->new_saddr, sizeof(saddr));
	__builtin_memcpy(daddr, flow->new_daddr, sizeof(daddr));
	__builtin_memcpy(neighbour.ipv6_nh, flow->next_hop, sizeof(neighbour.ipv6_nh));
	replace_address_v6(skb, ETH_HLEN + 8, check, key->saddr, saddr, flags);
	replace_address_v6(skb, ETH_HLEN + 24, check, key->daddr, daddr, flags);
	if (ports_before != ports_after) {
		bpf_l4_csum_replace(skb, check, ports_before, ports_after, 4 | flags);
		bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &ports_after, 4, 0);
	}
	if ((what & TARGET) != FORWARD) return ON;
	hops -= !(what & KEEPS_HOPS);
	if (bpf_skb_store_bytes(skb, ETH_HLEN + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM)) return drop(BROKEN);
	skb->cb[0] = now->cookie[0];
	skb->cb[1] = now->cookie[1];
	return bpf_redirect_neigh(oif, &neighbour, sizeof(neighbour), 0);
}

static __always_inline int known_v6(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	if (pull_headers(skb, sizeof(struct ipv6hdr))) return SEEN_SLOW;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	if ((void *)(ip + 1) + 8 > end || ip->version != 6) return SEEN_SLOW;
	__u32 length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (length < sizeof(*ip) + 8 || (!skb->gso_size && length + ETH_HLEN > skb->len)) return SEEN_SLOW;
	__be16 *ports = (void *)(ip + 1);
	__u8 protocol = ip->nexthdr, hops = ip->hop_limit;
	int told = 0;
	__u32 number = 0;
	if (!is_ordinary(protocol, ports, end, &told)) return SEEN_SLOW;
	struct flow_key_v6 key = { .sport = ports[0], .dport = ports[1], .protocol = protocol, .hook = hook, .ifindex = (__u16)skb->ifindex };
	__builtin_memcpy(key.saddr, &ip->saddr, sizeof(key.saddr));
	__builtin_memcpy(key.daddr, &ip->daddr, sizeof(key.daddr));
	struct flow_v6 *flow = find_v6(now, &key, &number);
	if (!flow) return SEEN_SLOW;
	__u8 what = flow->target, target = what & TARGET;
	__u32 oif = flow->oif;
	if (what & UNMARKED_ONLY && skb->mark) return SEEN_SLOW;
	if (what & PLAIN_TOS_ONLY && (ip->priority | (ip->flow_lbl[0] & 0xc0))) return SEEN_SLOW;
	__u32 ports_before = *(__u32 *)ports;
	if (target == FORWARD && ((hops <= 1 && !(what & KEEPS_HOPS)) || !fits(skb, oif))) return SEEN_SLOW;
	__u8 live = flow->live;
	if ((told || live & ~(LIVE | WITHOUT_FIN)) && protocol == IPPROTO_TCP && !may_go_on(skb, number, live, sizeof(*ip), length, 1)) return SEEN_SLOW;
	flow->seen = clock_now().ms;
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, length);
	count(KNOWN);
	return send_on_v6(skb, now, &key, ports_before, hops, flow);
}

static __always_inline int known(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	// The machine does not forward what was sent to a group of stations.
	if (skb->ifindex > 0xffff || (hook == INGRESS && skb->pkt_type != PACKET_HOST)) return SEEN_SLOW;
	if (unattended_ms && !was_seen_within(unattended_ms)) return SEEN_SLOW;
	return skb->protocol == bpf_htons(ETH_P_IP) ? known_v4(skb, now, hook) : known_v6(skb, now, hook);
}

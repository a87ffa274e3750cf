// Known flows at XDP, where a driver runs programs before the kernel has made a buffer: translated, and sent on to a neighbour that user space has told. All else goes on to tc's hooks.
//
// What is sent on here has passed no qdisc, no other program and no packet socket of the machine: user space chooses the interfaces.
#pragma once
#include "clock.h"
#include "flow_table.h"
#include "packet.h"

// An interface where packets are sent on by XDP, in the place of its index, as far as there are places.
struct station {
	__u32 ifindex;
	__u8 mac[6]; // packets to others are not the machine's
	__u16 unused;
};

enum { STATIONS = 1024 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STATIONS);
	__type(key, __u32);
	__type(value, struct station);
} stations SEC(".maps");

// A neighbour of the kernel's, by an interface that can send XDP frames. Written by user space: `mtu` first to nothing and last to what it is; another neighbour gets the place only when no program can
// still be reading it.
struct hop {
	__be32 address[4]; // of IPv4: the first
	__u16 oif;
	__u16 family;
	__u32 mtu; // of the interface; nothing: it is no neighbour
	__u8 macs[16]; // the neighbour's, the interface's
	__u32 seen; // milliseconds of the monotonic clock, when it has last been used, to the second
	__u32 device; // its interface's place in `devices`
} __attribute__((aligned(64)));

// A neighbour is in one of two places.
enum { HOPS = 4096 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HOPS);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

// The interfaces to which packets are sent: by a place here that costs less than by an index, which is searched for. The kernel takes out those that are gone.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} devices SEC(".maps");

// User space follows neighbours: what it has told is believed for so long after it has last been seen.
enum { HOPS_BEAT_MS = 1000, HOP_SEEN_MS = 1000 };

static __always_inline __u32 hop_place(const __be32 *address, __u32 oif)
{
	__u32 mixed = (address[0] ^ address[1] ^ address[2] ^ address[3]) * 0x9e3779b1u + oif * 0x85ebca77u;
	return mixed ^ mixed >> 15;
}

static __always_inline struct hop *hop_at(__u32 place, const __be32 *address, __u32 oif, __u16 family)
{
	__u32 at = place & (HOPS - 1);
	struct hop *hop = bpf_map_lookup_elem(&hops, &at);
	if (!hop || hop->address[0] != address[0] || hop->oif != oif || hop->family != family || !hop->mtu) return 0;
	if (family == 10 && (hop->address[1] != address[1] || hop->address[2] != address[2] || hop->address[3] != address[3])) return 0;
	return hop;
}

static __always_inline struct hop *hop_of(const __be32 *address, __u32 oif, __u16 family)
{
	__u32 place = hop_place(address, oif);
	struct hop *hop = hop_at(place, address, oif, family);
	return hop ? hop : hop_at(place >> 16, address, oif, family);
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

// RFC 1624: the sum of what a word was, inverted, and what it is.
static __always_inline __u64 difference(__u32 before, __u32 after)
{
	return (__u64)(__u32)~before + after;
}

static __always_inline void replace_check(__sum16 *check, __u64 difference)
{
	*check = ~folded((__u16)~*check + difference);
}

static __always_inline void replace_transport_check(__u8 protocol, void *transport, void *end, __u64 difference)
{
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;
		// It is there; the verifier does not know.
		if ((void *)(tcp + 1) <= end) replace_check(&tcp->check, difference);
		return;
	}
	__sum16 *check = &((struct { __be16 source, dest, len; __sum16 check; } *)transport)->check;
	// Without one.
	if (!*check) return;
	replace_check(check, difference);
	if (!*check) *check = 0xffff;
}

// Is the frame for the machine, and does user space live that tells of neighbours? Gives the time in milliseconds.
static __always_inline int is_station(struct ethhdr *ethernet, __u32 ifindex, __u32 *now_ms)
{
	__u32 zero = 0, at = ifindex & (STATIONS - 1);
	struct station *station = bpf_map_lookup_elem(&stations, &at);
	struct heartbeat *user = bpf_map_lookup_elem(&heartbeat, &zero);
	if (!station || !user || station->ifindex != ifindex) return 0;
	const __u16 *to = (void *)ethernet->h_dest, *mac = (void *)station->mac;
	if (to[0] != mac[0] || to[1] != mac[1] || to[2] != mac[2]) return 0;
	struct instant now = clock_now();
	*now_ms = now.ms;
	return is_alive(user, now, HOPS_BEAT_MS);
}

// May a line's packets be sent on here? What a packet's mark or the kernel's forwarding would decide goes on to tc.
static __always_inline int is_sent_on(__u8 what, __u8 live, __u8 protocol)
{
	return (what & TARGET) == FORWARD && !(what & (SETS_MARK | KEEPS_HOPS)) && (protocol != IPPROTO_TCP || !(live & ~(LIVE | WITHOUT_FIN)));
}

static __always_inline int leave(struct ethhdr *ethernet, struct hop *hop, __u32 now_ms)
{
	if (now_ms - hop->seen > HOP_SEEN_MS) hop->seen = now_ms;
	__builtin_memcpy(ethernet, hop->macs, 12);
	count(KNOWN_BY_XDP);
	return bpf_redirect_map(&devices, hop->device, XDP_DROP);
}

static __always_inline int xdp_v4(struct xdp_md *ctx, struct config *now)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = data + ETH_HLEN;
	__be16 *ports = (void *)(ip + 1);
	int told = 0;
	__u32 number = 0, now_ms = 0;
	if ((void *)(ip + 1) + 8 > end) return XDP_PASS;
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || ip->ttl <= 1) return XDP_PASS;
	__u32 length = bpf_ntohs(ip->tot_len);
	// A frame in several pieces is longer than what is seen of it.
	if (length < 28 || length + ETH_HLEN > end - data || !is_ordinary(ip->protocol, ports, end, &told) || told) return XDP_PASS;
	if (!is_station(ethernet, ctx->ingress_ifindex, &now_ms)) return XDP_PASS;
	struct flow_key key = { ip->saddr, ip->daddr, ports[0], ports[1], ip->protocol, INGRESS, (__u16)ctx->ingress_ifindex };
	struct flow *flow = find_v4(now, &key, &number);
	if (!flow) return XDP_PASS;
	__u8 what = flow->target, live = flow->live;
	__be32 address[4] = { flow->next_hop };
	__be32 saddr = flow->new_saddr, daddr = flow->new_daddr;
	__u32 ports_before = *(__u32 *)ports, ports_after = (__u32)flow->new_dport << 16 | flow->new_sport;
	struct hop *hop = hop_of(address, flow->oif, 2);
	if (!hop || length > hop->mtu || !is_sent_on(what, live, key.protocol)) return XDP_PASS;
	if (what & PLAIN_TOS_ONLY && ip->tos & 0xfc) return XDP_PASS;
	flow->seen = now_ms;
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, length);
	__u64 addresses = difference(key.saddr, saddr) + difference(key.daddr, daddr);
	replace_transport_check(key.protocol, ports, end, addresses + difference(ports_before, ports_after));
	// One less in the first byte of its word.
	replace_check(&ip->check, addresses + (__u16)~bpf_htons(0x0100));
	ip->saddr = saddr;
	ip->daddr = daddr;
	ip->ttl--;
	*(__u32 *)ports = ports_after;
	return leave(ethernet, hop, now_ms);
}

static __always_inline int xdp_v6(struct xdp_md *ctx, struct config *now)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct ipv6hdr *ip = data + ETH_HLEN;
	__be16 *ports = (void *)(ip + 1);
	int told = 0;
	__u32 number = 0, now_ms = 0;
	if ((void *)(ip + 1) + 8 > end || ip->version != 6 || ip->hop_limit <= 1) return XDP_PASS;
	__u32 length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (length < sizeof(*ip) + 8 || length + ETH_HLEN > end - data || !is_ordinary(ip->nexthdr, ports, end, &told) || told) return XDP_PASS;
	if (!is_station(ethernet, ctx->ingress_ifindex, &now_ms)) return XDP_PASS;
	struct flow_key_v6 key = { .sport = ports[0], .dport = ports[1], .protocol = ip->nexthdr, .hook = INGRESS, .ifindex = (__u16)ctx->ingress_ifindex };
	__builtin_memcpy(key.saddr, &ip->saddr, sizeof(key.saddr));
	__builtin_memcpy(key.daddr, &ip->daddr, sizeof(key.daddr));
	struct flow_v6 *flow = find_v6(now, &key, &number);
	if (!flow) return XDP_PASS;
	__u8 what = flow->target, live = flow->live;
	struct hop *hop = hop_of(flow->next_hop, flow->oif, 10);
	if (!hop || length > hop->mtu || !is_sent_on(what, live, key.protocol)) return XDP_PASS;
	if (what & PLAIN_TOS_ONLY && (ip->priority | (ip->flow_lbl[0] & 0xc0))) return XDP_PASS;
	flow->seen = now_ms;
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, length);
	__u32 ports_after = (__u32)flow->new_dport << 16 | flow->new_sport;
	__u64 sum = difference(*(__u32 *)ports, ports_after);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		sum += difference(key.saddr[i], flow->new_saddr[i]) + difference(key.daddr[i], flow->new_daddr[i]);
	}
	replace_transport_check(key.protocol, ports, end, sum);
	__builtin_memcpy(&ip->saddr, flow->new_saddr, sizeof(key.saddr));
	__builtin_memcpy(&ip->daddr, flow->new_daddr, sizeof(key.daddr));
	ip->hop_limit--;
	*(__u32 *)ports = ports_after;
	return leave(ethernet, hop, now_ms);
}

static __always_inline int known_by_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	__u32 zero = 0;
	struct config *now = bpf_map_lookup_elem(&config, &zero);
	if (!now || (void *)(ethernet + 1) > end || ctx->ingress_ifindex > 0xffff) return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) return xdp_v4(ctx, now);
	return ethernet->h_proto == bpf_htons(ETH_P_IPV6) ? xdp_v6(ctx, now) : XDP_PASS;
}

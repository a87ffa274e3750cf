// The programs at tc's hooks of each governed interface, and the one at the carrier: the TAP interface between them and user space.
//
//   governed interface, ingress ─┐                            ┌─▶ into the local stack, on the interface it came by
//   governed interface, egress ──┴─▶ carrier ─▶ user space ─▶ carrier ─┼─▶ out by a neighbour of the kernel's
//                                                             └─▶ out as it was, on the interface it was leaving by
//
// Every IP packet of a governed interface goes to user space with what the kernel knows of it, and only user space lets it go on. With nobody there the carrier's queue is
// full, and the packet is lost: closed. What does not go to user space is what netfilter does not see either (ARP, frames of other protocols, frames of tagged VLANs, what
// packet sockets send), and neighbour discovery, without which a dead gateway would also be a host that nobody can find.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { AF_PACKET = 17, ICMPV6 = 58 };

// What user space tells the programs.
struct config {
	__u32 carrier; // the carrier's index
	__u32 cookie[2]; // random: marks packets that user space has let go on
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

// Counters, by enum counter.
enum counter { TO_USER, PASSED, UNGOVERNED, BROKEN, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

enum hook { INGRESS = 0, EGRESS = 1 };
enum action { DROP = 0, DELIVER = 1, NEIGHBOUR = 2, SEND = 3 };

// In front of each packet on the carrier, in the place of an Ethernet header, so that the kernel reads its last two bytes as the protocol.
struct carrier_hdr {
	__u8 unicast; // 2: an address of a single, locally administered station
	__u8 what; // to user space: hook, and packet type in the upper four bits; from it: action
	__u32 ifindex;
	__u32 mark;
	__u16 reserved;
	__be16 protocol;
} __attribute__((packed));

// From user space, after it: the next hop.
struct next_hop {
	__u32 family;
	__u32 address[4];
} __attribute__((packed));

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);
	if (value) *value += 1;
}

static __always_inline int drop(__u32 why)
{
	count(why);
	return TC_ACT_SHOT;
}

static __always_inline int pass(void)
{
	count(PASSED);
	return TC_ACT_OK;
}

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

static __always_inline int hook(struct __sk_buff *skb, enum hook hook)
{
	__u32 zero = 0;
	struct config *now = bpf_map_lookup_elem(&config, &zero);
	if (!now) return drop(BROKEN);
	if (skb->cb[0] == now->cookie[0] && skb->cb[1] == now->cookie[1]) {
		skb->cb[0] = skb->cb[1] = 0;
		return TC_ACT_OK;
	}
	if (skb->vlan_present) return pass();
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) return pass();
	if (hook == INGRESS && skb->pkt_type == PACKET_OTHERHOST) return pass();
	if (is_neighbour_discovery(skb)) return pass();
	if (hook == EGRESS) {
		if (skb->ingress_ifindex == now->carrier) return TC_ACT_OK;
		// The kernel has forwarded it from an interface that is not governed.
		if (skb->ingress_ifindex) return drop(UNGOVERNED);
		if (is_from_packet_socket(skb)) return pass();
	}
	struct carrier_hdr hdr = {
		.unicast = 2,
		.what = hook | (skb->pkt_type << 4),
		.ifindex = skb->ifindex,
		.mark = skb->mark,
		.protocol = skb->protocol,
	};
	if (bpf_skb_change_head(skb, sizeof(hdr), 0)) return drop(BROKEN);
	if (bpf_skb_store_bytes(skb, 0, &hdr, sizeof(hdr), 0)) return drop(BROKEN);
	count(TO_USER);
	return bpf_redirect(now->carrier, 0);
}

SEC("classifier") int ingress(struct __sk_buff *skb) { return hook(skb, INGRESS); }

SEC("classifier") int egress(struct __sk_buff *skb) { return hook(skb, EGRESS); }

// From user space: struct carrier_hdr, struct next_hop, then the frame.
SEC("classifier") int carrier(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct carrier_hdr hdr;
	struct next_hop hop;
	__u8 ethernet[ETH_HLEN];
	const int front = sizeof(hdr) + sizeof(hop);
	struct config *now = bpf_map_lookup_elem(&config, &zero);
	if (!now) return drop(BROKEN);
	if (bpf_skb_load_bytes(skb, 0, &hdr, sizeof(hdr)) || hdr.unicast != 2) return drop(BROKEN);
	if (bpf_skb_load_bytes(skb, sizeof(hdr), &hop, sizeof(hop))) return drop(BROKEN);
	if (bpf_skb_load_bytes(skb, front, ethernet, sizeof(ethernet))) return drop(BROKEN);
	if (bpf_skb_adjust_room(skb, -front, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)) return drop(BROKEN);
	if (bpf_skb_store_bytes(skb, 0, ethernet, sizeof(ethernet), 0)) return drop(BROKEN);
	skb->mark = hdr.mark;
	skb->cb[0] = now->cookie[0];
	skb->cb[1] = now->cookie[1];
	if (hdr.what == DELIVER) return bpf_redirect(hdr.ifindex, BPF_F_INGRESS);
	if (hdr.what == SEND) return bpf_redirect(hdr.ifindex, 0);
	if (hdr.what == NEIGHBOUR) {
		struct bpf_redir_neigh neighbour = { .nh_family = hop.family };
		__builtin_memcpy(neighbour.ipv6_nh, hop.address, sizeof(hop.address));
		return bpf_redirect_neigh(hdr.ifindex, &neighbour, sizeof(neighbour), 0);
	}
	return drop(BROKEN);
}

char _license[] SEC("license") = "Dual MIT/GPL";

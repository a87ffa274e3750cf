// The programs at tc's hooks and at XDP of each governed interface, and the one at the carrier: the TAP interface between them and user space.
//
//   governed interface, ingress ─┐                            ┌─▶ into the local stack, on the interface it came by
//   governed interface, egress ──┼─▶ carrier ─▶ user space ─▶ carrier ─┼─▶ out by a neighbour of the kernel's
//   loopback interface, egress ──┘                            │
//                                                             └─▶ out as it was, on the interface it was leaving by
//
// Every IP packet of a governed interface goes to user space with what the kernel knows of it, and only user space lets it go on. With nobody there the carrier's queue is
// full, and the packet is lost: closed. Packets of known flows go on at once. What does not go to user space is what netfilter does not see either (ARP, frames of other protocols, frames of VLANs, what
// packet sockets send, what the machine sends to itself unless rules translate it), and neighbour discovery, without which a dead gateway would also be a host that nobody can find.

#include "carrier.h"
#include "known_flow.h"
#include "lifeline.h"
#include "loopback.h"
#include "opening.h"
#include "proxy_socket.h"
#include "xdp.h"

static __always_inline int hook(struct __sk_buff *skb, enum hook hook)
{
	__u32 zero = 0;
	struct config *now = bpf_map_lookup_elem(&config, &zero);
	if (!now) return drop(BROKEN);
	if (skb->cb[0] == now->cookie[0] && skb->cb[1] == now->cookie[1]) {
		skb->cb[0] = skb->cb[1] = 0;
		return ON;
	}
	if (skb->cb[0] == now->cookie[0] && skb->cb[1] == ~now->cookie[1]) {
		skb->cb[0] = skb->cb[1] = 0;
		// For packet sockets: the machine's IP takes no packets of others.
		return bpf_skb_change_type(skb, PACKET_OTHERHOST) ? drop(BROKEN) : ON;
	}
	if (skb->vlan_present) {
		// A tag without a VLAN, only with a priority: the kernel takes the packet as one without a tag.
		if (hook != INGRESS || skb->vlan_tci & VLAN_VID) return pass();
		if (bpf_skb_vlan_pop(skb)) return drop(BROKEN);
	}
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) return pass();
	if (hook == INGRESS && skb->pkt_type == PACKET_OTHERHOST) return pass();
	if (is_neighbour_discovery(skb)) return pass();
	if (hook == EGRESS) {
		if (skb->ingress_ifindex == now->carrier) return ON;
		if (skb->ingress_ifindex) {
			// With nobody there, by choice, the kernel forwards as it would without a gateway.
			if (now->open_when_dead && user_space_is_dead()) return pass();
			// The kernel has forwarded it from an interface that is not governed.
			return drop(UNGOVERNED);
		}
		if (is_from_packet_socket(skb)) return pass();
	}
	int verdict = known(skb, now, hook);
	if (verdict == SEEN_SLOW) verdict = open_by_class(skb, now, hook);
	if (verdict != SEEN_SLOW) return verdict;
	if (user_space_is_dead() && (now->open_when_dead || is_lifeline(skb, hook))) return pass();
	if (hook == INGRESS && is_to_dhcp_client(skb)) {
		// As with netfilter, a client's packet socket gets its answer whatever the rules say: a copy. Sockets of the machine get what the rules let through.
		skb->cb[0] = now->cookie[0];
		skb->cb[1] = ~now->cookie[1];
		bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
		skb->cb[0] = skb->cb[1] = 0;
	}
	return to_user(skb, now, hook);
}

SEC("classifier") int loopback(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct looped_key key = {};
	struct config *now = bpf_map_lookup_elem(&config, &zero);
	if (!now) return drop(BROKEN);
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) return ON;
	int inner = read_ends(skb, ETH_HLEN, &key, 0), is_error = inner > 0;
	if (is_error) inner = read_ends(skb, inner, &key, 1);
	if (inner || is_from_packet_socket(skb) || !goes_to_user(skb, now, &key, is_error)) return ON;
	return to_user(skb, now, EGRESS);
}

SEC("classifier") int ingress(struct __sk_buff *skb) { return hook(skb, INGRESS); }

SEC("classifier") int egress(struct __sk_buff *skb) { return hook(skb, EGRESS); }

// From user space: struct carrier_hdr, struct next_hop or struct proxy, then the frame.
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
	if (hdr.what == PROXY) give_to_proxy(skb, (struct proxy *)&hop);
	if (hdr.what == DELIVER || hdr.what == PROXY) return bpf_redirect(hdr.ifindex, BPF_F_INGRESS);
	if (hdr.what == SEND) return bpf_redirect(hdr.ifindex, 0);
	if (hdr.what == NEIGHBOUR) {
		struct bpf_redir_neigh neighbour = { .nh_family = hop.family };
		__builtin_memcpy(neighbour.ipv6_nh, hop.address, sizeof(hop.address));
		return bpf_redirect_neigh(hdr.ifindex, &neighbour, sizeof(neighbour), 0);
	}
	return drop(BROKEN);
}

SEC("xdp.frags") int xdp(struct xdp_md *ctx) { return known_by_xdp(ctx); }

char _license[] SEC("license") = "Dual MIT/GPL";

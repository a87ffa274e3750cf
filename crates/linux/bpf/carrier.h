// The carrier: packets to user space, each with what the kernel knows of it.
#pragma once
#include "config.h"
#include "packet.h"

enum action { DROP = 0, DELIVER = 1, NEIGHBOUR = 2, SEND = 3, PROXY = 4 };

// In front of each packet on the carrier, in the place of an Ethernet header, so that the kernel reads its last two bytes as the protocol.
struct carrier_hdr {
	__u8 unicast; // 2: an address of a single, locally administered station
	__u8 what; // to user space: hook, and HAS_UID; from it: action
	__u32 ifindex;
	__u32 mark;
	__u16 reserved;
	__be16 protocol;
} __attribute__((packed));

enum { HAS_UID = 2 };

// To user space, after it: the user that the sending socket belongs to.
struct sender {
	__u32 uid;
} __attribute__((packed));

// From user space, after it: the next hop, or struct proxy.
struct next_hop {
	__u32 family;
	__u32 address[4];
} __attribute__((packed));

// Sends a packet to user space.
static __always_inline int to_user(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	struct {
		struct carrier_hdr hdr;
		struct sender sender;
	} __attribute__((packed)) front = {
		.hdr = {
			.unicast = 2,
			.what = hook,
			.ifindex = skb->ifindex,
			.mark = skb->mark,
			.protocol = skb->protocol,
		},
	};
	if (hook == EGRESS && has_full_socket(skb)) {
		front.hdr.what |= HAS_UID;
		front.sender.uid = bpf_get_socket_uid(skb);
	}
	if (bpf_skb_change_head(skb, sizeof(front), 0)) return drop(BROKEN);
	if (bpf_skb_store_bytes(skb, 0, &front, sizeof(front), 0)) return drop(BROKEN);
	count(TO_USER);
	return bpf_redirect(now->carrier, 0);
}

// Diverts datagrams for one host from a device to the gateway's sockets; everything else passes to the kernel.
//
// What passes: frames for several hosts (multicast, broadcast), ARP, VLANs and whatever is not IP, IPv6's neighbour discovery and link-local
// addresses, and anything at all on a queue that has no socket. So the kernel stays the host that it is, and an ended gateway leaves a working device.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

// Router solicitation to redirect.
static int is_discovery(__u8 type) { return type >= 133 && type <= 137; }

SEC("xdp") int divert(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	if ((void *)(eth + 1) > end || eth->h_dest[0] & 1) return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end) return XDP_PASS;
		__u8 *a = ip->daddr.in6_u.u6_addr8;
		if (a[0] == 0xff || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80)) return XDP_PASS;
		__u8 *type = (void *)(ip + 1);
		if (ip->nexthdr == 58 && (void *)(type + 1) <= end && is_discovery(*type)) return XDP_PASS;
	} else if (eth->h_proto != bpf_htons(ETH_P_IP)) {
		return XDP_PASS;
	}
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "Dual MIT/GPL";

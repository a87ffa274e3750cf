// For the gateway's bench: a source of UDP datagrams, which the kernel sends as fast as it can, and a sink that counts what arrives.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct plan {
	__u32 device, flows, sent;
	__u32 step; // from a flow to the next one
	__u32 reversed; // as the receiver answers
	__u8 head[48]; // Ethernet, IPv4 and UDP headers
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct plan);
} plans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} received SEC(".maps");

// The headers are written anew each time: a frame that the kernel recycles comes back as the forwarder left it.
SEC("xdp") int generate(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct udphdr *udp = data + sizeof(struct ethhdr) + sizeof(struct iphdr);
	if (!plan || (void *)(udp + 1) > end) return XDP_DROP;
	__u32 flow = (__u64)plan->sent++ * plan->step % plan->flows;
	__be16 client = bpf_htons(1024 + flow % 60000), server = bpf_htons(7000 + flow / 60000);
	__builtin_memcpy(data, plan->head, 42);
	udp->source = plan->reversed ? server : client;
	udp->dest = plan->reversed ? client : server;
	udp->check = 0;
	return bpf_redirect(plan->device, 0);
}

SEC("xdp") int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != 17) return XDP_PASS;
	__u16 *ports = (void *)(ip + 1);
	// What is for a socket (the latency's) goes to it.
	if ((void *)(ports + 2) > end || ports[1] == bpf_htons(9)) return XDP_PASS;
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&received, &zero);
	if (count) (*count)++;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";

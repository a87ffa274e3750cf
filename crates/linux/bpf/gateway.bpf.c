// The gateway's program on a device, in two parts.
//
// divert: datagrams for one host go to the gateway's sockets. What passes to the kernel: frames for several hosts (multicast, broadcast), ARP, VLANs and
// whatever is not IP, IPv6's neighbour discovery and link-local addresses, and anything at all on a queue that has no socket. So the kernel stays the
// host that it is, and an ended gateway leaves a working device.
//
// emit: sends frames that user space has laid out in memory, many with one call: the kernel runs the program once a frame (BPF_PROG_RUN with live frames), which
// fills the frame and sends it on to its device. No socket buffer is made, and devices are rung once a bulk. It is the same program because the kernel
// prepares one that stands on a device for being called; any other it would prepare anew with each run, which takes milliseconds.
// What devices refuse is counted by two tracepoints, since a redirected frame is otherwise lost in silence.
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

static int divert(struct xdp_md *ctx)
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

enum { SLOTS = 256, OCTETS = 2040 };

struct slot {
	__u32 device, length;
	__u8 octets[OCTETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct run {
	__u32 next; // the slot to be sent
	__u32 processor; // 1 + the processor that sends; 0: none
	__u64 lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct run);
} runs SEC(".maps");

static struct run *current(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&runs, &zero);
}

static int emit(struct xdp_md *ctx)
{
	struct run *run = current();
	if (!run) return XDP_DROP;
	run->processor = bpf_get_smp_processor_id() + 1;
	__u32 at = run->next++ & (SLOTS - 1);
	struct slot *slot = bpf_map_lookup_elem(&slots, &at);
	if (!slot) return XDP_DROP;
	__u32 length = slot->length;
	if (length < 14 || length > OCTETS) return XDP_DROP;
	if (bpf_xdp_adjust_tail(ctx, (int)length - (int)bpf_xdp_get_buff_len(ctx))) { run->lost++; return XDP_DROP; }
	if (bpf_xdp_store_bytes(ctx, 0, slot->octets, length)) { run->lost++; return XDP_DROP; }
	return bpf_redirect(slot->device, 0);
}

static void lose(__u64 frames)
{
	struct run *run = current();
	if (run && run->processor == bpf_get_smp_processor_id() + 1) run->lost += frames;
}

// from, to, sent, drops, error
SEC("raw_tp/xdp_devmap_xmit") int refused(struct bpf_raw_tracepoint_args *ctx)
{
	if ((int)ctx->args[3] > 0) lose(ctx->args[3]);
	return 0;
}

SEC("raw_tp/xdp_redirect_err") int failed(struct bpf_raw_tracepoint_args *ctx)
{
	lose(1);
	return 0;
}

SEC("xdp") int gateway(struct xdp_md *ctx)
{
	// Frames of a run of ours come from the loopback device, where the program never stands.
	return ctx->ingress_ifindex == 1 ? emit(ctx) : divert(ctx);
}

char _license[] SEC("license") = "Dual MIT/GPL";

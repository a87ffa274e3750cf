// What user space tells the programs, and what they count.
#pragma once

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { AF_PACKET = 17, ICMPV6 = 58 };

// The bits of a tag that say of which VLAN it is.
enum { VLAN_VID = 0x0fff };

// What user space tells the programs.
struct config {
	__u32 carrier; // the carrier's index
	__u32 cookie[2]; // random: marks packets that user space has let go on
	__u32 generation; // of the known flows: lines of another one are stale
	__u64 key[2]; // of the hash of known flows
	__u32 open_when_dead; // what becomes of packets when no gateway runs: 0 nothing passes
	__u32 netns; // whose all this is, for the next gateway
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

// What user space tells all the time, through the mapped memory.
struct heartbeat {
	__u64 beat; // when it has last been seen, in nanoseconds of the monotonic clock
	__s32 budget; // connections that may be opened by class before it has read of them; the programs count it down
	__u32 generation; // of the classes: those of another one are void
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct heartbeat);
} heartbeat SEC(".maps");

// Counters, by enum counter.
enum counter { TO_USER, PASSED, UNGOVERNED, BROKEN, KNOWN, OPENED, KNOWN_BY_XDP, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

// What is let go on is seen by the other programs and filters that stand there.
enum { ON = TC_ACT_UNSPEC };

enum hook { INGRESS = 0, EGRESS = 1 };

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
	return ON;
}

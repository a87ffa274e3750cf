// Classes of new TCP connections that are opened here.
#pragma once
#include "known_flow.h"

// A class of new TCP connections: those of one client, which may be the machine itself, to one port of a server, by one interface, which the rules provably judge alike. Their first SYNs go on, and user space is told; their lines differ in the
// client's port alone. Written by user space.
struct class_key {
	__be32 saddr, daddr;
	__be16 dport;
	__u16 ifindex;
	__u32 hook;
};

struct class_key_v6 {
	__be32 saddr[4], daddr[4];
	__be16 dport;
	__u16 ifindex;
	__u32 hook;
};

// What a line has beside its addresses.
struct way {
	__u32 mark;
	__u8 target;
	__u8 live;
	__u16 oif;
};

// What a class has beside its addresses.
struct class_ways {
	__be16 new_dport;
	__u8 reply_hook; // where answers come from
	__u8 has_ports;
	__u16 reply_ifindex;
	__u16 unused;
	__u32 ports; // with `has_ports`: which of the bitmaps tells the outside ports in use
	__u32 generation;
	struct way original, reply;
};

struct class {
	struct class_ways ways;
	__be32 new_saddr, new_daddr;
	__be32 next_hop, reply_next_hop;
};

struct class_v6 {
	struct class_ways ways;
	__be32 new_saddr[4], new_daddr[4];
	__be32 next_hop[4], reply_next_hop[4];
};

// Classes of both families together are not more.
enum { MAX_CLASSES = 1024, PORT_MAPS = 256 };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CLASSES);
	__type(key, struct class_key);
	__type(value, struct class);
} classes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CLASSES);
	__type(key, struct class_key_v6);
	__type(value, struct class_v6);
} classes_v6 SEC(".maps");

// Of an outside address and one port of a server: a bit for each outside port that some connection between them has, or may have. Set by whoever takes a port first; cleared by user space.
struct port_map {
	__u32 words[65536 / 32];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, PORT_MAPS);
	__type(key, __u32);
	__type(value, struct port_map);
} port_maps SEC(".maps");

// User space has to have read lately: it judges afterwards what is opened by class, and a dead one's connections are closed.
enum { CLASS_BEAT_MS = 500 };

// The first SYN of a connection, without data: `length` bytes follow the IP header.
static __always_inline int is_first_syn(const struct tcphdr *tcp, __u32 length)
{
	if (!tcp->syn || tcp->ack || tcp->fin || tcp->rst || tcp->urg || !tcp->source) return 0;
	return tcp->doff >= 5 && length == tcp->doff * 4;
}

// It is raised before a class goes: what is read of one in between may be another's.
static __always_inline __u32 class_generation(const struct heartbeat *user)
{
	asm volatile("" ::: "memory");
	return *(volatile const __u32 *)&user->generation;
}

// Is a class in force, and a packet one of its packets? `has_tos`: of another than the ordinary type of service.
static __always_inline int is_of_class(struct __sk_buff *skb, const struct class_ways *ways, const struct heartbeat *user, __u32 generation, int has_tos)
{
	__u8 what = ways->original.target;
	if (ways->generation != generation || !is_alive(user, clock_now(), CLASS_BEAT_MS)) return 0;
	if ((what & UNMARKED_ONLY && skb->mark) || (what & PLAIN_TOS_ONLY && has_tos)) return 0;
	return (what & TARGET) != FORWARD || fits(skb, ways->original.oif);
}

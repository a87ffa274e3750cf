// The programs at tc's hooks of each governed interface, and the one at the carrier: the TAP interface between them and user space.
//
//   governed interface, ingress ─┐                            ┌─▶ into the local stack, on the interface it came by
//   governed interface, egress ──┼─▶ carrier ─▶ user space ─▶ carrier ─┼─▶ out by a neighbour of the kernel's
//   loopback interface, egress ──┘                            │
//                                                             └─▶ out as it was, on the interface it was leaving by
//
// Every IP packet of a governed interface goes to user space with what the kernel knows of it, and only user space lets it go on. With nobody there the carrier's queue is
// full, and the packet is lost: closed. Packets of known flows go on at once. What does not go to user space is what netfilter does not see either (ARP, frames of other protocols, frames of tagged VLANs, what
// packet sockets send, what the machine sends to itself unless it answers to what was redirected to it), and neighbour discovery, without which a dead gateway would also be a host that nobody can find.
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

enum { DEAD_AFTER_SECONDS = 10 };

// By interface: the TCP port of the machine that stays open while no gateway runs.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} lifelines SEC(".maps");

// Counters, by enum counter.
enum counter { TO_USER, PASSED, UNGOVERNED, BROKEN, KNOWN, OPENED, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

// What is let go on is seen by the other programs and filters that stand there.
enum { ON = TC_ACT_UNSPEC };

enum hook { INGRESS = 0, EGRESS = 1 };
enum action { DROP = 0, DELIVER = 1, NEIGHBOUR = 2, SEND = 3 };

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

// From user space, after it: the next hop.
struct next_hop {
	__u32 family;
	__u32 address[4];
} __attribute__((packed));

// A known flow: one direction of a connection whose packets go on without user space. It is written by user space, through the mapped memory: a line that is free gets its content first and
// `live` last; a line that is not live is used again only when no program can still be reading it. The programs write its counts, and how far its connection is, in `live`.
struct flow_key {
	__be32 saddr, daddr;
	__be16 sport, dport;
	__u8 protocol;
	__u8 hook;
	__u16 ifindex;
};

enum target { FORWARD = 0, HOST = 1, LET_OUT = 2 };

// Beside the target: the packets get the line's mark; only packets that come without a mark are the flow's, since rules or routes have asked for it; the machine itself sends them, so
// that they are no hop older; only packets of the ordinary type of service are the flow's, since routes go by it.
enum { TARGET = 3, SETS_MARK = 4, UNMARKED_ONLY = 8, KEEPS_HOPS = 16, PLAIN_TOS_ONLY = 32 };

// In `live`: the line is one; its connection's handshake goes on; its connection is closing; a segment of it could not be told, so that those behind it come to user space too, in their order; rules have asked
// for FIN, so that segments with it come to user space.
enum { LIVE = 1, OPENING = 2, CLOSING = 4, HELD = 8, WITHOUT_FIN = 16 };

// Not live: somebody is writing it; user space has taken it out, and a program may still be reading it. A line with nothing in `live` is free, and whoever sets CLAIMED there has it.
enum { CLAIMED = 32, GONE = 64 };

struct flow {
	struct flow_key key;
	__be32 new_saddr, new_daddr;
	__be16 new_sport, new_dport;
	__be32 next_hop;
	__u32 generation;
	__u32 mark;
	__u8 target;
	__u8 live;
	__u16 oif;
	__u32 seen; // milliseconds of the monotonic clock, when its last packet came
	__u64 packets;
	__u64 bytes;
} __attribute__((aligned(64)));

// A flow's line is in one of three buckets. How many buckets there are user space says when it loads the programs: a power of two, less one.
enum { LINES = 4, BUCKETS = 65536, BUCKETS_V6 = 32768 };
volatile const __u32 bucket_mask = BUCKETS - 1, bucket_mask_v6 = BUCKETS_V6 - 1;

struct bucket {
	struct flow lines[LINES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, struct bucket);
} flows SEC(".maps");

// The same of IPv6: two cache lines.
struct flow_key_v6 {
	__be32 saddr[4], daddr[4];
	__be16 sport, dport;
	__u8 protocol;
	__u8 hook;
	__u16 ifindex;
};

struct flow_v6 {
	struct flow_key_v6 key;
	__be32 new_saddr[4], new_daddr[4];
	__be16 new_sport, new_dport;
	__be32 next_hop[4];
	__u32 generation;
	__u32 mark;
	__u8 target;
	__u8 live;
	__u16 oif;
	__u32 seen;
	__u32 unused;
	__u64 packets;
	__u64 bytes;
} __attribute__((aligned(64)));

struct bucket_v6 {
	struct flow_v6 lines[LINES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BUCKETS_V6);
	__type(key, __u32);
	__type(value, struct bucket_v6);
} flows_v6 SEC(".maps");

// Beside each line: what segments need that begin or close a connection.
struct side {
	__u32 peer; // the number of the line of the other direction, which has this one's number in its turn
	__u32 next_seq; // in the handshake: the sequence number of this end's next segment
	__u16 is_reply;
	__u16 has_answered; // the server: its SYN has passed
	__u32 unused;
};

struct sides {
	struct side lines[LINES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, struct sides);
} sides SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BUCKETS_V6);
	__type(key, __u32);
	__type(value, struct sides);
} sides_v6 SEC(".maps");

// A segment that has gone on, and that user space has to know of: IP and TCP header as they came.
enum { MAX_HEADERS = 100 };

struct note {
	__u32 line;
	__u8 is_v6;
	__u8 length;
	__u16 opens; // the first SYN of a connection of a class: its lines are new
	__u32 peer; // then: the line of the other direction
	__u8 headers[MAX_HEADERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} notes SEC(".maps");

// A class of new TCP connections: those of one client to one port of a server, by one interface, which the rules provably judge alike. Their first SYNs go on, and user space is told; their lines differ in the
// client's port alone. Written by user space.
struct class_key {
	__be32 saddr, daddr;
	__be16 dport;
	__u16 ifindex;
};

// What a line has beside its key.
struct way {
	__be32 next_hop;
	__u32 mark;
	__u8 target;
	__u8 live;
	__u16 oif;
};

struct class {
	__be32 new_saddr, new_daddr;
	__be16 new_dport;
	__u8 reply_hook; // where answers come from
	__u8 has_ports;
	__u16 reply_ifindex;
	__u16 unused;
	__u32 ports; // with `has_ports`: which of the bitmaps tells the outside ports in use
	__u32 generation;
	struct way original, reply;
};

enum { MAX_CLASSES = 1024, PORT_MAPS = 256 };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CLASSES);
	__type(key, struct class_key);
	__type(value, struct class);
} classes SEC(".maps");

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

// What the next gateway has to know of each known connection, beside its lines: written and read by user space alone (src/tc/flow_record.rs).
struct record {
	__u8 bytes[192];
};

struct record_v6 {
	__u8 bytes[240];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BUCKETS * LINES / 2);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BUCKETS_V6 * LINES / 2);
	__type(key, __u32);
	__type(value, struct record_v6);
} records_v6 SEC(".maps");

// What the machine may send to itself as an answer to packets of its own that user space has led to it: only that is taken from the loopback interface. The oldest make room.
struct looped_key {
	__be32 saddr[4], daddr[4];
	__be16 sport, dport;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct looped_key);
	__type(value, __u32);
} looped SEC(".maps");

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

static __always_inline int has_full_socket(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;
	return socket && bpf_sk_fullsock(socket);
}

#define ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define SIP_ROUND \
	v0 += v1; v1 = ROTATE(v1, 13); v1 ^= v0; v0 = ROTATE(v0, 32); \
	v2 += v3; v3 = ROTATE(v3, 16); v3 ^= v2; \
	v0 += v3; v3 = ROTATE(v3, 21); v3 ^= v0; \
	v2 += v1; v1 = ROTATE(v1, 17); v1 ^= v2; v2 = ROTATE(v2, 32);

// SipHash-1-3 of a key of so many words (Aumasson and Bernstein, 2012): senders choose the key's content, and must not know where it leads.
static __always_inline __u64 hash_of(const __u64 *words, int count, const __u64 *secret)
{
	__u64 v0 = secret[0] ^ 0x736f6d6570736575ull, v1 = secret[1] ^ 0x646f72616e646f6dull;
	__u64 v2 = secret[0] ^ 0x6c7967656e657261ull, v3 = secret[1] ^ 0x7465646279746573ull;
	const __u64 length = (__u64)count * 8 << 56;
#pragma unroll
	for (int i = 0; i < count; i++) {
		v3 ^= words[i]; SIP_ROUND v0 ^= words[i];
	}
	v3 ^= length; SIP_ROUND v0 ^= length;
	v2 ^= 0xff;
	SIP_ROUND SIP_ROUND SIP_ROUND
	return v0 ^ v1 ^ v2 ^ v3;
}

static __always_inline struct flow *find_in(__u32 at, const struct flow_key *key, __u32 generation, __u32 *number)
{
	struct bucket *bucket = bpf_map_lookup_elem(&flows, &at);
	if (!bucket) return 0;
	const __u64 *wanted = (const void *)key;
#pragma unroll
	for (int i = 0; i < LINES; i++) {
		struct flow *flow = &bucket->lines[i];
		const __u64 *has = (const void *)&flow->key;
		if (has[0] == wanted[0] && has[1] == wanted[1] && flow->live & LIVE && flow->generation == generation) {
			*number = at * LINES + i;
			return flow;
		}
	}
	return 0;
}

static __always_inline struct flow_v6 *find_in_v6(__u32 at, const struct flow_key_v6 *key, __u32 generation, __u32 *number)
{
	struct bucket_v6 *bucket = bpf_map_lookup_elem(&flows_v6, &at);
	if (!bucket) return 0;
	const __u64 *wanted = (const void *)key;
#pragma unroll
	for (int i = 0; i < LINES; i++) {
		struct flow_v6 *flow = &bucket->lines[i];
		const __u64 *has = (const void *)&flow->key;
		// The ports differ mostly.
		if (has[4] == wanted[4] && has[3] == wanted[3] && has[1] == wanted[1] && has[2] == wanted[2] && has[0] == wanted[0] &&
		    flow->live & LIVE && flow->generation == generation) {
			*number = at * LINES + i;
			return flow;
		}
	}
	return 0;
}

enum { SEEN_SLOW = -100 }; // user space is to see the packet

// Makes the headers' bytes readable: those of TCP, or as many as there are, since a datagram may be shorter.
static __always_inline int pull_headers(struct __sk_buff *skb, __u32 ip_len)
{
	__u32 wanted = ETH_HLEN + ip_len + sizeof(struct tcphdr);
	if ((void *)(long)skb->data + wanted <= (void *)(long)skb->data_end) return 0;
	return bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted);
}

// Segments and datagrams that the kernel may send on: user space has to see the first segments of connections, and resets. `told` are those that user space has to know of.
static __always_inline int is_ordinary(__u8 protocol, void *transport, void *end, int *told)
{
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;
		if ((void *)(tcp + 1) > end || tcp->rst || !tcp->ack || tcp->doff < 5) return 0;
		*told = tcp->syn || tcp->fin;
		return 1;
	}
	struct { __be16 source, dest, len, check; } *udp = transport;
	return protocol == IPPROTO_UDP && (void *)(udp + 1) <= end && bpf_ntohs(udp->len) >= 8;
}

static __always_inline struct side *side_of(__u32 number, int is_v6)
{
	__u32 at = number / LINES;
	struct sides *found = is_v6 ? bpf_map_lookup_elem(&sides_v6, &at) : bpf_map_lookup_elem(&sides, &at);
	return found ? &found->lines[number % LINES] : 0;
}

// Target, `live` and interface of a line, as one word.
static __always_inline __u32 *state_of(__u32 number, int is_v6)
{
	__u32 at = number / LINES;
	if (is_v6) {
		struct bucket_v6 *bucket = bpf_map_lookup_elem(&flows_v6, &at);
		return bucket ? (void *)&bucket->lines[number % LINES].target : 0;
	}
	struct bucket *bucket = bpf_map_lookup_elem(&flows, &at);
	return bucket ? (void *)&bucket->lines[number % LINES].target : 0;
}

// A bit of `live` in that word.
#define LIVE_BIT(bit) bpf_htonl((__u32)(bit) << 16)

// A segment of a known flow that belongs to its connection's handshake or end: may it go on? If so, user space is told. In the handshake only what it must consist of may, without data;
// user space judges all else, and what it cannot be told.
static __always_inline int may_go_on(struct __sk_buff *skb, __u32 number, __u8 live, __u32 ip_len, __u32 length, int is_v6)
{
	struct tcphdr tcp;
	if (live & HELD || bpf_skb_load_bytes(skb, ETH_HLEN + ip_len, &tcp, sizeof(tcp))) return 0;
	__u32 headers = ip_len + tcp.doff * 4;
	if (length < headers || (tcp.fin && live & WITHOUT_FIN)) return 0;
	struct side *side = side_of(number, is_v6);
	if (!side) return 0;
	__u32 other = side->peer;
	struct side *peer = side_of(other, is_v6);
	__u32 *state = state_of(number, is_v6), *peer_state = state_of(other, is_v6);
	if (!peer || !state || !peer_state || peer->peer != number) return 0;
	__u32 seq = bpf_ntohl(tcp.seq), ack = bpf_ntohl(tcp.ack_seq);
	if (live & OPENING) {
		if (length != headers || tcp.fin || tcp.urg || ack != peer->next_seq) return 0;
		if (side->is_reply ? !tcp.syn || (side->has_answered && side->next_seq != seq + 1)
				   : tcp.syn || !peer->has_answered || side->next_seq != seq)
			return 0;
	} else if (tcp.syn) {
		return 0;
	}
	struct note *note = bpf_ringbuf_reserve(&notes, sizeof(*note), 0);
	if (!note) {
		__sync_fetch_and_or(state, LIVE_BIT(HELD));
		__sync_fetch_and_or(peer_state, LIVE_BIT(HELD));
		return 0;
	}
	note->line = number;
	note->is_v6 = is_v6;
	note->length = headers;
	note->opens = 0;
	note->peer = other;
	if (headers < 40 || headers > MAX_HEADERS || bpf_skb_load_bytes(skb, ETH_HLEN, note->headers, headers)) {
		bpf_ringbuf_discard(note, BPF_RB_NO_WAKEUP);
		return 0;
	}
	if (!(live & OPENING)) {
		if (tcp.fin) {
			__sync_fetch_and_or(state, LIVE_BIT(CLOSING));
			__sync_fetch_and_or(peer_state, LIVE_BIT(CLOSING));
		}
	} else if (side->is_reply) {
		side->next_seq = seq + 1;
		side->has_answered = 1;
	} else {
		// User space may be taking it out: only this bit changes.
		__sync_fetch_and_and(state, ~LIVE_BIT(OPENING));
		__sync_fetch_and_and(peer_state, ~LIVE_BIT(OPENING));
	}
	bpf_ringbuf_submit(note, BPF_RB_NO_WAKEUP);
	return 1;
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
	__u64 hash = hash_of((void *)&key, sizeof(key) / 8, now->key);
	struct flow *flow = find_in(hash & bucket_mask, &key, now->generation, &number);
	if (!flow) flow = find_in(hash >> 32 & bucket_mask, &key, now->generation, &number);
	if (!flow) flow = find_in(hash >> 16 & bucket_mask, &key, now->generation, &number);
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
	flow->seen = bpf_ktime_get_coarse_ns() / 1000000;
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
	__u64 hash = hash_of((void *)&key, sizeof(key) / 8, now->key);
	struct flow_v6 *flow = find_in_v6(hash & bucket_mask_v6, &key, now->generation, &number);
	if (!flow) flow = find_in_v6(hash >> 32 & bucket_mask_v6, &key, now->generation, &number);
	if (!flow) flow = find_in_v6(hash >> 16 & bucket_mask_v6, &key, now->generation, &number);
	if (!flow) return SEEN_SLOW;
	__u8 what = flow->target, target = what & TARGET;
	__u32 oif = flow->oif, mark = flow->mark;
	if (what & UNMARKED_ONLY && skb->mark) return SEEN_SLOW;
	if (what & PLAIN_TOS_ONLY && (ip->priority | (ip->flow_lbl[0] & 0xc0))) return SEEN_SLOW;
	__u32 ports_before = *(__u32 *)ports, ports_after = (__u32)flow->new_dport << 16 | flow->new_sport;
	if (target == FORWARD && ((hops <= 1 && !(what & KEEPS_HOPS)) || !fits(skb, oif))) return SEEN_SLOW;
	__u8 live = flow->live;
	if ((told || live & ~(LIVE | WITHOUT_FIN)) && protocol == IPPROTO_TCP && !may_go_on(skb, number, live, sizeof(*ip), length, 1)) return SEEN_SLOW;
	flow->seen = bpf_ktime_get_coarse_ns() / 1000000;
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, length);
	count(KNOWN);
	if (what & SETS_MARK) skb->mark = mark;
	int check = ETH_HLEN + sizeof(*ip) + (protocol == IPPROTO_TCP ? 16 : 6);
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be32 saddr[4], daddr[4];
	struct bpf_redir_neigh neighbour = { .nh_family = 10 };
	__builtin_memcpy(saddr, flow->new_saddr, sizeof(saddr));
	__builtin_memcpy(daddr, flow->new_daddr, sizeof(daddr));
	__builtin_memcpy(neighbour.ipv6_nh, flow->next_hop, sizeof(neighbour.ipv6_nh));
	replace_address_v6(skb, ETH_HLEN + 8, check, key.saddr, saddr, flags);
	replace_address_v6(skb, ETH_HLEN + 24, check, key.daddr, daddr, flags);
	if (ports_before != ports_after) {
		bpf_l4_csum_replace(skb, check, ports_before, ports_after, 4 | flags);
		bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(*ip), &ports_after, 4, 0);
	}
	if (target != FORWARD) return ON;
	hops -= !(what & KEEPS_HOPS);
	if (bpf_skb_store_bytes(skb, ETH_HLEN + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM)) return drop(BROKEN);
	skb->cb[0] = now->cookie[0];
	skb->cb[1] = now->cookie[1];
	return bpf_redirect_neigh(oif, &neighbour, sizeof(neighbour), 0);
}

static __always_inline int known(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	if (skb->ifindex > 0xffff) return SEEN_SLOW;
	return skb->protocol == bpf_htons(ETH_P_IP) ? known_v4(skb, now, hook) : known_v6(skb, now, hook);
}

// A line's target, `live` and interface in one word, as they are published.
union line_state {
	struct way_state {
		__u8 target;
		__u8 live;
		__u16 oif;
	} parts;
	__u32 word;
};

// Does a line with this key exist, in whatever state? User space may know more of it than the programs.
static __always_inline int is_taken(const struct flow_key *key, __u64 hash)
{
	const __u64 *wanted = (const void *)key;
#pragma unroll
	for (int nth = 0; nth < 3; nth++) {
		__u32 at = hash >> (nth == 1 ? 32 : nth == 2 ? 16 : 0) & bucket_mask;
		struct bucket *bucket = bpf_map_lookup_elem(&flows, &at);
		if (!bucket) return 1;
#pragma unroll
		for (int i = 0; i < LINES; i++) {
			const __u64 *has = (const void *)&bucket->lines[i].key;
			if (has[0] == wanted[0] && has[1] == wanted[1] && bucket->lines[i].live & ~GONE) return 1;
		}
	}
	return 0;
}

// Takes a free line for a flow with this hash.
static __always_inline struct flow *claim(__u64 hash, __u32 *number)
{
#pragma unroll
	for (int nth = 0; nth < 3; nth++) {
		__u32 at = hash >> (nth == 1 ? 32 : nth == 2 ? 16 : 0) & bucket_mask;
		struct bucket *bucket = bpf_map_lookup_elem(&flows, &at);
		if (!bucket) return 0;
#pragma unroll
		for (int i = 0; i < LINES; i++) {
			__u32 *state = (void *)&bucket->lines[i].target;
			__u32 before = *(volatile __u32 *)state;
			if (!(before & LIVE_BIT(0xff)) && __sync_val_compare_and_swap(state, before, LIVE_BIT(CLAIMED)) == before) {
				*number = at * LINES + i;
				return &bucket->lines[i];
			}
		}
	}
	return 0;
}

static __always_inline void publish(struct flow *flow, const struct way *way)
{
	union line_state state = { .parts = { way->target, way->live | LIVE | OPENING, way->oif } };
	__sync_lock_test_and_set((__u32 *)(void *)&flow->target, state.word);
}

static __always_inline void give_back(struct flow *flow)
{
	__sync_lock_test_and_set((__u32 *)(void *)&flow->target, 0);
}

static __always_inline void fill(struct flow *flow, const struct flow_key *key, const struct way *way, __u32 generation)
{
	flow->key = *key;
	flow->next_hop = way->next_hop;
	flow->generation = generation;
	flow->mark = way->mark;
	flow->seen = bpf_ktime_get_coarse_ns() / 1000000;
	flow->packets = 0;
	flow->bytes = 0;
}

// User space has to have read lately: it judges afterwards what is opened by class, and a dead one's connections are closed.
enum { CLASS_BEAT_MS = 500, WAKE_AT = 4096 };

// The first SYN of a connection whose class user space has told: its lines are made here, and it goes on.
static __always_inline int open_v4(struct __sk_buff *skb, struct config *now)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 zero = 0, number = 0, reply_number = 0;
	if (skb->ifindex > 0xffff || (void *)(tcp + 1) > end) return SEEN_SLOW;
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || ip->protocol != IPPROTO_TCP || ip->ttl <= 1) return SEEN_SLOW;
	// A plain one, without data.
	if (!tcp->syn || tcp->ack || tcp->fin || tcp->rst || tcp->urg || !tcp->source) return SEEN_SLOW;
	__u32 length = bpf_ntohs(ip->tot_len);
	if (tcp->doff < 5 || length != sizeof(*ip) + tcp->doff * 4 || length + ETH_HLEN > skb->len) return SEEN_SLOW;
	struct class_key class_key = { ip->saddr, ip->daddr, tcp->dest, (__u16)skb->ifindex };
	struct class *class = bpf_map_lookup_elem(&classes, &class_key);
	struct heartbeat *user = bpf_map_lookup_elem(&heartbeat, &zero);
	if (!class || !user || class->generation != user->generation) return SEEN_SLOW;
	if (bpf_ktime_get_coarse_ns() > user->beat + CLASS_BEAT_MS * 1000000ull) return SEEN_SLOW;
	struct way original = class->original, reply = class->reply;
	if (original.target & UNMARKED_ONLY && skb->mark) return SEEN_SLOW;
	if (original.target & PLAIN_TOS_ONLY && ip->tos & 0xfc) return SEEN_SLOW;
	if ((original.target & TARGET) == FORWARD && !fits(skb, original.oif)) return SEEN_SLOW;
	struct flow_key key = { ip->saddr, ip->daddr, tcp->source, tcp->dest, IPPROTO_TCP, INGRESS, (__u16)skb->ifindex };
	struct flow_key reply_key = {
		class->new_daddr, class->new_saddr, class->new_dport, tcp->source, IPPROTO_TCP, class->reply_hook, class->reply_ifindex,
	};
	__u32 next_seq = bpf_ntohl(tcp->seq) + 1, port = bpf_ntohs(tcp->source);
	__u64 hash = hash_of((void *)&key, sizeof(key) / 8, now->key), reply_hash = hash_of((void *)&reply_key, sizeof(key) / 8, now->key);
	if (is_taken(&key, hash) || is_taken(&reply_key, reply_hash)) return SEEN_SLOW;
	__s32 budget = __sync_fetch_and_add(&user->budget, -1);
	if (budget <= 0) {
		__sync_fetch_and_add(&user->budget, 1);
		return SEEN_SLOW;
	}
	__u32 bit = 1u << (port & 31), *word = 0, ports = class->ports;
	if (class->has_ports) {
		struct port_map *map = bpf_map_lookup_elem(&port_maps, &ports);
		if (!map) return SEEN_SLOW;
		word = &map->words[(port >> 5) & 2047];
		// Somebody has the port.
		if (__sync_fetch_and_or(word, bit) & bit) return SEEN_SLOW;
	}
	struct flow *flow = claim(hash, &number);
	struct flow *answers = flow ? claim(reply_hash, &reply_number) : 0;
	struct side *side = answers ? side_of(number, 0) : 0, *peer = answers ? side_of(reply_number, 0) : 0;
	struct note *note = side && peer ? bpf_ringbuf_reserve(&notes, sizeof(*note), 0) : 0;
	if (!note) goto without;
	note->line = number;
	note->is_v6 = 0;
	note->length = length;
	note->opens = 1;
	note->peer = reply_number;
	if (length < 40 || length > MAX_HEADERS || bpf_skb_load_bytes(skb, ETH_HLEN, note->headers, length)) {
		bpf_ringbuf_discard(note, BPF_RB_NO_WAKEUP);
		goto without;
	}
	// There is a note only if there are all of them; the verifier does not know.
	if (!flow || !answers || !side || !peer) {
		bpf_ringbuf_discard(note, BPF_RB_NO_WAKEUP);
		return SEEN_SLOW;
	}
	fill(flow, &key, &original, now->generation);
	flow->new_saddr = class->new_saddr;
	flow->new_daddr = class->new_daddr;
	flow->new_sport = key.sport;
	flow->new_dport = class->new_dport;
	fill(answers, &reply_key, &reply, now->generation);
	answers->new_saddr = key.daddr;
	answers->new_daddr = key.saddr;
	answers->new_sport = key.dport;
	answers->new_dport = key.sport;
	*side = (struct side){ .peer = reply_number, .next_seq = next_seq };
	*peer = (struct side){ .peer = number, .is_reply = 1 };
	publish(answers, &reply);
	publish(flow, &original);
	// Before nothing is left, user space is woken; mostly it reads in time.
	bpf_ringbuf_submit(note, budget == WAKE_AT ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	count(OPENED);
	struct translation to = {
		class->new_saddr, class->new_daddr, original.next_hop,
		(__u32)class->new_dport << 16 | key.sport, original.mark, original.oif, original.target,
	};
	return send_on_v4(skb, now, &key, (__u32)key.dport << 16 | key.sport, IPPROTO_TCP, &to);
without:
	if (flow) give_back(flow);
	if (answers) give_back(answers);
	if (word) __sync_fetch_and_and(word, ~bit);
	return SEEN_SLOW;
}

static __always_inline int user_space_is_dead(void)
{
	__u32 zero = 0;
	struct heartbeat *user = bpf_map_lookup_elem(&heartbeat, &zero);
	return !user || bpf_ktime_get_coarse_ns() > user->beat + DEAD_AFTER_SECONDS * 1000000000ull;
}

// A packet of the machine itself, to or from the port that the administrator keeps for this case.
static __always_inline int is_lifeline(struct __sk_buff *skb, enum hook hook)
{
	__u32 ifindex = skb->ifindex;
	__be16 port;
	int at;
	__u8 protocol;
	struct bpf_fib_lookup route = { .ifindex = ifindex };
	__u32 *open = bpf_map_lookup_elem(&lifelines, &ifindex);
	if (!open) return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl != 5 || ip.frag_off & bpf_htons(0x3fff)) return 0;
		protocol = ip.protocol;
		at = ETH_HLEN + sizeof(ip);
		route.family = 2;
		route.ipv4_src = ip.saddr;
		route.ipv4_dst = ip.daddr;
	} else {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip))) return 0;
		protocol = ip.nexthdr;
		at = ETH_HLEN + sizeof(ip);
		route.family = 10;
		__builtin_memcpy(route.ipv6_src, &ip.saddr, sizeof(route.ipv6_src));
		__builtin_memcpy(route.ipv6_dst, &ip.daddr, sizeof(route.ipv6_dst));
	}
	if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, at + (hook == INGRESS ? 2 : 0), &port, sizeof(port))) return 0;
	if (bpf_ntohs(port) != *open) return 0;
	if (hook == EGRESS) return 1;
	// Not what the kernel would forward.
	int to = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	return to == BPF_FIB_LKUP_RET_NOT_FWDED || to == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

// Is it for a DHCP client (RFC 2131)?
static __always_inline int is_to_dhcp_client(struct __sk_buff *skb)
{
	struct iphdr ip;
	__be16 port;
	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip))) return 0;
	if (ip.protocol != IPPROTO_UDP || ip.frag_off & bpf_htons(0x3fff)) return 0;
	return !bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4 + 2, &port, sizeof(port)) && port == bpf_htons(68);
}

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
	if (skb->vlan_present) return pass();
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) return pass();
	if (hook == INGRESS && skb->pkt_type == PACKET_OTHERHOST) return pass();
	if (is_neighbour_discovery(skb)) return pass();
	if (hook == EGRESS) {
		if (skb->ingress_ifindex == now->carrier) return ON;
		// The kernel has forwarded it from an interface that is not governed.
		if (skb->ingress_ifindex) return drop(UNGOVERNED);
		if (is_from_packet_socket(skb)) return pass();
	}
	int verdict = known(skb, now, hook);
	if (verdict == SEEN_SLOW && hook == INGRESS && skb->protocol == bpf_htons(ETH_P_IP)) verdict = open_v4(skb, now);
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

// Reads the ends of the IP packet at an offset; of an ICMP error those of an answer to the packet that it quotes.
static __always_inline int read_ends(struct __sk_buff *skb, int at, struct looped_key *key, int quoted)
{
	__be32 saddr[4] = {}, daddr[4] = {};
	__be16 ports[2] = {};
	__u8 first, protocol, type;
	if (bpf_skb_load_bytes(skb, at, &first, 1)) return -1;
	if (first >> 4 == 4) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.ihl < 5 || ip.frag_off & bpf_htons(0x3fff)) return -1;
		saddr[0] = ip.saddr;
		daddr[0] = ip.daddr;
		protocol = ip.protocol;
		at += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip))) return -1;
		__builtin_memcpy(saddr, &ip.saddr, sizeof(saddr));
		__builtin_memcpy(daddr, &ip.daddr, sizeof(daddr));
		protocol = ip.nexthdr;
		at += sizeof(ip);
	}
	if (protocol == IPPROTO_ICMP || protocol == ICMPV6) {
		if (bpf_skb_load_bytes(skb, at, &type, 1)) return -1;
		int is_error = protocol == ICMPV6 ? type < 128 : type == 3 || type == 11 || type == 12;
		if (is_error && !quoted) return at + 8;
		if (bpf_skb_load_bytes(skb, at + 4, ports, 2)) return -1;
		ports[1] = ports[0];
	} else if (bpf_skb_load_bytes(skb, at, ports, 4)) {
		return -1;
	}
	__builtin_memcpy(key->saddr, quoted ? daddr : saddr, sizeof(saddr));
	__builtin_memcpy(key->daddr, quoted ? saddr : daddr, sizeof(daddr));
	key->sport = ports[quoted];
	key->dport = ports[!quoted];
	key->protocol = protocol;
	return 0;
}

SEC("classifier") int loopback(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct looped_key key = {};
	struct config *now = bpf_map_lookup_elem(&config, &zero);
	if (!now) return drop(BROKEN);
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) return ON;
	int inner = read_ends(skb, ETH_HLEN, &key, 0);
	if (inner > 0) inner = read_ends(skb, inner, &key, 1);
	if (inner || !bpf_map_lookup_elem(&looped, &key) || is_from_packet_socket(skb)) return ON;
	return to_user(skb, now, EGRESS);
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

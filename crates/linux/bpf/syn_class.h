// New TCP connections that are opened here, by class.
#pragma once
#include "known_flow.h"

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

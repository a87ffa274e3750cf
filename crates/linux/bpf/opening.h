// New TCP connections that are opened here, by class: their lines are made, user space is told, and the first SYN goes on.
#pragma once
#include "syn_class.h"

// A line's target, `live` and interface in one word, as they are published.
union line_state {
	struct way_state {
		__u8 target;
		__u8 live;
		__u16 oif;
	} parts;
	__u32 word;
};

// What a connection takes.
struct opening {
	void *original, *reply; // lines
	__u32 number, reply_number;
	struct side *side, *reply_side;
	__u32 *port_word, port_bit; // of its outside port
	struct note *note;
	__u64 wakes; // how the note is submitted
};

enum { NO_LINE = ~0u };

// Before nothing is left of the budget, user space is woken; mostly it reads in time.
enum { WAKE_AT = 4096 };

// One of a flow's three buckets, of either family.
static __always_inline void *bucket_of(__u64 hash, int nth, int is_v6, __u32 *at)
{
	*at = hash >> (nth == 1 ? 32 : nth == 2 ? 16 : 0) & (is_v6 ? bucket_mask_v6 : bucket_mask);
	return is_v6 ? bpf_map_lookup_elem(&flows_v6, at) : bpf_map_lookup_elem(&flows, at);
}

static __always_inline void *line_of(void *bucket, int i, int is_v6)
{
	return bucket + i * (is_v6 ? sizeof(struct flow_v6) : sizeof(struct flow));
}

static __always_inline __u32 *state_in(void *line, int is_v6)
{
	return line + (is_v6 ? __builtin_offsetof(struct flow_v6, target) : __builtin_offsetof(struct flow, target));
}

// Does a line with this key exist, in whatever state? User space may know more of it than the programs.
static __always_inline int is_taken(const void *key, __u64 hash, int is_v6)
{
	const int words = (is_v6 ? sizeof(struct flow_key_v6) : sizeof(struct flow_key)) / 8;
	const __u64 *wanted = key;
	__u32 at;
#pragma unroll
	for (int nth = 0; nth < 3; nth++) {
		void *bucket = bucket_of(hash, nth, is_v6, &at);
		if (!bucket) return 1;
#pragma unroll
		for (int i = 0; i < LINES; i++) {
			void *line = line_of(bucket, i, is_v6);
			const __u64 *has = line;
			__u64 differs = 0;
#pragma unroll
			for (int word = 0; word < words; word++) differs |= has[word] ^ wanted[word];
			if (!differs && *state_in(line, is_v6) & LIVE_BIT((__u8)~GONE)) return 1;
		}
	}
	return 0;
}

// Takes a free line for a flow with this hash, and gives its number.
static __always_inline __u32 claim(__u64 hash, int is_v6)
{
	__u32 at;
#pragma unroll
	for (int nth = 0; nth < 3; nth++) {
		void *bucket = bucket_of(hash, nth, is_v6, &at);
		if (!bucket) return NO_LINE;
#pragma unroll
		for (int i = 0; i < LINES; i++) {
			__u32 place = line_in_bucket(hash, i);
			void *line = line_of(bucket, place, is_v6);
			__u32 *state = state_in(line, is_v6);
			__u32 before = *(volatile __u32 *)state;
			if (!(before & LIVE_BIT(0xff)) && __sync_val_compare_and_swap(state, before, LIVE_BIT(CLAIMED)) == before) return at * LINES + place;
		}
	}
	return NO_LINE;
}

static __always_inline void give_back_line(__u32 number, int is_v6)
{
	__u32 *state = number == NO_LINE ? 0 : state_of(number, is_v6);
	if (state) __sync_lock_test_and_set(state, 0);
}

static __always_inline void give_back(const struct opening *opening, int is_v6)
{
	give_back_line(opening->number, is_v6);
	give_back_line(opening->reply_number, is_v6);
	if (opening->port_word) __sync_fetch_and_and(opening->port_word, ~opening->port_bit);
}

static __always_inline void *line_of_number(__u32 number, int is_v6)
{
	__u32 at = number / LINES;
	void *bucket = is_v6 ? bpf_map_lookup_elem(&flows_v6, &at) : bpf_map_lookup_elem(&flows, &at);
	return bucket ? line_of(bucket, number % LINES, is_v6) : 0;
}

// Takes all that a connection needs from this port of a client; false if something is missing. `length` are the SYN's bytes.
static __always_inline int take(struct __sk_buff *skb, struct heartbeat *user, const struct class_ways *ways, __u32 port, const __u64 *hashes,
				__u32 length, struct opening *opening, int is_v6)
{
	__s32 budget = __sync_fetch_and_add(&user->budget, -1);
	if (budget <= 0) {
		__sync_fetch_and_add(&user->budget, 1);
		return 0;
	}
	opening->wakes = budget == WAKE_AT ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	if (ways->has_ports) {
		__u32 ports = ways->ports;
		struct port_map *map = bpf_map_lookup_elem(&port_maps, &ports);
		if (!map) return 0;
		__u32 *word = &map->words[(port >> 5) & 2047];
		opening->port_bit = 1u << (port & 31);
		// Somebody has the port.
		if (__sync_fetch_and_or(word, opening->port_bit) & opening->port_bit) return 0;
		opening->port_word = word;
	}
	struct note *note = bpf_ringbuf_reserve(&notes, sizeof(*note), 0);
	if (!note) goto without;
	note->line = claim(hashes[0], is_v6);
	note->is_v6 = is_v6;
	note->length = length;
	note->opens = 1;
	note->peer = claim(hashes[1], is_v6);
	// Read back, so that the verifier, which knows where each of the places is, does not follow every pair of them to the end.
	opening->number = *(volatile __u32 *)&note->line;
	opening->reply_number = *(volatile __u32 *)&note->peer;
	if (opening->number == NO_LINE || opening->reply_number == NO_LINE) goto without_note;
	opening->original = line_of_number(opening->number, is_v6);
	opening->reply = line_of_number(opening->reply_number, is_v6);
	opening->side = side_of(opening->number, is_v6);
	opening->reply_side = side_of(opening->reply_number, is_v6);
	if (!opening->original || !opening->reply || !opening->side || !opening->reply_side) goto without_note;
	if (length < 40 || length > MAX_HEADERS || bpf_skb_load_bytes(skb, ETH_HLEN, note->headers, length)) goto without_note;
	opening->note = note;
	return 1;
without_note:
	bpf_ringbuf_discard(note, BPF_RB_NO_WAKEUP);
without:
	give_back(opening, is_v6);
	return 0;
}

static __always_inline void publish(void *line, struct way way, int is_v6)
{
	union line_state state = { .parts = { way.target, way.live | LIVE | OPENING, way.oif } };
	__sync_lock_test_and_set(state_in(line, is_v6), state.word);
}

// The lines are filled: from now on packets go by them, and user space is told; false if the class has become void meanwhile.
static __always_inline int open(const struct opening *opening, const struct heartbeat *user, __u32 generation, __u32 next_seq, struct way original,
				struct way reply, int is_v6)
{
	*opening->side = (struct side){ .peer = opening->reply_number, .next_seq = next_seq };
	*opening->reply_side = (struct side){ .peer = opening->number, .is_reply = 1 };
	if (class_generation(user) != generation) {
		bpf_ringbuf_discard(opening->note, BPF_RB_NO_WAKEUP);
		give_back(opening, is_v6);
		return 0;
	}
	publish(opening->reply, reply, is_v6);
	publish(opening->original, original, is_v6);
	bpf_ringbuf_submit(opening->note, opening->wakes);
	count(OPENED);
	return 1;
}

static __always_inline void fill_v4(struct flow *flow, const struct flow_key *key, __be32 next_hop, __u32 mark, __u32 generation)
{
	flow->key = *key;
	flow->next_hop = next_hop;
	flow->generation = generation;
	flow->mark = mark;
	flow->seen = clock_now().ms;
	flow->packets = 0;
	flow->bytes = 0;
}

static __always_inline void fill_v6(struct flow_v6 *flow, const struct flow_key_v6 *key, const __be32 *next_hop, __u32 mark, __u32 generation)
{
	flow->key = *key;
	__builtin_memcpy(flow->next_hop, next_hop, sizeof(flow->next_hop));
	flow->generation = generation;
	flow->mark = mark;
	flow->seen = clock_now().ms;
	flow->packets = 0;
	flow->bytes = 0;
}

static __always_inline int open_v4(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 zero = 0;
	if ((void *)(tcp + 1) > end) return SEEN_SLOW;
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || ip->protocol != IPPROTO_TCP || ip->ttl <= 1) return SEEN_SLOW;
	__u32 length = bpf_ntohs(ip->tot_len);
	if (!is_first_syn(tcp, length - sizeof(*ip)) || length + ETH_HLEN > skb->len) return SEEN_SLOW;
	struct class_key class_key = { ip->saddr, ip->daddr, tcp->dest, (__u16)skb->ifindex, hook };
	struct class *class = bpf_map_lookup_elem(&classes, &class_key);
	struct heartbeat *user = bpf_map_lookup_elem(&heartbeat, &zero);
	if (!class || !user) return SEEN_SLOW;
	__u32 generation = class_generation(user);
	if (!is_of_class(skb, &class->ways, user, generation, ip->tos & 0xfc)) return SEEN_SLOW;
	struct way original = class->ways.original, reply = class->ways.reply;
	struct flow_key key = { ip->saddr, ip->daddr, tcp->source, tcp->dest, IPPROTO_TCP, hook, (__u16)skb->ifindex };
	struct flow_key reply_key = {
		class->new_daddr, class->new_saddr, class->ways.new_dport, tcp->source,
		IPPROTO_TCP, class->ways.reply_hook, class->ways.reply_ifindex,
	};
	__u32 next_seq = bpf_ntohl(tcp->seq) + 1;
	__u64 hashes[] = { hash_of((void *)&key, sizeof(key) / 8, now->key), hash_of((void *)&reply_key, sizeof(key) / 8, now->key) };
	if (is_taken(&key, hashes[0], 0) || is_taken(&reply_key, hashes[1], 0)) return SEEN_SLOW;
	struct opening opening = { .number = NO_LINE, .reply_number = NO_LINE };
	if (!take(skb, user, &class->ways, bpf_ntohs(key.sport), hashes, length, &opening, 0)) return SEEN_SLOW;
	struct flow *flow = opening.original, *answers = opening.reply;
	fill_v4(flow, &key, class->next_hop, original.mark, now->generation);
	flow->new_saddr = reply_key.daddr;
	flow->new_daddr = reply_key.saddr;
	flow->new_sport = key.sport;
	flow->new_dport = reply_key.sport;
	fill_v4(answers, &reply_key, class->reply_next_hop, reply.mark, now->generation);
	answers->new_saddr = key.daddr;
	answers->new_daddr = key.saddr;
	answers->new_sport = key.dport;
	answers->new_dport = key.sport;
	struct translation to = {
		reply_key.daddr, reply_key.saddr, flow->next_hop,
		(__u32)reply_key.sport << 16 | key.sport, original.mark, original.oif, original.target,
	};
	if (!open(&opening, user, generation, next_seq, original, reply, 0)) return SEEN_SLOW;
	return send_on_v4(skb, now, &key, (__u32)key.dport << 16 | key.sport, IPPROTO_TCP, &to);
}

static __always_inline int open_v6(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 zero = 0;
	if ((void *)(tcp + 1) > end) return SEEN_SLOW;
	if (ip->version != 6 || ip->nexthdr != IPPROTO_TCP || ip->hop_limit <= 1) return SEEN_SLOW;
	__u32 length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	__u8 hops = ip->hop_limit;
	if (!is_first_syn(tcp, length - sizeof(*ip)) || length + ETH_HLEN > skb->len) return SEEN_SLOW;
	struct class_key_v6 class_key = { .dport = tcp->dest, .ifindex = (__u16)skb->ifindex, .hook = hook };
	__builtin_memcpy(class_key.saddr, &ip->saddr, sizeof(class_key.saddr));
	__builtin_memcpy(class_key.daddr, &ip->daddr, sizeof(class_key.daddr));
	struct class_v6 *class = bpf_map_lookup_elem(&classes_v6, &class_key);
	struct heartbeat *user = bpf_map_lookup_elem(&heartbeat, &zero);
	if (!class || !user) return SEEN_SLOW;
	__u32 generation = class_generation(user);
	if (!is_of_class(skb, &class->ways, user, generation, ip->priority | (ip->flow_lbl[0] & 0xc0))) return SEEN_SLOW;
	struct way original = class->ways.original, reply = class->ways.reply;
	struct flow_key_v6 key = { .sport = tcp->source, .dport = tcp->dest, .protocol = IPPROTO_TCP, .hook = hook, .ifindex = (__u16)skb->ifindex };
	__builtin_memcpy(key.saddr, class_key.saddr, sizeof(key.saddr));
	__builtin_memcpy(key.daddr, class_key.daddr, sizeof(key.daddr));
	struct flow_key_v6 reply_key = {
		.sport = class->ways.new_dport, .dport = tcp->source,
		.protocol = IPPROTO_TCP, .hook = class->ways.reply_hook, .ifindex = class->ways.reply_ifindex,
	};
	__builtin_memcpy(reply_key.saddr, class->new_daddr, sizeof(key.saddr));
	__builtin_memcpy(reply_key.daddr, class->new_saddr, sizeof(key.daddr));
	__u32 next_seq = bpf_ntohl(tcp->seq) + 1;
	__u64 hashes[] = { hash_of((void *)&key, sizeof(key) / 8, now->key), hash_of((void *)&reply_key, sizeof(key) / 8, now->key) };
	if (is_taken(&key, hashes[0], 1) || is_taken(&reply_key, hashes[1], 1)) return SEEN_SLOW;
	struct opening opening = { .number = NO_LINE, .reply_number = NO_LINE };
	if (!take(skb, user, &class->ways, bpf_ntohs(key.sport), hashes, length, &opening, 1)) return SEEN_SLOW;
	struct flow_v6 *flow = opening.original, *answers = opening.reply;
	fill_v6(flow, &key, class->next_hop, original.mark, now->generation);
	__builtin_memcpy(flow->new_saddr, reply_key.daddr, sizeof(key.saddr));
	__builtin_memcpy(flow->new_daddr, reply_key.saddr, sizeof(key.saddr));
	flow->new_sport = key.sport;
	flow->new_dport = reply_key.sport;
	fill_v6(answers, &reply_key, class->reply_next_hop, reply.mark, now->generation);
	__builtin_memcpy(answers->new_saddr, key.daddr, sizeof(key.saddr));
	__builtin_memcpy(answers->new_daddr, key.saddr, sizeof(key.saddr));
	answers->new_sport = key.dport;
	answers->new_dport = key.sport;
	if (!open(&opening, user, generation, next_seq, original, reply, 1)) return SEEN_SLOW;
	return send_on_v6(skb, now, &key, (__u32)key.dport << 16 | key.sport, hops, flow);
}

// Opens a connection whose class user space has told, with its first SYN.
static __always_inline int open_by_class(struct __sk_buff *skb, struct config *now, enum hook hook)
{
	// As `known`.
	if (skb->ifindex > 0xffff || (hook == INGRESS && skb->pkt_type != PACKET_HOST)) return SEEN_SLOW;
	return skb->protocol == bpf_htons(ETH_P_IP) ? open_v4(skb, now, hook) : open_v6(skb, now, hook);
}

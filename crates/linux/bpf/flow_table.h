// The table of known flows.
#pragma once
#include "config.h"

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

// The line of a bucket that is looked at as its `i`th. The first goes by the flow, so that most are in the one that is looked at first; the second is beside it, and their cache lines come together.
static __always_inline __u32 line_in_bucket(__u64 hash, __u32 i)
{
	return i ^ hash >> 62;
}

static __always_inline struct flow *find_in(__u32 at, __u64 hash, const struct flow_key *key, __u32 generation, __u32 *number)
{
	struct bucket *bucket = bpf_map_lookup_elem(&flows, &at);
	if (!bucket) return 0;
	const __u64 *wanted = (const void *)key;
#pragma unroll
	for (int i = 0; i < LINES; i++) {
		__u32 line = line_in_bucket(hash, i);
		struct flow *flow = &bucket->lines[line];
		const __u64 *has = (const void *)&flow->key;
		if (has[0] == wanted[0] && has[1] == wanted[1] && flow->live & LIVE && flow->generation == generation) {
			*number = at * LINES + line;
			return flow;
		}
	}
	return 0;
}

static __always_inline struct flow_v6 *find_in_v6(__u32 at, __u64 hash, const struct flow_key_v6 *key, __u32 generation, __u32 *number)
{
	struct bucket_v6 *bucket = bpf_map_lookup_elem(&flows_v6, &at);
	if (!bucket) return 0;
	const __u64 *wanted = (const void *)key;
#pragma unroll
	for (int i = 0; i < LINES; i++) {
		__u32 line = line_in_bucket(hash, i);
		struct flow_v6 *flow = &bucket->lines[line];
		const __u64 *has = (const void *)&flow->key;
		// The ports differ mostly.
		if (has[4] == wanted[4] && has[3] == wanted[3] && has[1] == wanted[1] && has[2] == wanted[2] && has[0] == wanted[0] &&
		    flow->live & LIVE && flow->generation == generation) {
			*number = at * LINES + line;
			return flow;
		}
	}
	return 0;
}

static __always_inline struct flow *find_v4(const struct config *now, const struct flow_key *key, __u32 *number)
{
	__u64 hash = hash_of((void *)key, sizeof(*key) / 8, now->key);
	struct flow *flow = find_in(hash & bucket_mask, hash, key, now->generation, number);
	if (!flow) flow = find_in(hash >> 32 & bucket_mask, hash, key, now->generation, number);
	if (!flow) flow = find_in(hash >> 16 & bucket_mask, hash, key, now->generation, number);
	return flow;
}

static __always_inline struct flow_v6 *find_v6(const struct config *now, const struct flow_key_v6 *key, __u32 *number)
{
	__u64 hash = hash_of((void *)key, sizeof(*key) / 8, now->key);
	struct flow_v6 *flow = find_in_v6(hash & bucket_mask_v6, hash, key, now->generation, number);
	if (!flow) flow = find_in_v6(hash >> 32 & bucket_mask_v6, hash, key, now->generation, number);
	if (!flow) flow = find_in_v6(hash >> 16 & bucket_mask_v6, hash, key, now->generation, number);
	return flow;
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

// Segments that have gone on and that user space has to know of.
#pragma once
#include "flow_table.h"

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

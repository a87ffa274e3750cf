// The time, and for how long user space has not been seen.
#pragma once
#include "config.h"

// The monotonic clock as of a tick of the kernel's.
struct instant {
	__u64 ticks;
	__u64 ns;
	__u64 ms;
};

// By processor: the tick in which a program there has last asked for the time. To ask is a call, for each packet; to read the number of ticks is none.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct instant);
} clock SEC(".maps");

static __always_inline struct instant clock_now(void)
{
	__u32 zero = 0;
	__u64 ticks = bpf_jiffies64();
	struct instant *last = bpf_map_lookup_elem(&clock, &zero);
	if (last && last->ticks == ticks) return *last;
	__u64 ns = bpf_ktime_get_coarse_ns();
	struct instant told = { ticks, ns, ns / 1000000 };
	if (last) {
		last->ns = told.ns;
		last->ms = told.ms;
		// Last: a program that comes in between asks for itself.
		last->ticks = ticks;
	}
	return told;
}

// Has user space been seen within so many milliseconds?
static __always_inline int is_alive(const struct heartbeat *user, struct instant now, __u32 within_ms)
{
	return now.ns <= user->beat + within_ms * 1000000ull;
}

static __always_inline int was_seen_within(__u32 ms)
{
	__u32 zero = 0;
	struct heartbeat *user = bpf_map_lookup_elem(&heartbeat, &zero);
	return user && is_alive(user, clock_now(), ms);
}

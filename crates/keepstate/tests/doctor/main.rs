//! The doctor's own test bed: failures made, and the right first finding for each.
//!
//! | # | failure | made by | finding |
//! |---|---|---|---|
//! | 1 | full of ASSURED | real: TCP connections until the limit, and more | `table-full-assured` |
//! | 2 | full of half-open | real: SYNs to nobody | `table-full-half-open` |
//! | 3 | alert without loss | real: unanswered TCP and UDP, 80 % of the limit | `nearly-full-reclaimable` |
//! | 4 | more entries than sockets | real: short TCP connections; half-closed ones with kube-proxy's hour | `time-wait-dominates`, `close-wait-lingers` |
//! | 4 | more entries than the table lists | real: a listener for events that does not read | `count-not-listed` |
//! | 5 | idle connections lose their entry | hand-made files | `established-timeout-short` |
//! | 5 | dead peers | real connections; idle for days by a timeout set lower while they are made | `dead-peers-linger` |
//! | 6 | UDP insert race | recorded: a healthy bundle, with the counters that a resolver under load showed | `udp-insert-race` |
//! | 7 | SNAT ports exhausted | real: masquerade to 17 ports, 60 sockets | `snat-ports-exhausted` |
//! | 7 | SNAT to an address that is gone | real: the address is taken from the device | `snat-address-gone` |
//! | 8 | lists too long | real: 512 buckets, 25,000 entries | `chains-too-long` |
//! | 9 | limit raised, buckets not | real | `buckets-too-few` |
//! | 10 | host fine, a namespace full | real | `full-in-namespace` |
//! | 11 | limit lowered below the count | real | `count-above-max` |
//! | 12 | INVALID, and a rule drops it, or none | real: forged segments on a real connection | `invalid-dropped`, `invalid-not-dropped` |
//! | 13 | one-way flows | real: acknowledgments of connections that nobody began | `one-way-flows` |
//! | 14 | UDP dominates | real | `udp-dominates` |
//! | 15 | UDP black hole | real: flows older than their DNAT rules, kube-proxy's among them | `udp-stale-translation`, `tcp-stale-translation` |
//! | 16 | a value reverts | real: another program writes while the doctor looks; kube-proxy by hand-made files | `value-reverts` |
//! | 17 | not writable here | real: a namespace's read-only limit, a sysctl.d of its own | `knob-read-only-here` |
//! | 18 | lost at boot | hand-made files of a machine with a loadable module | `lost-at-boot`, `setting-without-effect` |
//! | 19 | FTP without helper | real: a connection to port 21, rules that wait for RELATED | `helper-not-assigned` |
//! | 20 | extensions' memory | recorded: a healthy bundle with 3 million entries and little memory | `extensions-cost-memory` |
//! | 21 | stall on resize | real: buckets resized while the doctor looks | `resize-stalls` |
//! | 22 | host out of memory | recorded: likewise | `memory-not-charged` |
//! | 23 | a cloud's limit | recorded: `ethtool -S` of an ENA device, in a report of sos | `cloud-limit-exceeded` |
//! | 24 | no statistics | recorded: a healthy bundle without the file | `no-statistics` |
//! | 25 | nobody can log in | real: 1, with a login service; second, behind the full table that it is about | `no-lifeline` |
//! | 26 | no limit | real: max = 0 | `no-limit` |
//! | 27 | a proxy took the flow | real: a flow answered here, older than its DNAT rule | `udp-source-not-translated` |
//!
//! Every command of every remedy is held against its program (`remedy_commands.rs`). And a healthy namespace has none. What needs the machine-wide knobs is one test (`global.rs`), alone under a lock and with a guard
//! that puts them back; the others hold the same lock shared, so that no limit changes under them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bundles;
mod full_to_rollback;
mod healthy;
mod machine_wide;
mod netns_fixture;
mod one_namespace;
mod raw_segments;
mod recorded_machines;
mod remedy_commands;
mod stale_translations;
mod stalled_listener;
mod unprivileged;

#[path = "../common/mod.rs"]
mod common;

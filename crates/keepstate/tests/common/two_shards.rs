//! Two shards with an outside address each.

/// Keys of `[cluster]`, decided by this lease.
pub fn two_shards(lease: &str) -> String {
    format!(
        "lease = \"{lease}\"
[[cluster.shards]]
name = \"north\"
address = [\"192.0.2.77\"]
[[cluster.shards]]
name = \"south\"
address = [\"192.0.2.78\"]
"
    )
}

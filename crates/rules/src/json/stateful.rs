//! Counts, limits and quotas of libnftables' JSON schema: of statements and of elements.
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonCounts {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonQuota {
    pub(super) val: u64,
    #[serde(default = "bytes")]
    pub(super) val_unit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used_unit: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) inv: bool,
}

fn bytes() -> String {
    "bytes".to_owned()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonLimit {
    pub(super) rate: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) burst: Option<u64>,
    #[serde(default = "second")]
    pub(super) per: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) inv: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rate_unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) burst_unit: Option<String>,
}

fn second() -> String {
    "second".to_owned()
}

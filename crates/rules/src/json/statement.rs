//! Statements of libnftables' JSON schema.
use super::expression::{JsonHeader, JsonLookup, JsonTarget, JsonTerm, JsonValue, OneOrMore};
use super::stateful::{JsonCounts, JsonLimit, JsonQuota};
use serde::{Deserialize, Serialize};

/// One statement, by its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum JsonStatement {
    Match(JsonMatch),
    Counter(JsonCounter),
    Quota(JsonNamed<JsonQuota>),
    Limit(JsonNamed<JsonLimit>),
    Mangle(JsonMangle),
    #[serde(rename = "ct count")]
    CtCount(JsonCtCount),
    #[serde(rename = "ct helper")]
    CtHelper(JsonValue),
    #[serde(rename = "ct timeout")]
    CtTimeout(JsonValue),
    #[serde(rename = "ct expectation")]
    CtExpectation(JsonValue),
    Log(Option<JsonLog>),
    Reject(Option<JsonReject>),
    Notrack(()),
    Dnat(Option<JsonNat>),
    Snat(Option<JsonNat>),
    Masquerade(Option<JsonNat>),
    Redirect(Option<JsonNat>),
    Tproxy(JsonNat),
    Dup(JsonDup),
    Vmap(JsonLookup),
    Set(JsonSetChange),
    Map(JsonMapChange),
    Meter(JsonMeter),
    Synproxy(Option<JsonNamed<JsonSynproxy>>),
    Flow(JsonFlow),
    Reset(JsonReset),
    Last(JsonIgnored),
    Queue(Option<JsonQueue>),
    Secmark(JsonValue),
    Accept(()),
    Drop(()),
    Continue(()),
    Return(()),
    Jump(JsonTarget),
    Goto(JsonTarget),
    /// What has no form in the schema, as nft writes it: a chain without a name, as text.
    #[serde(untagged)]
    AnonymousChain(String),
}

/// A queue: its number, a range, or what gives one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonQueue {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) num: Option<JsonValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flags: Option<OneOrMore>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonMatch {
    #[serde(default = "equal")]
    pub(super) op: String,
    pub(super) left: JsonValue,
    pub(super) right: JsonValue,
}

fn equal() -> String {
    "==".to_owned()
}

/// A counter: new, with values, by name, or by a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum JsonCounter {
    Name(String),
    Map(JsonTerm),
    Counts(JsonCounts),
    None(()),
}

/// A stateful statement by its own values, by name, or by a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum JsonNamed<T> {
    Name(String),
    Map(JsonTerm),
    Own(T),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonMangle {
    pub(super) key: JsonValue,
    pub(super) value: JsonValue,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonDup {
    pub(super) addr: JsonValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dev: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonCtCount {
    pub(super) val: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) inv: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct JsonLog {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snaplen: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queue_threshold: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flags: Option<OneOrMore>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonReject {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expr: Option<JsonValue>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonNat {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) addr: Option<JsonValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<JsonValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flags: Option<OneOrMore>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) type_flags: Option<OneOrMore>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonSetChange {
    pub(super) op: String,
    pub(super) elem: JsonValue,
    pub(super) set: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) stmt: Vec<JsonStatement>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonMapChange {
    pub(super) op: String,
    pub(super) elem: JsonValue,
    pub(super) data: JsonValue,
    pub(super) map: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) stmt: Vec<JsonStatement>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonMeter {
    pub(super) key: JsonValue,
    pub(super) stmt: Box<JsonStatement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u32>,
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonSynproxy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mss: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wscale: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flags: Option<OneOrMore>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonFlow {
    pub(super) op: String,
    pub(super) flowtable: String,
}

/// An option to strip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonReset {
    #[serde(rename = "tcp option")]
    pub(super) tcp_option: JsonHeader,
}

/// What is read and has no meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum JsonIgnored {
    None(()),
    Used { used: u64 },
}

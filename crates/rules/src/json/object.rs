//! Objects, commands and documents of libnftables' JSON schema.
use super::expression::{JsonValue, OneOrMore};
use super::statement::JsonStatement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonDocument {
    pub(super) nftables: Vec<serde_json::Value>,
}

/// What a ruleset consists of, by its name. A listing is a list of these; `add` is implied where one is a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum JsonObject {
    Metainfo(JsonMetainfo),
    Ruleset(Option<JsonPlace>),
    Table(JsonPlace),
    Chain(JsonChain),
    Rule(JsonRule),
    Set(JsonSet),
    Map(JsonSet),
    Element(JsonElements),
    Counter(JsonCounterObject),
    Quota(JsonQuotaObject),
    Limit(JsonLimitObject),
    Synproxy(JsonSynproxyObject),
    #[serde(rename = "ct helper")]
    CtHelper(JsonCtHelper),
    #[serde(rename = "ct timeout")]
    CtTimeout(JsonCtTimeout),
    Secmark(JsonSecmark),
    #[serde(rename = "ct expectation")]
    CtExpectation(JsonCtExpectation),
    Flowtable(JsonFlowtable),
    // What is listed or reset as a whole.
    Tables(Option<JsonPlace>),
    Chains(Option<JsonPlace>),
    Sets(Option<JsonPlace>),
    Maps(Option<JsonPlace>),
    Counters(Option<JsonPlace>),
    Quotas(Option<JsonPlace>),
    Limits(Option<JsonPlace>),
    Rules(Option<JsonPlace>),
    Meter(JsonPlace),
    Meters(Option<JsonPlace>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonMetainfo {
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) release_name: String,
    #[serde(default)]
    pub(super) json_schema_version: u32,
}

/// A table, or the place of something by its names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonPlace {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flags: Option<OneOrMore>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonChain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    /// For `rename`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<u64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prio: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    /// At hook ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dev: Option<OneOrMore>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonRule {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
    pub(super) expr: Vec<JsonStatement>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonSet {
    pub(super) family: String,
    pub(super) name: String,
    pub(super) table: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<OneOrMore>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) map: Option<OneOrMore>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flags: Option<OneOrMore>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<u64>,
    #[serde(rename = "gc-interval", skip_serializing_if = "Option::is_none")]
    pub(super) gc_interval: Option<u64>,
    #[serde(rename = "auto-merge", skip_serializing_if = "std::ops::Not::not")]
    pub(super) auto_merge: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) elem: Vec<JsonValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stmt: Vec<JsonStatement>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonElements {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) elem: JsonElementList,
}

/// A single element needs no list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum JsonElementList {
    Several(Vec<JsonValue>),
    One(JsonValue),
}

/// Where a named object is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonObjectPlace {
    pub(super) family: String,
    pub(super) name: String,
    pub(super) table: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonCounterObject {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonQuotaObject {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    pub(super) bytes: u64,
    pub(super) used: u64,
    pub(super) inv: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonLimitObject {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    pub(super) rate: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) per: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_unit: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) inv: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) burst_unit: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonSynproxyObject {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    #[serde(flatten)]
    pub(super) options: super::statement::JsonSynproxy,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonCtHelper {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) l3proto: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonCtTimeout {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    pub(super) protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) l3proto: Option<String>,
    pub(super) policy: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonSecmark {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    pub(super) context: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonCtExpectation {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    pub(super) protocol: String,
    pub(super) dport: u16,
    /// In milliseconds.
    pub(super) timeout: u32,
    pub(super) size: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) l3proto: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonFlowtable {
    #[serde(flatten)]
    pub(super) place: JsonObjectPlace,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prio: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dev: Option<OneOrMore>,
}

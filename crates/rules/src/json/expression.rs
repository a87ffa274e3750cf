//! Expressions of libnftables' JSON schema.
use super::stateful::{JsonCounts, JsonLimit, JsonQuota};
use serde::{Deserialize, Serialize};

/// A value: a literal, several of them, or a term.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum JsonValue {
    Bool(bool),
    Number(u64),
    Text(String),
    /// Flags, or the parts of a map's element.
    List(Vec<JsonValue>),
    Term(Box<JsonTerm>),
}

impl JsonValue {
    pub(super) fn text(text: impl Into<String>) -> JsonValue {
        JsonValue::Text(text.into())
    }
}

impl From<JsonTerm> for JsonValue {
    fn from(term: JsonTerm) -> JsonValue {
        JsonValue::Term(Box::new(term))
    }
}

/// One term, by its name. Verdicts are values of maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum JsonTerm {
    Concat(Vec<JsonValue>),
    Set(Vec<JsonValue>),
    Map(JsonLookup),
    Prefix(JsonPrefix),
    Range(Vec<JsonValue>),
    Payload(JsonPayload),
    Exthdr(JsonHeader),
    #[serde(rename = "tcp option")]
    TcpOption(JsonHeader),
    #[serde(rename = "ip option")]
    IpOption(JsonHeader),
    #[serde(rename = "sctp chunk")]
    SctpChunk(JsonHeader),
    #[serde(rename = "dccp option")]
    DccpOption(JsonDccpOption),
    Meta(JsonKey),
    Ipsec(JsonKey),
    Rt(JsonKey),
    Ct(JsonKey),
    Socket(JsonKey),
    Osf(JsonOsf),
    Fib(JsonFib),
    Numgen(JsonNumgen),
    Jhash(JsonHash),
    Symhash(JsonHash),
    Elem(Box<JsonElement>),
    #[serde(rename = "|")]
    Or(Vec<JsonValue>),
    #[serde(rename = "^")]
    Xor(Vec<JsonValue>),
    #[serde(rename = "&")]
    And(Vec<JsonValue>),
    #[serde(rename = "<<")]
    ShiftLeft(Vec<JsonValue>),
    #[serde(rename = ">>")]
    ShiftRight(Vec<JsonValue>),
    Accept(()),
    Drop(()),
    Continue(()),
    Return(()),
    Jump(JsonTarget),
    Goto(JsonTarget),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonLookup {
    pub(super) key: JsonValue,
    pub(super) data: JsonValue,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonPrefix {
    pub(super) addr: JsonValue,
    pub(super) len: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonDccpOption {
    #[serde(rename = "type")]
    pub(super) kind: u8,
}

/// A field by its names, or bits of a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum JsonPayload {
    Field {
        /// Of the packet in this tunnel's packet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tunnel: Option<String>,
        protocol: String,
        field: String,
    },
    Bits {
        base: String,
        offset: u16,
        len: u8,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonHeader {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    /// A TCP option by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) len: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonKey {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dir: Option<String>,
    /// The number of a policy's transformation, of `ipsec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spnum: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JsonOsf {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonFib {
    pub(super) result: String,
    pub(super) flags: OneOrMore,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonNumgen {
    pub(super) mode: String,
    #[serde(rename = "mod")]
    pub(super) modulus: u32,
    #[serde(default)]
    pub(super) offset: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonHash {
    #[serde(rename = "mod")]
    pub(super) modulus: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) seed: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) offset: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expr: Option<JsonValue>,
}

/// An element with properties of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonElement {
    pub(super) val: JsonValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counter: Option<JsonCounts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<JsonLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<JsonQuota>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JsonTarget {
    pub(super) target: String,
}

/// A word, or a list of words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    /// One word alone is no list.
    pub(super) fn short(mut words: Vec<String>) -> Option<OneOrMore> {
        match words.len() {
            0 => None,
            1 => words.pop().map(OneOrMore::One),
            _ => Some(OneOrMore::More(words)),
        }
    }

    pub(super) fn words(&self) -> &[String] {
        match self {
            OneOrMore::One(word) => std::slice::from_ref(word),
            OneOrMore::More(words) => words,
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

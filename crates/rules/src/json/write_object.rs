//! Named objects of the syntax tree, in the JSON schema.
use super::expression::OneOrMore;
use super::object::{
    JsonCounterObject, JsonCtExpectation, JsonCtHelper, JsonCtTimeout, JsonFlowtable, JsonLimitObject, JsonObject,
    JsonObjectPlace, JsonQuotaObject, JsonSecmark, JsonSynproxyObject,
};
use super::write_statement::{limit, synproxy};
use crate::ast::{Object, ObjectBody, Table};
use crate::parse::timeout_state_name;
use keepstate_engine::Sysctl;
use std::collections::BTreeMap;

/// What packets have changed in an object: packets and bytes of a counter, what a quota has used.
#[derive(Clone, Copy, Default)]
pub(super) struct ObjectState {
    pub(super) counted: (u64, u64),
    pub(super) used: u64,
}

pub(super) fn object(table: &Table, object: &Object, state: ObjectState) -> JsonObject {
    let place = JsonObjectPlace {
        family: table.family.to_string(),
        name: object.name.clone(),
        table: table.name.clone(),
        handle: Some(object.handle),
        comment: comment(&object.text),
    };
    match &object.body {
        ObjectBody::Counter(..) => {
            let (packets, bytes) = state.counted;
            JsonObject::Counter(JsonCounterObject { place, packets: Some(packets), bytes: Some(bytes) })
        }
        ObjectBody::Quota { over, bytes, .. } => {
            JsonObject::Quota(JsonQuotaObject { place, bytes: *bytes, used: state.used, inv: *over })
        }
        ObjectBody::Limit(one) => {
            let json = limit(one);
            // Unlike of the statement, nft leaves out a burst of no bytes.
            let has_burst = one.burst > 0 || !one.per_byte;
            JsonObject::Limit(JsonLimitObject {
                place,
                rate: json.rate,
                per: Some(json.per),
                rate_unit: json.rate_unit,
                inv: json.inv,
                burst: json.burst.filter(|_| has_burst),
                burst_unit: json.burst_unit.filter(|_| has_burst),
            })
        }
        ObjectBody::Synproxy(options) => JsonObject::Synproxy(JsonSynproxyObject { place, options: synproxy(options) }),
        ObjectBody::CtHelper(kind, protocol) => JsonObject::CtHelper(JsonCtHelper {
            kind: kind.clone(),
            protocol: if *protocol == 6 { "tcp" } else { "udp" }.to_owned(),
            l3proto: Some(property(&object.text, "l3proto").unwrap_or_else(|| table.family.to_string())),
            place,
        }),
        ObjectBody::SecMark(context) => JsonObject::Secmark(JsonSecmark { place, context: context.clone() }),
        ObjectBody::CtExpectation(policy) => JsonObject::CtExpectation(JsonCtExpectation {
            place,
            protocol: if policy.protocol == 6 { "tcp" } else { "udp" }.to_owned(),
            dport: policy.port,
            timeout: policy.timeout_millis,
            size: policy.size,
            l3proto: Some(if policy.v6 { "ip6" } else { "ip" }.to_owned()),
        }),
        ObjectBody::CtTimeout(policy) => {
            let protocol = policy.protocol;
            let family = match policy.v6 {
                Some(true) => "ip6".to_owned(),
                Some(false) => "ip".to_owned(),
                None => table.family.to_string(),
            };
            let entry =
                |(state, seconds): &(Sysctl, u32)| Some((timeout_state_name(protocol, *state)?.to_owned(), *seconds));
            JsonObject::CtTimeout(JsonCtTimeout {
                place,
                protocol: if protocol == 6 { "tcp" } else { "udp" }.to_owned(),
                l3proto: Some(family),
                policy: policy.seconds.iter().filter_map(entry).collect::<BTreeMap<_, _>>(),
            })
        }
    }
}

pub(super) fn flowtable(table: &Table, name: &str) -> JsonObject {
    JsonObject::Flowtable(JsonFlowtable {
        place: JsonObjectPlace {
            family: table.family.to_string(),
            name: name.to_owned(),
            table: table.name.clone(),
            handle: None,
            comment: None,
        },
        hook: Some("ingress".to_owned()),
        prio: Some(0),
        dev: None::<OneOrMore>,
    })
}

/// The comment in the text of an object or a set.
pub(super) fn comment(text: &str) -> Option<String> {
    let behind = text.split("comment \"").nth(1)?;
    behind.split('"').next().map(str::to_owned)
}

/// The word behind a property's name.
fn property(text: &str, name: &str) -> Option<String> {
    let mut words = text.split([' ', ';', '{', '}', '\t']).filter(|word| !word.is_empty());
    words.find(|word| *word == name)?;
    words.next().map(str::to_owned)
}

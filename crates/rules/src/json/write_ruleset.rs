//! A ruleset as a JSON document: what `nft -j list` prints.
use super::expression::{JsonElement, JsonTerm, JsonValue, OneOrMore};
use super::object::{JsonChain, JsonMetainfo, JsonObject, JsonPlace, JsonRule, JsonSet};
use super::stateful::JsonCounts;
use super::write_expression::{concat, tree_element};
use super::write_object::{ObjectState, comment, flowtable, object};
use super::write_statement::{limit, quota, stateful, statements};
use super::write_value::{literal, range};
use crate::ast::{AddedItem, Chain, ElementName, Object, ObjectBody, Query, QueryKind, Rule, Set, Table};
use crate::parse::type_name;
use crate::program::json_access::{ListedElementState, ListedState, SnapshotTable, shows_object};
use crate::{ListOptions, RulesetSnapshot};
use serde_json::{Value, json};

impl RulesetSnapshot {
    /// The answers to queries as one document in the schema of `nft -j`.
    ///
    /// # Errors
    /// What was asked for by name does not exist.
    pub fn list_json(&self, queries: &[Query], options: ListOptions) -> Result<String, String> {
        let mut objects = vec![metainfo()];
        for query in queries {
            let mut found = Vec::new();
            for table in self.tables().filter(|table| table.is_asked_for(query)) {
                write_table(query, &table, options, &mut found)?;
            }
            if let (Some(name), true) = (&query.name, found.is_empty()) {
                return Err(format!("nothing named {name} of this kind in this table"));
            }
            objects.extend(found);
        }
        document(objects.iter().map(|one| serde_json::to_value(one).unwrap_or_default()).collect())
    }

    /// What a script has added, as commands that add it again.
    ///
    /// # Errors
    /// Never: all that can be added can be written.
    pub fn list_added_json(&self, added: &[AddedItem], options: ListOptions) -> Result<String, String> {
        let mut commands = Vec::new();
        for item in added {
            let Some(table) = self.tables().find(|table| table.tree.handle == item.table) else { continue };
            let of_item = |one: &JsonObject| handle_of(one) == item.handle;
            let mut objects = vec![table_object(table.tree)];
            if item.handle.is_some() {
                let everything = Query::default();
                objects.clear();
                write_table(&everything, &table, options, &mut objects)?;
                objects.retain(|one| !matches!(one, JsonObject::Table(_)) && of_item(one));
            }
            let verb = if item.inserted { "insert" } else { "add" };
            commands.extend(objects.iter().map(|one| json!({ verb: one })));
        }
        document(commands)
    }
}

fn document(entries: Vec<Value>) -> Result<String, String> {
    serde_json::to_string(&json!({ "nftables": entries })).map(|text| text + "\n").map_err(|error| error.to_string())
}

fn handle_of(object: &JsonObject) -> Option<u64> {
    match object {
        JsonObject::Chain(one) => one.handle,
        JsonObject::Rule(one) => one.handle,
        JsonObject::Set(one) | JsonObject::Map(one) => one.handle,
        JsonObject::Counter(one) => one.place.handle,
        JsonObject::Quota(one) => one.place.handle,
        JsonObject::Limit(one) => one.place.handle,
        JsonObject::Synproxy(one) => one.place.handle,
        JsonObject::CtHelper(one) => one.place.handle,
        JsonObject::CtTimeout(one) => one.place.handle,
        JsonObject::CtExpectation(one) => one.place.handle,
        JsonObject::Secmark(one) => one.place.handle,
        _ => None,
    }
}

fn metainfo() -> JsonObject {
    JsonObject::Metainfo(JsonMetainfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        release_name: "keepstate".to_owned(),
        json_schema_version: 1,
    })
}

fn table_object(table: &Table) -> JsonObject {
    JsonObject::Table(JsonPlace {
        family: Some(table.family.to_string()),
        name: Some(table.name.clone()),
        handle: Some(table.handle),
        comment: table.comment.clone(),
        flags: table.dormant.then(|| OneOrMore::One("dormant".to_owned())),
        table: None,
    })
}

fn write_table(
    query: &Query,
    table: &SnapshotTable<'_>,
    options: ListOptions,
    out: &mut Vec<JsonObject>,
) -> Result<(), String> {
    let tree = table.tree;
    let named = |name: &String| query.name.as_ref().is_none_or(|wanted| wanted == name);
    if matches!(query.kind, QueryKind::Ruleset | QueryKind::Tables) {
        out.push(table_object(tree));
    }
    for one in tree.objects.iter().filter(|one| shows_object(query.kind, &one.body) && named(&one.name)) {
        out.push(object(tree, one, object_state(table, one)));
    }
    if matches!(query.kind, QueryKind::Ruleset | QueryKind::Flowtables) {
        out.extend(tree.flowtables.iter().map(|name| flowtable(tree, name)));
    }
    for set in tree.sets.iter().filter(|set| query.shows_set(set)) {
        out.push(set_object(table, set, options, query)?);
    }
    let chains = matches!(query.kind, QueryKind::Ruleset | QueryKind::Chains | QueryKind::Rules);
    let mut rules = Vec::new();
    for chain in tree.chains.iter().filter(|chain| chains && named(&chain.name)) {
        if query.kind != QueryKind::Rules {
            out.push(chain_object(tree, chain));
        }
        if query.kind != QueryKind::Chains || query.name.is_some() {
            let asked = chain.rules.iter().filter(|rule| query.shows_rule(rule));
            rules.extend(asked.map(|rule| rule_object(table, chain, rule, options)));
        }
    }
    out.extend(rules);
    Ok(())
}

fn object_state(table: &SnapshotTable<'_>, one: &Object) -> ObjectState {
    match one.body {
        ObjectBody::Counter(..) => ObjectState { counted: table.counter(&one.name), used: 0 },
        ObjectBody::Quota { .. } => ObjectState { counted: (0, 0), used: table.quota_used(&one.name) },
        _ => ObjectState::default(),
    }
}

fn chain_object(table: &Table, chain: &Chain) -> JsonObject {
    let base = chain.base.as_ref();
    JsonObject::Chain(JsonChain {
        family: table.family.to_string(),
        table: table.name.clone(),
        name: chain.name.clone(),
        newname: None,
        handle: Some(chain.handle),
        kind: base.map(|_| chain.base_text.split(' ').nth(1).unwrap_or("filter").to_owned()),
        hook: base.map(|base| base.hook.to_string()),
        prio: base.map(|base| base.priority),
        policy: base.map(|base| if base.policy_drop { "drop" } else { "accept" }.to_owned()),
        dev: OneOrMore::short(chain.devices.clone()),
        comment: chain.comment.clone(),
    })
}

fn rule_object(table: &SnapshotTable<'_>, chain: &Chain, rule: &Rule, options: ListOptions) -> JsonObject {
    let counts = table.rule_counters(rule).iter().copied().filter(|_| !options.stateless);
    JsonObject::Rule(JsonRule {
        family: table.tree.family.to_string(),
        table: table.tree.name.clone(),
        chain: chain.name.clone(),
        handle: Some(rule.handle),
        index: None,
        comment: rule.comment.clone(),
        expr: statements(&rule.statements, table.tree.family, counts),
    })
}

fn set_object(table: &SnapshotTable<'_>, set: &Set, options: ListOptions, query: &Query) -> Result<JsonObject, String> {
    let property = |name: &str| {
        let mut lines = set.properties.iter();
        lines.find_map(|line| {
            line.strip_prefix(name)?.strip_prefix(' ').map(|rest| rest.trim_end_matches(';').trim().to_owned())
        })
    };
    let mut flags: Vec<String> =
        property("flags").map_or(Vec::new(), |flags| flags.split(',').map(|flag| flag.trim().to_owned()).collect());
    if set.flags.timeout && !flags.iter().any(|flag| flag == "timeout") {
        flags.push("timeout".to_owned());
    }
    let types =
        |kinds: &[crate::datatype::DataType]| OneOrMore::short(kinds.iter().map(|kind| type_name(*kind)).collect());
    let map = set.data.as_ref().map(|data| match data.as_slice() {
        [] => OneOrMore::One("verdict".to_owned()),
        kinds => OneOrMore::One(kinds.iter().map(|kind| type_name(*kind)).collect::<Vec<_>>().join(" . ")),
    });
    let json = JsonSet {
        family: table.tree.family.to_string(),
        name: set.name.clone(),
        table: table.tree.name.clone(),
        kind: types(&set.key),
        handle: Some(set.handle),
        comment: set.properties.iter().find_map(|line| comment(line)),
        policy: property("policy"),
        size: set.most_elements(),
        flags: (!flags.is_empty()).then_some(OneOrMore::More(flags)),
        timeout: set.timeout,
        gc_interval: property("gc-interval").and_then(|text| crate::parse::duration_seconds(&text)),
        auto_merge: set.auto_merge,
        elem: if options.terse { Vec::new() } else { elements(table, set, options, &query.elements)? },
        stmt: set.stateful.iter().map(stateful).collect(),
        map,
    };
    Ok(if set.data.is_some() { JsonObject::Map(json) } else { JsonObject::Set(json) })
}

/// The elements of a set in use, or those of the tree: all, or those with these names.
fn elements(
    table: &SnapshotTable<'_>,
    set: &Set,
    options: ListOptions,
    names: &[ElementName],
) -> Result<Vec<JsonValue>, String> {
    let json = |one| match one {
        ListedState::InUse(state) => element(set, state, options),
        ListedState::OfTree(one, state) => tree_element(set, one, state.map(|state| own_state(state, options))),
    };
    Ok(table.elements(set, names)?.into_iter().map(json).collect())
}

/// What an element has besides its key and its value; the key is empty.
fn own_state(state: ListedElementState, options: ListOptions) -> JsonElement {
    JsonElement {
        val: JsonValue::Number(0),
        timeout: state.timeout,
        expires: state.expires,
        comment: state.comment,
        counter: state.counter.map(|(packets, bytes)| match options.stateless {
            true => JsonCounts::default(),
            false => JsonCounts { packets, bytes },
        }),
        limit: state.limit.as_ref().map(limit),
        quota: state.quota.map(|(over, bytes, used)| quota(over, bytes, used)),
    }
}

fn element(set: &Set, state: ListedElementState, options: ListOptions) -> JsonValue {
    let key = match &state.key {
        None => JsonValue::text("*"),
        Some(key) => concat(set.key.iter().zip(key).map(|(kind, value)| literal(*kind, *value)).collect()),
    };
    let values = state.values.clone();
    let mut own = JsonElement { val: key, ..own_state(state, options) };
    let plain = JsonElement {
        val: own.val.clone(),
        timeout: None,
        expires: None,
        comment: None,
        counter: None,
        limit: None,
        quota: None,
    };
    let key = if own == plain {
        std::mem::replace(&mut own.val, JsonValue::Number(0))
    } else {
        JsonTerm::Elem(Box::new(own)).into()
    };
    match (&set.data, values) {
        (Some(kinds), Some(values)) => {
            let data = kinds.iter().zip(values).map(|(kind, value)| range(*kind, value)).collect();
            JsonValue::List(vec![key, concat(data)])
        }
        _ => key,
    }
}

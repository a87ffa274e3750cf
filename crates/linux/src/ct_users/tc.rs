//! Traffic control: filters whose actions look into connection tracking, as `tc -j` prints them.
use serde_json::Value;

/// The actions that need connection tracking.
const CT_ACTIONS: [&str; 3] = ["ct", "connmark", "ctinfo"];

/// A queueing discipline, as far as it tells where filters may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The device.
    pub interface: String,
    /// `clsact`, `htb`, …
    pub kind: String,
    /// Does it look up the addresses behind NAT (cake's `nat`)?
    pub nat: bool,
}

impl Qdisc {
    /// What `tc filter show dev …` is to be asked for.
    pub fn filter_attach_points(&self) -> &'static [&'static str] {
        match self.kind.as_str() {
            "clsact" => &["ingress", "egress"],
            "ingress" => &["ingress"],
            // These have no filters.
            "noqueue" | "mq" | "pfifo_fast" | "fq" | "cake" | "pfifo" | "bfifo" => &[],
            _ => &["root"],
        }
    }
}

/// The disciplines of `tc -j qdisc show`.
///
/// # Errors
/// If that is no JSON.
pub fn parse_qdiscs(json: &str) -> Result<Vec<Qdisc>, String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let one = |value: &Value| Qdisc {
        interface: text(value, "dev"),
        kind: text(value, "kind"),
        nat: value.get("options").and_then(|options| options.get("nat")).is_some_and(|nat| *nat == Value::Bool(true)),
    };
    Ok(parse_json(json)?.as_array().into_iter().flatten().map(one).collect())
}

/// The actions in `tc -j filter show` that need connection tracking: the names of each, in order.
///
/// # Errors
/// If that is no JSON.
pub fn parse_ct_actions(json: &str) -> Result<Vec<String>, String> {
    fn visit(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| visit(item, found)),
            Value::Object(members) => {
                for (name, body) in members {
                    if name == "actions" {
                        let kinds =
                            body.as_array().into_iter().flatten().filter_map(|action| action.get("kind")?.as_str());
                        found.extend(kinds.filter(|kind| CT_ACTIONS.contains(kind)).map(str::to_owned));
                    }
                    visit(body, found);
                }
            }
            _ => (),
        }
    }
    let mut found = Vec::new();
    visit(&parse_json(json)?, &mut found);
    Ok(found)
}

/// Nothing at all is what `tc` prints where there is nothing.
fn parse_json(json: &str) -> Result<Value, String> {
    if json.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(json).map_err(|error| format!("not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_qdiscs_and_filter_attach_points() {
        let json = r#"[{"kind":"noqueue","handle":"0:","dev":"lo","root":true,"options":{}},
            {"kind":"clsact","handle":"ffff:","dev":"v0","parent":"ffff:fff1","options":{}},
            {"kind":"cake","handle":"8001:","dev":"ppp0","root":true,"options":{"bandwidth":"unlimited","nat":true}}]"#;
        let found = parse_qdiscs(json).unwrap();
        assert_eq!(found[0].filter_attach_points().len(), 0);
        assert_eq!((found[1].interface.as_str(), found[1].filter_attach_points()), ("v0", &["ingress", "egress"][..]));
        assert!(found[2].nat && !found[1].nat);
        assert!(parse_qdiscs("").unwrap().is_empty() && parse_qdiscs("Error").is_err());
    }

    #[test]
    fn finds_ct_actions_of_filters() {
        let json = r#"[{"protocol":"ip","pref":49152,"kind":"flower","chain":0},
            {"protocol":"ip","pref":49152,"kind":"flower","chain":0,"options":{"handle":1,"actions":[
              {"order":1,"kind":"ct","zone":5,"control_action":{"type":"pipe"},"index":1,"ref":1,"bind":1},
              {"order":2,"kind":"mirred","mirred_action":"redirect","to_dev":"v1"},
              {"order":3,"kind":"ctinfo","zone":0}]}}]"#;
        assert_eq!(parse_ct_actions(json).unwrap(), ["ct", "ctinfo"]);
        assert!(parse_ct_actions("").unwrap().is_empty());
    }
}

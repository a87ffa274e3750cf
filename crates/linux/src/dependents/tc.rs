//! Traffic control: filters whose actions look into connection tracking, as `tc -j` prints them.
use serde_json::Value;

/// The actions that need connection tracking.
const ACTIONS: [&str; 3] = ["ct", "connmark", "ctinfo"];

/// A queueing discipline, as far as it tells where filters may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// The device.
    pub device: String,
    /// `clsact`, `htb`, …
    pub kind: String,
    /// Does it look up the addresses behind NAT (cake's `nat`)?
    pub unmasks: bool,
}

impl Discipline {
    /// What `tc filter show dev …` is to be asked for.
    pub fn places(&self) -> &'static [&'static str] {
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
pub fn disciplines(json: &str) -> Result<Vec<Discipline>, String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let one = |value: &Value| Discipline {
        device: text(value, "dev"),
        kind: text(value, "kind"),
        unmasks: value
            .get("options")
            .and_then(|options| options.get("nat"))
            .is_some_and(|nat| *nat == Value::Bool(true)),
    };
    Ok(document(json)?.as_array().into_iter().flatten().map(one).collect())
}

/// The actions in `tc -j filter show` that need connection tracking: the names of each, in order.
///
/// # Errors
/// If that is no JSON.
pub fn actions(json: &str) -> Result<Vec<String>, String> {
    fn visit(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| visit(item, found)),
            Value::Object(members) => {
                for (name, body) in members {
                    if name == "actions" {
                        let kinds =
                            body.as_array().into_iter().flatten().filter_map(|action| action.get("kind")?.as_str());
                        found.extend(kinds.filter(|kind| ACTIONS.contains(kind)).map(str::to_owned));
                    }
                    visit(body, found);
                }
            }
            _ => (),
        }
    }
    let mut found = Vec::new();
    visit(&document(json)?, &mut found);
    Ok(found)
}

/// Nothing at all is what `tc` prints where there is nothing.
fn document(json: &str) -> Result<Value, String> {
    if json.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(json).map_err(|error| format!("no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disciplines_and_where_their_filters_are() {
        let json = r#"[{"kind":"noqueue","handle":"0:","dev":"lo","root":true,"options":{}},
            {"kind":"clsact","handle":"ffff:","dev":"v0","parent":"ffff:fff1","options":{}},
            {"kind":"cake","handle":"8001:","dev":"ppp0","root":true,"options":{"bandwidth":"unlimited","nat":true}}]"#;
        let found = disciplines(json).unwrap();
        assert_eq!(found[0].places().len(), 0);
        assert_eq!((found[1].device.as_str(), found[1].places()), ("v0", &["ingress", "egress"][..]));
        assert!(found[2].unmasks && !found[1].unmasks);
        assert!(disciplines("").unwrap().is_empty() && disciplines("Error").is_err());
    }

    #[test]
    fn actions_of_filters() {
        let json = r#"[{"protocol":"ip","pref":49152,"kind":"flower","chain":0},
            {"protocol":"ip","pref":49152,"kind":"flower","chain":0,"options":{"handle":1,"actions":[
              {"order":1,"kind":"ct","zone":5,"control_action":{"type":"pipe"},"index":1,"ref":1,"bind":1},
              {"order":2,"kind":"mirred","mirred_action":"redirect","to_dev":"v1"},
              {"order":3,"kind":"ctinfo","zone":0}]}}]"#;
        assert_eq!(actions(json).unwrap(), ["ct", "ctinfo"]);
        assert!(actions("").unwrap().is_empty());
    }
}

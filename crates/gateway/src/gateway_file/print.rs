//! Settings as a file again, with the origin of each value behind it.
use super::given::SettingOrigin;
use super::keys::KeyEntry;
use serde_json::Value;
use std::fmt::Write;

/// The text of a file that says the same.
pub(super) fn print(entries: &[KeyEntry], origin: impl Fn(&SettingOrigin) -> String) -> String {
    let mut out = String::new();
    let mut table = "";
    for entry in entries {
        let Some(value) = &entry.value else { continue };
        if entry.table != table {
            table = entry.table;
            // Writing to a String does not fail.
            let _ = writeln!(out, "\n[{table}]");
        }
        let line = format!("{} = {}", toml_key(&entry.name), toml_value(value));
        let _ = writeln!(out, "{line:<ORIGIN_COLUMN$}  # {}", origin(&entry.origin));
    }
    out
}

/// Where the origins stand, for lines that are shorter.
const ORIGIN_COLUMN: usize = 44;

/// A key: bare, or in quotes.
fn toml_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { name.to_owned() } else { Value::from(name).to_string() }
}

/// A value on one line. TOML's basic strings are JSON's, but for DEL, which JSON does not escape.
pub(super) fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(parts) => format!("[{}]", parts.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{} = {}", toml_key(name), toml_value(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

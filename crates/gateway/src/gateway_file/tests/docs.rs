//! The examples of the documents, and the schema beside them: what the gateway takes, the schema accepts.
use super::*;
use serde_json::Value;

/// Is `value` as `schema` says? The keywords that schemars writes; another one is an error of this test.
fn violations(schema: &Value, root: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else {
        if schema == &Value::Bool(false) {
            found.push(format!("{at}: not allowed"));
        }
        return;
    };
    let is_valid = |schema: &Value| {
        let mut found = Vec::new();
        violations(schema, root, value, at, &mut found);
        found.is_empty()
    };
    for (keyword, wanted) in schema {
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" => true,
            "$ref" => is_valid(root.pointer(wanted.as_str().unwrap().trim_start_matches('#')).unwrap()),
            "anyOf" => wanted.as_array().unwrap().iter().any(is_valid),
            "oneOf" => wanted.as_array().unwrap().iter().filter(|schema| is_valid(schema)).count() == 1,
            "allOf" => wanted.as_array().unwrap().iter().all(is_valid),
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "type" => {
                let has = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "integer" => value.is_i64() || value.is_u64(),
                    other => panic!("type {other}"),
                };
                wanted.as_array().map_or_else(|| has(wanted), |names| names.iter().any(has))
            }
            "minimum" => value.as_i64().is_none_or(|number| number >= wanted.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|number| number <= wanted.as_i64().unwrap()),
            "required" => wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
            "items" => {
                value.as_array().into_iter().flatten().for_each(|part| violations(wanted, root, part, at, found));
                true
            }
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(part) = value.get(name) {
                        violations(schema, root, part, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                for (name, part) in value.as_object().into_iter().flatten() {
                    if known.is_none_or(|known| known.get(name).is_none()) {
                        violations(wanted, root, part, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            other => panic!("this test does not know {other}"),
        };
        if !holds {
            found.push(format!("{at}: {keyword} {wanted}"));
        }
    }
}

fn schema_violations(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&schema::gateway_schema()).unwrap();
    let value: Value = toml::from_str(text).unwrap();
    let mut found = Vec::new();
    violations(&schema, &schema, &value, "", &mut found);
    found
}

/// Every block of TOML with `version = 1` in the documents and the book: its file and text.
fn documented_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    let mut folders = vec![root.join("docs"), root.join("book/src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
                found.extend(
                    blocks
                        // That of `keepstate sync` has the cluster alone; the program's own tests read it.
                        .filter(|block| block.contains("version = 1") && !path.ends_with("two-firewalls.md"))
                        .map(|block| (path.to_string_lossy().into_owned(), block)),
                );
            }
        }
    }
    found
}

#[test]
fn the_documents_examples_are_valid_and_the_schema_accepts_them() {
    let files = documented_files();
    assert!(!files.is_empty(), "no example was found");
    for (name, text) in files {
        let resolved = ResolvedGateway::new(Some(file(&text)), GatewaySettings::default());
        resolved.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(schema_violations(&text), [""; 0], "{name}");
    }
    for text in [ROUTER, TUN] {
        assert_eq!(schema_violations(text), [""; 0]);
    }
}

#[test]
fn the_schema_refuses_what_the_gateway_refuses() {
    for (wrong, right) in [
        ("rulset", "ruleset"),
        ("version = 2", "version = 1"),
        ("offload = \"on\"", "offload = false"),
        ("interface = \"eth0\"", "interface = [\"eth*\", \"!eth3\"]"),
        ("on-exit = \"opened\"", "on-exit = \"open\""),
        ("port-block = 70000", "port-block = 512"),
        ("parrity", "parity"),
        ("spin = 1000001", "spin = 50"),
        ("nf_conntrack_max = []", "nf_conntrack_max = 1000000"),
        ("wan = 1", "wan = \"eth0\""),
    ] {
        let text = ROUTER.replacen(right, wrong, 1);
        assert_ne!(schema_violations(&text), [""; 0], "{wrong}");
        let resolved = ResolvedGateway::new(Some(file(&text)), GatewaySettings::default());
        assert!(resolved.check().is_err(), "{wrong}");
    }
}

//! The counters of `conntrack -S`.
use super::output::{OutputFormat, OutputOptions};
use keepstate_engine::Counters;
use serde::{Serialize, Serializer};
use std::io::{self, Write};

/// Writes the line of `conntrack -S` for CPU 0 (with conntrack's trailing space), or one JSON object. Other formats have no counters and
/// get the line.
///
/// # Errors
/// Those of the writer beneath.
pub fn write_stats(out: &mut impl Write, counters: &Counters, output: &OutputOptions) -> io::Result<()> {
    let named = named_counters(counters);
    if output.format == OutputFormat::Json {
        return writeln!(out, "{}", serde_json::to_string(&CounterObject(&named))?);
    }
    write!(out, "cpu=0   \t")?;
    for (name, value) in named {
        write!(out, "{name}={value} ")?;
    }
    writeln!(out)
}

/// The counters as one object, in conntrack's order.
struct CounterObject<'a>(&'a [(&'static str, u64)]);

impl Serialize for CounterObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// The counters by name, in conntrack's order.
pub fn named_counters(counters: &Counters) -> [(&'static str, u64); 10] {
    let Counters {
        found,
        invalid,
        insert,
        insert_failed,
        drop,
        early_drop,
        error,
        search_restart,
        clash_resolve,
        chaintoolong,
        ..
    } = counters;
    [
        ("found", *found),
        ("invalid", *invalid),
        ("insert", *insert),
        ("insert_failed", *insert_failed),
        ("drop", *drop),
        ("early_drop", *early_drop),
        ("error", *error),
        ("search_restart", *search_restart),
        ("clash_resolve", *clash_resolve),
        ("chaintoolong", *chaintoolong),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render_stats(output: &str) -> String {
        let mut text = Vec::new();
        let mut counters = Counters::default();
        counters.insert = 24;
        write_stats(&mut text, &counters, &OutputOptions::parse(output).unwrap()).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn stats_line_matches_conntrack() {
        assert_eq!(
            render_stats("extended"),
            "cpu=0   \tfound=0 invalid=0 insert=24 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=0 clash_resolve=0 \
             chaintoolong=0 \n"
        );
    }

    #[test]
    fn stats_json_uses_the_same_names() {
        let text = render_stats("json");
        assert!(
            text.starts_with("{\"found\":0,") && text.contains(",\"insert\":24,") && text.ends_with(":0}\n"),
            "{text}"
        );
    }
}

//! Every selector in every form that the language has: one value, several, a range, a prefix, a mask, an order, a map, a concatenation, a set of its type, as target and as source of an assignment.
use std::fmt::Write;

/// A line of `forms.txt`.
struct Subject<'a> {
    selector: &'a str,
    values: Vec<&'a str>,
    has_order: bool,
    has_bits: bool,
    family: &'a str,
    before: &'a str,
}

/// All rulesets, in order of the subjects.
pub fn all() -> Vec<String> {
    include_str!("forms.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| subject(line).all())
        .collect()
}

fn subject(line: &str) -> Subject<'_> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [selector, values, kinds, family, before] = columns.try_into().unwrap();
    Subject {
        selector,
        values: values.split(';').collect(),
        has_order: kinds.contains('r'),
        has_bits: kinds.contains('m'),
        family,
        before: if before == "-" { "" } else { before },
    }
}

impl Subject<'_> {
    fn all(&self) -> Vec<String> {
        let Subject { selector, family, before, .. } = self;
        let (first, last) = (self.values[0], self.values[self.values.len() - 1]);
        let rule = |hook: &str, rule: &str| {
            format!(
                "table {family} t {{ chain x {{ }}; chain c {{ type filter hook {hook} priority 0; {before} {rule}; }}; }}"
            )
        };
        let mut all: Vec<String> =
            self.comparisons().iter().map(|rest| rule("forward", &format!("{selector} {rest}"))).collect();
        for hook in ["prerouting", "input", "output", "postrouting"] {
            all.push(rule(hook, &format!("{selector} {first}")));
        }
        for value in self.values.iter().take(3) {
            all.push(rule("prerouting", &format!("{selector} set {value}")));
        }
        for assignment in [
            format!("meta mark set {selector}"),
            format!("meta mark set {selector} map {{ {first} : 1 }}"),
            format!("ct mark set {selector} map {{ {first} : 1, * : 2 }}"),
            format!("{selector} set tcp dport map {{ 1 : {first} }}"),
        ] {
            all.push(rule("prerouting", &assignment));
        }
        let table = |content: String| format!("table {family} t {{ {content}; }}");
        all.push(table(format!("set s {{ typeof {selector}; elements = {{ {first} }}; }}")));
        all.push(table(format!("map s {{ typeof {selector} : meta mark; elements = {{ {last} : 1 }}; }}")));
        all.push(table(format!(
            "set s {{ typeof {selector}; size 10; flags dynamic; }}; chain c {{ {before} {selector} @s; update @s {{ {selector} timeout 5s }}; }}"
        )));
        all
    }

    fn comparisons(&self) -> Vec<String> {
        let (first, last) = (self.values[0], self.values[self.values.len() - 1]);
        let mut all = String::new();
        let mut add = |form: String| writeln!(all, "{form}").unwrap();
        for value in &self.values {
            ["", "!= ", "== "].iter().for_each(|sign| add(format!("{sign}{value}")));
        }
        add(format!("{{ {first} }}"));
        add(format!("{{ {} }}", self.values.join(", ")));
        add(format!("!= {{ {} }}", self.values.join(", ")));
        if self.has_order {
            ["{}-{}", "!= {}-{}", "{ {}-{} }"].iter().for_each(|form| {
                add(form.replacen("{}", first, 1).replacen("{}", last, 1));
            });
            for sign in ["<", ">", "<=", ">=", "lt", "gt", "le", "ge", "eq", "ne"] {
                add(format!("{sign} {last}"));
            }
        }
        if self.has_bits {
            for sign in ["&", "and", "|", "or", "^", "xor"] {
                add(format!("{sign} {last} == {first}"));
            }
            add(format!("& {last} != 0"));
            add(format!("& {last} == {{ {first}, {last} }}"));
            add(format!("{first} / {last}"));
        }
        add(format!("vmap {{ {first} : accept }}"));
        add(format!("vmap {{ {first} : drop, * : continue }}"));
        add(format!(". meta mark {{ {first} . 1 }}"));
        add(format!(". meta mark vmap {{ {first} . 1 : drop, {last} . 2 : jump x }}"));
        add(format!("{first} counter accept"));
        all.lines().map(str::to_owned).collect()
    }
}

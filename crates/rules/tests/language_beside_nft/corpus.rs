//! The lines of the corpus, and rulesets made of them.

/// What every table of the corpus has: the sets, objects and chains that the rules name.
const NAMES: &str = include_str!("names.nft");
/// Only where a rule names it, since the kernel may have no flowtables.
const FLOWTABLE: &str = "\tflowtable ft { hook ingress priority filter; devices = { lo }; }\n";

/// Rules for one kind of chain.
pub struct Section {
    family: String,
    kind: String,
    hook: String,
    pub rules: Vec<String>,
}

/// The sections of some files, `[family type hook]` and a rule a line.
pub fn sections(texts: &[&str]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        if let Some(head) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let words: Vec<String> = head.split(' ').map(str::to_owned).collect();
            let [family, kind, hook] = words.try_into().unwrap();
            sections.push(Section { family, kind, hook, rules: Vec::new() });
        } else if !line.is_empty() && !line.starts_with('#') {
            sections.last_mut().unwrap().rules.push(line.to_owned());
        }
    }
    sections
}

impl Section {
    /// A table with each of the rules in a chain of its own: `c0`, `c1`, ….
    pub fn ruleset(&self, rules: &[&String]) -> String {
        let mut text = format!("table {} t {{\n{NAMES}", self.family);
        if rules.iter().any(|rule| rule.ends_with("@ft") || rule.contains("@ft ")) {
            text += FLOWTABLE;
        }
        for (at, rule) in rules.iter().enumerate() {
            let head = format!("type {} hook {} priority 0;", self.kind, self.hook);
            text += &format!("\tchain c{at} {{\n\t\t{head}\n\t\t{rule}\n\t}}\n");
        }
        text + "}\n"
    }

    /// The rules that a listing has in the chain number `at`.
    pub fn listed_chain(&self, listing: &str, at: usize) -> String {
        let head = format!("\tchain c{at} {{");
        let lines =
            listing.lines().skip_while(|line| !line.starts_with(&head)).skip(2).take_while(|line| *line != "\t}");
        lines.map(|line| line.trim_start().to_owned() + "\n").collect()
    }
}

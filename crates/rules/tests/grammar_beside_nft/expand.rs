//! Sentences of a grammar, by a seeded walk.
use std::collections::HashMap;

/// Alternatives by the name of their section.
pub struct Grammar<'a> {
    sections: HashMap<&'a str, Vec<&'a str>>,
}

/// A small generator of numbers; the same seed gives the same sentences.
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }
}

impl<'a> Grammar<'a> {
    /// `[name]` begins a section, each further line is an alternative; `<name>` stands for one of the section's, `<name:argument>` for one in which `$` is the argument.
    pub fn new(text: &'a str) -> Self {
        let (mut sections, mut current): (HashMap<&str, Vec<&str>>, &str) = (HashMap::new(), "");
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                Some(name) => current = name,
                None => sections.entry(current).or_default().push(if line == "-" { "" } else { line }),
            }
        }
        Self { sections }
    }

    pub fn sentence(&self, dice: &mut Dice) -> String {
        let mut out = String::new();
        self.expand("<start>", dice, &mut out, 0);
        out
    }

    fn expand(&self, text: &str, dice: &mut Dice, out: &mut String, depth: usize) {
        assert!(depth < 60, "the grammar does not end: {text}");
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('<') {
            // `<` of the language itself has a space behind it, or another sign.
            let Some((name, after)) =
                behind.split_once('>').filter(|_| behind.starts_with(|c: char| c.is_ascii_lowercase()))
            else {
                out.push_str(before);
                out.push('<');
                rest = behind;
                continue;
            };
            out.push_str(before);
            let (section, argument) = name.split_once(':').unwrap_or((name, ""));
            let lines = self.sections.get(section).unwrap_or_else(|| panic!("no section {section}"));
            let line = lines[dice.below(lines.len())];
            let line = if argument.is_empty() { line.to_owned() } else { line.replace('$', argument) };
            self.expand(&line, dice, out, depth + 1);
            rest = after;
        }
        out.push_str(rest);
    }
}

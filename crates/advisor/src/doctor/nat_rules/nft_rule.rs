//! One rule of nftables, as text: its tests, and what it decides.
//!
//! Statements are read from left to right. A word that is not known becomes a test that may hold or not.
use super::model::{
    DnatAddress, DnatTarget, NatAction, NatBranch, NatField, NatRule, NatTest, TupleEnd, address_range, dnat_target,
    port_range, protocol_number,
};
use super::words::words;
use std::collections::BTreeMap;

/// The elements of a set or map, each in words; `None` where packets change them.
pub(super) type NftSets = BTreeMap<String, Option<Vec<Vec<String>>>>;

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selector {
    Address(TupleEnd),
    Protocol,
    Port(TupleEnd),
    Interface,
    LocalAddress(TupleEnd),
    CtState,
    NfProto,
    /// `numgen` or a hash, modulo this number: any of the elements.
    Choice(u64),
    Other,
}

/// An element of a map: the words of its key, and of its value.
type Element<'a> = (Vec<&'a str>, Vec<&'a str>);

/// What may stand behind the key of an element.
const ELEMENT_OPTIONS: [&str; 6] = ["comment", "timeout", "expires", "counter", "limit", "last"];

/// The elements between the first brace and the last, each in words.
pub(super) fn elements(words: &[&str]) -> Vec<Vec<String>> {
    let inner = words.iter().filter(|word| !matches!(**word, "{" | "}")).copied().collect::<Vec<_>>();
    let elements = inner.split(|word| *word == ",");
    elements
        .filter(|element| !element.is_empty())
        .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
        .collect()
}

/// Reads a rule.
pub(super) fn read(text: &str, sets: &NftSets) -> NatRule {
    let words = words(text);
    let mut reader =
        Reader { words: &words, at: 0, sets, rule: NatRule { text: text.to_owned(), ..NatRule::default() } };
    while reader.at < words.len() && reader.rule.branches.is_empty() {
        reader.read_statement();
    }
    reader.rule
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
    sets: &'a NftSets,
    rule: NatRule,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> &'a str {
        self.words.get(self.at).copied().unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.at += 1;
        word
    }

    fn test(&mut self, field: NatField) {
        self.rule.tests.push(NatTest::is(field));
    }

    fn decide(&mut self, action: NatAction) {
        self.rule.branches.push(NatBranch { tests: Vec::new(), action });
    }

    /// Passes over `set meta mark | 0x4000`.
    fn skip_assignment(&mut self) {
        loop {
            // `set`, or an operator.
            self.at += 1;
            self.at += if matches!(self.peek(), "meta" | "ct") { 2 } else { 1 };
            if !matches!(self.peek(), "|" | "&" | "^" | "or" | "and" | "xor" | "<<" | ">>") {
                return;
            }
        }
    }

    fn read_statement(&mut self) {
        match self.peek() {
            "accept" | "drop" | "reject" | "masquerade" | "snat" | "queue" => self.decide(NatAction::End),
            "return" => self.decide(NatAction::Return),
            "jump" | "goto" => {
                let verdict = action(self.words.get(self.at..).unwrap_or_default());
                self.decide(verdict);
            }
            "dnat" => self.read_dnat(),
            "redirect" => self.read_redirect(),
            "counter" => {
                self.at += 1;
                if self.peek() == "packets" {
                    self.at += 4;
                }
            }
            "comment" => self.at += 2,
            "log" => {
                self.at += 1;
                while matches!(self.peek(), "prefix" | "level" | "group" | "snaplen" | "queue-threshold") {
                    self.at += 2;
                }
            }
            "notrack" | "continue" => self.at += 1,
            "meta" | "ct" if self.words.get(self.at + 2) == Some(&"set") => {
                self.at += 2;
                self.skip_assignment();
            }
            _ => self.read_match(),
        }
    }

    /// Selectors and what they are compared with.
    fn read_match(&mut self) {
        let selectors = self.read_selectors();
        let is_negated = match self.peek() {
            "vmap" => {
                self.at += 1;
                let elements = self.read_elements();
                return self.decide_by_map(&selectors, elements, action);
            }
            "<" | ">" | "<=" | ">=" | "&" | "|" => {
                self.at += 1;
                return self.test(NatField::Unknown);
            }
            "!=" => true,
            "==" => false,
            _ if selectors == [Selector::Other] => return,
            _ => {
                let test = self.read_value(&selectors);
                return self.rule.tests.push(test);
            }
        };
        self.at += 1;
        let test = self.read_value(&selectors);
        self.rule.tests.push(NatTest { is_negated, ..test });
    }

    /// `ip daddr . meta l4proto . th dport`: also notes what a selector asks by itself.
    fn read_selectors(&mut self) -> Vec<Selector> {
        let mut found = vec![self.read_selector()];
        while self.peek() == "." {
            self.at += 1;
            found.push(self.read_selector());
        }
        found
    }

    fn read_selector(&mut self) -> Selector {
        let (first, second) = (self.next(), self.peek());
        let end = if matches!(second, "saddr" | "sport") { TupleEnd::Source } else { TupleEnd::Destination };
        match (first, second) {
            ("ip" | "ip6", "saddr" | "daddr") => {
                self.at += 1;
                self.test(NatField::IsIpv6(first == "ip6"));
                Selector::Address(end)
            }
            ("ip", "protocol") | ("ip6", "nexthdr") | ("meta", "l4proto") => {
                self.at += 1;
                Selector::Protocol
            }
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th", "sport" | "dport") => {
                self.at += 1;
                if let Some(number) = protocol_number(first) {
                    self.test(NatField::Protocol(vec![number]));
                }
                Selector::Port(end)
            }
            ("meta", "iifname" | "iif") => {
                self.at += 1;
                Selector::Interface
            }
            ("iifname" | "iif", _) => Selector::Interface,
            ("meta", "nfproto") => {
                self.at += 1;
                Selector::NfProto
            }
            ("ct", "state") => {
                self.at += 1;
                Selector::CtState
            }
            ("fib", "saddr" | "daddr") => self.read_fib(),
            ("numgen" | "jhash" | "symhash", _) => self.read_choice(),
            ("meta" | "ct" | "tcp" | "udp" | "th" | "ip" | "ip6" | "icmp" | "ether" | "rt" | "socket", _) => {
                self.at += 1;
                self.test(NatField::Unknown);
                Selector::Other
            }
            _ => {
                self.test(NatField::Unknown);
                Selector::Other
            }
        }
    }

    /// `fib daddr type local`, `fib daddr . iif type local`.
    fn read_fib(&mut self) -> Selector {
        let end = if self.next() == "saddr" { TupleEnd::Source } else { TupleEnd::Destination };
        while matches!(self.peek(), "." | "iif" | "oif" | "mark") && self.words.get(self.at + 1).is_some() {
            self.at += 1;
        }
        if self.next() == "type" {
            return Selector::LocalAddress(end);
        }
        self.test(NatField::Unknown);
        Selector::Other
    }

    /// `numgen random mod 2`, `jhash ip saddr mod 2 seed 0xff`.
    fn read_choice(&mut self) -> Selector {
        while self.at < self.words.len() && self.peek() != "mod" {
            self.at += 1;
        }
        self.at += 1;
        let modulus = self.next().parse().unwrap_or(u64::MAX);
        while matches!(self.peek(), "seed" | "offset") {
            self.at += 2;
        }
        Selector::Choice(modulus)
    }

    /// What the selectors must be: `{ … }`, `@set`, or one value.
    fn read_value(&mut self, selectors: &[Selector]) -> NatTest {
        let is_set = self.peek() == "{" || self.peek().starts_with('@');
        let elements = if is_set {
            self.read_elements()
        } else {
            let mut words = vec![self.next()];
            while self.peek() == "." {
                self.at += 1;
                words.extend([".", self.next()]);
            }
            Some(vec![(words, Vec::new())])
        };
        match (selectors, elements) {
            ([one], Some(elements)) => field_of(one, &elements).map_or(NatTest::UNKNOWN, NatTest::is),
            // A set of several fields does not fit one test; a single value does not either, and is rare.
            _ => NatTest::UNKNOWN,
        }
    }

    /// `{ … }` or `@name`; none where packets change them.
    fn read_elements(&mut self) -> Option<Vec<Element<'a>>> {
        let first = self.next();
        if let Some(name) = first.strip_prefix('@') {
            let sets: &'a NftSets = self.sets;
            let elements = sets.get(name)?.as_ref()?;
            return Some(elements.iter().map(|element| split_element(element.iter().map(String::as_str))).collect());
        }
        let rest = self.words.get(self.at..)?;
        let length = rest.iter().position(|word| *word == "}")?;
        self.at += length + 1;
        let elements = rest.get(..length)?.split(|word| *word == ",");
        Some(elements.map(|element| split_element(element.iter().copied())).collect())
    }

    /// One branch an element; and what happens where the elements are not known.
    fn decide_by_map(
        &mut self,
        selectors: &[Selector],
        elements: Option<Vec<Element<'_>>>,
        action: impl Fn(&[&str]) -> NatAction,
    ) {
        let Some(elements) = elements else {
            self.test(NatField::Unknown);
            return self.decide(NatAction::Unknown);
        };
        let mut left = match selectors {
            [Selector::Choice(modulus)] => *modulus,
            _ => u64::MAX,
        };
        for (key, value) in &elements {
            left = left.saturating_sub(covered(key));
            // Of several that are chosen from, the last is taken if no other is.
            let tests = if left == 0 { Vec::new() } else { key_tests(selectors, key) };
            self.rule.branches.push(NatBranch { tests, action: action(value) });
        }
        if elements.is_empty() {
            // Without elements nothing matches, and the rule goes on to nothing.
            self.at = self.words.len();
        }
    }

    /// `dnat [ip] to 10.0.0.2:53`, `dnat ip to ip daddr . tcp dport map { … }`.
    fn read_dnat(&mut self) {
        while self.at < self.words.len() && self.peek() != "to" {
            self.at += 1;
        }
        self.at += 1;
        let target = self.peek();
        if target.starts_with(|first: char| first.is_ascii_hexdigit() || matches!(first, ':' | '['))
            && target.contains(['.', ':'])
        {
            let target = dnat_target(target);
            return self.decide(NatAction::Translate(target));
        }
        let before = self.rule.tests.len();
        let selectors = self.read_selectors();
        // The fields of a map's key do not keep the rule from matching.
        let asked = self.rule.tests.split_off(before.min(self.rule.tests.len()));
        self.rule.tests.extend(asked.into_iter().filter(|test| test.field != NatField::Unknown));
        let elements = if self.next() == "map" { self.read_elements() } else { None };
        self.decide_by_map(&selectors, elements, |words| NatAction::Translate(mapped_target(words)));
    }

    /// `redirect`, `redirect to :8080`.
    fn read_redirect(&mut self) {
        let ports = self.words.get(self.at + 2).and_then(|to| port_range(to.trim_start_matches(':'), '-'));
        self.decide(NatAction::Translate(DnatTarget { address: DnatAddress::Local, ports }));
    }
}

/// `10.2.0.1`, or `10.2.0.1 . 8080`.
fn mapped_target(words: &[&str]) -> DnatTarget {
    match words {
        [address, ".", port] => {
            let address = address_range(address).map_or(DnatAddress::Any, |(low, high)| DnatAddress::Range(low, high));
            DnatTarget { address, ports: port_range(port, '-') }
        }
        [target] => dnat_target(target),
        _ => DnatTarget { address: DnatAddress::Any, ports: None },
    }
}

/// What a verdict decides.
fn action(words: &[&str]) -> NatAction {
    match words {
        ["jump", chain, ..] => NatAction::Jump((*chain).to_owned()),
        ["goto", chain, ..] => NatAction::Goto((*chain).to_owned()),
        ["return", ..] => NatAction::Return,
        ["accept" | "drop", ..] => NatAction::End,
        _ => NatAction::Unknown,
    }
}

fn split_element<'a>(words: impl Iterator<Item = &'a str>) -> Element<'a> {
    let words: Vec<&str> = words.collect();
    let colon = words.iter().position(|word| *word == ":");
    let key = words.get(..colon.unwrap_or(words.len())).unwrap_or_default();
    let key = key.split(|word| ELEMENT_OPTIONS.contains(word)).next().unwrap_or_default().to_vec();
    (key, colon.and_then(|colon| words.get(colon + 1..)).unwrap_or_default().to_vec())
}

/// How many numbers a key of `numgen` stands for: `0`, `0-4`.
fn covered(key: &[&str]) -> u64 {
    let [key] = key else { return 1 };
    let (low, high) = key.split_once('-').unwrap_or((key, key));
    match (low.parse::<u64>(), high.parse::<u64>()) {
        (Ok(low), Ok(high)) => high.saturating_sub(low).saturating_add(1),
        _ => 1,
    }
}

/// The tests that a tuple has this key.
fn key_tests(selectors: &[Selector], key: &[&str]) -> Vec<NatTest> {
    let parts: Vec<&[&str]> = key.split(|word| *word == ".").collect();
    if parts.len() != selectors.len() {
        return vec![NatTest::UNKNOWN];
    }
    let fields = selectors.iter().zip(parts).map(|(selector, part)| {
        field_of(selector, &[(part.to_vec(), Vec::new())]).map_or(NatTest::UNKNOWN, NatTest::is)
    });
    fields.collect()
}

/// The field that a selector and its values ask for; none if they are not understood.
fn field_of(selector: &Selector, elements: &[Element<'_>]) -> Option<NatField> {
    let values: Option<Vec<&str>> = elements.iter().map(|(key, _)| key.first().copied()).collect();
    let values = values?;
    match selector {
        Selector::Address(end) => {
            let ranges: Option<Vec<_>> = values.iter().map(|value| address_range(value)).collect();
            ranges.map(|ranges| NatField::Address(*end, ranges))
        }
        Selector::Port(end) => {
            let ranges: Option<Vec<_>> = values.iter().map(|value| port_range(value, '-')).collect();
            ranges.map(|ranges| NatField::Port(*end, ranges))
        }
        Selector::Protocol => {
            let numbers: Option<Vec<_>> = values.iter().map(|value| protocol_number(value)).collect();
            numbers.map(NatField::Protocol)
        }
        Selector::Interface => {
            Some(NatField::Interface(values.iter().map(|value| value.trim_matches('"').to_owned()).collect()))
        }
        Selector::LocalAddress(end) => (values == ["local"]).then_some(NatField::LocalAddress(*end)),
        // A nat chain sees the first packet of a connection only.
        Selector::CtState => values.contains(&"new").then_some(NatField::Always),
        Selector::NfProto => match values.as_slice() {
            ["ipv6"] => Some(NatField::IsIpv6(true)),
            ["ipv4"] => Some(NatField::IsIpv6(false)),
            _ => None,
        },
        Selector::Choice(_) | Selector::Other => None,
    }
}

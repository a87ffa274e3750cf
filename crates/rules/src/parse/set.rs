//! Sets and maps: named ones, those in place, and their elements.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::source::Span;
use crate::token::Word;
use crate::tree::{Data, Element, Expression, ObjectKind, Set};

/// The words of `type`.
const TYPES: [(&str, Kind); 25] = [
    ("ipv4_addr", Kind::Address4),
    ("ipv6_addr", Kind::Address6),
    ("inet_proto", Kind::Protocol),
    ("inet_service", Kind::Port),
    ("mark", Kind::Mark),
    ("ifname", Kind::InterfaceName),
    ("iface_index", Kind::Interface),
    ("ct_state", Kind::CtState),
    ("ct_status", Kind::CtStatus),
    ("ct_dir", Kind::CtDirection),
    ("ct_label", Kind::Label),
    ("icmp_type", Kind::IcmpType),
    ("icmpv6_type", Kind::Icmp6Type),
    ("icmp_code", Kind::IcmpCode),
    ("icmpv6_code", Kind::Icmp6Code),
    ("tcp_flag", Kind::TcpFlags),
    ("dscp", Kind::Dscp),
    ("nf_proto", Kind::Family),
    ("ether_type", Kind::EtherType),
    ("pkt_type", Kind::PacketType),
    ("igmp_type", Kind::IgmpType),
    ("dccp_pkttype", Kind::DccpType),
    ("mh_type", Kind::MobilityType),
    ("devgroup", Kind::DeviceGroup),
    ("classid", Kind::Priority),
];

impl Parser<'_> {
    /// Behind `set` or `map` in a table.
    pub(super) fn named_set(&mut self, table: usize, map: bool) -> Parsed<()> {
        let (name, span) = self.name("the set's name")?;
        let known = self.set_of(table, &name).cloned();
        let again = known.is_some();
        let mut set = known.unwrap_or(Set { name: name.clone(), ..Set::default() });
        self.sign("{")?;
        loop {
            self.skip_separators();
            if self.takes_sign("}") {
                break;
            }
            self.set_line(&mut set, map)?;
        }
        if set.key.is_empty() {
            return Err(Fault::new(span, format!("{name}: what are its elements?")).instead("type ipv4_addr;"));
        }
        if map && set.data.is_none() {
            return Err(Fault::new(span, format!("{name}: what does it map to?")).instead("type ipv4_addr : verdict;"));
        }
        match self.set_of(table, &name) {
            Some(known) if again => *known = set,
            _ => {
                if let Some(table) = self.ruleset.tables.get_mut(table) {
                    table.sets.push(set);
                }
            }
        }
        Ok(())
    }

    fn set_line(&mut self, set: &mut Set, map: bool) -> Parsed<()> {
        let (word, span) = self.name("type, typeof, flags, timeout, size or elements")?;
        match word.as_str() {
            "type" | "typeof" => {
                let by_name = word == "type";
                set.key = self.kinds(by_name)?;
                if map {
                    self.sign(":")?;
                    self.takes("interval");
                    let objects =
                        [("counter", ObjectKind::Counter), ("quota", ObjectKind::Quota), ("limit", ObjectKind::Limit)];
                    let object = objects.into_iter().find(|(word, _)| self.takes(word));
                    set.data = Some(match object {
                        Some((_, kind)) => vec![Kind::Object(kind)],
                        None if self.takes("verdict") => Vec::new(),
                        None => self.kinds(by_name)?,
                    });
                }
            }
            "flags" => loop {
                let (flag, span) = self.name("a flag")?;
                match flag.as_str() {
                    "dynamic" | "timeout" => set.dynamic = true,
                    "constant" | "interval" => (),
                    _ => {
                        return Err(Fault::new(span, format!("{flag}: no such flag"))
                            .instead("constant, interval, timeout, dynamic"));
                    }
                }
                if !self.takes_sign(",") {
                    break;
                }
            },
            "timeout" => set.timeout = Some(self.time()?),
            "gc-interval" => {
                self.time()?;
            }
            "size" => set.size = Some(self.number32("a number of elements")?),
            "policy" | "comment" => {
                self.name("its value")?;
            }
            "auto-merge" => set.merges = true,
            "counter" => (),
            "limit" | "quota" | "ct" => {
                let hint = format!("add @{} {{ ip saddr {word} … }} in a rule, for each element it adds", set.name);
                return Err(Fault::new(span, format!("{word}: not for all elements of a set at once")).instead(hint));
            }
            "elements" => {
                self.sign("=")?;
                if set.key.is_empty() {
                    return Err(Fault::new(span, "elements of which type?").instead("type ipv4_addr; above this line"));
                }
                let (key, data) = (set.key.clone(), set.data.clone());
                let elements = self.elements(&key, data.as_deref())?;
                set.elements.extend(elements);
            }
            _ => {
                return Err(Fault::new(span, format!("{word}: a set has no such thing")).instead(
                    "type, typeof, flags, timeout, gc-interval, size, policy, auto-merge, counter, comment, elements",
                ));
            }
        }
        self.ends()
    }

    /// Kinds by their names, or as those of expressions; with `.` between them.
    fn kinds(&mut self, by_name: bool) -> Parsed<Vec<Kind>> {
        let mut kinds = Vec::new();
        loop {
            if by_name {
                let (name, span) = self.name("a type")?;
                let found = TYPES.iter().find(|(known, _)| *known == name);
                let Some((_, kind)) = found else {
                    let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
                    return Err(Fault::new(span, format!("{name}: no such type")).instead(known.join(", ")));
                };
                kinds.push(*kind);
            } else {
                let key = self.key()?;
                if key.is_empty() {
                    return Err(self.unexpected("what the elements are, like `ip saddr`"));
                }
                kinds.extend(key.iter().map(Expression::kind));
            }
            if !self.takes_sign(".") {
                return Ok(kinds);
            }
        }
    }

    /// A set or map in place.
    pub(super) fn set_here(&mut self, key: &[Kind], data: Option<&[Kind]>) -> Parsed<Set> {
        let elements = self.elements(key, data)?;
        Ok(Set {
            key: key.to_vec(),
            data: data.map(<[Kind]>::to_vec),
            // In place, what overlaps is what its author says twice.
            merges: data.is_none(),
            elements,
            ..Set::default()
        })
    }

    /// `add element … { … }`.
    pub(super) fn more_elements(&mut self, table: usize, name: &str, span: Span) -> Parsed<()> {
        let Some(set) = self.set_of(table, name) else {
            return Err(Fault::new(span, format!("{name}: there is no such set")));
        };
        let (key, data) = (set.key.clone(), set.data.clone());
        let elements = self.elements(&key, data.as_deref())?;
        if let Some(set) = self.set_of(table, name) {
            set.elements.extend(elements);
        }
        Ok(())
    }

    /// Elements in braces; braces of a variable's value may stand among them.
    fn elements(&mut self, key: &[Kind], data: Option<&[Kind]>) -> Parsed<Vec<Element>> {
        let mut elements = Vec::new();
        self.sign("{")?;
        let mut depth = 1_usize;
        while depth > 0 {
            self.skip_separators();
            if self.takes_sign("}") {
                depth -= 1;
            } else if self.takes_sign("{") {
                depth += 1;
                continue;
            } else {
                elements.push(self.element(key, data)?);
            }
            if depth == 0 {
                break;
            }
            self.skip_separators();
            if !self.takes_sign(",") && !matches!(self.peek(), Word::Sign("}")) {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        Ok(elements)
    }

    fn element(&mut self, kinds: &[Kind], data: Option<&[Kind]>) -> Parsed<Element> {
        let start = self.span();
        let key = if self.takes_sign("*") { None } else { Some(self.ranges(kinds)?) };
        let (mut timeout, mut left) = (None, None);
        let mut each = Vec::new();
        loop {
            if self.takes("timeout") {
                timeout = Some(self.time()?);
            } else if self.takes("expires") {
                left = Some(self.time()?);
            } else if self.takes("comment") {
                self.name("a comment")?;
            } else if matches!(self.peek(), Word::Name(word) if matches!(word.as_str(), "counter" | "limit" | "quota" | "ct"))
            {
                each.push(self.statement()?);
            } else {
                break;
            }
        }
        let timeout = left.or(timeout);
        let data = match data {
            None => None,
            Some(kinds) => {
                self.sign(":")?;
                self.skip_separators();
                Some(self.data(kinds)?)
            }
        };
        let end = self.span();
        let span =
            if matches!(self.peek(), Word::Separator) { start } else { start.to(Span { end: end.start, ..end }) };
        Ok(Element { span, key, data, timeout, each })
    }

    fn ranges(&mut self, kinds: &[Kind]) -> Parsed<Vec<(u128, u128)>> {
        let mut ranges = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            if at > 0 {
                self.sign(".")?;
            }
            // `*` inside a key is any value of its part.
            let range = if self.takes_sign("*") { (0, kind.greatest()) } else { self.range(*kind)? };
            ranges.push(range);
        }
        Ok(ranges)
    }

    fn data(&mut self, kinds: &[Kind]) -> Parsed<Data> {
        if let [Kind::Object(_)] = kinds {
            let (name, span) = self.name("the name of an object, in quotation marks")?;
            return Ok(Data::Object(name, span));
        }
        if kinds.is_empty() {
            return match self.verdict()? {
                Some(verdict) => Ok(Data::Verdict(verdict)),
                None => Err(self.unexpected("a verdict: accept, drop, jump, goto, return, continue")),
            };
        }
        let mut values = Vec::new();
        for kind in kinds {
            if !values.is_empty() && !self.takes_sign(".") {
                break;
            }
            values.push(self.range(*kind)?);
        }
        Ok(Data::Values(values))
    }
}

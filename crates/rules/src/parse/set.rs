//! Named and anonymous sets and maps, and their elements.
use super::auto_merge::merge_elements;
use super::parser::{ParseResult, Parser};
use crate::ast::{ElementData, Expression, ObjectKind, Set, SetChangeKind, SetElement};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;

/// Type names.
const TYPE_NAMES: [(&str, DataType); 37] = [
    ("ipv4_addr", DataType::Address4),
    ("ipv6_addr", DataType::Address6),
    ("inet_proto", DataType::Protocol),
    ("inet_service", DataType::Port),
    ("mark", DataType::Mark),
    ("ifname", DataType::InterfaceName),
    ("iface_index", DataType::InterfaceIndex),
    ("ct_state", DataType::CtState),
    ("ct_status", DataType::CtStatus),
    ("ct_dir", DataType::CtDirection),
    ("ct_label", DataType::CtLabel),
    ("icmp_type", DataType::IcmpType),
    ("icmpv6_type", DataType::Icmp6Type),
    ("icmp_code", DataType::IcmpCode),
    ("icmpv6_code", DataType::Icmp6Code),
    ("tcp_flag", DataType::TcpFlags),
    ("dscp", DataType::Dscp),
    ("nf_proto", DataType::Family),
    ("ether_type", DataType::EtherType),
    ("pkt_type", DataType::PacketType),
    ("igmp_type", DataType::IgmpType),
    ("dccp_pkttype", DataType::DccpType),
    ("mh_type", DataType::MobilityType),
    ("devgroup", DataType::DeviceGroup),
    ("classid", DataType::ClassId),
    ("ether_addr", DataType::EtherAddress),
    ("iface_type", DataType::LinkType),
    ("ifkind", DataType::InterfaceKind),
    ("cgroupsv2", DataType::CgroupV2),
    ("uid", DataType::UserId),
    ("gid", DataType::GroupId),
    ("realm", DataType::Realm),
    ("fib_addrtype", DataType::AddressType),
    ("icmpx_code", DataType::IcmpxCode),
    ("boolean", DataType::Boolean),
    ("time", DataType::Duration),
    ("ecn", DataType::Ecn),
];

/// Does this word begin the state of an element?
fn is_stateful(word: &str) -> bool {
    matches!(word, "counter" | "limit" | "quota" | "ct" | "last")
}

/// A type by its name; a number without one is an integer.
pub(crate) fn type_name(kind: DataType) -> String {
    let named = TYPE_NAMES.iter().find(|(_, known)| *known == kind).map(|(name, _)| (*name).to_owned());
    let object = match kind {
        DataType::OsName => "string",
        DataType::Object(ObjectKind::Counter) => "counter",
        DataType::Object(ObjectKind::Quota) => "quota",
        DataType::Object(ObjectKind::Limit) => "limit",
        DataType::Object(ObjectKind::Synproxy) => "synproxy",
        DataType::Object(ObjectKind::CtHelper) => "ct helper",
        DataType::Object(ObjectKind::CtTimeout) => "ct timeout",
        DataType::Object(ObjectKind::CtExpectation) => "ct expectation",
        DataType::Object(ObjectKind::SecMark) => "secmark",
        _ => "integer",
    };
    named.unwrap_or_else(|| object.to_owned())
}

impl Parser<'_> {
    /// After `set` or `map` in a table.
    pub(super) fn parse_named_set(&mut self, table: usize, map: bool) -> ParseResult<()> {
        let (name, span) = self.expect_identifier("a set name")?;
        let known = self.set_mut(table, &name).cloned();
        let again = known.is_some();
        let elements_before = known.as_ref().map_or(0, |set| set.elements.len());
        if again && std::mem::take(&mut self.script.create) {
            return Err(Diagnostic::new(span, format!("set or map {name} already exists")));
        }
        let mut set = known.clone().unwrap_or(Set { name: name.clone(), span, ..Set::default() });
        (set.key, set.data, set.interval, set.flags) = Default::default();
        self.expect_punct("{")?;
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                break;
            }
            self.parse_set_property(&mut set, map)?;
        }
        if set.key.is_empty() {
            return Err(Diagnostic::new(span, format!("set {name} has no type"))
                .with_help("write `type ipv4_addr;` or `typeof ip saddr;`"));
        }
        if map && set.data.is_none() {
            return Err(Diagnostic::new(span, format!("map {name} has no value type"))
                .with_help("write `type ipv4_addr : verdict;`"));
        }
        if let Some(known) = known
            && (&known.key, &known.data, known.interval, known.flags) != (&set.key, &set.data, set.interval, set.flags)
        {
            return Err(Diagnostic::new(span, format!("{name} is declared above with another type or other flags"))
                .with_help("use one declaration, or another name"));
        }
        merge_elements(&mut set, elements_before);
        // The elements of a set in use are changed there, not in the tree.
        let added = if self.script.active && set.is_runtime() { std::mem::take(&mut set.elements) } else { Vec::new() };
        self.push_set_change(table, &name, span, SetChangeKind::Add { elements: added, create: false });
        match self.set_mut(table, &name) {
            Some(known) if again => *known = set,
            _ => {
                if let Some(table) = self.ruleset.tables.get_mut(table) {
                    table.sets.push(set);
                }
            }
        }
        Ok(())
    }

    fn parse_set_property(&mut self, set: &mut Set, map: bool) -> ParseResult<()> {
        let recording = self.start_recording();
        let (word, span) = self.expect_word("type, typeof, flags, timeout, size or elements")?;
        match word.as_str() {
            "type" | "typeof" => {
                let by_name = word == "type";
                set.key = self.parse_data_types(by_name)?;
                if map {
                    self.expect_punct(":")?;
                    set.flags.data_interval = self.eat_keyword("interval");
                    set.data = Some(match self.parse_object_kind()? {
                        Some(kind) => vec![DataType::Object(kind)],
                        None if self.eat_keyword("verdict") => Vec::new(),
                        None => self.parse_data_types(by_name)?,
                    });
                }
            }
            "flags" => loop {
                let (flag, span) = self.expect_word("a flag")?;
                match flag.as_str() {
                    "dynamic" => (set.dynamic, set.flags.dynamic) = (true, true),
                    "timeout" => (set.dynamic, set.flags.timeout) = (true, true),
                    "constant" => set.flags.constant = true,
                    "interval" => set.interval = true,
                    _ => {
                        return Err(Diagnostic::new(span, format!("unknown flag `{flag}`"))
                            .with_help("use constant, interval, timeout or dynamic"));
                    }
                }
                if !self.eat_punct(",") {
                    break;
                }
            },
            "timeout" => {
                (set.timeout, set.flags.timeout, set.dynamic) = (Some(self.parse_time()?), true, true);
            }
            "gc-interval" => {
                self.parse_time()?;
            }
            "size" => set.size = Some(self.expect_u32("a number of elements")?),
            "comment" => {
                let again = set.properties.iter().any(|line| line.starts_with("comment "));
                self.expect_only_comment(again)?;
            }
            "policy" => {
                let (policy, span) = self.expect_word("memory or performance")?;
                if !matches!(policy.as_str(), "memory" | "performance") {
                    return Err(Diagnostic::new(span, format!("unknown policy `{policy}` of a set"))
                        .with_help("use memory or performance"));
                }
            }
            "auto-merge" => set.auto_merge = true,
            "counter" | "limit" | "quota" | "last" | "ct" => {
                let mut next = word.clone();
                loop {
                    set.stateful.extend(self.parse_stateful_after(&next)?);
                    // nft lists several on one line.
                    next = match self.peek() {
                        TokenKind::Ident(word) if is_stateful(word) => word.clone(),
                        _ => break,
                    };
                    self.next_token();
                }
            }
            "elements" => {
                self.expect_punct("=")?;
                if set.key.is_empty() {
                    return Err(Diagnostic::new(span, "elements need a type")
                        .with_help("write `type ipv4_addr;` above this line"));
                }
                let by_variable = self.is_variable_next();
                let (key, data) = (set.key.clone(), set.data.clone());
                let mut elements = self.parse_elements(&key, data.as_deref())?;
                if elements.is_empty() && !by_variable {
                    return Err(Diagnostic::new(span, "there are no elements in these braces")
                        .with_help("leave `elements` out: a set may be empty"));
                }
                for element in elements.iter_mut().filter(|element| element.stateful.is_empty()) {
                    element.stateful.clone_from(&set.stateful);
                }
                set.elements.extend(elements);
            }
            _ => {
                return Err(Diagnostic::new(span, format!("unknown set property `{word}`")).with_help(
                    "use type, typeof, flags, timeout, gc-interval, size, policy, auto-merge, counter, comment or elements",
                ));
            }
        }
        let text = self.recorded_text(recording, "");
        if word != "elements" && !set.properties.contains(&text) {
            set.properties.push(text);
        }
        self.expect_end()
    }

    /// The kind of the named objects that a map has as values, if it has.
    fn parse_object_kind(&mut self) -> ParseResult<Option<ObjectKind>> {
        let objects = [
            ("counter", ObjectKind::Counter),
            ("quota", ObjectKind::Quota),
            ("limit", ObjectKind::Limit),
            ("synproxy", ObjectKind::Synproxy),
            ("secmark", ObjectKind::SecMark),
        ];
        if let Some((_, kind)) = objects.into_iter().find(|(word, _)| self.eat_keyword(word)) {
            return Ok(Some(kind));
        }
        let of_ct = [
            ("helper", ObjectKind::CtHelper),
            ("timeout", ObjectKind::CtTimeout),
            ("expectation", ObjectKind::CtExpectation),
        ];
        for (word, kind) in of_ct {
            if matches!(self.peek(), TokenKind::Ident(first) if first == "ct") && self.is_keyword_ahead(1, word) {
                self.next_token();
                self.next_token();
                return Ok(Some(kind));
            }
        }
        Ok(None)
    }

    /// Types by name, or by expression (`typeof`), separated by `.`.
    fn parse_data_types(&mut self, by_name: bool) -> ParseResult<Vec<DataType>> {
        let mut kinds = Vec::new();
        loop {
            if by_name {
                let (name, span) = self.expect_word("a type")?;
                let found = TYPE_NAMES.iter().find(|(known, _)| *known == name);
                let Some((_, kind)) = found else {
                    let known: Vec<&str> = TYPE_NAMES.iter().map(|(name, _)| *name).collect();
                    return Err(Diagnostic::new(span, format!("unknown type `{name}`"))
                        .with_help(format!("types: {}", known.join(", "))));
                };
                kinds.push(*kind);
            } else {
                let key = self.parse_key()?;
                if key.is_empty() {
                    return Err(self.unexpected("a selector, like `ip saddr`"));
                }
                kinds.extend(key.iter().map(Expression::data_type));
            }
            if !self.eat_punct(".") {
                return Ok(kinds);
            }
        }
    }

    /// An anonymous set or map.
    pub(super) fn parse_anonymous_set(&mut self, key: &[DataType], data: Option<&[DataType]>) -> ParseResult<Set> {
        let start = self.span();
        let elements = self.parse_elements(key, data)?;
        if elements.is_empty() {
            return Err(Diagnostic::new(start.to(self.last_span), "this set has no element: nothing would ever match")
                .with_help("write elements in the braces, or remove the rule"));
        }
        if let Some(element) = elements.iter().find(|element| element.timeout.or(element.time_left).is_some()) {
            return Err(Diagnostic::new(element.span, "an element of a set without a name cannot expire")
                .with_help("declare a set with `flags timeout;`"));
        }
        if let Some(element) = elements.iter().find(|element| data.is_some() && !element.stateful.is_empty()) {
            return Err(Diagnostic::new(element.span, "an element of a map without a name has no state of its own")
                .with_help("declare a map with `counter;`"));
        }
        // nft compares with a single element.
        let single = matches!(elements.as_slice(), [one] if one.key.is_some());
        self.anonymous_sets += u64::from(!single || data.is_some() || key.len() > 1);
        Ok(Set {
            span: start,
            key: key.to_vec(),
            data: data.map(<[DataType]>::to_vec),
            // In an anonymous set, overlapping elements do no harm.
            auto_merge: data.is_none(),
            elements,
            ..Set::default()
        })
    }

    /// Elements in braces; variables among them may bring braces of their own.
    pub(super) fn parse_elements(
        &mut self,
        key: &[DataType],
        data: Option<&[DataType]>,
    ) -> ParseResult<Vec<SetElement>> {
        let mut elements = Vec::new();
        self.expect_punct("{")?;
        let mut depth = 1_usize;
        while depth > 0 {
            self.skip_separators();
            if self.eat_punct("}") {
                depth -= 1;
            } else if self.eat_punct("{") {
                depth += 1;
                continue;
            } else {
                elements.push(self.parse_element(key, data)?);
            }
            if depth == 0 {
                break;
            }
            self.skip_separators();
            if !self.eat_punct(",") && !matches!(self.peek(), TokenKind::Punct("}")) {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        Ok(elements)
    }

    fn parse_element(&mut self, kinds: &[DataType], data: Option<&[DataType]>) -> ParseResult<SetElement> {
        let start = self.span();
        let key = if self.eat_punct("*") { None } else { Some(self.parse_element_key(kinds)?) };
        let (mut timeout, mut time_left) = (None, None);
        let mut stateful = Vec::new();
        let mut comment = None;
        loop {
            if self.eat_keyword("timeout") {
                timeout = Some(self.parse_time()?);
            } else if self.eat_keyword("expires") {
                time_left = Some(self.parse_time()?);
            } else if self.eat_keyword("comment") {
                comment = Some(self.expect_only_comment(comment.is_some())?.into_boxed_str());
            } else if self.eat_keyword("last") {
                self.parse_stateful_after("last")?;
            } else if matches!(self.peek(), TokenKind::Ident(word) if is_stateful(word)) {
                stateful.push(self.parse_stateful_spec()?);
            } else {
                break;
            }
        }
        let data = match data {
            None => None,
            // An element that exists may be named without its value.
            Some(_) if self.script.names_elements && !matches!(self.peek(), TokenKind::Punct(":")) => None,
            Some(kinds) => {
                self.expect_punct(":")?;
                self.skip_separators();
                Some(self.parse_element_data(kinds)?)
            }
        };
        let end = self.span();
        let span =
            if matches!(self.peek(), TokenKind::Separator) { start } else { start.to(Span { end: end.start, ..end }) };
        Ok(SetElement { span, key, data, timeout, time_left, comment, deadline: None, stateful })
    }

    fn parse_element_key(&mut self, kinds: &[DataType]) -> ParseResult<Vec<(u128, u128)>> {
        let mut ranges = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            if at > 0 {
                self.expect_punct(".")?;
            }
            // `*` inside a concatenation matches any value of that part.
            let range = if self.eat_punct("*") { (0, kind.max_value()) } else { self.parse_range(*kind)? };
            ranges.push(range);
        }
        Ok(ranges)
    }

    fn parse_element_data(&mut self, kinds: &[DataType]) -> ParseResult<ElementData> {
        if let [DataType::Object(_)] = kinds {
            let (name, span) = self.expect_name("an object name in quotation marks")?;
            return Ok(ElementData::Object(name, span));
        }
        if kinds.is_empty() {
            return match self.parse_verdict()? {
                Some(verdict) => Ok(ElementData::Verdict(verdict)),
                None => Err(self.unexpected("a verdict (accept, drop, jump, goto, return, continue)")),
            };
        }
        let mut values = Vec::new();
        for kind in kinds {
            if !values.is_empty() && !self.eat_punct(".") {
                break;
            }
            values.push(self.parse_range(*kind)?);
        }
        Ok(ElementData::Values(values))
    }
}

//! Names as nft reads them: what it takes for a word of its language is no name, and most places take no quotation marks.
use super::parser::{ParseResult, Parser};
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::source::Span;
use std::net::IpAddr;

/// Bytes of a name, as in the kernel.
const MAX_NAME: usize = 255;

/// The words that nft 1.0.6 takes for its own wherever they stand, in order.
const RESERVED: &[&str] = &[
    "accept",
    "add",
    "ah",
    "all",
    "and",
    "arp",
    "auto-merge",
    "bridge",
    "cgroup",
    "chain",
    "comment",
    "comp",
    "constant",
    "continue",
    "counter",
    "cpu",
    "create",
    "ct",
    "day",
    "dccp",
    "define",
    "delete",
    "describe",
    "device",
    "devices",
    "dnat",
    "drop",
    "dst",
    "dup",
    "dynamic",
    "ecn",
    "element",
    "elements",
    "eq",
    "esp",
    "ether",
    "exists",
    "expires",
    "export",
    "exthdr",
    "fib",
    "flags",
    "flow",
    "flowtable",
    "flush",
    "frag",
    "fwd",
    "gc-interval",
    "ge",
    "get",
    "goto",
    "gt",
    "handle",
    "hbh",
    "hook",
    "hour",
    "ibriport",
    "ibrname",
    "icmp",
    "icmpv6",
    "igmp",
    "iif",
    "iifgroup",
    "iifname",
    "iiftype",
    "import",
    "include",
    "index",
    "inet",
    "insert",
    "interval",
    "ip",
    "ip6",
    "ipsec",
    "jhash",
    "jump",
    "le",
    "limit",
    "list",
    "log",
    "lshift",
    "lt",
    "map",
    "mark",
    "masquerade",
    "meta",
    "meter",
    "mh",
    "missing",
    "monitor",
    "ne",
    "netdev",
    "nftrace",
    "not",
    "notrack",
    "numgen",
    "obriport",
    "obrname",
    "offload",
    "oif",
    "oifgroup",
    "oifname",
    "oiftype",
    "or",
    "osf",
    "pkttype",
    "policy",
    "position",
    "priority",
    "queue",
    "quota",
    "random",
    "redefine",
    "redirect",
    "reject",
    "rename",
    "replace",
    "reset",
    "return",
    "rshift",
    "rt",
    "rt0",
    "rt2",
    "rtclassid",
    "rule",
    "ruleset",
    "sctp",
    "secmark",
    "set",
    "size",
    "skgid",
    "skuid",
    "snat",
    "socket",
    "srh",
    "symhash",
    "synproxy",
    "table",
    "tcp",
    "th",
    "time",
    "timeout",
    "tproxy",
    "type",
    "typeof",
    "udp",
    "udplite",
    "undefine",
    "update",
    "vlan",
    "vmap",
    "xor",
    "xt",
];

/// Further words that are no names of objects of a kind.
fn reserved_for(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["bytes", "packets"],
        "quota" => &["bytes", "over", "until", "used"],
        "limit" => &["burst", "bytes", "minute", "over", "packets", "rate", "second", "week"],
        "ct" => &[
            "avgpkt",
            "bytes",
            "count",
            "daddr",
            "direction",
            "dport",
            "event",
            "expectation",
            "expiration",
            "helper",
            "helpers",
            "id",
            "l3proto",
            "label",
            "original",
            "over",
            "packets",
            "proto-dst",
            "proto-src",
            "protocol",
            "reply",
            "saddr",
            "state",
            "status",
            "zone",
        ],
        _ => &[],
    }
}

impl Parser<'_> {
    /// A text: a word, or anything in quotation marks.
    pub(super) fn expect_name(&mut self, wanted: &str) -> ParseResult<(String, Span)> {
        if let TokenKind::Quoted(_) = self.peek() {
            return match self.next_token() {
                Token { kind: TokenKind::Quoted(text), span } => Ok((text, span)),
                Token { span, .. } => Err(Diagnostic::new(span, wanted)),
            };
        }
        let (word, span) = self.expect_word(wanted)?;
        if is_reserved(&word) {
            return Err(Diagnostic::new(span, format!("`{word}` is a word of the language"))
                .with_help(format!("write it in quotation marks: \"{word}\"")));
        }
        Ok((word, span))
    }

    /// A word of the language, or one that only the caller can tell from a name.
    pub(super) fn expect_word(&mut self, wanted: &str) -> ParseResult<(String, Span)> {
        match self.peek() {
            TokenKind::Ident(_) => match self.next_token() {
                Token { kind: TokenKind::Ident(name), span } if name.len() > MAX_NAME => {
                    Err(Diagnostic::new(span, format!("a name has at most {MAX_NAME} bytes, not {}", name.len()))
                        .with_help("use a shorter name"))
                }
                Token { kind: TokenKind::Ident(name), span } => Ok((name, span)),
                Token { span, .. } => Err(Diagnostic::new(span, wanted)),
            },
            TokenKind::Quoted(_) => Err(self.unexpected(wanted).with_help("write it without quotation marks")),
            _ => Err(self.unexpected(wanted)),
        }
    }

    /// The name of a table, chain, set, object or variable.
    pub(super) fn expect_identifier(&mut self, wanted: &str) -> ParseResult<(String, Span)> {
        let (name, span) = self.expect_word(wanted)?;
        if is_reserved(&name) {
            return Err(Diagnostic::new(span, format!("`{name}` is a word of the language, not {wanted}"))
                .with_help("use another name: nft cannot read this one"));
        }
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Diagnostic::new(span, "a name begins with a letter or `_`").with_help("use another name"));
        }
        if name.ends_with('*') {
            return Err(Diagnostic::new(span, "a name cannot end with `*`").with_help("leave it out"));
        }
        Ok((name, span))
    }

    /// The name of an object of this kind: `counter`, `quota`, `limit`, or `ct` for all of conntrack's.
    pub(super) fn expect_object_name(&mut self, kind: &str) -> ParseResult<(String, Span)> {
        let (name, span) = self.expect_identifier("a name of an object")?;
        if reserved_for(kind).contains(&name.as_str()) {
            return Err(Diagnostic::new(
                span,
                format!("`{name}` is a word of the language where a {kind} is declared"),
            )
            .with_help("use another name: nft cannot read this one"));
        }
        Ok((name, span))
    }

    /// Where nft takes no quotation marks.
    pub(super) fn refuse_quoted(&mut self, wanted: &str) -> ParseResult<()> {
        match self.peek() {
            TokenKind::Quoted(_) => Err(self.unexpected(wanted).with_help("write it without quotation marks")),
            _ => Ok(()),
        }
    }

    /// An address in quotation marks is an address.
    pub(super) fn unquote_address(&mut self) {
        if let TokenKind::Quoted(text) = self.peek() {
            let kind = match text.parse() {
                Ok(IpAddr::V4(address)) => TokenKind::Address4(address),
                Ok(IpAddr::V6(address)) => TokenKind::Address6(address),
                Err(_) => return,
            };
            if let Some(token) = self.tokens.last_mut() {
                token.kind = kind;
            }
        }
    }

    /// A name behind a keyword where a variable may bring quotation marks that are not written there.
    pub(super) fn expect_word_or_variable(&mut self, wanted: &str) -> ParseResult<(String, Span)> {
        if self.is_variable_next() {
            return match self.peek() {
                TokenKind::Quoted(text) => Ok((text.clone(), self.next_token().span)),
                _ => self.expect_word(wanted),
            };
        }
        self.expect_word(wanted)
    }
}

/// Does nft take this word for its own wherever it stands?
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::RESERVED;

    #[test]
    fn reserved_words_are_in_order() {
        assert!(RESERVED.is_sorted());
    }
}

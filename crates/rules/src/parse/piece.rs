//! Pieces of headers that have to be looked for: options of TCP and IPv4, extension headers of IPv6, chunks of SCTP.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::source::Span;
use crate::token::{Token, Word};
use crate::tree::{Among, BitRange, Piece};

/// A piece: its name, its number, its fields.
type Known = (&'static str, u8, &'static [Inside]);
/// A field: its name, its first bit from the piece's beginning, how many bits, what they mean.
type Inside = (&'static str, u16, u8, Kind);

const fn plain(name: &'static str, from: u16, count: u8) -> Inside {
    (name, from, count, Kind::Number(count))
}

const LENGTH: Inside = plain("length", 8, 8);

const TCP_OPTIONS: &[Known] = &[
    ("eol", 0, &[]),
    ("nop", 1, &[]),
    ("maxseg", 2, &[LENGTH, plain("size", 16, 16)]),
    ("window", 3, &[LENGTH, plain("count", 16, 8)]),
    ("sack-perm", 4, &[LENGTH]),
    ("sack-permitted", 4, &[LENGTH]),
    ("sack", 5, &[LENGTH, plain("left", 16, 32), plain("right", 48, 32)]),
    ("sack0", 5, &[LENGTH, plain("left", 16, 32), plain("right", 48, 32)]),
    ("sack1", 5, &[LENGTH, plain("left", 80, 32), plain("right", 112, 32)]),
    ("sack2", 5, &[LENGTH, plain("left", 144, 32), plain("right", 176, 32)]),
    ("sack3", 5, &[LENGTH, plain("left", 208, 32), plain("right", 240, 32)]),
    ("echo", 6, &[LENGTH]),
    ("timestamp", 8, &[LENGTH, plain("tsval", 16, 32), plain("tsecr", 48, 32)]),
    ("md5sig", 19, &[LENGTH]),
    ("mptcp", 30, &[LENGTH, plain("subtype", 16, 4)]),
    ("fastopen", 34, &[LENGTH]),
];

const ROUTE: &[Inside] = &[plain("type", 0, 8), LENGTH, plain("ptr", 16, 8), ("addr", 24, 32, Kind::Address4)];
const IP4_OPTIONS: &[Known] = &[
    ("rr", 7, ROUTE),
    ("lsrr", 131, ROUTE),
    ("ssrr", 137, ROUTE),
    ("ra", 148, &[plain("type", 0, 8), LENGTH, plain("value", 16, 16)]),
];

const NEXT: Inside = ("nexthdr", 0, 8, Kind::Protocol);
const HEADER_LENGTH: Inside = plain("hdrlength", 8, 8);
const EXTENSIONS: &[Known] = &[
    ("hbh", 0, &[NEXT, HEADER_LENGTH]),
    ("rt", 43, &[NEXT, HEADER_LENGTH, plain("type", 16, 8), plain("seg-left", 24, 8)]),
    (
        "frag",
        44,
        &[
            NEXT,
            plain("reserved", 8, 8),
            plain("frag-off", 16, 13),
            plain("reserved2", 29, 2),
            plain("more-fragments", 31, 1),
            plain("id", 32, 32),
        ],
    ),
    ("dst", 60, &[NEXT, HEADER_LENGTH]),
    (
        "mh",
        135,
        &[
            NEXT,
            HEADER_LENGTH,
            ("type", 16, 8, Kind::MobilityType),
            plain("reserved", 24, 8),
            plain("checksum", 32, 16),
        ],
    ),
];

const CHUNK_TYPE: Inside = plain("type", 0, 8);
const FLAGS: Inside = plain("flags", 8, 8);
const CHUNK_LENGTH: Inside = plain("length", 16, 16);
const BARE: &[Inside] = &[CHUNK_TYPE, FLAGS, CHUNK_LENGTH];
const INIT: &[Inside] = &[
    CHUNK_TYPE,
    FLAGS,
    CHUNK_LENGTH,
    plain("init-tag", 32, 32),
    plain("a-rwnd", 64, 32),
    plain("num-outbound-streams", 96, 16),
    plain("num-inbound-streams", 112, 16),
    plain("initial-tsn", 128, 32),
];
const CHUNKS: &[Known] = &[
    (
        "data",
        0,
        &[
            CHUNK_TYPE,
            FLAGS,
            CHUNK_LENGTH,
            plain("tsn", 32, 32),
            plain("stream", 64, 16),
            plain("ssn", 80, 16),
            plain("ppid", 96, 32),
        ],
    ),
    ("init", 1, INIT),
    ("init-ack", 2, INIT),
    (
        "sack",
        3,
        &[
            CHUNK_TYPE,
            FLAGS,
            CHUNK_LENGTH,
            plain("cum-tsn-ack", 32, 32),
            plain("a-rwnd", 64, 32),
            plain("num-gap-ack-blocks", 96, 16),
            plain("num-dup-tsns", 112, 16),
        ],
    ),
    ("heartbeat", 4, BARE),
    ("heartbeat-ack", 5, BARE),
    ("abort", 6, BARE),
    ("shutdown", 7, &[CHUNK_TYPE, FLAGS, CHUNK_LENGTH, plain("cum-tsn-ack", 32, 32)]),
    ("shutdown-ack", 8, BARE),
    ("error", 9, BARE),
    ("cookie-echo", 10, BARE),
    ("cookie-ack", 11, BARE),
    ("ecne", 12, &[CHUNK_TYPE, FLAGS, CHUNK_LENGTH, plain("lowest-tsn", 32, 32)]),
    ("cwr", 13, &[CHUNK_TYPE, FLAGS, CHUNK_LENGTH, plain("lowest-tsn", 32, 32)]),
    ("shutdown-complete", 14, BARE),
    ("asconf-ack", 128, &[CHUNK_TYPE, FLAGS, CHUNK_LENGTH, plain("seqno", 32, 32)]),
    ("forward-tsn", 192, &[CHUNK_TYPE, FLAGS, CHUNK_LENGTH, plain("new-cum-tsn", 32, 32)]),
    ("asconf", 193, &[CHUNK_TYPE, FLAGS, CHUNK_LENGTH, plain("seqno", 32, 32)]),
];

/// Is it the name of an extension header, by which its fields are asked for?
pub(super) fn is_extension(word: &str) -> bool {
    EXTENSIONS.iter().any(|(name, ..)| *name == word)
}

impl Parser<'_> {
    /// Behind `tcp option`.
    pub(super) fn tcp_option(&mut self) -> Parsed<Piece> {
        match self.peek() {
            Word::Number(number) => {
                let number = *number;
                let span = self.next().span;
                let number = u8::try_from(number).map_err(|_| Fault::new(span, "an option's number is at most 255"))?;
                self.there(Among::TcpOptions, number)
            }
            // `@34,8,8`: an option, the first bit in it, how many bits.
            Word::Set(_) => {
                let Token { kind: Word::Set(number), span } = self.next() else {
                    return Err(self.unexpected("an option"));
                };
                let number = number.parse();
                let number = number.map_err(|_| Fault::new(span, "the number of an option, from 0 to 255"))?;
                let (bits, kind) = self.bit_range()?;
                Ok(Piece { among: Among::TcpOptions, number, bits: Some(bits), kind })
            }
            _ => self.piece(Among::TcpOptions, TCP_OPTIONS, "an option of TCP"),
        }
    }

    /// The option's number behind `reset tcp option`.
    pub(super) fn tcp_option_number(&mut self) -> Parsed<u8> {
        if let Word::Number(_) = self.peek() {
            let span = self.span();
            let number = self.number32("an option of TCP")?;
            return u8::try_from(number).map_err(|_| Fault::new(span, "an option's number is at most 255"));
        }
        let (word, span) = self.name("an option of TCP")?;
        self.known(TCP_OPTIONS, &word, span, "an option of TCP").map(|(_, number, _)| *number)
    }

    /// Behind `ip option`.
    pub(super) fn ip_option(&mut self) -> Parsed<Piece> {
        self.piece(Among::Ip4Options, IP4_OPTIONS, "an option of IPv4")
    }

    /// Behind `sctp chunk`.
    pub(super) fn chunk(&mut self) -> Parsed<Piece> {
        self.piece(Among::Chunks, CHUNKS, "a chunk of SCTP")
    }

    /// Behind `exthdr`.
    pub(super) fn extension(&mut self) -> Parsed<Piece> {
        let (word, span) = self.name("an extension header")?;
        let number = self.known(EXTENSIONS, &word, span, "an extension header")?.1;
        self.there(Among::Extensions, number)
    }

    /// A field of the extension header whose name is next.
    pub(super) fn extension_field(&mut self) -> Parsed<Piece> {
        self.piece(Among::Extensions, EXTENSIONS, "an extension header")
    }

    fn piece(&mut self, among: Among, all: &'static [Known], wanted: &str) -> Parsed<Piece> {
        let (word, span) = self.name(wanted)?;
        let (_, number, fields) = self.known(all, &word, span, wanted)?;
        if matches!(self.peek(), Word::Name(word) if matches!(word.as_str(), "exists" | "missing")) {
            return self.there(among, *number);
        }
        let (field, span) = self.name("exists, missing or one of its fields")?;
        match fields.iter().find(|(name, ..)| *name == field) {
            Some((_, from, count, kind)) => {
                Ok(Piece { among, number: *number, bits: Some(BitRange::new(*from, *count)), kind: *kind })
            }
            None => {
                let names: Vec<&str> = fields.iter().map(|(name, ..)| *name).chain(["exists", "missing"]).collect();
                Err(Fault::new(span, format!("{word} {field}: no such field")).instead(names.join(", ")))
            }
        }
    }

    /// Whether it is there: `exists` or `missing` follows.
    fn there(&mut self, among: Among, number: u8) -> Parsed<Piece> {
        Ok(Piece { among, number, bits: None, kind: Kind::Presence })
    }

    fn known(&self, all: &'static [Known], word: &str, span: Span, wanted: &str) -> Parsed<&'static Known> {
        all.iter().find(|(name, ..)| *name == word).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
            Fault::new(span, format!("{word} is not {wanted}")).instead(names.join(", "))
        })
    }
}

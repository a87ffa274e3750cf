//! The chunks of one SCTP packet, walked as Linux walks them.
//!
//! A [`Bundle`] is made once a packet, after a look over all chunks: it knows that they may stand together. It must never be stricter than
//! Linux, which reads chunk headers only: a length under four octets, or beyond the packet, stops nobody; a length of zero does.
use super::Fault;
use super::transitions::Kind;

/// One chunk: what it is, its flags, and every octet of the packet behind its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) kind: Kind,
    flags: u8,
    behind: &'a [u8],
}

/// Octets of the fixed part of INIT and INIT ACK behind the chunk header (RFC 9260, section 3.3.2).
const INIT_OCTETS: usize = 16;

impl Chunk<'_> {
    /// The T bit of ABORT and SHUTDOWN COMPLETE: the sender had no association and reflects our tag (RFC 9260, section 8.5.1).
    pub(super) const fn tag_is_reflected(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The initiate tag of INIT and INIT ACK. Their whole fixed part must be there.
    pub(super) fn initiate_tag(&self) -> Result<u32, Fault> {
        match self.behind.first_chunk::<INIT_OCTETS>() {
            Some(&[a, b, c, d, ..]) => Ok(u32::from_be_bytes([a, b, c, d])),
            None => Err(Fault::Chunks),
        }
    }
}

/// Chunks that may stand together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bundle<'a> {
    octets: &'a [u8],
    /// One bit a [`Kind`].
    kinds: u16,
}

impl<'a> Bundle<'a> {
    /// Looks over the chunks: INIT, INIT ACK and SHUTDOWN COMPLETE stand alone (RFC 9260, section 6.10); COOKIE ECHO and COOKIE ACK
    /// stand first; and there is at least one.
    pub(super) fn check(octets: &'a [u8]) -> Result<Self, Fault> {
        let mut bundle = Bundle { octets, kinds: 0 };
        let mut alone = false;
        let mut walk = Walk { rest: octets };
        while let Some(chunk) = walk.step()? {
            let first = bundle.kinds == 0;
            alone |= matches!(chunk.kind, Kind::Init | Kind::InitAck | Kind::ShutdownComplete);
            if !first && (alone || matches!(chunk.kind, Kind::CookieEcho | Kind::CookieAck)) {
                return Err(Fault::Chunks);
            }
            bundle.kinds |= 1 << chunk.kind as u16;
        }
        if bundle.kinds == 0 { Err(Fault::Chunks) } else { Ok(bundle) }
    }

    /// Is any of `kinds` among them?
    pub(super) fn has_any(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| self.kinds & (1 << *kind as u16) != 0)
    }

    /// One after the other. Lengths were checked before.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let mut walk = Walk { rest: self.octets };
        core::iter::from_fn(move || walk.step().ok().flatten())
    }
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    /// The next chunk; nothing when fewer octets are left than a chunk header takes.
    fn step(&mut self) -> Result<Option<Chunk<'a>>, Fault> {
        let Some((&[kind, flags, a, b], behind)) = self.rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([a, b]));
        if length == 0 {
            return Err(Fault::Chunks);
        }
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Ok(Some(Chunk { kind: Kind::of(kind), flags, behind }))
    }
}

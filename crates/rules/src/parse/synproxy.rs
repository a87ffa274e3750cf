//! `synproxy mss 1460 wscale 7 timestamp sack-perm`, in a rule or as a named object.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::token::Word;
use crate::tree::{Object, ObjectBody, ObjectKind, Statement, Synproxy};

/// RFC 7323, 2.3.
const GREATEST_SCALE: u32 = 14;

impl Parser<'_> {
    /// Behind the word `synproxy`, in a rule.
    pub(super) fn synproxy(&mut self) -> Parsed<Statement> {
        if let Some(named) = self.named_object(ObjectKind::Synproxy)? {
            return Ok(named);
        }
        let mut proxy = Synproxy::default();
        while self.promise(&mut proxy)? {}
        Ok(Statement::Synproxy(proxy))
    }

    /// Behind the word `synproxy`, in a table: `NAME { mss 1460; wscale 7; timestamp sack-perm; }`.
    pub(super) fn synproxy_object(&mut self, table: usize) -> Parsed<()> {
        let (name, span) = self.name("its name")?;
        self.sign("{")?;
        let mut proxy = Synproxy::default();
        loop {
            self.skip_separators();
            if self.takes_sign("}") {
                return self.add_object(table, Object { name, span, what: ObjectBody::Synproxy(proxy) });
            }
            if self.takes("comment") {
                self.name("a comment")?;
            } else if !self.promise(&mut proxy)? {
                return Err(self.unexpected("mss, wscale, timestamp, sack-perm or `}`"));
            }
        }
    }

    /// One thing that clients are promised, if it is next.
    fn promise(&mut self, proxy: &mut Synproxy) -> Parsed<bool> {
        let Word::Name(word) = self.peek() else { return Ok(false) };
        match word.as_str() {
            "mss" => {
                self.next();
                let span = self.span();
                let size = self.number32("the largest segment, in octets")?;
                let size =
                    u16::try_from(size).map_err(|_| Fault::new(span, format!("no segment is {size} octets long")));
                proxy.mss = Some(size?);
            }
            "wscale" => {
                self.next();
                let span = self.span();
                let scale = self.number32("the window's scale")?;
                if scale > GREATEST_SCALE {
                    let what = format!("a window's scale is at most {GREATEST_SCALE}");
                    return Err(Fault::new(span, what).instead("the scale of the servers: 7 is Linux's, mostly"));
                }
                proxy.wscale = u8::try_from(scale).ok();
            }
            "timestamp" => {
                self.next();
                proxy.timestamp = true;
            }
            "sack-perm" => {
                self.next();
                proxy.sack = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

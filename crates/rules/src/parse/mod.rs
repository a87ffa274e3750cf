//! From words to a checked tree: recursive descent, one file a level of the language.
//!
//! The parser owns the words that are left. `include` and variables put other words in their place, so that nothing behind needs to know of either. What
//! a rule has wrong is kept, and the next rule is read; what a block has wrong ends the reading.
mod chain;
mod dynamic;
mod expression;
mod field;
mod nat;
mod piece;
mod selector;
mod set;
mod statement;
mod synproxy;
mod table;
mod timeout;
mod value;

use crate::fault::{Fault, Refused};
use crate::source::{Library, Sources, Span};
use crate::token::{Token, Word, words};
use crate::tree::{Family, Ruleset};
use std::collections::HashMap;

/// Includes within includes, blocks within blocks: no ruleset that people write comes near.
const DEEPEST: usize = 16;
/// Words of a ruleset with everything put in: variables of variables could else make any number.
const MOST_WORDS: usize = 5_000_000;
/// Faults that are told at once.
const MOST_FAULTS: usize = 20;

/// Reads a ruleset. `name` is what its text is called in messages.
///
/// ```
/// use keepstate_rules::{NoLibrary, parse};
/// let text = "table inet filter {
///     chain forward {
///         type filter hook forward priority filter; policy drop;
///         ct state established,related accept
///         iifname \"lan*\" tcp dport { 80, 443 } accept
///     }
/// }";
/// let ruleset = parse("rules.nft", text, &NoLibrary).unwrap();
/// assert_eq!(ruleset.tables[0].chains[0].rules.len(), 2);
/// ```
///
/// # Errors
/// What is wrong, with its place.
pub fn parse(name: &str, text: &str, library: &dyn Library) -> Result<Ruleset, Refused> {
    parse_with(name, text, library, &[]).map(|(ruleset, _)| ruleset)
}

/// As [`parse`], with variables defined before the first line, each by its name and text; gives the texts too, for messages about the tree.
///
/// # Errors
/// What is wrong, with its place.
pub fn parse_with(
    name: &str,
    text: &str,
    library: &dyn Library,
    variables: &[(String, String)],
) -> Result<(Ruleset, Sources), Refused> {
    let mut parser = Parser {
        sources: Sources::default(),
        library,
        tokens: Vec::new(),
        read: 0,
        depth: 0,
        variables: HashMap::new(),
        ruleset: Ruleset::default(),
        chains: HashMap::new(),
        faults: Vec::new(),
    };
    if let Err(fault) = parser.begin(name, text, variables).and_then(|()| parser.everything()) {
        parser.faults.push(fault);
    }
    if parser.faults.is_empty() {
        Ok((parser.ruleset, parser.sources))
    } else {
        Err(Refused { faults: parser.faults, sources: parser.sources })
    }
}

pub(crate) struct Parser<'a> {
    sources: Sources,
    library: &'a dyn Library,
    /// What is left, the next word last.
    tokens: Vec<Token>,
    read: usize,
    /// Braces that are open.
    depth: usize,
    variables: HashMap<String, Vec<Token>>,
    ruleset: Ruleset,
    /// Where each chain of each table stands.
    chains: HashMap<(usize, String), usize>,
    faults: Vec<Fault>,
}

type Parsed<T> = Result<T, Fault>;

impl Parser<'_> {
    fn begin(&mut self, name: &str, text: &str, variables: &[(String, String)]) -> Parsed<()> {
        for (variable, value) in variables {
            let file = self.sources.add(&format!("-D {variable}"), value.clone(), None);
            let mut value = words(file, value)?;
            value.pop();
            self.variables.insert(variable.clone(), value);
        }
        let file = self.sources.add(name, text.to_owned(), None);
        self.tokens = words(file, text)?;
        self.tokens.reverse();
        Ok(())
    }

    fn everything(&mut self) -> Parsed<()> {
        loop {
            self.skip_separators();
            if matches!(self.peek(), Word::End) {
                return Ok(());
            }
            self.command()?;
        }
    }

    /// One command of the outermost level.
    fn command(&mut self) -> Parsed<()> {
        if self.definition()? {
            return Ok(());
        }
        let (word, span) = self.name("a command: table, include, define, add, flush, delete")?;
        match word.as_str() {
            "include" => self.include(span),
            "table" => self.table(),
            "flush" => self.flush(),
            "add" | "create" => self.add(false),
            "insert" => self.add(true),
            "delete" | "destroy" => self.delete(),
            "replace" | "reset" | "list" | "rename" | "monitor" => {
                Err(Fault::new(span, format!("{word}: a ruleset is written from nothing here, and is loaded whole"))
                    .instead("write the rules in their order, in `table … { chain … { … } }`"))
            }
            _ => Err(Fault::new(span, format!("{word}: no such command"))
                .instead("table, include, define, add, flush or delete")),
        }
    }

    /// `define`, `redefine`, `undefine`: true if it was one.
    fn definition(&mut self) -> Parsed<bool> {
        let Word::Name(word) = self.peek() else { return Ok(false) };
        let again = match word.as_str() {
            "define" => false,
            "redefine" => true,
            "undefine" => {
                self.next();
                let (name, span) = self.name("a variable's name")?;
                if self.variables.remove(&name).is_none() {
                    return Err(Fault::new(span, format!("{name}: there is no such variable")));
                }
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.next();
        let (name, span) = self.name("a variable's name")?;
        if !again && self.variables.contains_key(&name) {
            return Err(Fault::new(span, format!("{name} is defined already")).instead("redefine changes a variable"));
        }
        self.sign("=")?;
        let mut value = Vec::new();
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Word::Separator if depth == 0 => break,
                Word::End => break,
                Word::Sign("{") => depth += 1,
                Word::Sign("}") if depth == 0 => break,
                Word::Sign("}") => depth -= 1,
                Word::Variable(_) => return Err(self.unexpected("a value")),
                _ => (),
            }
            value.push(self.next());
        }
        if value.is_empty() {
            return Err(Fault::new(span, format!("{name} is given no value")));
        }
        self.variables.insert(name, value);
        Ok(true)
    }

    fn include(&mut self, span: Span) -> Parsed<()> {
        let Token { kind: Word::Text(pattern), span: place } = self.next() else {
            return Err(Fault::new(span, "include wants a file's name in quotation marks"));
        };
        let mut depth = 0;
        let mut file = span.file;
        while let Some(from) = self.sources.included(file) {
            depth += 1;
            file = from.file;
        }
        if depth >= DEEPEST {
            return Err(Fault::new(place, format!("{DEEPEST} files include one another: is it a circle?")));
        }
        let texts = self.library.read(&pattern, self.sources.name(span.file));
        let texts = texts.map_err(|why| Fault::new(place, format!("{pattern}: {why}")))?;
        for (name, text) in texts.into_iter().rev() {
            let file = self.sources.add(&name, text.clone(), Some(place));
            let mut tokens = words(file, &text)?;
            // Its end is not the end of everything.
            if let Some(last) = tokens.last_mut() {
                last.kind = Word::Separator;
            }
            self.put(tokens, place)?;
        }
        Ok(())
    }

    /// Puts words in front of those that are left.
    fn put(&mut self, tokens: Vec<Token>, span: Span) -> Parsed<()> {
        if self.tokens.len() + tokens.len() + self.read > MOST_WORDS {
            return Err(Fault::new(span, format!("with this, the ruleset has more than {MOST_WORDS} words")));
        }
        self.tokens.extend(tokens.into_iter().rev());
        Ok(())
    }

    /// The next word; variables are exchanged for their values first. One that is not defined stays as it is, and fits nowhere.
    fn peek(&mut self) -> &Word {
        while let Some(Token { kind: Word::Variable(name), span }) = self.tokens.last() {
            let Some(value) = self.variables.get(name) else { break };
            let (value, span) = (value.clone(), *span);
            self.tokens.pop();
            if let Err(fault) = self.put(value, span) {
                self.faults.push(fault);
                self.tokens.clear();
            }
        }
        self.tokens.last().map_or(&Word::End, |token| &token.kind)
    }

    fn next(&mut self) -> Token {
        self.peek();
        self.read += 1;
        // The end is never taken away.
        match self.tokens.last() {
            Some(Token { kind: Word::End, .. }) | None => {
                self.tokens.last().cloned().unwrap_or(Token { kind: Word::End, span: Span::default() })
            }
            Some(Token { kind, .. }) => {
                match kind {
                    Word::Sign("{") => self.depth += 1,
                    Word::Sign("}") => self.depth = self.depth.saturating_sub(1),
                    _ => (),
                }
                self.tokens.pop().unwrap_or(Token { kind: Word::End, span: Span::default() })
            }
        }
    }

    fn span(&mut self) -> Span {
        self.peek();
        self.tokens.last().map_or(Span::default(), |token| token.span)
    }

    /// The word behind the next one, as it is written.
    fn second(&mut self) -> &Word {
        self.peek();
        let behind = self.tokens.len().checked_sub(2);
        behind.and_then(|at| self.tokens.get(at)).map_or(&Word::End, |token| &token.kind)
    }

    fn unexpected(&mut self, wanted: &str) -> Fault {
        let span = self.span();
        match self.peek() {
            Word::Variable(name) => {
                let what = format!("${name} is not defined");
                Fault::new(span, what).instead("define it above this line, or give it with -D")
            }
            other => {
                let what = format!("{}: {wanted} is wanted here", other.shown());
                Fault::new(span, what)
            }
        }
    }

    fn skip_separators(&mut self) {
        while matches!(self.peek(), Word::Separator) {
            self.next();
        }
    }

    /// A name or a text.
    fn name(&mut self, wanted: &str) -> Parsed<(String, Span)> {
        match self.peek() {
            Word::Name(_) | Word::Text(_) => match self.next() {
                Token { kind: Word::Name(name) | Word::Text(name), span } => Ok((name, span)),
                Token { span, .. } => Err(Fault::new(span, wanted)),
            },
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn number(&mut self, wanted: &str) -> Parsed<(u64, Span)> {
        match self.peek() {
            Word::Number(number) => {
                let number = *number;
                Ok((number, self.next().span))
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn number32(&mut self, wanted: &str) -> Parsed<u32> {
        let (number, span) = self.number(wanted)?;
        u32::try_from(number).map_err(|_| Fault::new(span, format!("{number} is too large: at most {}", u32::MAX)))
    }

    /// Takes this name if it is next.
    fn takes(&mut self, name: &str) -> bool {
        let is = matches!(self.peek(), Word::Name(next) if next == name);
        if is {
            self.next();
        }
        is
    }

    /// Takes this sign if it is next.
    fn takes_sign(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Word::Sign(next) if *next == sign);
        if is {
            self.next();
        }
        is
    }

    fn sign(&mut self, sign: &str) -> Parsed<()> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn keyword(&mut self, name: &str) -> Parsed<()> {
        if self.takes(name) { Ok(()) } else { Err(self.unexpected(&format!("`{name}`"))) }
    }

    /// The end of a statement's line.
    fn ends(&mut self) -> Parsed<()> {
        match self.peek() {
            Word::Separator => {
                self.next();
                Ok(())
            }
            Word::End | Word::Sign("}") => Ok(()),
            _ => Err(self.unexpected("the end of the line")),
        }
    }

    /// Keeps a fault and goes on behind its line, in the block that is `depth` braces deep.
    fn recover(&mut self, fault: Fault, depth: usize) -> Parsed<()> {
        if self.faults.len() + 1 >= MOST_FAULTS {
            return Err(fault);
        }
        self.faults.push(fault);
        loop {
            let here = self.depth <= depth;
            match self.peek() {
                Word::End => return Ok(()),
                Word::Separator | Word::Sign("}") if here => return Ok(()),
                _ => (),
            }
            self.next();
        }
    }

    /// A family, if one is next; `ip` otherwise.
    fn family(&mut self) -> Parsed<Family> {
        let span = self.span();
        let Word::Name(name) = self.peek() else { return Ok(Family::Ip) };
        let family = match name.as_str() {
            "ip" => Family::Ip,
            "ip6" => Family::Ip6,
            "inet" => Family::Inet,
            "arp" | "bridge" | "netdev" => {
                let what = format!("{name}: tables of this family are not for a router");
                return Err(Fault::new(span, what).instead("ip, ip6 or inet; leave this one to the kernel"));
            }
            _ => return Ok(Family::Ip),
        };
        self.next();
        Ok(family)
    }
}

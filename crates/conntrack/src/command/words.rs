//! The words of a command line, taken apart as getopt_long does: letters may be bundled, values attached, long names shortened.
use super::fault::Fault;
use super::grammar::{COMMANDS, OPTIONS, Spec, Value, of_protocol};

/// Words, and how far they are read. It is made of a command line, asked for one option after another, and ends with it.
pub(super) struct Words<'a> {
    rest: std::slice::Iter<'a, String>,
    /// Letters of a bundle that are not read yet.
    bundle: &'a str,
}

/// An option as it was given.
pub(super) struct Given<'a> {
    pub(super) spec: &'static Spec,
    pub(super) value: Option<&'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a [String]) -> Self {
        Words { rest: words.iter(), bundle: "" }
    }

    /// The next option, with those of `protocol` known; `None` at the end. Words that are no options are passed over.
    ///
    /// # Errors
    /// An option that there is not, or one without the value it must have.
    pub(super) fn next(&mut self, protocol: Option<u8>) -> Result<Option<Given<'a>>, Fault> {
        if !self.bundle.is_empty() {
            return self.letter().map(Some);
        }
        loop {
            let Some(word) = self.rest.next() else { return Ok(None) };
            match word.strip_prefix("--") {
                Some("") => {
                    self.rest = [].iter();
                    return Ok(None);
                }
                Some(long) => return self.long(word, long, protocol).map(Some),
                None => {}
            }
            if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                self.bundle = letters;
                return self.letter().map(Some);
            }
        }
    }

    /// The next word, if it is no option: it belongs to the option before. Inside a bundle there is none.
    pub(super) fn plain(&mut self) -> Option<&'a str> {
        let next = self.rest.as_slice().first().filter(|word| self.bundle.is_empty() && !word.starts_with('-'))?;
        self.rest.next();
        Some(next)
    }

    fn letter(&mut self) -> Result<Given<'a>, Fault> {
        let mut letters = self.bundle.chars();
        let letter = letters.next().unwrap_or_default();
        let attached = letters.as_str();
        self.bundle = "";
        let known = COMMANDS.iter().chain(OPTIONS).find(|spec| spec.short == Some(letter));
        let Some(spec) = known else { return Err(unknown(&format!("-{letter}"))) };
        let value = match spec.value {
            Value::None => {
                self.bundle = attached;
                None
            }
            Value::Ignored => None,
            Value::Required => {
                Some(if attached.is_empty() { self.following(&format!("-{letter}"))? } else { attached })
            }
            Value::Optional => {
                if attached.is_empty() {
                    self.plain()
                } else {
                    Some(attached)
                }
            }
        };
        Ok(Given { spec, value })
    }

    fn long(&mut self, word: &'a str, long: &'a str, protocol: Option<u8>) -> Result<Given<'a>, Fault> {
        let (name, attached) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let spec = find(name, protocol).ok_or_else(|| unknown(word))?;
        let value = match (spec.value, attached) {
            (Value::None, Some(_)) => return Err(unknown(word)),
            (Value::None | Value::Ignored, _) => None,
            (Value::Required, None) => Some(self.following(word)?),
            (Value::Optional, None) => self.plain(),
            (Value::Required | Value::Optional, Some(value)) => Some(value),
        };
        Ok(Given { spec, value })
    }

    fn following(&mut self, option: &str) -> Result<&'a str, Fault> {
        let missing = || Fault::usage(format!("option `{option}' requires an argument"));
        self.rest.next().map(String::as_str).ok_or_else(missing)
    }
}

/// The option with this name, or the only one whose name begins so.
fn find(name: &str, protocol: Option<u8>) -> Option<&'static Spec> {
    let known = || COMMANDS.iter().chain(OPTIONS).chain(protocol.into_iter().flat_map(of_protocol));
    if let Some(exact) = known().find(|spec| spec.long.contains(&name)) {
        return Some(exact);
    }
    let mut candidates = known().filter(|spec| spec.long.iter().any(|long| long.starts_with(name)));
    candidates.next().filter(|_| candidates.next().is_none())
}

fn unknown(option: &str) -> Fault {
    Fault::usage(format!("unknown option `{option}'"))
}

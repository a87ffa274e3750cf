//! A command line split into options as getopt_long does it: short options may be bundled, values attached, long names abbreviated.
use super::error::ConntrackError;
use super::grammar::{COMMANDS, HasArg, OPTIONS, OptSpec, protocol_options};

/// A command line being read, one option after another, to its end.
pub(super) struct Getopt<'a> {
    rest: std::slice::Iter<'a, String>,
    /// Short options of a bundle that are not read yet.
    bundle: &'a str,
}

/// An option as given.
pub(super) struct GivenOpt<'a> {
    pub(super) spec: &'static OptSpec,
    pub(super) value: Option<&'a str>,
    /// Something was attached to an option that ignores it.
    pub(super) is_attached: bool,
}

impl<'a> Getopt<'a> {
    pub(super) fn new(words: &'a [String]) -> Self {
        Getopt { rest: words.iter(), bundle: "" }
    }

    /// The next option, with the options of `protocol` known; `None` at the end. Operands are skipped.
    ///
    /// # Errors
    /// An unknown option, or one without its required value.
    pub(super) fn next_option(&mut self, protocol: Option<u8>) -> Result<Option<GivenOpt<'a>>, ConntrackError> {
        if !self.bundle.is_empty() {
            return self.short_option().map(Some);
        }
        loop {
            let Some(word) = self.rest.next() else { return Ok(None) };
            match word.strip_prefix("--") {
                Some("") => {
                    self.rest = [].iter();
                    return Ok(None);
                }
                Some(long) => return self.long_option(word, long, protocol).map(Some),
                None => {}
            }
            if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                self.bundle = letters;
                return self.short_option().map(Some);
            }
        }
    }

    /// The next word, if it is no option: the optional value of the option before. Inside a bundle there is none.
    pub(super) fn next_operand(&mut self) -> Option<&'a str> {
        let next = self.rest.as_slice().first().filter(|word| self.bundle.is_empty() && !word.starts_with('-'))?;
        self.rest.next();
        Some(next)
    }

    fn short_option(&mut self) -> Result<GivenOpt<'a>, ConntrackError> {
        let mut letters = self.bundle.chars();
        let letter = letters.next().unwrap_or_default();
        let attached = letters.as_str();
        self.bundle = "";
        let known = COMMANDS.iter().chain(OPTIONS).find(|spec| spec.short == Some(letter));
        let Some(spec) = known else { return Err(unknown_option(&format!("-{letter}"))) };
        let value = match spec.has_arg {
            HasArg::None => {
                self.bundle = attached;
                None
            }
            HasArg::Ignored => None,
            HasArg::Required => {
                Some(if attached.is_empty() { self.required_argument(&format!("-{letter}"))? } else { attached })
            }
            HasArg::Optional => {
                if attached.is_empty() {
                    self.next_operand()
                } else {
                    Some(attached)
                }
            }
        };
        let is_attached = matches!(spec.has_arg, HasArg::Ignored) && !attached.is_empty();
        Ok(GivenOpt { spec, value, is_attached })
    }

    fn long_option(
        &mut self,
        word: &'a str,
        long: &'a str,
        protocol: Option<u8>,
    ) -> Result<GivenOpt<'a>, ConntrackError> {
        let (name, attached) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let spec = find_long(name, protocol).ok_or_else(|| unknown_option(word))?;
        let value = match (spec.has_arg, attached) {
            (HasArg::None, Some(_)) => return Err(unknown_option(word)),
            (HasArg::None | HasArg::Ignored, _) => None,
            (HasArg::Required, None) => Some(self.required_argument(word)?),
            (HasArg::Optional, None) => self.next_operand(),
            (HasArg::Required | HasArg::Optional, Some(value)) => Some(value),
        };
        let is_attached = matches!(spec.has_arg, HasArg::Ignored) && attached.is_some();
        Ok(GivenOpt { spec, value, is_attached })
    }

    fn required_argument(&mut self, option: &str) -> Result<&'a str, ConntrackError> {
        let missing = || ConntrackError::usage(format!("option `{option}' requires an argument"));
        self.rest.next().map(String::as_str).ok_or_else(missing)
    }
}

/// The option with this name, or the only one whose name begins with it.
fn find_long(name: &str, protocol: Option<u8>) -> Option<&'static OptSpec> {
    let known = || COMMANDS.iter().chain(OPTIONS).chain(protocol.into_iter().flat_map(protocol_options));
    if let Some(exact) = known().find(|spec| spec.long.contains(&name)) {
        return Some(exact);
    }
    let mut candidates = known().filter(|spec| spec.long.iter().any(|long| long.starts_with(name)));
    candidates.next().filter(|_| candidates.next().is_none())
}

fn unknown_option(option: &str) -> ConntrackError {
    ConntrackError::usage(format!("unknown option `{option}'"))
}

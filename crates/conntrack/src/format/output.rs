//! What `-o` asks for.

/// The options of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Begin lines with the network layer's name and number.
    pub extended: bool,
    /// Show ids.
    pub id: bool,
    /// Begin events with their time.
    pub timestamp: bool,
    /// Show when connections began and ended.
    pub ktimestamp: bool,
    /// Show labels.
    pub labels: bool,
    /// The format.
    pub kind: Kind,
}

/// A format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A line a connection, as `conntrack -L` prints it.
    #[default]
    Line,
    /// One XML document.
    Xml,
    /// The arguments of `conntrack` that would make the connection again.
    Save,
    /// One array of objects; events as one object a line.
    Json,
}

/// Every name that `-o` knows. `userspace` is taken and has no effect: nobody but us is the cause of an event.
const NAMES: &str = "extended, id, timestamp, ktimestamp, labels, userspace, xml, save, json";

const SAVE_ALONE: &str = "save cannot be combined with another output option: use -o save alone";
const ONE_KIND: &str = "xml, save and json exclude each other: choose one";

impl Output {
    /// Reads a list as in `-o extended,id`; names in any case, as conntrack takes them.
    ///
    /// # Errors
    /// A sentence for the user: an unknown name, or two formats that exclude each other.
    ///
    /// ```
    /// use keepstate::format::{Kind, Output};
    /// let output = Output::parse("xml,ktimestamp").unwrap();
    /// assert!(output.kind == Kind::Xml && output.ktimestamp && !output.id);
    /// assert!(Output::parse("yaml").is_err());
    /// ```
    pub fn parse(list: &str) -> Result<Output, String> {
        let mut output = Output::default();
        let mut kinds = Vec::new();
        let mut others = 0;
        for name in list.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            let option = match name.as_str() {
                "xml" | "save" | "json" => None,
                "extended" => Some(&mut output.extended),
                "id" => Some(&mut output.id),
                "timestamp" => Some(&mut output.timestamp),
                "ktimestamp" => Some(&mut output.ktimestamp),
                "labels" => Some(&mut output.labels),
                "userspace" => {
                    others += 1;
                    continue;
                }
                _ => return Err(format!("unknown output option '{}': it is one of {NAMES}", name.escape_debug())),
            };
            match option {
                Some(option) => {
                    *option = true;
                    others += 1;
                }
                None => kinds.push(match name.as_str() {
                    "xml" => Kind::Xml,
                    "save" => Kind::Save,
                    _ => Kind::Json,
                }),
            }
        }
        kinds.dedup();
        match kinds.as_slice() {
            [] => {}
            [Kind::Save] if others > 0 => return Err(SAVE_ALONE.to_owned()),
            [kind] => output.kind = *kind,
            _ => return Err(ONE_KIND.to_owned()),
        }
        Ok(output)
    }

    /// Both together, as when `-o` is given twice.
    ///
    /// # Errors
    /// As [`Output::parse`].
    pub fn and(self, other: Output) -> Result<Output, String> {
        let sum = Output {
            extended: self.extended || other.extended,
            id: self.id || other.id,
            timestamp: self.timestamp || other.timestamp,
            ktimestamp: self.ktimestamp || other.ktimestamp,
            labels: self.labels || other.labels,
            kind: if self.kind == Kind::Line { other.kind } else { self.kind },
        };
        if self.kind != Kind::Line && other.kind != Kind::Line && self.kind != other.kind {
            return Err(ONE_KIND.to_owned());
        }
        let alone = Output { kind: Kind::Save, ..Output::default() };
        if sum.kind == Kind::Save && sum != alone { Err(SAVE_ALONE.to_owned()) } else { Ok(sum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_add_up() {
        let all = Output::parse("extended,id,timestamp,ktimestamp,labels").unwrap();
        assert_eq!(
            all,
            Output { extended: true, id: true, timestamp: true, ktimestamp: true, labels: true, kind: Kind::Line }
        );
        assert_eq!(Output::parse("XML,Id").unwrap(), Output { id: true, kind: Kind::Xml, ..Output::default() });
        assert_eq!(Output::parse("userspace").unwrap(), Output::default());
        assert_eq!(Output::parse("json,json").unwrap().kind, Kind::Json);
    }

    #[test]
    fn given_twice_they_add_up_too() {
        let both = |first: &str, second: &str| Output::parse(first).unwrap().and(Output::parse(second).unwrap());
        for (first, second) in [("id", "extended"), ("xml", "id,labels"), ("json", "json"), ("save", "save")] {
            let list = if first == second { first.to_owned() } else { format!("{first},{second}") };
            assert_eq!(both(first, second), Output::parse(&list));
            assert_eq!(both(second, first), Output::parse(&list));
        }
        assert!(both("xml", "json").unwrap_err().contains("choose one"));
        assert!(both("save", "id").unwrap_err().contains("alone") && both("id", "save").unwrap_err().contains("alone"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Output::parse("zone").unwrap_err().contains("ktimestamp, labels"), "the error lists the names");
        assert!(Output::parse("").is_err());
        assert!(Output::parse("save,id").unwrap_err().contains("alone"));
        assert!(Output::parse("xml,json").unwrap_err().contains("exclude"));
        assert!(
            !Output::parse("\x1b[2J").unwrap_err().contains('\x1b'),
            "nothing the user typed reaches the terminal raw"
        );
    }
}

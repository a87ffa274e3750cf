//! What `-o` asks for.

/// The options of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputOptions {
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
    pub format: OutputFormat,
}

/// A format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
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

/// Every name that `-o` knows. `userspace` has no effect: no other program causes events in our engine.
const NAMES: &str = "extended, id, timestamp, ktimestamp, labels, userspace, xml, save, json";

const SAVE_ALONE: &str = "save cannot be combined with another output option: use -o save alone";
const ONE_FORMAT: &str = "xml, save and json exclude each other: choose one";

impl OutputOptions {
    /// Reads a list as in `-o extended,id`; names in any case, as conntrack takes them.
    ///
    /// # Errors
    /// A sentence for the user: an unknown name, or two formats that exclude each other.
    ///
    /// ```
    /// use keepstate_conntrack::format::{OutputFormat, OutputOptions};
    /// let output = OutputOptions::parse("xml,ktimestamp").unwrap();
    /// assert!(output.format == OutputFormat::Xml && output.ktimestamp && !output.id);
    /// assert!(OutputOptions::parse("yaml").is_err());
    /// ```
    pub fn parse(list: &str) -> Result<OutputOptions, String> {
        let mut output = OutputOptions::default();
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
                    "xml" => OutputFormat::Xml,
                    "save" => OutputFormat::Save,
                    _ => OutputFormat::Json,
                }),
            }
        }
        kinds.dedup();
        match kinds.as_slice() {
            [] => {}
            [OutputFormat::Save] if others > 0 => return Err(SAVE_ALONE.to_owned()),
            [kind] => output.format = *kind,
            _ => return Err(ONE_FORMAT.to_owned()),
        }
        Ok(output)
    }

    /// Is it one document, with a beginning and an end?
    pub fn is_document(self) -> bool {
        matches!(self.format, OutputFormat::Xml | OutputFormat::Json)
    }

    /// Both together, as when `-o` is given twice.
    ///
    /// # Errors
    /// As [`OutputOptions::parse`].
    pub fn merge(self, other: OutputOptions) -> Result<OutputOptions, String> {
        let sum = OutputOptions {
            extended: self.extended || other.extended,
            id: self.id || other.id,
            timestamp: self.timestamp || other.timestamp,
            ktimestamp: self.ktimestamp || other.ktimestamp,
            labels: self.labels || other.labels,
            format: if self.format == OutputFormat::Line { other.format } else { self.format },
        };
        if self.format != OutputFormat::Line && other.format != OutputFormat::Line && self.format != other.format {
            return Err(ONE_FORMAT.to_owned());
        }
        let alone = OutputOptions { format: OutputFormat::Save, ..OutputOptions::default() };
        if sum.format == OutputFormat::Save && sum != alone { Err(SAVE_ALONE.to_owned()) } else { Ok(sum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_options_combine() {
        let all = OutputOptions::parse("extended,id,timestamp,ktimestamp,labels").unwrap();
        assert_eq!(
            all,
            OutputOptions {
                extended: true,
                id: true,
                timestamp: true,
                ktimestamp: true,
                labels: true,
                format: OutputFormat::Line
            }
        );
        assert_eq!(
            OutputOptions::parse("XML,Id").unwrap(),
            OutputOptions { id: true, format: OutputFormat::Xml, ..OutputOptions::default() }
        );
        assert_eq!(OutputOptions::parse("userspace").unwrap(), OutputOptions::default());
        assert_eq!(OutputOptions::parse("json,json").unwrap().format, OutputFormat::Json);
    }

    #[test]
    fn repeated_output_options_merge() {
        let both = |first: &str, second: &str| {
            OutputOptions::parse(first).unwrap().merge(OutputOptions::parse(second).unwrap())
        };
        for (first, second) in [("id", "extended"), ("xml", "id,labels"), ("json", "json"), ("save", "save")] {
            let list = if first == second { first.to_owned() } else { format!("{first},{second}") };
            assert_eq!(both(first, second), OutputOptions::parse(&list));
            assert_eq!(both(second, first), OutputOptions::parse(&list));
        }
        assert!(both("xml", "json").unwrap_err().contains("choose one"));
        assert!(both("save", "id").unwrap_err().contains("alone") && both("id", "save").unwrap_err().contains("alone"));
    }

    #[test]
    fn invalid_combinations_are_rejected() {
        assert!(OutputOptions::parse("zone").unwrap_err().contains("ktimestamp, labels"), "the error lists the names");
        assert!(OutputOptions::parse("").is_err());
        assert!(OutputOptions::parse("save,id").unwrap_err().contains("alone"));
        assert!(OutputOptions::parse("xml,json").unwrap_err().contains("exclude"));
        assert!(
            !OutputOptions::parse("\x1b[2J").unwrap_err().contains('\x1b'),
            "nothing the user typed reaches the terminal raw"
        );
    }
}

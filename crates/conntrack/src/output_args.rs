//! The output options of commands that show connections of our engine: format, events, counters, filters.
use crate::filter_args::FilterArgs;
use crate::format::OutputOptions;
use keepstate_engine::{Sysctl, Sysctls};

/// What to show and how.
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", command(next_help_heading = "Output"))]
pub struct OutputArgs {
    /// Format, separated by commas: extended, id, timestamp, ktimestamp, labels, xml, save, json
    #[cfg_attr(feature = "clap", arg(short, long = "output", value_name = "LIST", value_parser = OutputOptions::parse))]
    outputs: Vec<OutputOptions>,
    /// Print each event, as conntrack -E does, instead of the table
    #[cfg_attr(feature = "clap", arg(long))]
    pub events: bool,
    /// Print the counters of conntrack -S instead of the table (with --events or --each: after them)
    #[cfg_attr(feature = "clap", arg(long))]
    pub stats: bool,
    /// Accepted as in conntrack -z; has no effect here, since counting has ended
    #[cfg_attr(feature = "clap", arg(short = 'z', long))]
    pub zero: bool,
    /// Which entries and events.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub filter: FilterArgs,
}

impl OutputArgs {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.outputs.iter().try_fold(OutputOptions::default(), |sum, more| sum.merge(*more))?;
        if self.stats && self.events && self.is_document() {
            return Err(
                "--stats and --events with -o xml or json exclude each other: a document of events has no place for counters"
                    .into(),
            );
        }
        self.filter.check()
    }

    /// Every `-o` option together.
    pub fn output(&self) -> OutputOptions {
        self.outputs.iter().fold(OutputOptions::default(), |sum, more| sum.merge(*more).unwrap_or(sum))
    }

    /// Was no `-o` given?
    pub fn is_default_format(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Is the output one document, so that nothing may be printed between its lines?
    pub fn is_document(&self) -> bool {
        self.output().is_document()
    }

    /// A note for the user if these sysctls leave a requested field empty.
    pub fn missing(&self, sysctls: &Sysctls) -> Option<&'static str> {
        (self.output().ktimestamp && sysctls[Sysctl::Timestamp] == 0).then_some(
            "-o ktimestamp shows no times while nf_conntrack_timestamp is 0, as in Linux: --set nf_conntrack_timestamp=1",
        )
    }
}

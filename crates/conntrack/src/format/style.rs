//! The settings of a writer.
use super::datetime::DateFormat;
use super::labels::LabelNames;
use super::output::OutputOptions;

/// What all formats need besides the connection.
pub(super) struct FormatStyle {
    pub(super) output: OutputOptions,
    pub(super) dates: DateFormat,
    pub(super) labels: LabelNames,
}

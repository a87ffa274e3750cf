//! The columns, in the order of a JSON line's keys (docs/flow-log.md).
use parquet::errors::ParquetError;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;
use std::fmt::Write;
use std::sync::Arc;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    /// A number of 64 bits.
    Count,
    /// A number of 16 bits.
    Port,
    /// A time: microseconds since 1970, UTC.
    Time,
    /// True or false.
    Flag,
    /// Text; addresses too, so that every reader can compare them.
    Text,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogColumn {
    pub(crate) key: &'static str,
    pub(crate) kind: ColumnKind,
    /// Does every record have it?
    pub(crate) is_required: bool,
}

const fn required(key: &'static str, kind: ColumnKind) -> LogColumn {
    LogColumn { key, kind, is_required: true }
}

const fn optional(key: &'static str, kind: ColumnKind) -> LogColumn {
    LogColumn { key, kind, is_required: false }
}

/// All of them.
pub(crate) const COLUMNS: [LogColumn; 29] = {
    use ColumnKind::{Count, Flag, Port, Text, Time};
    [
        required("seq", Count),
        required("at", Time),
        required("event", Text),
        optional("protocol", Text),
        optional("zone", Port),
        optional("nat", Flag),
        optional("src", Text),
        optional("src_port", Port),
        optional("dst", Text),
        optional("dst_port", Port),
        optional("nat_src", Text),
        optional("nat_src_port", Port),
        optional("nat_dst", Text),
        optional("nat_dst_port", Port),
        optional("start", Time),
        optional("duration_ms", Count),
        optional("packets", Count),
        optional("bytes", Count),
        optional("reply_packets", Count),
        optional("reply_bytes", Count),
        optional("first_port", Port),
        optional("last_port", Port),
        optional("limit", Count),
        optional("refused", Count),
        optional("lost", Count),
        optional("total", Count),
        optional("version", Count),
        optional("instance", Text),
        optional("connections", Count),
    ]
};

/// The schema of a file.
pub(crate) fn schema() -> Result<TypePtr, ParquetError> {
    let mut text = "message flow_log {\n".to_owned();
    for LogColumn { key, kind, is_required } in COLUMNS {
        let repetition = if is_required { "REQUIRED" } else { "OPTIONAL" };
        let (physical, logical) = match kind {
            ColumnKind::Count => ("INT64", " (INTEGER(64,false))"),
            ColumnKind::Port => ("INT32", " (INTEGER(16,false))"),
            ColumnKind::Time => ("INT64", " (TIMESTAMP(MICROS,true))"),
            ColumnKind::Flag => ("BOOLEAN", ""),
            ColumnKind::Text => ("BYTE_ARRAY", " (STRING)"),
        };
        let _ = writeln!(text, "  {repetition} {physical} {key}{logical};");
    }
    text.push('}');
    parse_message_type(&text).map(Arc::new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn the_schema_has_every_column() {
        let schema = schema().unwrap();
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, COLUMNS.map(|column| column.key));
    }
}

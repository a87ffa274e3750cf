//! JSON lines, taken apart into columns: many rows at a time.
use crate::columns::{COLUMNS, ColumnKind, LogColumn, schema};
use crate::error::ParquetLogError;
use keepstate_flowlog::LogTime;
use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use serde_json::{Map, Value};
use std::io::Write;
use std::sync::Arc;

/// Rows of a group: as many as are in memory.
const GROUP_ROWS: usize = 1 << 16;

/// Writes one file.
pub struct ParquetLogWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    rows: Vec<Map<String, Value>>,
}

impl<W: Write + Send> ParquetLogWriter<W> {
    /// A file that begins at the beginning of `out`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(out: W) -> Result<ParquetLogWriter<W>, ParquetLogError> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = SerializedFileWriter::new(out, schema()?, Arc::new(properties))?;
        Ok(ParquetLogWriter { file, rows: Vec::new() })
    }

    /// Adds a line, without its newline.
    ///
    /// # Errors
    /// It is none, or it cannot be written.
    pub fn push(&mut self, line: &[u8]) -> Result<(), ParquetLogError> {
        let row: Map<String, Value> = serde_json::from_slice(line)?;
        if let Some(key) = row.keys().find(|key| COLUMNS.iter().all(|column| column.key != key.as_str())) {
            return Err(ParquetLogError::UnknownKey(key.clone()));
        }
        self.rows.push(row);
        if self.rows.len() >= GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    /// Writes what is left, and the file's end.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(), ParquetLogError> {
        self.write_group()?;
        self.file.close()?;
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), ParquetLogError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for column in COLUMNS {
            if let Some(mut out) = group.next_column()? {
                match column.kind {
                    ColumnKind::Count => write_column::<Int64Type>(&column, &rows, &mut out, count)?,
                    ColumnKind::Time => write_column::<Int64Type>(&column, &rows, &mut out, time)?,
                    ColumnKind::Port => write_column::<Int32Type>(&column, &rows, &mut out, port)?,
                    ColumnKind::Flag => write_column::<BoolType>(&column, &rows, &mut out, Value::as_bool)?,
                    ColumnKind::Text => write_column::<ByteArrayType>(&column, &rows, &mut out, text)?,
                }
                out.close()?;
            }
        }
        group.close()?;
        Ok(())
    }
}

fn write_column<T: DataType>(
    column: &LogColumn,
    rows: &[Map<String, Value>],
    out: &mut SerializedColumnWriter<'_>,
    convert: impl Fn(&Value) -> Option<T::T>,
) -> Result<(), ParquetLogError> {
    let impossible = |value: String| ParquetLogError::Impossible { key: column.key.to_owned(), value };
    let mut values = Vec::with_capacity(rows.len());
    let mut levels = Vec::with_capacity(rows.len());
    for row in rows {
        match row.get(column.key) {
            Some(value) => {
                values.push(convert(value).ok_or_else(|| impossible(value.to_string()))?);
                levels.push(1);
            }
            None if column.is_required => return Err(impossible("nothing".to_owned())),
            None => levels.push(0),
        }
    }
    let levels = (!column.is_required).then_some(levels.as_slice());
    out.typed::<T>().write_batch(&values, levels, None)?;
    Ok(())
}

/// Unsigned numbers stand in signed columns, bit by bit; the schema says so.
fn count(value: &Value) -> Option<i64> {
    value.as_u64().map(u64::cast_signed)
}

fn port(value: &Value) -> Option<i32> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).map(i32::from)
}

fn time(value: &Value) -> Option<i64> {
    let time: LogTime = value.as_str()?.parse().ok()?;
    i64::try_from(time.0 / 1000).ok()
}

fn text(value: &Value) -> Option<ByteArray> {
    value.as_str().map(|text| ByteArray::from(text.as_bytes().to_vec()))
}

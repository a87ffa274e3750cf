//! Rows of a file, put together to JSON lines.
use crate::columns::{COLUMNS, schema};
use crate::error::ParquetLogError;
use keepstate_flowlog::LogTime;
use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Value};
use std::fs::File;

/// Reads one file: its lines, in their order.
pub struct ParquetLogReader {
    rows: RowIter<'static>,
}

impl ParquetLogReader {
    /// Reads the file's end, which has its schema.
    ///
    /// # Errors
    /// It is no Parquet file, or not one of a flow log.
    pub fn new(file: File) -> Result<ParquetLogReader, ParquetLogError> {
        let reader = SerializedFileReader::new(file)?;
        let found = reader.metadata().file_metadata().schema_descr().root_schema_ptr();
        let wanted = schema()?;
        let has_ours = COLUMNS.iter().zip(found.get_fields()).all(|(column, field)| column.key == field.name())
            && found.get_fields().len() == wanted.get_fields().len();
        if !has_ours {
            return Err(ParquetError::General("its columns are not those of a flow log".into()).into());
        }
        Ok(ParquetLogReader { rows: RowIter::from_file_into(Box::new(reader)) })
    }
}

impl Iterator for ParquetLogReader {
    /// A line, without its newline.
    type Item = Result<Vec<u8>, ParquetLogError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next().map(|row| line(&row?))
    }
}

fn line(row: &Row) -> Result<Vec<u8>, ParquetLogError> {
    let mut object = Map::new();
    for (key, field) in row.get_column_iter() {
        let value = match field {
            Field::Null => continue,
            Field::Bool(value) => Value::from(*value),
            Field::UShort(value) => Value::from(*value),
            Field::ULong(value) => Value::from(*value),
            Field::Str(value) => Value::from(value.as_str()),
            Field::TimestampMicros(micros) => time(*micros).ok_or_else(|| impossible(key, micros.to_string()))?,
            other => return Err(impossible(key, other.to_string())),
        };
        object.insert(key.clone(), value);
    }
    Ok(serde_json::to_vec(&object)?)
}

fn time(micros: i64) -> Option<Value> {
    let nanos = u64::try_from(micros).ok()?.checked_mul(1000)?;
    Some(Value::from(LogTime(nanos).to_string()))
}

fn impossible(key: &str, value: String) -> ParquetLogError {
    ParquetLogError::Impossible { key: key.to_owned(), value }
}

//! Flow logs as Parquet files: the keys of their JSON lines as columns of the same names, there and back. Reads and writes nothing but what it is given.
//!
//! A line is taken apart by [`ParquetLogWriter`], a column a key, and put together by [`ParquetLogReader`]. A key without a column is an error, never left out.
mod columns;
mod error;
mod reader;
mod writer;

pub use error::ParquetLogError;
pub use reader::ParquetLogReader;
pub use writer::ParquetLogWriter;

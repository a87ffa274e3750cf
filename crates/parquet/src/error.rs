//! Why a log cannot be written as Parquet, or read.
use parquet::errors::ParquetError;

/// Why not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParquetLogError {
    /// It cannot be written or read.
    #[error("Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// What is to be written is no line of a log.
    #[error("not a JSON object: {0}")]
    NoObject(#[from] serde_json::Error),
    /// A newer keepstate has written the line.
    #[error("the key {0} has no column: use the keepstate that wrote the log")]
    UnknownKey(String),
    /// A value that the key cannot have.
    #[error("{key}: {value} is not possible")]
    Impossible {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
}

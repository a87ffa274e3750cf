//! Flow logs as Parquet files: made of JSON lines when an hour is over, and read by `keepstate who`. Without the feature `parquet` there is only what says so.
use anyhow::Result;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How a Parquet file begins.
const MAGIC: [u8; 4] = *b"PAR1";

/// The lines of a file.
pub(crate) type ParquetLines = Box<dyn Iterator<Item = Result<Vec<u8>>>>;

#[cfg(feature = "parquet")]
mod built {
    use super::{File, ParquetLines, Path};
    use anyhow::{Context, Result, bail};
    use keepstate_flowlog::{MAX_JSON_LINE, parse_json_line};
    use keepstate_gateway::flow_log::ParquetConverter;
    use keepstate_parquet::{ParquetLogReader, ParquetLogWriter};
    use std::io::{BufRead, BufReader, Read};
    use std::sync::Arc;

    pub(crate) fn converter() -> Option<ParquetConverter> {
        Some(ParquetConverter(Arc::new(convert)))
    }

    /// Half a line at the end, of a machine that lost its power, is left out; any other fault stops it.
    fn convert(lines: &Path, out: &mut File) -> Result<()> {
        let mut reader = BufReader::new(File::open(lines)?);
        let mut writer = ParquetLogWriter::new(out)?;
        let most = u64::try_from(MAX_JSON_LINE)? + 1;
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            reader.by_ref().take(most).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                if line.len() > MAX_JSON_LINE {
                    bail!("line {number} is longer than {MAX_JSON_LINE} bytes");
                }
                break;
            }
            line.pop();
            let pushed = parse_json_line(&line).map_err(anyhow::Error::new).and_then(|_| Ok(writer.push(&line)?));
            pushed.with_context(|| format!("line {number}"))?;
        }
        Ok(writer.finish()?)
    }

    pub(crate) fn read(file: File) -> Result<ParquetLines> {
        let lines = ParquetLogReader::new(file)?;
        Ok(Box::new(lines.map(|line| line.map_err(anyhow::Error::new))))
    }
}

#[cfg(not(feature = "parquet"))]
mod built {
    use super::{File, ParquetLines};
    use anyhow::{Result, bail};
    use keepstate_gateway::flow_log::ParquetConverter;

    pub(crate) fn converter() -> Option<ParquetConverter> {
        None
    }

    pub(crate) fn read(_: File) -> Result<ParquetLines> {
        bail!("this keepstate was built without Parquet: build it by cargo build --release --features parquet")
    }
}

pub(crate) use built::{converter, read};

/// Is it a Parquet file?
pub(crate) fn is_parquet(path: &Path) -> Result<bool> {
    let mut begin = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut begin)?;
    Ok(begin == MAGIC)
}

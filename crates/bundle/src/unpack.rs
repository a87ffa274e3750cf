//! Unpacking a `.tar.gz` that may be somebody else's: plain files and directories only, each inside the directory it is unpacked
//! into, and limits on their number, their bytes and the lengths of their names.
use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use tar::{Entry, EntryType};
use tempfile::TempDir;

/// The limits on what an archive unpacks to.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// Bytes of the archive before it is packed; a bundle is far smaller.
    pub bytes: u64,
    /// Files and directories.
    pub entries: usize,
}

impl Default for UnpackLimits {
    fn default() -> UnpackLimits {
        UnpackLimits { bytes: 1 << 30, entries: 200_000 }
    }
}

/// Unpacks a file into a temporary directory.
///
/// # Errors
/// It cannot be read, is no `.tar.gz`, leads outside or exceeds a limit.
pub fn unpack(path: &Path, limits: UnpackLimits) -> Result<TempDir> {
    let what = || format!("cannot unpack {}", path.display());
    let mut file = BufReader::new(open_archive(path)?);
    let mut magic = [0; 2];
    file.read_exact(&mut magic).with_context(what)?;
    if magic != [0x1f, 0x8b] {
        bail!("{} is neither a directory nor a .tar.gz file: unpack it, and give its directory", path.display());
    }
    let whole = std::io::Cursor::new(magic).chain(file);
    let directory = tempfile::tempdir().context("cannot create a temporary directory to unpack it")?;
    unpack_into(directory.path(), GzDecoder::new(whole), limits).with_context(what)?;
    Ok(directory)
}

/// Opens a regular file; a FIFO would wait for its writer.
fn open_archive(path: &Path) -> Result<File> {
    let what = || format!("cannot read {}", path.display());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).with_context(what)?);
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).with_context(what)?.st_mode);
    if kind != FileType::RegularFile {
        bail!("{} is neither a file nor a directory: save the bundle as a file first", path.display());
    }
    Ok(file)
}

fn unpack_into(directory: &Path, unpacked: impl Read, limits: UnpackLimits) -> Result<()> {
    // One byte more tells an archive at the limit from a longer one.
    let mut counted = Counted { left: limits.bytes.saturating_add(1), inner: unpacked };
    let too_large = || format!("it unpacks to more than {} MiB", limits.bytes >> 20);
    let mut archive = tar::Archive::new(&mut counted);
    // Raw: names in entries of their own are read here, up to a limit.
    let mut entries = archive.entries()?.raw(true);
    let mut long_name = None;
    let mut number = 0_usize;
    loop {
        let entry = match entries.next() {
            None => break,
            Some(Ok(entry)) => entry,
            Some(Err(error)) => {
                return Err(if counted.left == 0 { anyhow::anyhow!(too_large()) } else { error.into() });
            }
        };
        number += 1;
        if number > limits.entries {
            bail!("it holds more than {} files", limits.entries);
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => long_name = Some(read_name(entry)?),
            EntryType::XHeader => long_name = read_pax_name(entry)?.or(long_name),
            EntryType::XGlobalHeader | EntryType::GNULongLink => (),
            kind => {
                let name = match long_name.take() {
                    Some(name) => name,
                    None => entry.path_bytes().into_owned(),
                };
                // Plain files and directories only: a link could lead outside, and devices are of no use here.
                if matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::Directory) {
                    write_entry(directory, &inside_path(&name)?, entry)?;
                }
            }
        }
    }
    if counted.left == 0 { bail!(too_large()) } else { Ok(()) }
}

/// Reads at most so many bytes, and knows how many are left.
struct Counted<R> {
    left: u64,
    inner: R,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = (&mut self.inner).take(self.left).read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

fn read_limited(entry: Entry<'_, impl Read>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_HEADER_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_HEADER_BYTES {
        bail!("the name of a file in it is longer than {MAX_HEADER_BYTES} bytes");
    }
    Ok(bytes)
}

/// A name in an entry of its own, as GNU tar writes it: a zero byte ends it.
fn read_name(entry: Entry<'_, impl Read>) -> Result<Vec<u8>> {
    let mut name = read_limited(entry)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// The name among the records of an extended header, as POSIX has it.
fn read_pax_name(entry: Entry<'_, impl Read>) -> Result<Option<Vec<u8>>> {
    let records = read_limited(entry)?;
    let mut name = None;
    for record in tar::PaxExtensions::new(&records) {
        let record = record?;
        if record.key_bytes() == b"path" {
            name = Some(record.value_bytes().to_vec());
        }
    }
    Ok(name)
}

/// The path of an entry below the directory it is unpacked into.
fn inside_path(name: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut inside = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir | Component::RootDir => (),
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the path `{}` in it leads outside the bundle", String::from_utf8_lossy(name).escape_debug());
            }
        }
    }
    if inside.as_os_str().len() > MAX_PATH_BYTES || inside.components().count() > MAX_DEPTH {
        bail!("a path in it is longer than {MAX_PATH_BYTES} bytes or deeper than {MAX_DEPTH} directories");
    }
    Ok(inside)
}

/// Nothing that was unpacked is a link, so what is below the directory stays there.
fn write_entry(directory: &Path, inside: &Path, mut entry: Entry<'_, impl Read>) -> Result<()> {
    let path = directory.join(inside);
    let what = || format!("cannot write {}", inside.display().to_string().escape_debug());
    let is_dir = entry.header().entry_type().is_dir();
    let above = if is_dir { Some(path.as_path()) } else { path.parent() };
    if let Some(above) = above {
        DirBuilder::new().recursive(true).mode(0o700).create(above).with_context(what)?;
    }
    if is_dir {
        return Ok(());
    }
    // The last entry of a name counts.
    if path.is_file() {
        fs::remove_file(&path).with_context(what)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(what)?;
    std::io::copy(&mut entry, &mut file).with_context(what)?;
    // Which sysctls could be written is told by their modes; the owner must be able to read them.
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777 | 0o400;
    file.set_permissions(Permissions::from_mode(mode)).with_context(what)
}

const MAX_HEADER_BYTES: u64 = 1 << 16;
const MAX_PATH_BYTES: usize = 2048;
const MAX_DEPTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;
    use std::path::Path;
    use tar::{Builder, Header};

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o4755);
        header
    }

    /// An entry whose name is written as it is.
    fn add(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, content: &[u8]) {
        let mut header = header(kind, content.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn unpacked(builder: Builder<Vec<u8>>, limits: UnpackLimits) -> Result<TempDir> {
        let there = tempfile::tempdir().unwrap();
        let path = there.path().join("bundle.tar.gz");
        let mut gz = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        gz.write_all(&builder.into_inner().unwrap()).unwrap();
        gz.finish().unwrap();
        unpack(&path, limits)
    }

    fn error_of(builder: Builder<Vec<u8>>, limits: UnpackLimits) -> String {
        format!("{:#}", unpacked(builder, limits).unwrap_err())
    }

    #[test]
    fn plain_files_are_unpacked_without_setuid_and_links_are_not() {
        let mut builder = Builder::new(Vec::new());
        add(&mut builder, EntryType::Directory, "k", b"");
        add(&mut builder, EntryType::Regular, "/k/file", b"first");
        add(&mut builder, EntryType::Regular, "./k/file", b"second");
        let mut link = header(EntryType::Symlink, 0);
        builder.append_link(&mut link, "k/link", "/etc").unwrap();
        // What the link would have led to.
        add(&mut builder, EntryType::Regular, "k/link/passwd", b"x");
        add(&mut builder, EntryType::Fifo, "k/fifo", b"");
        let long = format!("k/{}/{}", "a".repeat(90), "b".repeat(90));
        builder.append_data(&mut header(EntryType::Regular, 4), &long, &b"long"[..]).unwrap();
        let there = unpacked(builder, UnpackLimits::default()).unwrap();
        assert_eq!(fs::read_to_string(there.path().join("k/file")).unwrap(), "second");
        assert_eq!(fs::metadata(there.path().join("k/file")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(there.path().join("k/link").is_dir() && !there.path().join("k/fifo").exists());
        assert_eq!(fs::read_to_string(there.path().join(long)).unwrap(), "long");
    }

    #[test]
    fn archives_that_lead_outside_or_are_too_large_are_refused() {
        let mut builder = Builder::new(Vec::new());
        add(&mut builder, EntryType::Regular, "../outside", b"x");
        assert!(error_of(builder, UnpackLimits::default()).contains("leads outside"));

        let mut bomb = Builder::new(Vec::new());
        add(&mut bomb, EntryType::Regular, "zeros", &vec![0; 3 << 20]);
        assert!(error_of(bomb, UnpackLimits { bytes: 2 << 20, entries: 9 }).contains("more than 2 MiB"));

        let mut many = Builder::new(Vec::new());
        (0..10).for_each(|number| add(&mut many, EntryType::Regular, &number.to_string(), b""));
        assert!(error_of(many, UnpackLimits { bytes: 1 << 20, entries: 9 }).contains("more than 9 files"));

        for kind in [EntryType::GNULongName, EntryType::XHeader] {
            let mut name = Builder::new(Vec::new());
            add(&mut name, kind, "x", &vec![b'a'; 1 << 20]);
            add(&mut name, EntryType::Regular, "x", b"x");
            assert!(error_of(name, UnpackLimits::default()).contains("name of a file in it is longer"));
        }
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let there = tempfile::tempdir().unwrap();
        let path = there.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let error = unpack(Path::new(&path), UnpackLimits::default()).unwrap_err().to_string();
        assert!(error.contains("neither a file nor a directory"), "{error}");
    }
}

//! Opening a path inside a directory that is used as `/`: no link, no `..` and no change of names meanwhile leads out of it.
//!
//! The kernel resolves the path (`openat2` with `RESOLVE_IN_ROOT`, Linux 5.6). Where it cannot, or a sandbox forbids the call, the
//! names are followed one by one here, each opened in the directory before it.
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Opens an existing file or directory of the root.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let inside = path.strip_prefix("/").unwrap_or(path);
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    for _ in 0..MAX_RETRIES {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(root, inside, flags, Mode::empty(), resolve) {
            // A name changed while `..` was followed.
            Err(Errno::AGAIN) => (),
            Err(Errno::NOSYS | Errno::PERM) => return open_step_by_step(root, path, flags),
            opened => return Ok(opened?),
        }
    }
    Err(io::Error::other("its directories were renamed while it was opened"))
}

/// As [`open_in_root`], without `openat2`.
fn open_step_by_step(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let found = find_step_by_step(root, path, flags.contains(OFlags::NOFOLLOW))?;
    if flags.contains(OFlags::DIRECTORY) && !is_directory(&found)? {
        return Err(Errno::NOTDIR.into());
    }
    if flags.contains(OFlags::PATH) {
        return Ok(found);
    }
    // The very file that was found, whatever its name stands for by now.
    let own_name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
    Ok(openat(rustix::fs::CWD, own_name, flags.difference(OFlags::NOFOLLOW), Mode::empty())?)
}

/// Follows the names of a path one by one; gives an `O_PATH` descriptor.
fn find_step_by_step(root: BorrowedFd<'_>, path: &Path, keep_last_link: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut left = names_reversed(path);
    // The directories from the root to where the walk stands; `..` goes back by one, at the root nowhere.
    let mut stack = vec![openat(root, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?];
    let mut links = 0_usize;
    while let Some(name) = left.pop() {
        if name == ".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let here = stack.last().ok_or(Errno::NOENT)?;
        let found = openat(here, name.as_os_str(), flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Symlink || (left.is_empty() && keep_last_link) {
            stack.push(found);
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&found, "", Vec::new())?;
        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
        if target.is_absolute() {
            stack.truncate(1);
        }
        left.extend(names_reversed(target));
    }
    stack.pop().ok_or_else(|| Errno::NOENT.into())
}

/// The names of a path, the last one first.
fn names_reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

/// Is the open file a directory?
pub(crate) fn is_directory(file: &impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory)
}

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;
/// Names that change this often are changed on purpose.
const MAX_RETRIES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn both_ways_of_opening_stay_inside_the_root() {
        let there = tempfile::tempdir().unwrap();
        let (inside, outside) = (there.path().join("image"), there.path().join("outside"));
        fs::create_dir_all(inside.join("etc/deep/er")).unwrap();
        fs::create_dir_all(inside.join(outside.strip_prefix("/").unwrap())).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "outside").unwrap();
        fs::write(inside.join("file"), "inside").unwrap();
        fs::write(inside.join(outside.strip_prefix("/").unwrap()).join("file"), "inside by absolute link").unwrap();
        symlink(outside.join("file"), inside.join("etc/absolute")).unwrap();
        symlink("../../../../../../../../file", inside.join("etc/deep/upward")).unwrap();
        symlink(&outside, inside.join("etc/directory")).unwrap();
        symlink("loop", inside.join("etc/loop")).unwrap();
        symlink("/nowhere", inside.join("etc/dangling")).unwrap();
        let root = File::open(&inside).unwrap();
        for open in [open_in_root, open_step_by_step] {
            let text = |path: &str| {
                let opened = open(root.as_fd(), Path::new(path), OFlags::RDONLY | OFlags::CLOEXEC)?;
                let mut text = String::new();
                File::from(opened).read_to_string(&mut text)?;
                io::Result::Ok(text)
            };
            assert_eq!(text("/etc/absolute").unwrap(), "inside by absolute link");
            assert_eq!(text("etc/directory/file").unwrap(), "inside by absolute link");
            assert_eq!(text("/etc/deep/upward").unwrap(), "inside");
            assert_eq!(text("/etc/deep/er/../../../../../../file").unwrap(), "inside");
            assert_eq!(text("/etc/dangling").unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(text("/etc/loop").unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
            assert!(text("/file/below").is_err());
            let link = open(root.as_fd(), Path::new("/etc/loop"), OFlags::PATH | OFlags::NOFOLLOW).unwrap();
            assert_eq!(readlinkat(&link, "", Vec::new()).unwrap().as_bytes(), b"loop");
            assert!(open(root.as_fd(), Path::new("/file"), OFlags::PATH | OFlags::DIRECTORY).is_err());
            assert!(is_directory(&open(root.as_fd(), Path::new("/"), OFlags::PATH).unwrap()).unwrap());
        }
    }
}

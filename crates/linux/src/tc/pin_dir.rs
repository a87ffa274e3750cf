//! Where the links of attached programs are pinned: a directory of the BPF file system for each network namespace.
//!
//! A pin keeps a program attached when its process is gone. It must be in a mount namespace that lives longer than that process (`ip netns exec`, for one, runs a command in a mount namespace
//! of its own), so it is made where the outermost process above this one sees it that lets itself be looked into: process 1, mostly.
#![allow(
    unsafe_code,
    reason = "a thread leaves the file system information that it shares; SO_NETNS_COOKIE has no safe wrapper"
)]
use crate::file_access::FileAccess;
use crate::process_parent::parent_of;
use rustix::fs::{CWD, FsWord, Mode, OFlags, openat, statfs};
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The directory of this network namespace, held open: another process's root can be entered only by who may trace it.
#[derive(Debug)]
pub struct PinDir {
    directory: OwnedFd,
    parent: OwnedFd,
    name: String,
}

/// Where the BPF file system is.
const BPF_FS: &str = "sys/fs/bpf";
const BPF_FS_MAGIC: FsWord = 0xcafe_4a11;

impl PinDir {
    /// The directory for this network namespace; made, and the BPF file system mounted, if there is none.
    ///
    /// # Errors
    /// Permission denied (CAP_SYS_ADMIN to mount), the kernel has no BPF file system, or none is mounted and nothing tells in which mount namespace it would last.
    pub fn open() -> io::Result<PinDir> {
        let outermost = outermost_process();
        let process = outermost.as_deref().unwrap_or(Path::new("/proc/self"));
        let root = process.join("root").join(BPF_FS);
        if !is_bpf_fs(&root)? {
            if outermost.is_none() {
                let why = "it is not mounted, and this mount namespace may end with this process: mount -t bpf bpf /sys/fs/bpf";
                return Err(io::Error::new(ErrorKind::NotFound, why));
            }
            std::thread::scope(|scope| scope.spawn(|| mount_bpf_fs(process)).join())
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let (parent, name) = (root.join("keepstate"), format!("net-{namespace}"));
        // Whoever may write there could remove a pin, and with it a program: the interface would be open.
        DirBuilder::new().mode(0o700).recursive(true).create(parent.join(&name))?;
        for directory in [&parent, &parent.join(&name)] {
            check_owner(directory)?;
        }
        let open = |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(PinDir { directory: open(&parent.join(&name))?, parent: open(&parent)?, name })
    }

    /// What a process that has this directory may still do there, once its access to files is limited.
    pub fn allow(&self, access: FileAccess) -> FileAccess {
        access.write(fd_path(&self.directory)).remove(fd_path(&self.parent))
    }

    /// What tells this thread's network namespace from any that was before it.
    pub(super) fn netns(&self) -> io::Result<u32> {
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_NETNS_COOKIE);
        // SAFETY: the pointers are those of the value and of its length, which outlive the call.
        let done =
            unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut cookie).cast(), &raw mut length) };
        // They are numbered one after another.
        if done == 0 { Ok(cookie as u32) } else { Err(io::Error::last_os_error()) }
    }

    /// The path of a pin.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        fd_path(&self.directory).join(name)
    }

    /// The names of all pins.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(fd_path(&self.directory)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The directories of other network namespaces.
    pub(super) fn others(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(fd_path(&self.parent)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| name.starts_with("net-") && *name != self.name)
            .map(|name| fd_path(&self.parent).join(name))
            .collect()
    }

    /// Removes the directory, once it is empty.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir(fd_path(&self.parent).join(&self.name))
    }
}

fn fd_path(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn is_bpf_fs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type == BPF_FS_MAGIC)
}

/// The folder in proc of the outermost process above this one whose root may be entered.
fn outermost_process() -> Option<PathBuf> {
    let mut found = None;
    let mut id = parent_of("self");
    while let Some(parent) = id {
        let parent = parent.to_string();
        let folder = Path::new("/proc").join(&parent);
        if fs::metadata(folder.join("root").join(BPF_FS)).is_ok() {
            found = Some(folder);
        }
        id = parent_of(&parent);
    }
    found
}

/// Only root, or the user of this process, may write in a directory of pins.
fn check_owner(directory: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    let own = rustix::process::geteuid().as_raw();
    if found.is_dir() && [0, own].contains(&found.uid()) && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let why = format!(
        "{}: it belongs to user {} (mode {:o}), who could open the interfaces; remove it, or type: chown root {0}; chmod 0700 {0}",
        directory.display(),
        found.uid(),
        found.mode() & 0o7777
    );
    Err(io::Error::new(ErrorKind::PermissionDenied, why))
}

/// Mounts it in the mount namespace of a process. For a thread of its own: the thread stays there.
fn mount_bpf_fs(process: &Path) -> io::Result<()> {
    let namespace = File::open(process.join("ns/mnt"))?;
    // SAFETY: only CLONE_FS is asked for: this thread gets its own root and working directory, which it uses for nothing else.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let target = Path::new("/").join(BPF_FS);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("bpf", &target, "bpf", flags, Some(c"mode=0700"))?)
}

//! What gateways have left of network namespaces that are gone: their maps would hold memory for as long as the machine runs.
//!
//! A directory of pins is dead when it has links and none of them is attached any more: the interfaces went with their namespace. One that is being filled has no link yet, and one whose gateway has died has links
//! that keep its interfaces closed: both stay.
use super::pin_dir::PinDir;
use aya::programs::links::{FdLink, PinnedLink};
use std::fs;
use std::path::{Path, PathBuf};

/// Removes what gateways have left of network namespaces that are gone. Returns of how many.
pub fn remove_dead_pins(pins: &PinDir) -> usize {
    let dead = pins.others().into_iter().filter(|directory| is_dead(directory));
    // Another gateway may do the same at this moment.
    dead.filter(|directory| remove_directory(directory).is_ok()).count()
}

fn is_dead(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let attached: Vec<Option<bool>> = entries.filter(|path| is_link(path)).map(|path| is_attached(&path)).collect();
    // What cannot be read is left alone.
    !attached.is_empty() && attached.iter().all(|attached| *attached == Some(false))
}

/// Is a pinned link attached to an interface? `None` if that cannot be told.
fn is_attached(pin: &Path) -> Option<bool> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    let id = link.info().ok()?.id();
    let descriptors = fs::read_dir("/proc/self/fdinfo").ok()?.flatten();
    let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    ifindex_of(texts, id).map(|ifindex| ifindex != 0)
}

/// The interface of the link of this number, among the texts of descriptors (`/proc/self/fdinfo`): 0 if it has none any more.
fn ifindex_of(descriptors: impl Iterator<Item = String>, id: u32) -> Option<u32> {
    fn field<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
    let mut ours = descriptors.filter(|text| field::<u32>(text, "link_id:") == Some(id));
    field(&ours.next()?, "ifindex:")
}

fn remove_directory(directory: &Path) -> std::io::Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    // The links last: if this is cut short, the directory is still known for dead.
    paths.sort_by_key(|path| is_link(path));
    for path in paths {
        // What is remembered of the loopback interface is the name of a directory.
        if path.is_dir() { fs::remove_dir(path)? } else { fs::remove_file(path)? }
    }
    fs::remove_dir(directory)
}

fn is_link(path: &Path) -> bool {
    LINK_PINS.iter().any(|end| path.to_string_lossy().ends_with(end))
}

/// How the names of pins of links end.
const LINK_PINS: [&str; 4] = ["-ingress", "-egress", "-carrier", "-loopback"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_a_link_is_read() {
        let texts = || {
            [
                "pos:\t0\nflags:\t02\n",
                "link_type:\ttcx\nlink_id:\t7\nprog_id:\t9\nifindex:\t0\nattach_type:\t46\n",
                "link_id:\t70\nifindex:\t3\n",
            ]
            .into_iter()
            .map(str::to_owned)
        };
        assert_eq!([7, 70, 8].map(|id| ifindex_of(texts(), id)), [Some(0), Some(3), None]);
    }
}

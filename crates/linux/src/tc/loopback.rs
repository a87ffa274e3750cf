//! The settings of the loopback interface.
use super::pin_dir::PinDir;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// The settings of the loopback interface that let packets in which have lost their route on the way through user space. Only the machine itself can send by it.
///
/// What they were before stands beside the pins, as the name of a directory, since the BPF file system has no files to write to: so whoever gives the interfaces back can put them back.
#[derive(Debug)]
pub(super) struct LoopbackSettings(io::Result<[File; 2]>);

/// `accept_local`, `route_localnet`.
const SETTINGS: [&str; 2] = ["/proc/sys/net/ipv4/conf/lo/accept_local", "/proc/sys/net/ipv4/conf/lo/route_localnet"];
/// The name of what they were before: behind it both values.
const BEFORE: &str = "loopback-before-";

impl LoopbackSettings {
    /// To be opened while files can be; nothing is changed yet, but what they are now is noted.
    pub(super) fn open(pins: &PinDir) -> LoopbackSettings {
        let open = |path| OpenOptions::new().write(true).open(path);
        let [first, second] = SETTINGS;
        LoopbackSettings(note_before(pins).and_then(|()| Ok([open(first)?, open(second)?])))
    }

    /// Sets them.
    pub(super) fn set(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Ok(files) => files.iter_mut().try_for_each(|file| file.write_all_at(b"1\n", 0)),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Puts them back, by files that were opened before this process limited its access to them.
    pub(super) fn put_back(&self, pins: &PinDir) -> io::Result<()> {
        let Ok(files) = &self.0 else { return Ok(()) };
        let Some(values) = pins.names().iter().find_map(|name| values_in(name)) else { return Ok(()) };
        files.iter().zip(&values).try_for_each(|(file, value)| file.write_all_at(value.as_bytes(), 0))
    }
}

/// Notes what the settings are, unless an earlier gateway has.
fn note_before(pins: &PinDir) -> io::Result<()> {
    if pins.names().iter().any(|name| name.starts_with(BEFORE)) {
        return Ok(());
    }
    let [first, second] = SETTINGS.map(fs::read_to_string);
    fs::create_dir(pins.path(&before_name(&[first?, second?])))
}

fn before_name(values: &[String; 2]) -> String {
    format!("{BEFORE}{}-{}", values[0].trim(), values[1].trim())
}

/// The values that a name tells, as they are written.
fn values_in(name: &str) -> Option<[String; 2]> {
    let (first, second) = name.strip_prefix(BEFORE)?.split_once('-')?;
    Some([first, second].map(|value| format!("{value}\n")))
}

/// Forgets what the settings were.
pub(super) fn forget_before(pins: &PinDir) -> io::Result<()> {
    let names = pins.names();
    names.iter().filter(|name| name.starts_with(BEFORE)).try_for_each(|name| fs::remove_dir(pins.path(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_the_settings_were() {
        let name = before_name(&["0\n".to_owned(), "1\n".to_owned()]);
        assert_eq!(values_in(&name), Some(["0\n".to_owned(), "1\n".to_owned()]));
        assert_eq!(values_in("1-loopback"), None);
    }
}

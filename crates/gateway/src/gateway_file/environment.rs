//! Is this machine as the settings need it? Reads only.
use super::given::{Given, SettingOrigin};
use super::resolve::SettingFault;
use super::settings::GatewaySettings;
use crate::flow_log::FlowLogTarget;
use crate::kernel_fib;
use crate::tc::GovernedInterfaces;
use anyhow::Result;
use keepstate_linux::privileges::{self, CapabilitySet};
use keepstate_linux::rtnetlink::{RtMessage, RtMonitor};
use std::path::{Path, PathBuf};

/// What is not right with it.
pub(super) fn faults(settings: &GatewaySettings) -> Vec<SettingFault> {
    let mut faults = Vec::new();
    let mut add =
        |origin: &SettingOrigin, message: String| faults.push(SettingFault { origin: origin.clone(), message });
    let messages = read_links();
    match messages {
        Err(error) => {
            add(&SettingOrigin::Default, format!("the kernel does not say which interfaces there are: {error}"))
        }
        Ok(messages) => {
            let links = kernel_fib::links(&messages);
            if let Some(given) = &settings.interface {
                let patterns = given.value.iter().map(|text| text.value.clone()).collect();
                if let Err(error) = GovernedInterfaces(patterns).check(&links) {
                    add(&given.origin, error.to_string());
                }
            }
            if let Some(given) = &settings.device {
                let taken = given.value.iter().filter(|device| links.iter().any(|link| link.name == device.0.name));
                taken.for_each(|device| {
                    add(&given.origin, format!("{}: there is such an interface already", device.0.name))
                });
            }
        }
    }
    if (settings.interface.is_some() || settings.device.is_some()) && !Path::new("/dev/net/tun").exists() {
        add(
            &SettingOrigin::Default,
            "/dev/net/tun is missing: modprobe tun; in a container, give it that device".to_owned(),
        );
    }
    if let Some(given) = &settings.interface {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let missing = missing_in_kernel(read("/proc/sys/kernel/osrelease").trim(), &read("/proc/filesystems"));
        missing.into_iter().for_each(|message| add(&given.origin, message));
    }
    for given in settings.flow_log.iter() {
        for entry in &given.value {
            let path = match &entry.0.target {
                FlowLogTarget::File(path) => Some(path.clone()),
                // It must be there itself.
                FlowLogTarget::Hourly(directory) => Some(directory.join("flows")),
                _ => None,
            };
            let missing = path.and_then(|value| missing_folder(&Given { value, origin: given.origin.clone() }));
            let unreadable = entry.0.access.files().filter_map(|path| {
                let error = std::fs::File::open(path).err()?;
                Some(format!("{} cannot be read: {error}", path.display()))
            });
            missing.into_iter().chain(unreadable).for_each(|message| add(&given.origin, message));
        }
    }
    // The directory of the usual control socket is made.
    let control = settings.control.as_ref().filter(|given| given.origin != SettingOrigin::Default);
    for given in control.into_iter().chain(&settings.state) {
        if let Some(message) = missing_folder(given) {
            add(&given.origin, message);
        }
    }
    if let Some(message) = settings.cluster.as_ref().and_then(|given| given.value.missing_file()) {
        add(&settings.cluster.as_ref().map_or(SettingOrigin::Default, |given| given.origin.clone()), message);
    }
    if let Some(message) = missing_capabilities(settings) {
        add(&SettingOrigin::Default, message);
    }
    faults
}

/// What interfaces need of the kernel: Linux 6.6 (programs at tc's hooks by links), and the BPF file system.
fn missing_in_kernel(release: &str, filesystems: &str) -> Vec<String> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    let is_old = matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < NEEDED_KERNEL);
    let (major, minor) = NEEDED_KERNEL;
    let old = is_old.then(|| {
        format!(
            "interface needs Linux {major}.{minor} or newer, this is {release}: use a newer kernel (Debian 12 has one in bookworm-backports), or packets from queue (NFQUEUE) or device (TUN) instead"
        )
    });
    let has_bpf_fs =
        filesystems.is_empty() || filesystems.lines().any(|line| line.split_whitespace().last() == Some("bpf"));
    let no_bpf = (!has_bpf_fs).then(|| {
        "interface needs the BPF file system, which this kernel does not have (CONFIG_BPF_SYSCALL)".to_owned()
    });
    old.into_iter().chain(no_bpf).collect()
}

/// The first kernel that has what [`TcDriver`](crate::tc) attaches its programs by.
const NEEDED_KERNEL: (u32, u32) = (6, 6);

fn read_links() -> Result<Vec<RtMessage>> {
    Ok(RtMonitor::open()?.dump_all()?)
}

/// The directory that a file is to be made in must be there; systemd makes those of a unit.
fn missing_folder(given: &Given<PathBuf>) -> Option<String> {
    let folder = given.value.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let is_there = given.value.is_dir() || folder.is_dir();
    (!is_there).then(|| format!("the directory {} is missing: mkdir -p {}", folder.display(), folder.display()))
}

/// What this process may not do, but the gateway must.
fn missing_capabilities(settings: &GatewaySettings) -> Option<String> {
    let mut needed = CapabilitySet::NET_ADMIN;
    if settings.interface.is_some() {
        needed |= CapabilitySet::BPF | CapabilitySet::PERFMON;
    }
    if settings.queue.is_some() {
        needed |= CapabilitySet::NET_RAW;
    }
    let missing = match privileges::effective_capabilities() {
        Ok(own) => needed - own,
        Err(error) => return Some(format!("the kernel does not say which capabilities this process has: {error}")),
    };
    let names: Vec<String> = missing.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    (!names.is_empty()).then(|| {
        format!("not allowed here: {}; run it as root, or by the unit keepstate-gateway.service", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_too_old_is_told_of() {
        let systems = "nodev\tsysfs\nnodev\tbpf\n\text4\n";
        for (release, is_enough) in [
            ("6.6.0", true),
            ("6.18.44", true),
            ("7.0.0-rc1", true),
            ("6.1.0-32-amd64", false),
            ("5.15.0-91-generic", false),
            ("?", true),
        ] {
            assert_eq!(missing_in_kernel(release, systems).is_empty(), is_enough, "{release}");
        }
        assert_eq!(missing_in_kernel("6.6.0", "nodev\tsysfs\n\text4\n").len(), 1);
    }
}

//! Scripts, tables of cron and units that set a sysctl by hand.
use super::writer::{OtherWriter, conntrack_lines};
use crate::boot::overlay::Overlay;

pub(super) fn find_scripts(tree: &Overlay<'_>) -> Vec<OtherWriter> {
    let mut found = Vec::new();
    for (file, name, when) in SCRIPT_FILES {
        found.extend(scan_script(tree, file, name, when));
    }
    for (directory, suffix, name, when) in SCRIPT_DIRECTORIES {
        for entry in tree.list_dir(directory).iter().filter(|entry| entry.ends_with(suffix)) {
            let file = format!("{directory}/{entry}");
            if SCRIPT_FILES.iter().all(|(other, ..)| !tree.is_same_file(other, &file)) {
                found.extend(scan_script(tree, &file, name, when));
            }
        }
    }
    found
}

fn scan_script(tree: &Overlay<'_>, file: &str, name: &str, when: &str) -> Vec<OtherWriter> {
    // A directory among scripts is no script.
    let Some(text) = (!tree.is_dir(file)).then(|| tree.read(file)).flatten() else { return Vec::new() };
    let mut found = conntrack_lines(file, &text, name, |_| when.to_owned());
    // Loading the module writes nothing.
    found.retain(|writer| writer.key.is_some());
    found
}

const SCRIPT_FILES: [(&str, &str, &str); 4] = [
    ("/etc/rc.local", "rc.local", "runs at the end of the boot if it is executable"),
    ("/etc/crontab", "cron", "runs on schedule"),
    ("/etc/ufw/sysctl.conf", "ufw", "is applied when ufw starts, after sysctl.d"),
    ("/etc/network/interfaces", "ifupdown", "runs when an interface comes up"),
];
const SCRIPT_DIRECTORIES: [(&str, &str, &str, &str); 9] = [
    ("/etc/rc.d", "rc.local", "rc.local", "runs at the end of the boot if it is executable"),
    ("/etc/local.d", ".start", "local.d", "runs at the end of the boot"),
    ("/etc/cron.d", "", "cron", "runs on schedule"),
    ("/var/spool/cron/crontabs", "", "cron", "runs on schedule"),
    ("/var/spool/cron", "", "cron", "runs on schedule"),
    ("/etc/network/if-up.d", "", "ifupdown", "runs when an interface comes up"),
    ("/etc/NetworkManager/dispatcher.d", "", "NetworkManager", "runs when an interface changes"),
    ("/etc/systemd/system", ".service", "systemd", "runs when the unit starts, after sysctl.d"),
    ("/etc/periodic/15min", "", "cron", "runs every 15 minutes"),
];

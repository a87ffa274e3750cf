//! Scripts, tables of cron and units that set a knob by hand.
use super::{Writer, mentions};
use crate::boot::tree::Tree;

pub(super) fn find(tree: &Tree<'_>) -> Vec<Writer> {
    let mut found = Vec::new();
    for (file, name, when) in FILES {
        found.extend(of_file(tree, file, name, when));
    }
    for (directory, suffix, name, when) in DIRECTORIES {
        for entry in tree.names(directory).iter().filter(|entry| entry.ends_with(suffix)) {
            let file = format!("{directory}/{entry}");
            if FILES.iter().all(|(other, ..)| !tree.is_same(other, &file)) {
                found.extend(of_file(tree, &file, name, when));
            }
        }
    }
    found
}

fn of_file(tree: &Tree<'_>, file: &str, name: &str, when: &str) -> Vec<Writer> {
    // A directory among scripts is no script.
    let Some(text) = (!tree.is_directory(file)).then(|| tree.read(file)).flatten() else { return Vec::new() };
    let mut found = mentions(file, &text, name, |_| when.to_owned());
    // Loading the module writes nothing.
    found.retain(|writer| writer.key.is_some());
    found
}

const FILES: [(&str, &str, &str); 4] = [
    ("/etc/rc.local", "rc.local", "runs at the end of the boot, where it is executable"),
    ("/etc/crontab", "cron", "runs at its times, again and again"),
    ("/etc/ufw/sysctl.conf", "ufw", "is applied when ufw starts, after sysctl.d"),
    ("/etc/network/interfaces", "ifupdown", "runs when an interface comes up"),
];
const DIRECTORIES: [(&str, &str, &str, &str); 9] = [
    ("/etc/rc.d", "rc.local", "rc.local", "runs at the end of the boot, where it is executable"),
    ("/etc/local.d", ".start", "local.d", "runs at the end of the boot"),
    ("/etc/cron.d", "", "cron", "runs at its times, again and again"),
    ("/var/spool/cron/crontabs", "", "cron", "runs at its times, again and again"),
    ("/var/spool/cron", "", "cron", "runs at its times, again and again"),
    ("/etc/network/if-up.d", "", "ifupdown", "runs when an interface comes up"),
    ("/etc/NetworkManager/dispatcher.d", "", "NetworkManager", "runs when an interface changes"),
    ("/etc/systemd/system", ".service", "systemd", "runs when the unit starts, after sysctl.d"),
    ("/etc/periodic/15min", "", "cron", "runs every quarter of an hour"),
];

//! tuned: the section `[sysctl]` of the active profile and of those it includes.
use super::writer::OtherWriter;
use crate::boot::file_line::{FileLine, config_lines};
use crate::boot::overlay::Overlay;
use crate::boot::setting::canonical_key;
use std::collections::BTreeMap;

pub(super) fn find_tuned(tree: &Overlay<'_>) -> Vec<OtherWriter> {
    let active = tree.read("/etc/tuned/active_profile").unwrap_or_default();
    let mut found = BTreeMap::<String, (FileLine, String)>::new();
    let mut read = Vec::new();
    for profile in active.split_whitespace() {
        read_profile(tree, profile, &mut read, &mut found);
    }
    let again = config_lines(&tree.read("/etc/tuned/tuned-main.conf").unwrap_or_default())
        .filter_map(|(_, line)| line.split_once('='))
        .filter(|(key, _)| key.trim() == "reapply_sysctl")
        .last()
        .is_none_or(|(_, value)| !matches!(value.trim(), "0" | "false" | "False" | "no"));
    let after = match again {
        true => "then writes sysctl.d of /run and /etc and /etc/sysctl.conf again (reapply_sysctl), which win",
        false => "and wins over sysctl.d (reapply_sysctl=0)",
    };
    let profile = active.trim();
    let what = format!("writes it when the daemon starts (profile {profile}), {after}");
    let writers = found.into_iter().map(|(key, (place, value))| OtherWriter {
        name: "tuned".to_owned(),
        description: what.clone(),
        location: place,
        key: Some(key),
        // `>17` is “at least 17”, `${name}` a variable: neither is a value.
        value: value.starts_with(|first: char| first.is_ascii_digit()).then_some(value),
    });
    writers.collect()
}

/// A profile's lines over those of the profiles it includes. `read` stops profiles that include each other.
fn read_profile(
    tree: &Overlay<'_>,
    profile: &str,
    read: &mut Vec<String>,
    found: &mut BTreeMap<String, (FileLine, String)>,
) {
    if read.iter().any(|other| other == profile) || profile.contains('/') {
        return;
    }
    read.push(profile.to_owned());
    let files = PROFILE_DIRECTORIES.iter().map(|directory| format!("{directory}/{profile}/tuned.conf"));
    let Some((file, text)) = files.into_iter().find_map(|file| tree.read(&file).map(|text| (file, text))) else {
        tree.add_note(format!("tuned: file of the active profile {profile} not found"));
        return;
    };
    let mut section = "";
    let mut own = Vec::new();
    for (number, line) in config_lines(&text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim(), value.trim());
            if section == "main" && key == "include" {
                for included in value.split([',', ' ']).filter(|name| !name.is_empty()) {
                    read_profile(tree, included.trim_start_matches('-'), read, found);
                }
            } else if section == "sysctl"
                && let Some(key) = canonical_key(key)
            {
                own.push((key, (FileLine::new(&file, number), value.to_owned())));
            }
        }
    }
    found.extend(own);
}

const PROFILE_DIRECTORIES: [&str; 4] =
    ["/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"];

//! cloud-init: commands and files of the instance's configuration.
use super::writer::{OtherWriter, conntrack_lines};
use crate::boot::overlay::Overlay;

pub(super) fn find_cloud_init(tree: &Overlay<'_>) -> Vec<OtherWriter> {
    if tree.exists("/etc/cloud/cloud-init.disabled") {
        return Vec::new();
    }
    let mut files = vec!["/etc/cloud/cloud.cfg".to_owned()];
    let named = tree.list_dir("/etc/cloud/cloud.cfg.d").into_iter().filter(|name| name.ends_with(".cfg"));
    files.extend(named.map(|name| format!("/etc/cloud/cloud.cfg.d/{name}")));
    files.push("/var/lib/cloud/instance/user-data.txt".to_owned());
    files.push("/var/lib/cloud/instance/vendor-data.txt".to_owned());
    let texts = files.iter().filter_map(|file| Some((file, tree.read(file)?)));
    let found = texts.flat_map(|(file, text)| {
        conntrack_lines(file, &text, "cloud-init", |line| describe_section(yaml_section_of_line(&text, line)))
    });
    found.collect()
}

/// The section (the last key at the margin) that a line belongs to.
fn yaml_section_of_line(text: &str, line: usize) -> &str {
    let margin = text.lines().take(line).filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()));
    margin.filter_map(|line| line.split_once(':')).last().map_or("", |(key, _)| key)
}

fn describe_section(section: &str) -> String {
    match section {
        "bootcmd" => "bootcmd: runs at every boot".to_owned(),
        "runcmd" => "runcmd: runs at the first boot of an instance only".to_owned(),
        "write_files" => "write_files: writes the file at the first boot of an instance, over what is there".to_owned(),
        "" => "runs as user data at the first boot of an instance".to_owned(),
        other => format!("has it in section {other}"),
    }
}

//! Names of this machine that rules may use for numbers: users, groups, connection labels.
use std::fs;

/// Number of the user of that name, by /etc/passwd.
pub(super) fn user_id(name: &str) -> Option<u32> {
    colon_file_id(&fs::read_to_string("/etc/passwd").ok()?, name)
}

/// Number of the group of that name, by /etc/group.
pub(super) fn group_id(name: &str) -> Option<u32> {
    colon_file_id(&fs::read_to_string("/etc/group").ok()?, name)
}

/// Bit of the connection label of that name, by /etc/connlabel.conf.
pub(super) fn ct_label(name: &str) -> Option<u32> {
    const MAX_LABEL: u32 = 127;
    label_bit(&fs::read_to_string("/etc/connlabel.conf").ok()?, name).filter(|bit| *bit <= MAX_LABEL)
}

/// The number of a name in a file of lines `name:…:number:…`.
fn colon_file_id(text: &str, name: &str) -> Option<u32> {
    let mut fields = text.lines().map(|line| line.split(':'));
    fields.find_map(|mut line| (line.next() == Some(name)).then(|| line.nth(1)?.parse().ok()).flatten())
}

/// The number of a name in a file of lines `number name`.
fn label_bit(text: &str, name: &str) -> Option<u32> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    lines.into_iter().find_map(|mut line| {
        let bit = line.next()?.parse().ok()?;
        (line.next() == Some(name)).then_some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_their_files() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nproxy:x:13:13::/bin:/sbin/nologin\nbroken\nproxy2:x:a:1\n";
        assert_eq!(
            ["root", "proxy", "broken", "proxy2", "x"].map(|name| colon_file_id(passwd, name)),
            [Some(0), Some(13), None, None, None]
        );
        let labels = "# comment\n0 eth0-in\n 1\teth0-out # trailing\nx bad\n127 last\n";
        assert_eq!(
            ["eth0-in", "eth0-out", "bad", "last"].map(|name| label_bit(labels, name)),
            [Some(0), Some(1), None, Some(127)]
        );
    }
}

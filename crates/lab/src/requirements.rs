//! What the laboratory needs of the machine, checked before anything is built: the error names what is missing and what to type.
use super::config::LabConfig;
use super::process::find_program;
use anyhow::{Context, Result, bail};
use keepstate_linux::netns::{self, AnonNetns};
use std::io;
use std::path::PathBuf;

/// A program, and the Debian package that has it.
type Program = (&'static str, &'static str);

const IP: Program = ("ip", "iproute2");
const NFT: Program = ("nft", "nftables");
/// For `--cluster`.
const NATS: Program = ("nats-server", "nats-server");
/// For the scripts of `--hold`.
const NSENTER: Program = ("nsenter", "util-linux");

/// Checks programs and permissions. Without root it makes this process root of a user namespace, so it must have no threads yet.
pub(super) fn check(config: &LabConfig) -> Result<()> {
    check_programs(&needed_programs(config), find_program)?;
    check_permissions()
}

/// As [`check`], for a cluster.
pub(super) fn check_cluster() -> Result<()> {
    check_programs(&[IP, NATS], find_program)?;
    check_permissions()
}

fn check_permissions() -> Result<()> {
    ensure_netns_allowed()?;
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").context(
        "cannot open /dev/net/tun. Type: modprobe tun; in a container, give it that device (--device /dev/net/tun)",
    )?;
    Ok(())
}

fn needed_programs(config: &LabConfig) -> Vec<Program> {
    let all = [(true, IP), (config.compare_with_linux, NFT), (config.hold, NSENTER)];
    all.into_iter().filter(|(needed, _)| *needed).map(|(_, program)| program).collect()
}

fn check_programs(needed: &[Program], find: impl Fn(&str) -> Option<PathBuf>) -> Result<()> {
    let missing: Vec<Program> = needed.iter().filter(|(name, _)| find(name).is_none()).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (names, packages): (Vec<&str>, Vec<&str>) = missing.into_iter().unzip();
    let noun = if names.len() == 1 { "program" } else { "programs" };
    bail!("missing {noun}: {}. Type: apt-get install {}", names.join(", "), packages.join(" "))
}

/// Lets this process make network namespaces: as root, or as root of a user namespace of its own.
fn ensure_netns_allowed() -> Result<()> {
    match AnonNetns::create() {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (),
        Err(error) => return Err(error).context("cannot make network namespaces on this machine"),
    }
    netns::become_root_in_user_namespace().and_then(|()| AnonNetns::create()).context(
        "network namespaces need root (type: sudo keepstate lab), or a machine that lets users make them: \
         sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: LabConfig = LabConfig { clients: 10, compare_with_linux: false, hold: false };

    fn error(config: LabConfig, installed: &[&str]) -> Option<String> {
        let find = |name: &str| installed.contains(&name).then(|| PathBuf::from(name));
        check_programs(&needed_programs(&config), find).err().map(|error| error.to_string())
    }

    #[test]
    fn missing_programs_are_named_with_their_packages() {
        let all = LabConfig { compare_with_linux: true, hold: true, ..PLAIN };
        assert_eq!(error(PLAIN, &["ip"]), None);
        assert_eq!(error(PLAIN, &[]).as_deref(), Some("missing program: ip. Type: apt-get install iproute2"));
        assert_eq!(
            error(all, &[]).as_deref(),
            Some("missing programs: ip, nft, nsenter. Type: apt-get install iproute2 nftables util-linux")
        );
        assert_eq!(
            error(all, &["ip", "nsenter"]).as_deref(),
            Some("missing program: nft. Type: apt-get install nftables")
        );
    }
}

//! The Debian packages, by dpkg-deb.
use super::tools::{DistFolders, output, run, version};
use super::tree;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes `keepstate` and `keepstate-gateway`.
pub(super) fn make(folders: &DistFolders, binary: &Path) -> Result<()> {
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
    let stage = folders.out.join("deb");
    let program = stage.join("keepstate");
    tree::program(folders, binary, &program)?;
    tree::copy(folders, "packaging/deb/README.Debian", &program.join("usr/share/doc/keepstate/README.Debian"))?;
    let libc = newest_glibc(&fs::read(binary)?);
    build(
        folders,
        &DebPackage {
            name: "keepstate",
            architecture: &architecture,
            depends: format!("libc6 (>= {libc}), libgcc-s1 (>= 3.0), passwd"),
            recommends: "nftables, iptables, iproute2",
            summary: "connection tracking: see, explain, size, tune and mend the table",
            text: "Findings about the kernel's connection table, its size and settings; the\n command line of conntrack; captures replayed through the same tracking; a\n gateway in user space with the nftables language.",
            conffiles: &[],
        },
        &program,
    )?;
    let gateway = stage.join("keepstate-gateway");
    tree::gateway(folders, &gateway)?;
    build(
        folders,
        &DebPackage {
            name: "keepstate-gateway",
            architecture: "all",
            depends: format!("keepstate (>= {})", version()),
            recommends: "systemd",
            summary: "keepstate's gateway as a service",
            text: "Units and configuration of a router, firewall and load balancer in user\n space with the nftables language. It is not started before its rules are\n written.",
            conffiles: &["/etc/keepstate/gateway.nft", "/etc/keepstate/gateway.toml"],
        },
        &gateway,
    )
}

/// What differs between the packages.
struct DebPackage<'a> {
    name: &'a str,
    architecture: &'a str,
    depends: String,
    recommends: &'a str,
    summary: &'a str,
    text: &'a str,
    conffiles: &'a [&'a str],
}

fn build(folders: &DistFolders, package: &DebPackage<'_>, stage: &Path) -> Result<()> {
    let DebPackage { name, architecture, depends, recommends, summary, text, conffiles } = package;
    let doc = stage.join("usr/share/doc").join(name);
    tree::write(&doc.join("copyright"), &copyright(folders)?)?;
    let date = output(Command::new("git").current_dir(&folders.root).args(["log", "-1", "--format=%cD"]))?;
    let changelog = format!(
        "{name} ({}) unstable; urgency=medium\n\n  * Made from the repository; see CHANGELOG.md there.\n\n -- {MAINTAINER}  {}\n",
        version(),
        date.trim()
    );
    tree::write(&doc.join("changelog"), &changelog)?;
    run(Command::new("gzip").arg("-9n").arg(doc.join("changelog")))?;
    let size = output(Command::new("du").args(["-sk", "--apparent-size"]).arg(stage))?;
    let size = size.split_whitespace().next().context("du prints a size")?.to_owned();
    let control = format!(
        "Package: {name}\nVersion: {}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\nInstalled-Size: {size}\nDepends: {depends}\n\
         Recommends: {recommends}\nSection: net\nPriority: optional\nDescription: {summary}\n {text}\n",
        version()
    );
    let debian = stage.join("DEBIAN");
    tree::write(&debian.join("control"), &control)?;
    if !conffiles.is_empty() {
        tree::write(&debian.join("conffiles"), &(conffiles.join("\n") + "\n"))?;
    }
    for script in ["postinst", "prerm", "postrm"] {
        tree::copy(folders, &format!("packaging/deb/{name}.{script}"), &debian.join(script))?;
        tree::mode(&debian.join(script), 0o755)?;
    }
    let sums = output(
        Command::new("sh")
            .current_dir(stage)
            .args(["-c", "find . -type f ! -path './DEBIAN/*' -printf '%P\\0' | sort -z | xargs -0 md5sum"]),
    )?;
    tree::write(&debian.join("md5sums"), &sums)?;
    // Directories have the creator's umask.
    run(Command::new("find").arg(stage).args(["-type", "d", "-exec", "chmod", "755", "{}", "+"]))?;
    let file = folders.out.join(format!("{name}_{}_{architecture}.deb", version()));
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zxz", "--build"]).arg(stage).arg(file))
}

/// The licences, in Debian's format.
fn copyright(folders: &DistFolders) -> Result<String> {
    let mit = fs::read_to_string(folders.root.join("LICENSE-MIT"))?;
    let mit: Vec<String> =
        mit.lines().map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") }).collect();
    let text = fs::read_to_string(folders.root.join("packaging/deb/copyright"))?;
    Ok(text.replace("@MIT@", &mit.join("\n")))
}

/// The newest version of glibc that a program names: what it needs at least.
fn newest_glibc(program: &[u8]) -> String {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let minor = |at: usize| {
        let digits = program.get(at + PREFIX.len()..)?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(digits.get(..end)?).ok()?.parse::<u32>().ok()
    };
    let found = program.windows(PREFIX.len()).enumerate().filter(|(_, window)| *window == PREFIX);
    format!("2.{}", found.filter_map(|(at, _)| minor(at)).max().unwrap_or(36))
}

/// Who packages answer for.
const MAINTAINER: &str = "keepstate <keepstate@localhost>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_counts() {
        assert_eq!(newest_glibc(b"xx\0GLIBC_2.3.4\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE\0"), "2.34");
        assert_eq!(newest_glibc(b""), "2.36");
    }
}

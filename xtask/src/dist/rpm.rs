//! The RPM packages, by rpmbuild, with the static program: it runs whatever glibc a distribution has.
use super::tools::{DistFolders, STATIC_TARGET, output, run, version};
use super::{third_party, tree};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes `keepstate` and `keepstate-gateway`.
pub(super) fn make(folders: &DistFolders, binary: &Path) -> Result<()> {
    let top = folders.out.join("rpm");
    let (program, gateway) = (top.join("stage/keepstate"), top.join("stage/keepstate-gateway"));
    tree::program(folders, binary, &program)?;
    tree::gateway(folders, &gateway)?;
    [&program, &gateway].into_iter().try_for_each(|stage| move_to_rpm_places(stage))?;
    let doc = program.join("usr/share/doc/keepstate");
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        tree::copy(folders, file, &doc.join(file))?;
    }
    tree::write(&doc.join("THIRD-PARTY.txt"), &third_party::text(folders, STATIC_TARGET)?)?;
    let spec = top.join("keepstate.spec");
    let files = [file_list(&program)?, file_list(&gateway)?];
    tree::write(&spec, &spec_text(&files))?;
    let define = |name: &str, value: &str| ["--define".to_owned(), format!("{name} {value}")];
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--quiet", "--target", std::env::consts::ARCH]);
    build.args(define("_topdir", &top.join("build").to_string_lossy()));
    build.args(define("_rpmdir", &folders.out.to_string_lossy()));
    build.args(define("_rpmfilename", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"));
    build.args(define("stage", &top.join("stage").to_string_lossy()));
    // What is in the stage is packed as it is.
    build.args(define("__os_install_post", "%{nil}")).args(define("debug_package", "%{nil}"));
    build.args(define("_build_id_links", "none")).args(define("_binary_payload", "w19.zstdio"));
    build.args(define("source_date_epoch_from_changelog", "0"));
    let time = output(Command::new("git").current_dir(&folders.root).args(["log", "-1", "--format=%ct"]))?;
    run(build.env("SOURCE_DATE_EPOCH", time.trim()).arg(&spec))
}

/// Where Debian and others differ.
fn move_to_rpm_places(stage: &Path) -> Result<()> {
    for (from, to) in
        [("lib/systemd", "usr/lib/systemd"), ("usr/share/zsh/vendor-completions", "usr/share/zsh/site-functions")]
    {
        let (from, to) = (stage.join(from), stage.join(to));
        if from.exists() {
            let parent = to.parent().context("it has a parent")?;
            fs::create_dir_all(parent)?;
            fs::rename(&from, &to).with_context(|| format!("moving {}", from.display()))?;
        }
    }
    let emptied = stage.join("lib");
    if emptied.exists() {
        fs::remove_dir(emptied)?;
    }
    Ok(())
}

/// The lines of `%files`: every file, and the directories that are ours alone.
fn file_list(stage: &Path) -> Result<String> {
    let found = output(Command::new("find").current_dir(stage).args([".", "-type", "f", "-printf", "/%P\\n"]))?;
    let mut lines: Vec<String> = found
        .lines()
        .map(|file| match file {
            _ if file.starts_with("/etc/") => format!("%config(noreplace) {file}"),
            _ if file.starts_with("/usr/share/man/") || file.starts_with("/usr/share/doc/") => format!("%doc {file}"),
            _ => file.to_owned(),
        })
        .collect();
    if lines.is_empty() {
        bail!("nothing is staged in {}", stage.display());
    }
    for folder in OWNED_FOLDERS {
        if found.lines().any(|file| Path::new(file).starts_with(folder)) {
            lines.push(format!("%dir {folder}"));
        }
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// Ours alone; and those of shells, which a machine without that shell has from us.
const OWNED_FOLDERS: [&str; 9] = [
    "/etc/keepstate",
    "/usr/share/keepstate",
    "/usr/share/keepstate/grafana",
    "/usr/share/keepstate/prometheus",
    "/usr/share/doc/keepstate",
    "/usr/share/fish",
    "/usr/share/fish/vendor_completions.d",
    "/usr/share/zsh",
    "/usr/share/zsh/site-functions",
];

fn spec_text([program, gateway]: &[String; 2]) -> String {
    SPEC.replace("@VERSION@", version()).replace("@PROGRAM@", program).replace("@GATEWAY@", gateway)
}

const SPEC: &str = r#"Name: keepstate
Version: @VERSION@
Release: 1
Summary: Connection tracking: see, explain, size, tune and mend the table
License: MIT OR Apache-2.0
Requires(post): /usr/sbin/groupadd

%description
Findings about the kernel's connection table, its size and settings; the
command line of conntrack; captures replayed through the same tracking; a
gateway in user space with the nftables language. The program is static.

%package gateway
Summary: Keepstate's gateway as a service
Requires: keepstate = %{version}

%description gateway
Units and configuration of a router, firewall and load balancer in user
space with the nftables language. It is not started before its rules are
written.

%install
mkdir -p %{buildroot}
cp -a %{stage}/keepstate/. %{stage}/keepstate-gateway/. %{buildroot}/

%post
# Members of this group may use the control socket of a gateway. Nothing is started.
getent group keepstate >/dev/null || groupadd --system keepstate || :
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    [ "$1" -lt 2 ] || systemctl try-restart keepstate-serve.service keepstate-sync.service || :
fi

%preun
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
    systemctl stop keepstate-serve.service keepstate-sync.service keepstate-doctor.timer || :
fi

%postun
if [ "$1" = 0 ]; then
    groupdel keepstate >/dev/null 2>&1 || :
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi

%post gateway
# Not started: first the administrator writes rules. A running gateway is restarted by an upgrade; its connections are in its state file.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    [ "$1" -lt 2 ] || systemctl try-restart 'keepstate-gateway*.service' || :
fi

%preun gateway
# A gateway that ends leaves its interfaces closed; one that is removed gives them back.
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
    systemctl stop 'keepstate-gateway*.service' || :
    keepstate gateway --detach >/dev/null 2>&1 || :
fi

%files
%defattr(-,root,root,-)
@PROGRAM@

%files gateway
%defattr(-,root,root,-)
@GATEWAY@
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_both_packages_and_no_open_place() {
        let text = spec_text(&["/usr/bin/keepstate".to_owned(), "%config(noreplace) /etc/keepstate/x".to_owned()]);
        assert!(!text.contains('@') && text.contains(version()), "{text}");
        assert!(text.ends_with("%config(noreplace) /etc/keepstate/x\n"));
    }
}

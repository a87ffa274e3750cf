//! `cargo xtask dist --check`: what the distributions' own checks say, and the packages installed, run and removed in a clean root.
use super::check_static;
use super::clean_root::{clean_root, enter, files};
use super::tools::{DistFolders, is_there, output, run};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Runs every check that this machine has the tools for, and says which are skipped.
pub(super) fn check(folders: &DistFolders) -> Result<ExitCode> {
    let packages = |extension: &str| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&folders.out).context("there are no packages yet: cargo xtask dist makes them")?;
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.extension().is_some_and(|known| known == extension));
        found.sort();
        Ok(found)
    };
    let debs = packages("deb")?;
    let (mut skipped, mut checked) = check_static::check(folders, &packages("rpm")?)?;
    if debs.is_empty() {
        skipped.push("no .deb files were made".to_owned());
        return Ok(report(&skipped, checked));
    }
    if debs.len() != 2 {
        bail!("two .deb files are expected in {}, there are {}", folders.out.display(), debs.len());
    }
    if is_there("lintian") {
        run(Command::new("lintian")
            .args(["--fail-on", "error,warning", "--allow-root", "--suppress-tags", LINTIAN_SUPPRESSED])
            .args(&debs))?;
        println!("lintian: no error, no warning");
        checked += 1;
    } else {
        skipped.push("lintian; type: apt-get install lintian".to_owned());
    }
    if output(Command::new("id").arg("-u"))?.trim() != "0" || !is_there("debootstrap") {
        skipped
            .push("installed in a clean root: it needs root and debootstrap (apt-get install debootstrap)".to_owned());
    } else {
        install_run_remove(folders, &debs)?;
        println!("installed, run, removed in a clean root: nothing is left but conffiles");
        checked += 1;
    }
    Ok(report(&skipped, checked))
}

fn report(skipped: &[String], checked: usize) -> ExitCode {
    for what in skipped {
        eprintln!("######## SKIPPED: {what}");
    }
    println!("{checked} checks passed, {} skipped", skipped.len());
    if checked > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What lintian says of packages for an archive: who uploads them, where its mail goes. The scripts call systemctl only where systemd runs, and start nothing.
const LINTIAN_SUPPRESSED: &str = "initial-upload-closes-no-bugs,bogus-mail-host,bogus-mail-host-in-debian-changelog,maintainer-script-calls-systemctl";

/// Installs in a copy of the clean root, which is thrown away.
fn install_run_remove(folders: &DistFolders, debs: &[PathBuf]) -> Result<()> {
    let clean = clean_root(folders)?;
    let root = folders.target.join("dist-root.used");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&clean).arg(&root))?;
    for deb in debs {
        fs::copy(deb, root.join("tmp").join(deb.file_name().context("a package has a name")?))?;
    }
    fs::write(
        root.join("tmp/try.nft"),
        "table inet filter { chain forward { type filter hook forward priority 0; policy accept; } }\n",
    )?;
    fs::write(
        root.join("tmp/try.toml"),
        "version = 1\nruleset = \"try.nft\"\ncontrol = \"/run/keepstate-try.sock\"\nstate = \"state\"\ndevice = [{ name = \"try0\", addresses = [\"10.9.0.1/24\"] }]\n",
    )?;
    let result = in_root(&root);
    fs::remove_dir_all(&root)?;
    result
}

fn in_root(root: &Path) -> Result<()> {
    let before = files(root)?;
    enter(root, "dpkg -i /tmp/keepstate_*.deb /tmp/keepstate-gateway_*.deb")?;
    enter(
        root,
        "keepstate --version && keepstate check /etc/keepstate/gateway.toml && test -s /usr/share/man/man1/keepstate-gateway.1.gz",
    )?;
    // Nothing runs, nothing is enabled, no conntrack is replaced.
    enter(root, "! ls /etc/systemd/system/*/keepstate* 2>/dev/null && ! command -v conntrack")?;
    // 0 ok, 1 warning, 2 critical: all are an answer; 3 is none.
    enter(root, "keepstate doctor; test $? -lt 3")?;
    enter(
        root,
        "update-alternatives --install /usr/local/sbin/conntrack conntrack /usr/bin/keepstate 10 && conntrack --version | grep -q conntrack",
    )?;
    // A gateway with a ruleset: it answers, ends, and has its connections again.
    enter(root, RUN_GATEWAY)?;
    // An upgrade over itself keeps what an administrator has changed.
    enter(
        root,
        "echo '# mine' >> /etc/keepstate/gateway.toml && dpkg -i /tmp/keepstate_*.deb /tmp/keepstate-gateway_*.deb && grep -q '# mine' /etc/keepstate/gateway.toml",
    )?;
    enter(root, "dpkg -r keepstate-gateway keepstate")?;
    let left: Vec<String> = files(root)?.difference(&before).cloned().collect();
    let conffiles = ["etc/keepstate", "etc/keepstate/gateway.nft", "etc/keepstate/gateway.toml"];
    if left != conffiles {
        bail!("after the removal there is {left:?}");
    }
    enter(root, "dpkg -P keepstate-gateway keepstate && ! getent group keepstate")?;
    let left: Vec<String> = files(root)?.difference(&before).cloned().collect();
    if left.is_empty() { Ok(()) } else { bail!("after the purge there is {left:?}") }
}

/// In a network namespace of its own, twice with the same state file.
const RUN_GATEWAY: &str = r#"
for entries in 0 1; do
    keepstate gateway --config /tmp/try.toml & pid=$!
    tries=0
    until keepstate control --socket /run/keepstate-try.sock count >/tmp/count 2>/dev/null; do
        tries=$((tries + 1)); [ $tries -lt 200 ] && kill -0 $pid || exit 1; sleep 0.1
    done
    [ "$(cat /tmp/count)" = $entries ] || exit 1
    keepstate conntrack --gateway=/run/keepstate-try.sock -I -p udp -s 10.9.0.2 -d 10.9.0.3 --sport 1 --dport 2 -t 600 2>/dev/null
    kill $pid; wait $pid || exit 1
done
rm -rf /tmp/state* /tmp/count
"#;

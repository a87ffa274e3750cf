//! Checks of what holds the static program: the archive, the RPM packages, the container image.
use super::archive::{image_file, tarball_file};
use super::clean_root::{clean_root, enter, files};
use super::tools::{DistFolders, STATIC_TARGET, is_there, output, run, version};
use super::{auditable, third_party};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs every check that this machine has the tools for: those that are skipped, and how many have passed.
pub(super) fn check(folders: &DistFolders, rpms: &[PathBuf]) -> Result<(Vec<String>, usize)> {
    let (mut skipped, mut checked) = (Vec::new(), 0);
    let is_root = output(Command::new("id").arg("-u"))?.trim() == "0";
    if tarball_file(folders).exists() {
        match check_tarball(folders)? {
            0 => {
                skipped.push("crates named inside the static program: it was built without cargo-auditable".to_owned())
            }
            count => println!("static program: names the {count} crates that it was made of"),
        }
        println!("static archive: unpacked, runs without a dynamic linker");
        checked += 1;
    } else {
        skipped.push("no static archive was made".to_owned());
    }
    if rpms.is_empty() {
        skipped.push("no .rpm files were made".to_owned());
    } else {
        if is_there("rpmlint") {
            lint_rpms(folders, rpms)?;
            println!("rpmlint: no error");
            checked += 1;
        } else {
            skipped.push("rpmlint; type: apt-get install rpmlint".to_owned());
        }
        if is_root && is_there("rpm") && is_there("debootstrap") {
            install_rpms(folders, rpms)?;
            println!("rpm: installed, run, removed in a clean root: nothing is left");
            checked += 1;
        } else {
            skipped.push("RPM installed in a clean root: it needs root, rpm and debootstrap".to_owned());
        }
    }
    let image = image_file(folders);
    if !image.exists() {
        skipped.push("no container image was made".to_owned());
    } else if is_there("skopeo") {
        let name = format!("oci-archive:{}:{}", image.display(), version());
        let shown = output(Command::new("skopeo").args(["inspect", "--config"]).arg(&name))?;
        if !shown.contains("/usr/bin/keepstate") {
            bail!("skopeo shows an image without entry point: {shown}");
        }
        run_image(folders, &name, is_root && is_there("umoci"), &mut skipped)?;
        println!("container image: read by skopeo");
        checked += 1;
    } else {
        skipped.push("container image; type: apt-get install skopeo umoci".to_owned());
    }
    Ok((skipped, checked))
}

/// A folder for one check, empty.
fn scratch(folders: &DistFolders, name: &str) -> Result<PathBuf> {
    let path = folders.target.join(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// How many crates the program names, all that it links, or none.
fn check_tarball(folders: &DistFolders) -> Result<usize> {
    let place = scratch(folders, "dist-static")?;
    run(Command::new("tar").arg("--extract").arg("--file").arg(tarball_file(folders)).arg("--directory").arg(&place))?;
    let tree = place.join(format!("keepstate-{}", version()));
    let said = output(Command::new(tree.join("keepstate")).arg("--version"))?;
    if !said.contains(version()) {
        bail!("the static program says {said}");
    }
    let headers = output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(tree.join("keepstate")))?;
    if headers.contains("INTERP") {
        bail!("the static program asks for a dynamic linker");
    }
    for file in ["THIRD-PARTY.txt", "LICENSE-MIT", "man/keepstate.1", "completions/keepstate.bash"] {
        if fs::metadata(tree.join(file)).with_context(|| format!("the archive has no {file}"))?.len() == 0 {
            bail!("{file} in the archive is empty");
        }
    }
    let named = auditable::crates(folders, &tree.join("keepstate"))?;
    let missing: Vec<String> =
        third_party::crates(folders, STATIC_TARGET)?.into_iter().filter(|linked| !named.contains(linked)).collect();
    if !named.is_empty() && !missing.is_empty() {
        bail!("the list of crates inside the static program lacks {missing:?}");
    }
    fs::remove_dir_all(place)?;
    Ok(named.len())
}

/// Errors fail; what is our intention is not one.
fn lint_rpms(folders: &DistFolders, rpms: &[PathBuf]) -> Result<()> {
    let settings = folders.out.join("rpmlint.toml");
    fs::write(&settings, RPMLINT_SETTINGS)?;
    run(Command::new("rpmlint").arg("--config").arg(&settings).args(rpms))
}

/// The program is static by intention; there is neither a home page nor a changelog of packagers, and whoever publishes the packages signs them; the group's name is the program's, and goes with it;
/// configuration has its own manual page and no binary; units are below /usr/lib; manual pages are compressed by gzip, as Debian's.
const RPMLINT_SETTINGS: &str = r#"
Filters = [
    "statically-linked-binary", "no-changelogname-tag", "no-url-tag", "no-documentation", "no-group-tag",
    "invalid-license", "non-standard-group", "spelling-error", "no-manual-page-for-binary", "position-independent-executable-suggested",
    "no-packager-tag", "no-signature", "no-binary", "only-non-binary-in-usr-lib", "manpage-not-compressed", "dangerous-command-in-%postun",
]
"#;

/// In a Debian root, whose own packages rpm does not know: what they have (groupadd, a shell) is there nevertheless.
fn install_rpms(folders: &DistFolders, rpms: &[PathBuf]) -> Result<()> {
    let root = folders.target.join("dist-root.rpm");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(clean_root(folders)?).arg(&root))?;
    let result = install_in(&root, rpms);
    fs::remove_dir_all(&root)?;
    result
}

fn install_in(root: &Path, rpms: &[PathBuf]) -> Result<()> {
    let rpm = || {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(root).args(["--dbpath", "/var/lib/dpkg/rpm-of-the-check"]);
        rpm
    };
    run(rpm().arg("--initdb"))?;
    let before = files(root)?;
    run(rpm().args(["--install", "--nodeps"]).args(rpms))?;
    enter(
        root,
        "keepstate --version && keepstate check /etc/keepstate/gateway.toml && getent group keepstate && test -s /usr/lib/systemd/system/keepstate-gateway.service",
    )?;
    run(rpm().args(["--erase", "keepstate-gateway", "keepstate"]))?;
    enter(root, "! getent group keepstate")?;
    // systemd's own folder, which this root without systemd has not.
    let is_ours = |path: &&String| *path != "usr/lib/sysusers.d";
    let left: Vec<String> = files(root)?.difference(&before).filter(is_ours).cloned().collect();
    if left.is_empty() { Ok(()) } else { bail!("after the removal of the RPM packages there is {left:?}") }
}

/// Runs the image's program in the image's files, where they can be unpacked.
fn run_image(folders: &DistFolders, name: &str, can_unpack: bool, skipped: &mut Vec<String>) -> Result<()> {
    if !can_unpack {
        skipped.push("container image run: it needs root and umoci (apt-get install umoci)".to_owned());
        return Ok(());
    }
    let place = scratch(folders, "dist-image")?;
    let layout = format!("oci:{}:{}", place.join("layout").display(), version());
    run(Command::new("skopeo").args(["copy", "--quiet"]).arg(name).arg(layout))?;
    let image = format!("{}:{}", place.join("layout").display(), version());
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(place.join("bundle")))?;
    let said =
        output(Command::new("chroot").arg(place.join("bundle/rootfs")).args(["/usr/bin/keepstate", "--version"]))?;
    if !said.contains(version()) {
        bail!("the program in the image says {said}");
    }
    println!("container image: unpacked by umoci, runs");
    Ok(fs::remove_dir_all(place)?)
}

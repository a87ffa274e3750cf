//! `keepstate tune --root` as root on an image that is somebody else's: nothing outside the image is read, written or waited for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const JOURNAL: &str = "var/lib/keepstate/tune/journal.json";
const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";

/// An image, and a directory beside it that stands for the host's files.
struct UntrustedImage {
    directory: TempDir,
}

impl UntrustedImage {
    fn new() -> UntrustedImage {
        let image = UntrustedImage { directory: tempfile::tempdir().unwrap() };
        for (path, text) in [
            (MAX, "65536\n"),
            ("proc/sys/net/netfilter/nf_conntrack_buckets", "65536\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "10\n"),
            ("proc/meminfo", "MemTotal:        3964516 kB\nMemAvailable:    3000000 kB\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("usr/lib/systemd/systemd", ""),
            ("usr/lib/modules/6.1.0-18-amd64/modules.dep", "kernel/net/netfilter/nf_conntrack.ko:\n"),
        ] {
            image.write(path, text);
        }
        fs::create_dir(image.host("")).unwrap();
        image
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.directory.path().join("image").join(path)
    }

    fn host(&self, path: &str) -> PathBuf {
        self.directory.path().join("host").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.inside(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn tune(&self, words: &[&str]) -> Output {
        // A hang is a failure, not a wait for ever.
        Command::new("timeout")
            .args(["60", env!("CARGO_BIN_EXE_keepstate"), "tune"])
            .args(words)
            .arg("--root")
            .arg(self.inside(""))
            .output()
            .unwrap()
    }

    fn apply(&self) -> Output {
        self.tune(&["apply", "--persist", "--max", "1M"])
    }

    /// The names of everything below the host's directory.
    fn host_files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.host("")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A journal with one file and one sysctl, as tune writes it.
fn journal() -> Value {
    let content = |text: &str| json!({"bytes": text.as_bytes(), "mode": 0o644});
    json!({
        "schema": "keepstate.tune-journal/1", "id": "1-1", "stage": "applied", "at": 1,
        "knobs": [{"key": "net.netfilter.nf_conntrack_max", "before": "65536", "after": "65536"}],
        "files": [{"path": "/etc/sysctl.d/99-keepstate.conf", "before": content("old"), "after": content("new")}],
        "directories": [], "confirm_until": null,
    })
}

#[test]
fn a_crafted_journal_is_refused_and_nothing_is_written() {
    let outside = |image: &UntrustedImage, name: &str| {
        let host = image.host(name);
        format!("/{}{}", "../".repeat(20), host.strip_prefix("/").unwrap().display())
    };
    type Craft = fn(&mut Value, &str);
    let crafts: [(&str, Craft); 9] = [
        ("a path with ..", |journal, outside| journal["files"][0]["path"] = outside.into()),
        ("a path with .. behind ours", |journal, outside| {
            journal["files"][0]["path"] = format!("/etc/sysctl.d/99-keepstate.conf/../..{outside}").into();
        }),
        ("another file", |journal, _| journal["files"][0]["path"] = "/etc/cron.d/evil".into()),
        ("a relative path", |journal, _| journal["files"][0]["path"] = "etc/sysctl.d/99-keepstate.conf".into()),
        ("setuid", |journal, _| journal["files"][0]["before"]["mode"] = 0o4755.into()),
        ("another sysctl", |journal, _| journal["knobs"][0]["key"] = "kernel.core_pattern".into()),
        ("a key that leads out", |journal, _| {
            journal["knobs"][0]["key"] = "net.netfilter.nf_conntrack_/../../../x".into();
        }),
        ("a value of two lines", |journal, _| journal["knobs"][0]["before"] = "1\n2".into()),
        ("another directory", |journal, outside| journal["directories"] = json!([outside])),
    ];
    for (what, craft) in crafts {
        let image = UntrustedImage::new();
        image.write("etc/sysctl.d/99-keepstate.conf", "new");
        let target = outside(&image, "target");
        fs::create_dir(image.host("target")).unwrap();
        let mut crafted = journal();
        craft(&mut crafted, &target);
        image.write(JOURNAL, &crafted.to_string());
        for words in [&["rollback"][..], &["rollback", "--force"], &["verify"], &["status"]] {
            let done = image.tune(words);
            assert_eq!(done.status.code(), Some(1), "{what} {words:?}: {}", text(&done));
            assert!(text(&done).contains("was not written by keepstate tune"), "{what}: {}", text(&done));
        }
        assert_eq!(image.host_files(), [image.host("target")], "{what}");
        assert_eq!(fs::read_to_string(image.inside("etc/sysctl.d/99-keepstate.conf")).unwrap(), "new", "{what}");
    }
    // As it is, the journal is obeyed.
    let image = UntrustedImage::new();
    image.write("etc/sysctl.d/99-keepstate.conf", "new");
    image.write(JOURNAL, &journal().to_string());
    let done = image.tune(&["rollback"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    assert_eq!(fs::read_to_string(image.inside("etc/sysctl.d/99-keepstate.conf")).unwrap(), "old");
}

#[test]
fn links_of_the_image_do_not_lead_out_of_it() {
    for link in [
        "etc",
        "etc/sysctl.d",
        "etc/modules-load.d",
        "etc/sysctl.d/.99-keepstate.conf.keepstate-new",
        "etc/sysctl.d/99-keepstate.conf",
        "var/lib/keepstate/tune",
        "var/lib/keepstate/tune/journal.json",
        MAX,
    ] {
        let image = UntrustedImage::new();
        let (place, target) = (image.inside(link), image.host("target"));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&place);
        if link.contains(".conf") || link.ends_with("json") || link == MAX {
            fs::write(&target, "65536\n").unwrap();
        } else {
            fs::create_dir(&target).unwrap();
        }
        symlink(&target, &place).unwrap();
        let (applied, back) = (image.apply(), image.tune(&["rollback", "--force"]));
        for done in [&applied, &back] {
            assert!(matches!(done.status.code(), Some(0 | 1)), "{link}: {}", text(done));
        }
        assert_eq!(image.host_files(), std::slice::from_ref(&target), "{link}: {}", text(&applied));
        if target.is_dir() {
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{link}");
        } else {
            assert_eq!(fs::read_to_string(&target).unwrap(), "65536\n", "{link}");
        }
    }
}

#[test]
fn a_link_inside_the_image_is_followed_inside_it() {
    let image = UntrustedImage::new();
    fs::create_dir_all(image.inside("usr/etc/sysctl.d")).unwrap();
    symlink("/usr/etc", image.inside("etc")).unwrap();
    let applied = image.apply();
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied));
    assert!(image.inside("usr/etc/sysctl.d/99-keepstate.conf").is_file());
    assert_eq!(image.tune(&["rollback"]).status.code(), Some(0));
    assert!(!image.inside("usr/etc/sysctl.d/99-keepstate.conf").exists());
}

#[test]
fn fifos_devices_huge_files_and_loops_do_not_hang() {
    let fifo = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    let huge = |path: &Path| fs::File::create(path).unwrap().set_len(1 << 42).unwrap();
    let endless = |path: &Path| symlink(path, path).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Make<'_>); 3] = [("fifo", &fifo), ("huge", &huge), ("loop", &endless)];
    for (kind, make) in kinds {
        for path in
            ["etc/sysctl.d/10-a.conf", "etc/sysctl.d/99-keepstate.conf", "etc/modules", JOURNAL, "proc/meminfo", MAX]
        {
            let image = UntrustedImage::new();
            let place = image.inside(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&place);
            make(&place);
            for words in [&["plan", "--persist", "--max", "1M"][..], &["verify"], &["status"], &["rollback"]] {
                let done = image.tune(words);
                assert!(matches!(done.status.code(), Some(0 | 1)), "{kind} {path} {words:?}: {}", text(&done));
            }
            let done = image.apply();
            assert!(matches!(done.status.code(), Some(0 | 1)), "{kind} {path}: {}", text(&done));
            // A cause is told once, and a right that would not help is not asked for.
            let last = text(&done).lines().last().unwrap_or_default().to_owned();
            let twice = last.split(": ").zip(last.split(": ").skip(1)).any(|(one, next)| one == next);
            assert!(!twice && !last.contains("as root: "), "{kind} {path}: {last}");
        }
    }
}

#[test]
fn this_machine_by_another_name_is_no_image() {
    let there = tempfile::tempdir().unwrap();
    let link = there.path().join("image");
    symlink("/", &link).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_keepstate")).args(["tune", "status", "--root"]).arg(&link).output();
    assert!(text(&done.unwrap()).contains("is this machine's /"), "a link to / is this machine");
}

#[test]
fn a_written_file_is_never_setuid() {
    let image = UntrustedImage::new();
    image.write("etc/sysctl.d/99-keepstate.conf", "# mine\n");
    let path = image.inside("etc/sysctl.d/99-keepstate.conf");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    assert_eq!(image.apply().status.code(), Some(0));
    assert_eq!(image.tune(&["rollback"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
}

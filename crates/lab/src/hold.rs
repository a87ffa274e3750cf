//! The stage is held, to play with: what to type, until Ctrl-C.
use super::router::{RouterKind, current_exe};
use super::topology::{Side, Topology};
use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Says what to type, and waits.
pub(super) fn hold_until_interrupted(stage: &Topology, ended: &AtomicBool) -> Result<()> {
    write_scripts(stage)?;
    let at = stage.work_dir.path().display();
    let lines = [
        ("clients curl http://192.0.2.9/", "out, translated"),
        ("servers curl http://192.0.2.1:8080/", "the published port"),
        ("clients ping -c 3 192.0.2.9", ""),
        ("clients bash", "a shell inside; servers bash: outside"),
    ];
    anstream::println!("\nIt stays up. In another terminal:\n\n  cd {at}");
    for (command, why) in lines {
        print_hint(command, why);
    }
    if stage.router.kind() == RouterKind::Keepstate {
        for (command, why) in [
            ("control list -p tcp --state ESTABLISHED", "its connections; control --help says more"),
            ("control set nf_conntrack_max=100", "make it small, and see"),
            ("doctor", "what is wrong with its table"),
            ("control reload", "after you have changed router.nft"),
        ] {
            print_hint(command, why);
        }
    } else {
        print_hint("gateway keepstate conntrack -L -p tcp", "its connections");
        print_hint("gateway nft list ruleset", "its rules, with counters");
    }
    anstream::println!("\nCtrl-C takes it all away.");
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn print_hint(command: &str, why: &str) {
    let note = if why.is_empty() { String::new() } else { format!("# {why}") };
    anstream::println!("  {}", format!("./{command:<44} {note}").trim_end());
}

/// Small programs in the folder, so that what is to be typed is short.
fn write_scripts(stage: &Topology) -> Result<()> {
    let enter = |space: &keepstate_linux::netns::AnonNetns| {
        let (process, net) = (std::process::id(), space.path());
        let net = net.display();
        // Where this process is root of a user namespace of its own, whoever enters must enter that first.
        format!(
            "if [ \"$(readlink /proc/self/ns/user)\" = \"$(readlink /proc/{process}/ns/user)\" ]; then\n\
             exec nsenter --net={net} \"$@\"\nfi\n\
             exec nsenter --target {process} --user --preserve-credentials --net={net} \"$@\""
        )
    };
    stage.work_dir.write_script("clients", &enter(stage.netns_of(Side::Client)))?;
    stage.work_dir.write_script("servers", &enter(stage.netns_of(Side::Server)))?;
    stage.work_dir.write_script("gateway", &enter(stage.router.netns()))?;
    let (program, socket) = (current_exe()?, stage.router.socket());
    let (program, socket) = (program.display(), socket.display());
    stage.work_dir.write_script("keepstate", &format!("exec {program} \"$@\""))?;
    stage.work_dir.write_script("control", &format!("exec {program} control --socket {socket} \"$@\""))?;
    stage.work_dir.write_script("doctor", &format!("exec {program} doctor --gateway={socket} \"$@\""))
}

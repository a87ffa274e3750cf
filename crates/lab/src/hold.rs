//! `--hold`: the laboratory stays up and prints the commands to type, until Ctrl-C.
use super::process::current_exe;
use super::router::RouterKind;
use super::topology::{Side, Topology};
use anyhow::Result;
use keepstate_linux::netns::AnonNetns;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Prints the commands, and waits.
pub(super) fn hold_until_interrupted(topology: &Topology, interrupted: &AtomicBool) -> Result<()> {
    write_scripts(topology)?;
    let page = PageServer::start(topology);
    let folder = topology.work_dir.path().display();
    match &page {
        Some(page) => anstream::println!("\nThe gateway's table live, in a browser: {}", page.url),
        None if topology.router.kind() == RouterKind::Keepstate => {
            anstream::println!(
                "\nNo page for a browser: keepstate serve did not start outside of the namespaces (without root it may not)"
            );
        }
        None => (),
    }
    show_screen(topology);
    anstream::println!("\nThe laboratory stays up. In another terminal:\n\n  cd {folder}");
    print_hint("clients curl http://192.0.2.9/", "outbound, source address translated");
    print_hint("servers curl http://192.0.2.1:8080/", "the published port");
    print_hint("clients ping -c 3 192.0.2.9", "");
    print_hint("clients bash", "a shell inside; ./servers bash: outside");
    if topology.router.kind() == RouterKind::Keepstate {
        print_hint("keepstate top --gateway=control.sock", "the table live: who fills it; q ends it");
        print_hint("control list -p tcp --state ESTABLISHED", "the gateway's connections; more: ./control --help");
        print_hint("control set nf_conntrack_max=100", "lower the table limit");
        print_hint("doctor", "diagnose the gateway's table");
        print_hint("control reload", "load router.nft again after you have edited it");
    } else {
        print_hint("gateway ./keepstate conntrack -L -p tcp", "the router's connections");
        print_hint("gateway nft list ruleset", "its rules, with counters");
    }
    anstream::println!("\nCtrl-C removes everything.");
    while !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// One screen of `keepstate top`, as it is now; small enough for any terminal. Without it the laboratory goes on too.
fn show_screen(topology: &Topology) {
    if topology.router.kind() != RouterKind::Keepstate {
        return;
    }
    anstream::println!("\nAnd as keepstate top shows it:\n");
    let (Ok(outside), Ok(program)) = (AnonNetns::current(), current_exe()) else { return };
    let mut top = outside.command(program);
    top.args(["top", "--once", "--doctor", "0", "--size", "80x16"]);
    // What it cannot show it says itself.
    let _ = top.arg(format!("--gateway={}", topology.router.socket().display())).stdin(Stdio::null()).status();
}

/// `keepstate serve` beside the laboratory, outside of its namespaces: a browser of this machine must reach it. It ends with this.
struct PageServer {
    child: Child,
    url: String,
}

impl PageServer {
    /// `None` if there is no gateway, or if it does not start: the laboratory goes on without it.
    fn start(topology: &Topology) -> Option<PageServer> {
        if topology.router.kind() != RouterKind::Keepstate {
            return None;
        }
        let outside = AnonNetns::current().ok()?;
        let mut command = outside.command(current_exe().ok()?);
        command.args(["serve", "--doctor", "0", "--listen", "127.0.0.1:0"]);
        command.arg(format!("--gateway={}", topology.router.socket().display()));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
        let said = child.stderr.take()?;
        let mut server = PageServer { child, url: String::new() };
        // It says its address, or ends with an error.
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        let url = lines.find_map(|line| {
            let from = line.find("http://")?;
            line[from..].split_whitespace().next().map(str::to_owned)
        })?;
        // Nobody reads its later lines; it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        server.url = url;
        Some(server)
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn print_hint(command: &str, note: &str) {
    let note = if note.is_empty() { String::new() } else { format!("# {note}") };
    anstream::println!("  {}", format!("./{command:<44} {note}").trim_end());
}

/// Scripts in the work directory that keep the commands short.
fn write_scripts(topology: &Topology) -> Result<()> {
    let enter = |netns: &AnonNetns| {
        let (process, net) = (std::process::id(), netns.path());
        let net = net.display();
        // If this process is root of its own user namespace, the script must enter that first.
        format!(
            "if [ \"$(readlink /proc/self/ns/user)\" = \"$(readlink /proc/{process}/ns/user)\" ]; then\n\
             exec nsenter --net={net} \"$@\"\nfi\n\
             exec nsenter --target {process} --user --preserve-credentials --net={net} \"$@\""
        )
    };
    let work_dir = &topology.work_dir;
    work_dir.write_script("clients", &enter(topology.netns_of(Side::Client)))?;
    work_dir.write_script("servers", &enter(topology.netns_of(Side::Server)))?;
    work_dir.write_script("gateway", &enter(topology.router.netns()))?;
    let (program, socket) = (current_exe()?, topology.router.socket());
    let (program, socket) = (program.display(), socket.display());
    work_dir.write_script("keepstate", &format!("exec {program} \"$@\""))?;
    work_dir.write_script("control", &format!("exec {program} control --socket {socket} \"$@\""))?;
    work_dir.write_script("doctor", &format!("exec {program} doctor --gateway={socket} \"$@\""))
}

//! A gateway that governs interfaces can be asked without having been told so, unless another one is asked there already; and it says at its start what its end brings.
use super::*;
use keepstate_test_support::wait_until_it_routes;
use std::process::{Output, Stdio};

const GATEWAY: &str = env!("CARGO_BIN_EXE_keepstate");

/// In the namespaces of a process: its network, and its mounts.
fn inside(pid: u32, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-m", "-n", "-t", &pid.to_string()]).args(words);
    command
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[test]
fn a_gateway_is_asked_at_the_usual_path() {
    let Some(mut lab) = TcTestbed::without_gateway("asked", RULES) else { return };
    // Other gateways of this machine have the usual directory: this one has another in its place.
    let script = "mkdir -p /run/keepstate; mount -t tmpfs none /run/keepstate; exec \"$0\" gateway --ruleset \"$1\" --interface r0,r1";
    let mut first = Command::new("ip");
    first.args(["netns", "exec", &lab.netns.name("r"), "sh", "-ec", script, GATEWAY, lab.ruleset.path()]);
    let mut first = first.env_remove("SSH_CONNECTION").stderr(Stdio::piped()).spawn().unwrap();
    let pid = first.id();
    let said = wait_until_it_routes(&mut first);
    lab.gateway = Some(first);
    let said = said.unwrap();
    assert!(said.contains("r0, r1 stay closed, for SSH to this machine too"), "{said}");
    let asked = || inside(pid, &[GATEWAY, "control", "interfaces"]).output().unwrap();
    let answer = asked();
    assert!(answer.status.success() && text(&answer).contains("10.0.2.1/24"), "{}", text(&answer));

    // Another one, of another network namespace of the same machine: it says that it cannot be asked there, and runs.
    let client = lab.netns.name("c");
    let second =
        ["ip", "netns", "exec", &client, GATEWAY, "gateway", "--ruleset", lab.ruleset.path(), "--interface", "c0"];
    let mut second = inside(pid, &second).stderr(Stdio::piped()).spawn().unwrap();
    let said = wait_until_it_routes(&mut second);
    second.kill().unwrap();
    second.wait().unwrap();
    let detached = inside(pid, &["ip", "netns", "exec", &client, GATEWAY, "gateway", "--detach"]).output().unwrap();
    let said = said.unwrap();
    assert!(said.contains("no control socket: another gateway listens on /run/keepstate/gateway.sock"), "{said}");
    assert!(detached.status.success(), "{}", text(&detached));
    let answer = asked();
    assert!(text(&answer).contains("10.0.2.1/24"), "{}", text(&answer));
}

/// Who starts a gateway over SSH, by an interface that it governs, is told what would be lost.
#[test]
fn an_ssh_session_is_warned_of_the_end() {
    let Some(mut lab) = TcTestbed::without_gateway("warned", RULES) else { return };
    for (session, how, warning) in [
        ("10.0.1.2 50022 10.0.1.1 2222", &["--control", "off"][..], Some("--lifeline r0:2222")),
        ("10.0.1.2 50022 10.0.1.1 2222", &["--control", "off", "--lifeline", "r0:2222"], None),
        ("10.0.1.2 50022 10.0.1.1 22", &["--control", "off", "--on-exit", "open"], None),
        // By an interface that is not governed.
        ("10.0.2.2 50022 10.0.2.1 22", &["--control", "off"], None),
    ] {
        let words = [&["--ruleset", lab.ruleset.path(), "--interface", "r0"][..], how].concat();
        let mut gateway =
            lab.netns.gateway_command(&words).env("SSH_CONNECTION", session).stderr(Stdio::piped()).spawn().unwrap();
        let said = wait_until_it_routes(&mut gateway);
        lab.gateway = Some(gateway);
        lab.kill();
        let said = said.unwrap();
        let warned = said.contains("you would be locked out");
        assert!(
            warned == warning.is_some() && warning.is_none_or(|words| said.contains(words)),
            "{session} {how:?}: {said}"
        );
    }
}

//! Elements that end: which end a packet, a script or the ruleset gives them, and that they end in use, beside the kernel. `*` among them.
use crate::kernel::Kernel;
use crate::rule_counters::in_own_thread;
use crate::selectors::from_lan;
use crate::traffic::udp;
use crate::{now, router_of};
use keepstate_engine::Instant;
use keepstate_router::Router;
use keepstate_rules::NoIncludes;
use keepstate_rules::ast::Query;
use std::process::Command;
use std::time::Duration;

/// Ends may differ by this many seconds: the two are asked one after another. The test's timeouts differ by more.
const TOLERANCE: u64 = 300;

fn nft(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("nft").args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run_script(router: &mut Router, script: &str, now: Instant) -> bool {
    let Ok(update) = router.program().ruleset().prepare_script(("script", script), &NoIncludes, now) else {
        return false;
    };
    router.update_program(update, now).is_ok()
}

fn our_listing(router: &Router, now: Instant) -> String {
    let everything = Query::default();
    let mut state = router.program().start_snapshot(std::slice::from_ref(&everything), now);
    while router.program().continue_snapshot(&mut state, 64) == Some(false) {}
    state.list(&everything, keepstate_rules::ListOptions::default()).unwrap()
}

/// The seconds of a duration: `1h59m59s976ms`.
fn seconds_of(duration: &str) -> u64 {
    let units = duration.split(|c: char| c.is_ascii_digit()).filter(|unit| !unit.is_empty());
    let numbers = duration.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    numbers
        .zip(units)
        .map(|(number, unit)| {
            let seconds = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)].iter().find(|(known, _)| *known == unit);
            number.parse::<u64>().unwrap() * seconds.map_or(0, |(_, seconds)| *seconds)
        })
        .sum()
}

/// The elements of a listing, each with its set, and the seconds until it ends.
fn elements(listing: &str) -> Vec<(String, Option<u64>)> {
    let (mut found, mut set, mut inside) = (Vec::new(), String::new(), false);
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("set ").or_else(|| line.strip_prefix("map ")) {
            set = name.trim_end_matches(" {").to_owned();
        }
        let line = match line.strip_prefix("elements = { ") {
            Some(first) => first,
            None if inside => line,
            None => continue,
        };
        inside = !line.ends_with('}');
        for element in line.trim_end_matches([' ', '}', ',']).split(", ").filter(|element| !element.is_empty()) {
            let (before, behind) = element.split_once(" expires ").unwrap_or((element, ""));
            let (expires, value) = behind.split_once(" : ").unwrap_or((behind, ""));
            let seconds = (!expires.is_empty()).then(|| seconds_of(expires));
            found.push((format!("{set}: {before} {value}").trim_end().to_owned(), seconds));
        }
    }
    found.sort();
    found
}

/// Panics unless both list the same elements with the same ends.
fn compare_elements(router: &Router, what: &str) {
    let (ours, theirs) = (elements(&our_listing(router, now())), elements(&nft(&["list", "ruleset"]).1));
    let same = ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|((one, ours), (other, theirs))| {
            one == other
                && match (ours, theirs) {
                    (Some(ours), Some(theirs)) => ours.abs_diff(*theirs) <= TOLERANCE,
                    (ours, theirs) => ours == theirs,
                }
        });
    assert!(same, "after {what}:\nours:  {ours:#?}\nLinux: {theirs:#?}");
}

const RULES: &str = "table inet t {
    set usual { type inet_service; flags dynamic,timeout; timeout 1h; size 99; elements = { 20, 21 timeout 3h }; }
    set own { type inet_service; flags dynamic,timeout; size 99; elements = { 1, 2 timeout 2h, 3, 8 timeout 10h }; }
    map marks { type inet_service : mark; flags dynamic,timeout; size 99; elements = { 30 : 7, 31 timeout 5h : 8 }; }
    set listed { type inet_service; flags timeout; elements = { 40 timeout 2h, 41 }; }
    chain c {
        type filter hook forward priority filter;
        udp dport 1 update @own { udp dport timeout 30m }
        udp dport 2 update @own { udp dport }
        udp dport 2 udp dport @own counter
        udp dport 3 add @own { udp dport timeout 30m }
        udp dport 4 update @own { udp dport timeout 30m }
        udp dport 5 update @own { udp dport }
        udp dport 6 add @own { udp dport timeout 30m }
        udp dport 6 update @own { udp dport timeout 4h }
        udp dport 7 add @own { udp dport }
        udp dport 7 update @own { udp dport timeout 4h }
        udp dport 8 delete @own { udp dport }
        udp dport 20 update @usual { udp dport timeout 30m }
        udp dport 21 update @usual { udp dport }
        udp dport 22 update @usual { udp dport timeout 30m }
        udp dport 23 add @usual { udp dport }
        udp dport 24 update @usual { udp dport }
        udp dport 30 update @marks { udp dport timeout 30m : 9 }
        udp dport 31 update @marks { udp dport timeout 30m : 9 }
        udp dport 32 update @marks { udp dport timeout 30m : 9 }
    }
}";

#[test]
fn packets_and_scripts_give_elements_the_ends_that_linux_gives_them() {
    in_own_thread(|| {
        let Some(mut kernel) = Kernel::new(RULES) else { return false };
        let mut router = router_of(RULES);
        router.poll(now());
        let ports = [1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 22, 23, 24, 30, 31, 32];
        for port in ports.iter().chain(&ports).chain(&[2]) {
            let arrival = from_lan("", false, &udp(4000, *port, 1));
            router.handle(&arrival.packet, 1, now()).unwrap();
            while router.poll_output().is_some() {}
            kernel.handle(&arrival.packet, 0, 1);
            compare_elements(&router, &format!("a packet to port {port}"));
        }
        let counted: Vec<_> = router.program().rule_counters().map(|(_, packets, bytes)| (packets, bytes)).collect();
        assert_eq!(counted, kernel.rule_counters());
        for script in [
            "add element inet t own { 1 timeout 50m, 3 timeout 6h }",
            "add element inet t own { 1 }",
            "add element inet t listed { 40 timeout 5h, 41 timeout 6h, 42 timeout 2h expires 30m }",
            "add element inet t listed { 40, 42 }",
            "add element inet t usual { 20 timeout 5h, 50, 51 timeout 2h }",
            "add element inet t usual { 20, 51 }",
            "add element inet t listed { * timeout 30m }",
            "create element inet t listed { * timeout 2h }",
            "add element inet t listed { * timeout 2h }",
            "add element inet t listed { * }",
            "delete element inet t listed { * }",
            "delete element inet t listed { * }",
            "add element inet t marks { * timeout 3h : 5 }",
            "add element inet t marks { * timeout 3h : 6 }",
            "flush map inet t marks",
            "add element inet t usual { * }",
        ] {
            let (ours, theirs) = (run_script(&mut router, script, now()), nft(&[script]).0);
            assert_eq!(ours, theirs, "{script}");
            compare_elements(&router, script);
        }
        true
    });
}

/// Sets and maps whose elements end after two seconds, by name and as `*`; each rule counts while its element is there.
const ENDING: &str = "table inet t {
    set exact { type inet_service; flags timeout; elements = { 1 timeout 2s }; }
    set ranges { type inet_service; flags interval,timeout; elements = { 1-9 timeout 2s }; }
    set pairs { type inet_service . inet_service; flags interval,timeout; elements = { 4000 . 1-9 timeout 2s }; }
    set usual { type inet_service; timeout 2s; elements = { 1 }; }
    map marks { type inet_service : mark; flags timeout; elements = { 1 timeout 2s : 5 }; }
    map verdicts { type inet_service : verdict; flags timeout; elements = { 1 timeout 2s : goto counted }; }
    set others { type inet_service; flags timeout; elements = { * timeout 2s }; }
    set others_of_ranges { type inet_service; flags interval,timeout; elements = { 5-9, * timeout 2s }; }
    map other_marks { type inet_service : mark; flags timeout; elements = { * timeout 2s : 5 }; }
    map other_verdicts { type inet_service : verdict; flags timeout; elements = { * timeout 2s : goto counted }; }
    set scripted { type inet_service; flags timeout; }
    map scripted_verdicts { type inet_service : verdict; flags timeout; }
    chain counted { counter; }
    chain by_verdict { udp dport vmap @verdicts; }
    chain by_other_verdict { udp dport vmap @other_verdicts; }
    chain by_scripted_verdict { udp dport vmap @scripted_verdicts; }
    chain c {
        type filter hook forward priority filter;
        udp dport @exact counter
        udp dport @ranges counter
        udp sport . udp dport @pairs counter
        udp dport @usual counter
        meta mark set udp dport map @marks counter
        udp dport @others counter
        udp dport @others_of_ranges counter
        meta mark set udp dport map @other_marks counter
        udp dport @scripted counter
        jump by_verdict
        jump by_other_verdict
        jump by_scripted_verdict
    }
}";
const SCRIPT: &str = "add element inet t scripted { * timeout 2s }; add element inet t scripted_verdicts { * timeout 2s : goto counted }";

#[test]
fn elements_end_in_use_as_in_linux() {
    in_own_thread(|| {
        let Some(mut kernel) = Kernel::new(ENDING) else { return false };
        let start = Instant::from_secs(1000);
        let mut router = router_of(ENDING);
        router.poll(start);
        let packet = from_lan("", false, &udp(4000, 1, 1)).packet;
        let mut matched = |at: Instant| -> u64 {
            let count = |router: &Router| router.program().rule_counters().map(|(_, packets, _)| packets).sum::<u64>();
            let before = count(&router);
            if at == start {
                assert!(router.handle(&packet, 1, at).is_ok() && run_script(&mut router, SCRIPT, at));
            } else {
                router.handle(&packet, 1, at).unwrap();
            }
            while router.poll_output().is_some() {}
            count(&router) - before
        };
        // With the first packet the timeouts begin to run; before the script, two rules find nothing.
        assert_eq!(matched(start), 10);
        assert_eq!(matched(start.after(Duration::from_millis(1999))), 12);
        assert_eq!(matched(start.after(Duration::from_millis(2000))), 0);
        // The kernel's end too, whenever that is seen.
        assert!(nft(&[SCRIPT]).0);
        let count = |kernel: &Kernel| kernel.rule_counters().iter().map(|(packets, _)| packets).sum::<u64>();
        let mut before = count(&kernel);
        for _ in 0..600 {
            kernel.handle(&packet, 0, 1);
            let seen = count(&kernel) - before;
            before += seen;
            if seen == 0 {
                return true;
            }
            assert!(seen <= 12, "{seen}");
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("elements do not end: {}", nft(&["list", "ruleset"]).1);
    });
}

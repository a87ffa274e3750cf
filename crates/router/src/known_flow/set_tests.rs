//! A change of sets: which flows it revokes. What stays known is judged as it was, proven by packets.
use super::tests::{SERVER, at, datagram, router_with};
use super::*;
use crate::Router;
use keepstate_engine::FlowStats;
use keepstate_rules::NoIncludes;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Each set adds a bit to the mark of the packets that it has; `banned` and `verdicts` may drop them.
const RULES: &str = "table inet t {
    set banned { type ipv4_addr; flags timeout; }
    set plain { type ipv4_addr; }
    set nets { type ipv4_addr; flags interval; }
    set merged { type ipv4_addr; flags interval; auto-merge; }
    set pairs { type ipv4_addr . inet_service; }
    set spans { type ipv4_addr . inet_service; flags interval; }
    map marks { type ipv4_addr : mark; }
    map verdicts { type ipv4_addr : verdict; }
    set unused { type ipv4_addr; flags interval; }
    chain one { meta mark set meta mark or 0x100; }
    chain two { meta mark set meta mark or 0x200; counter; }
    chain f {
        type filter hook forward priority 0; policy accept;
        ip saddr @banned drop
        meta mark set ip daddr map @marks
        ip saddr @plain meta mark set meta mark or 0x1
        ip saddr @nets meta mark set meta mark or 0x2
        ip daddr @merged meta mark set meta mark or 0x4
        ip saddr . udp sport @pairs meta mark set meta mark or 0x8
        ip daddr . udp dport @spans meta mark set meta mark or 0x10
        ip saddr vmap @verdicts
        counter
    }
    chain other { type filter hook output priority 0; ip daddr @unused drop; }
}";

fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

fn run_script(router: &mut Router, script: &str, now: u64) -> Result<(), String> {
    let prepared = router.program().ruleset().prepare_script(("script", script), &NoIncludes, at(now));
    let update = prepared.map_err(|error| error.to_string())?;
    router.update_program(update, at(now)).map(drop).map_err(|error| format!("{error:?}"))
}

/// The mark of a packet that passes.
fn passes(router: &mut Router, from: Ipv4Addr, to: Ipv4Addr, now: u64) -> Option<u32> {
    let passed = router.handle(&datagram(from, to), if from == SERVER { 2 } else { 1 }, at(now)).is_ok();
    let mark = std::iter::from_fn(|| router.poll_marked_output()).last().map(|marked| marked.mark);
    mark.filter(|_| passed)
}

/// Packets of this client there and back; what becomes known joins `known`.
fn exchange(router: &mut Router, number: u8, now: u64, known: &mut BTreeMap<ConnId, [KnownFlow; 2]>) {
    passes(router, client(number), SERVER, now);
    passes(router, SERVER, client(number), now);
    while let Some(flows) = router.poll_offload() {
        known.insert(flows[0].conn_id, flows);
    }
}

/// A router that knows the flows of clients 1 to 9.
fn router_with_flows(rules: &str) -> (Router, BTreeMap<ConnId, [KnownFlow; 2]>) {
    let (mut router, mut known) = (router_with(rules), BTreeMap::new());
    for now in [1000, 4000, 4001, 4002] {
        (1..=9).for_each(|number| exchange(&mut router, number, now, &mut known));
    }
    assert_eq!(known.len(), 9);
    (router, known)
}

/// The clients whose flows were revoked since the last call; all that are known if the generation has changed.
fn revoked(router: &mut Router, known: &mut BTreeMap<ConnId, [KnownFlow; 2]>) -> Vec<u8> {
    let mut clients: Vec<u8> = Vec::new();
    while let Some(conn_id) = router.poll_revoked() {
        router.forget_flow(conn_id);
        if let Some(IpAddr::V4(address)) = known.remove(&conn_id).map(|flows| flows[0].tuple.source) {
            clients.push(address.octets()[3]);
        }
    }
    clients.sort_unstable();
    clients
}

/// Is everything that is known judged as it was when it became known?
fn check_known(router: &mut Router, known: &BTreeMap<ConnId, [KnownFlow; 2]>, now: u64, what: &str) {
    for flow in known.values().flatten() {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (flow.tuple.source, flow.tuple.destination) else { continue };
        let (mark, told) = (passes(router, from, to, now), Some(flow.set_mark.unwrap_or(0)));
        assert_eq!(mark, told, "{from} to {to}, after {what}");
    }
}

#[test]
fn a_change_of_elements_revokes_the_flows_that_look_them_up() {
    let all = (1..=9).collect::<Vec<u8>>();
    for (script, expected) in [
        ("add element inet t banned { 198.51.100.7 }", vec![]),
        ("add element inet t banned { 192.0.2.3 timeout 1h, 192.0.2.5 timeout 1h }", vec![3, 5]),
        ("add element inet t banned { 192.0.2.3 }; delete element inet t banned { 192.0.2.3 }", vec![3]),
        ("destroy element inet t banned { 192.0.2.3 }", vec![]),
        ("flush set inet t banned", vec![]),
        ("flush set inet t banned; add element inet t banned { 192.0.2.4 }", vec![4]),
        ("add element inet t plain { 192.0.2.2, 192.0.2.200 }", vec![2]),
        ("add element inet t pairs { 192.0.2.2 . 5000, 192.0.2.3 . 5001 }", vec![2]),
        ("add element inet t nets { 192.0.2.4-192.0.2.6, 198.51.100.0/24 }", vec![4, 5, 6]),
        ("add element inet t merged { 192.0.2.0/30 }", vec![1, 2, 3]),
        ("add element inet t spans { 192.0.2.0/29 . 4000-6000 }", vec![1, 2, 3, 4, 5, 6, 7]),
        ("add element inet t spans { 192.0.2.8 . 1-2 }", vec![8]),
        ("add element inet t spans { 192.0.2.0/29 . 7 }", vec![]),
        ("add element inet t marks { 192.0.2.9 : 0x1000 }", vec![9]),
        ("add element inet t verdicts { 192.0.2.9 : drop, 192.0.2.1 : goto two }", vec![1, 9]),
        (
            "add chain inet t new; add rule inet t new drop; add element inet t verdicts { 192.0.2.9 : jump new }",
            vec![9],
        ),
        // The answers to all of them.
        ("add element inet t plain { 10.0.0.9 }", all.clone()),
        // Nothing that packets of these flows meet.
        ("add element inet t unused { 192.0.2.0/24 }", vec![]),
        ("add set inet t more { type ipv4_addr; elements = { 192.0.2.1 }; }", vec![]),
        ("add chain inet t new; add rule inet t new drop", vec![]),
        ("add table inet more; add chain inet more c; add rule inet more c drop", vec![]),
        ("add counter inet t c", vec![]),
        // Rules.
        ("add rule inet t f accept", all.clone()),
        ("add rule inet t one accept", all.clone()),
        ("add chain inet t n { type filter hook forward priority 1; }", all.clone()),
        ("add table inet n { chain n { type filter hook forward priority 1; }; }", all.clone()),
        ("add element inet t plain { * }", all.clone()),
    ] {
        let (mut router, mut known) = router_with_flows(RULES);
        if let Err(error) = run_script(&mut router, script, 5000) {
            // A set that is not made for it.
            assert!(script.contains('*'), "{script}: {error}");
            continue;
        }
        assert_eq!(revoked(&mut router, &mut known), expected, "{script}");
        check_known(&mut router, &known, 5001, script);
    }
}

#[test]
fn elements_that_were_flushed_and_added_again_revoke_nothing() {
    let full = "add element inet t plain { 192.0.2.1, 192.0.2.2 }; add element inet t nets { 192.0.2.4/31, 192.0.2.8 }; add element inet t verdicts { 192.0.2.3 : jump one }";
    let (mut router, mut known) = router_with_flows(RULES);
    run_script(&mut router, full, 5000).unwrap();
    assert_eq!(revoked(&mut router, &mut known), [1, 2, 3, 4, 5, 8]);
    for now in [5100, 5101] {
        (1..=9).for_each(|number| exchange(&mut router, number, now, &mut known));
    }
    assert_eq!(known.len(), 9);
    let flush = "flush set inet t plain; flush set inet t nets; flush map inet t verdicts";
    run_script(&mut router, &format!("{flush}; {full}"), 5200).unwrap();
    assert!(revoked(&mut router, &mut known).is_empty());
    run_script(&mut router, "flush set inet t plain; add element inet t plain { 192.0.2.2, 192.0.2.6 }", 5201).unwrap();
    assert_eq!(revoked(&mut router, &mut known), [1, 6]);
    // An element that will end is another one.
    run_script(&mut router, "flush map inet t verdicts; add element inet t verdicts { 192.0.2.3 : jump two }", 5202)
        .unwrap();
    assert_eq!(revoked(&mut router, &mut known), [3]);
    run_script(&mut router, flush, 5203).unwrap();
    assert_eq!(revoked(&mut router, &mut known), [2, 4, 5, 8]);
    check_known(&mut router, &known, 5204, flush);
}

/// Bans by the second, as fail2ban issues them: nobody else's flow is revoked, neither are counts of rules lost.
#[test]
fn bans_of_others_leave_flows_and_counters_alone() {
    let (mut router, mut known) = router_with_flows(RULES);
    let generation = router.flow_generation();
    for number in 0..200 {
        let script = format!("add element inet t banned {{ 203.0.113.{number} timeout 10m }}");
        run_script(&mut router, &script, 5000 + number).unwrap();
        let script = format!("add element inet t nets {{ 198.51.100.{number} }}");
        run_script(&mut router, &script, 5000 + number).unwrap();
    }
    assert_eq!((revoked(&mut router, &mut known), router.flow_generation()), (vec![], generation));
    let counted = |router: &Router| router.program().rule_counters().map(|(_, packets, _)| packets).sum::<u64>();
    let (before, flow) = (counted(&router), *known.values().next().unwrap());
    let stats = FlowStats {
        conn_id: flow[0].conn_id,
        direction: Direction::Original,
        packets: 5,
        bytes: 500,
        last_seen: at(5400),
    };
    let report = FlowReport { stats, way: Some(flow[0].way) };
    router.count_offloaded(&[report]);
    assert_eq!(counted(&router), before + 5);
    // A rule before it takes a counter's place: the counts go where they belong.
    run_script(&mut router, "insert rule inet t f ip saddr 203.0.113.9 counter drop", 5500).unwrap();
    router.count_offloaded(&[report]);
    let last = router.program().rule_counters().map(|(_, packets, _)| packets).last();
    assert_eq!((counted(&router), last), (before + 10, Some(before + 10)));
    assert_eq!(revoked(&mut router, &mut known).len(), 9);
}

/// One direction was seen before the set changed: what was noted of it does not count.
#[test]
fn ways_noted_before_a_change_of_sets_are_not_offered() {
    let many =
        |count: u32| (0..count).map(|at| Ipv4Addr::from(0xcb00_0000 + at).to_string()).collect::<Vec<_>>().join(", ");
    for (other, scripts) in [(String::new(), 1), ("203.0.113.1".to_owned(), 70), (many(200), 2)] {
        let (mut router, mut known) = router_with_flows(RULES);
        router.revoke_flows();
        assert_eq!(revoked(&mut router, &mut known).len(), 9);
        passes(&mut router, client(1), SERVER, 6000);
        run_script(&mut router, "add element inet t plain { 192.0.2.1 }", 6000).unwrap();
        for _ in 1..scripts {
            run_script(&mut router, &format!("add element inet t plain {{ {other} }}"), 6000).unwrap();
            run_script(&mut router, &format!("delete element inet t plain {{ {other} }}"), 6000).unwrap();
        }
        passes(&mut router, SERVER, client(1), 6000);
        assert!(router.poll_offload().is_none(), "{other}");
        while router.poll_revoked().is_some() {}
        for now in [6100, 6101] {
            exchange(&mut router, 1, now, &mut known);
        }
        assert_eq!(known.values().map(|flows| flows[0].set_mark).collect::<Vec<_>>(), [Some(1)]);
    }
}

/// More sets than are noted one by one: a change of any set concerns the flow.
#[test]
fn flows_of_many_lookups_are_revoked_by_every_change_of_sets() {
    let sets: String = (0..20).map(|at| format!("set s{at} {{ type ipv4_addr; }}\n")).collect();
    let rules: String = (0..20).map(|at| format!("ip saddr @s{at} drop\n")).collect();
    let text = format!(
        "table ip t {{ {sets} chain f {{ type filter hook forward priority 0; {rules} }}; set unused {{ type ipv4_addr; }}; }}"
    );
    let (mut router, mut known) = router_with_flows(&text);
    run_script(&mut router, "delete element ip t s19 { 192.0.2.1 }", 5000).unwrap_err();
    assert!(revoked(&mut router, &mut known).is_empty());
    run_script(&mut router, "add element ip t s19 { 192.0.2.1 }", 5000).unwrap();
    assert_eq!(revoked(&mut router, &mut known).len(), 9);
    check_known(&mut router, &known, 5001, "a ban");
}

/// Scripts at random: whatever stays known is judged as it was.
#[test]
fn what_stays_known_is_judged_as_it_was() {
    let (mut router, mut known) = router_with_flows(RULES);
    let mut state = 0x5eed_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut applied, mut stayed, mut gone) = (0, 0, 0);
    for step in 0..1500 {
        let now = 10_000 + step * 20;
        let mut script = String::new();
        for _ in 0..=draw(3) {
            let sets = ["banned", "plain", "nets", "merged", "pairs", "spans", "marks", "verdicts"];
            let set = sets[draw(sets.len() as u64) as usize];
            if draw(12) == 0 {
                script += &format!("flush set inet t {set}\n");
                continue;
            }
            let address = if draw(8) == 0 { "10.0.0.9".to_owned() } else { format!("192.0.2.{}", 1 + draw(12)) };
            let range = match draw(3) {
                0 => address.clone(),
                1 => format!("192.0.2.{}/{}", draw(3) * 4, 30 + draw(3)),
                _ => format!("192.0.2.{}-192.0.2.{}", 1 + draw(4), 6 + draw(4)),
            };
            let key = match set {
                "nets" | "merged" => range,
                "pairs" => format!("{address} . {}", 4999 + draw(2)),
                "spans" if draw(2) == 0 => format!("{range} . 5000"),
                "spans" => format!("{range} . 4990-{}", 4995 + draw(10)),
                _ => address,
            };
            let (command, data) = match (draw(3), set) {
                (0, _) => ("delete", ""),
                (_, "banned") => ("add", if draw(2) == 0 { " timeout 1s" } else { "" }),
                (_, "marks") => ("add", if draw(2) == 0 { " : 0x1000" } else { " : 0x2000" }),
                (_, "verdicts") => ("add", [" : drop", " : jump one", " : goto two"][draw(3) as usize]),
                _ => ("add", ""),
            };
            script += &format!("{command} element inet t {set} {{ {key}{data} }}\n");
        }
        let before = known.len();
        // A script that is refused changes nothing.
        applied += usize::from(run_script(&mut router, &script, now).is_ok());
        gone += revoked(&mut router, &mut known).len();
        stayed += if before > known.len() { known.len() } else { 0 };
        check_known(&mut router, &known, now, &format!("step {step}: {script}"));
        for later in [1, 2] {
            (1..=9).for_each(|number| exchange(&mut router, number, now + later, &mut known));
        }
    }
    assert!(applied > 300 && gone > 100 && stayed > 300, "{applied} scripts, {gone} revoked, {stayed} stayed");
}

//! A fleet as its nodes tell of themselves: each node's numbers and verdict, and who decides each shard. A node that does not answer stays in it, with the reason.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A node's verdict; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeVerdict {
    /// Nothing is wrong.
    Ok,
    /// Something should be changed.
    Warning,
    /// It did not answer, or has seen too little.
    Unknown,
    /// Packets or connections are being lost.
    Critical,
}

impl NodeVerdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            NodeVerdict::Ok => "ok",
            NodeVerdict::Warning => "warning",
            NodeVerdict::Unknown => "unknown",
            NodeVerdict::Critical => "critical",
        }
    }

    /// The exit code, as monitoring plugins use it.
    pub fn exit_code(self) -> u8 {
        match self {
            NodeVerdict::Ok => 0,
            NodeVerdict::Warning => 1,
            NodeVerdict::Critical => 2,
            NodeVerdict::Unknown => 3,
        }
    }
}

/// A finding of a node's doctor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFinding {
    /// Its name.
    pub name: String,
    /// Does it lose packets or connections?
    pub is_critical: bool,
    /// What is wrong.
    pub title: String,
}

/// What a node tells of its shard of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardView {
    /// The cluster.
    pub cluster: String,
    /// The shard.
    pub shard: String,
    /// `active`, `standby` and so on.
    pub role: String,
    /// Its epoch.
    pub epoch: u64,
    /// `lease` or `manual`.
    pub decided_by: String,
    /// A standby: does it hold the whole table?
    pub is_in_step: bool,
    /// Messages that it is behind; of an active one, those not acknowledged yet.
    pub lag: u64,
    /// Milliseconds: how old what the cluster surely has is; of a standby, since it heard of the active one.
    pub age_ms: u64,
    /// Does it reach the cluster?
    pub is_connected: bool,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// `gateway` or `serve`.
    pub kind: String,
    /// keepstate's version there.
    pub version: String,
    /// Its verdict.
    pub verdict: NodeVerdict,
    /// Why nothing else is known of it, or why what is known may be old.
    pub trouble: Option<String>,
    /// Entries of its table.
    pub entries: Option<u64>,
    /// Its limit; 0 or `None` without one.
    pub limit: Option<u64>,
    /// New connections a second.
    pub new_per_second: f64,
    /// Ended ones.
    pub ended_per_second: f64,
    /// When its table is full, in words.
    pub time_to_full: String,
    /// What its doctor finds, the worst first.
    pub findings: Vec<NodeFinding>,
    /// Its shards.
    pub shards: Vec<ShardView>,
}

impl NodeView {
    /// A node of which nothing is known but its record.
    pub fn silent(name: String, kind: String, version: String, reason: String) -> NodeView {
        NodeView {
            name,
            kind,
            version,
            verdict: NodeVerdict::Unknown,
            trouble: Some(reason),
            entries: None,
            limit: None,
            new_per_second: 0.0,
            ended_per_second: 0.0,
            time_to_full: String::new(),
            findings: Vec::new(),
            shards: Vec::new(),
        }
    }

    /// How full its table is, in percent; `None` without a limit.
    pub fn percent(&self) -> Option<f64> {
        let limit = self.limit.filter(|limit| *limit > 0)?;
        Some(self.entries? as f64 * 100.0 / limit as f64)
    }

    /// In one line: why it does not answer, or its worst finding.
    pub fn summary(&self) -> String {
        match (&self.trouble, self.findings.as_slice()) {
            (Some(trouble), _) => trouble.clone(),
            (None, []) => String::new(),
            (None, [one]) => one.title.clone(),
            (None, [first, rest @ ..]) => format!("{} and {} more", first.title, rest.len()),
        }
    }
}

/// A shard as all nodes together tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDuty {
    /// The cluster.
    pub cluster: String,
    /// The shard.
    pub shard: String,
    /// Who decides: one node, if all is well.
    pub active: Vec<String>,
    /// Who could take over at once.
    pub ready: Vec<String>,
    /// Who is there and could not.
    pub behind: Vec<String>,
    /// The highest epoch.
    pub epoch: u64,
    /// `lease` or `manual`.
    pub decided_by: String,
    /// The most messages that one of them is behind.
    pub lag: u64,
}

impl ShardDuty {
    /// What is wrong with it, if something is. `all_answer`: no node was silent, so that one which is not seen is not there.
    pub fn problem(&self, all_answer: bool) -> Option<(NodeVerdict, String)> {
        match self.active.as_slice() {
            [] => {
                let verdict = if all_answer { NodeVerdict::Critical } else { NodeVerdict::Unknown };
                Some((
                    verdict,
                    format!("no gateway is active{}", if all_answer { "" } else { " (a silent node may be)" }),
                ))
            }
            [_] if self.ready.is_empty() => {
                let (why, silent) = match self.behind.is_empty() {
                    true => ("is there", " (a silent node may be)"),
                    false => ("has the whole table", " (a silent node may)"),
                };
                Some((NodeVerdict::Warning, format!("no standby {why}{}", if all_answer { "" } else { silent })))
            }
            [_] => None,
            several => Some((NodeVerdict::Critical, format!("{} all say that they are active", several.join(", ")))),
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetView {
    /// The fleet's name.
    pub name: String,
    /// Its nodes, by name.
    pub nodes: Vec<NodeView>,
    /// Why the fleet itself cannot be asked; the nodes are then as of before.
    pub error: Option<String>,
    /// Was it asked at all?
    pub is_asked: bool,
}

impl FleetView {
    /// The nodes that did not answer.
    pub fn silent(&self) -> usize {
        self.nodes.iter().filter(|node| node.trouble.is_some()).count()
    }

    /// The nodes, the worst first; of equal ones the fullest.
    pub fn worst_first(&self) -> Vec<&NodeView> {
        let mut nodes: Vec<&NodeView> = self.nodes.iter().collect();
        nodes.sort_by(|a, b| {
            let full = |node: &NodeView| node.percent().unwrap_or(0.0);
            b.verdict.cmp(&a.verdict).then(full(b).total_cmp(&full(a))).then(a.name.cmp(&b.name))
        });
        nodes
    }

    /// Each shard, by cluster and name.
    pub fn shards(&self) -> Vec<ShardDuty> {
        let mut duties: BTreeMap<(&str, &str), ShardDuty> = BTreeMap::new();
        for (node, shard) in self.nodes.iter().flat_map(|node| node.shards.iter().map(move |shard| (node, shard))) {
            let duty = duties.entry((&shard.cluster, &shard.shard)).or_insert_with(|| ShardDuty {
                cluster: shard.cluster.clone(),
                shard: shard.shard.clone(),
                active: Vec::new(),
                ready: Vec::new(),
                behind: Vec::new(),
                epoch: 0,
                decided_by: shard.decided_by.clone(),
                lag: 0,
            });
            match shard.role.as_str() {
                "active" | "demoting" => duty.active.push(node.name.clone()),
                _ if shard.is_in_step && shard.is_connected => duty.ready.push(node.name.clone()),
                _ => duty.behind.push(node.name.clone()),
            }
            duty.epoch = duty.epoch.max(shard.epoch);
            duty.lag = duty.lag.max(shard.lag);
        }
        duties.into_values().collect()
    }

    /// What is wrong with shards, the worst first: `cluster/shard: …`.
    pub fn shard_problems(&self) -> Vec<(NodeVerdict, String)> {
        let all_answer = self.silent() == 0;
        let mut problems: Vec<(NodeVerdict, String)> = Vec::new();
        for duty in self.shards() {
            let problem = duty.problem(all_answer);
            problems
                .extend(problem.map(|(verdict, text)| (verdict, format!("{}/{}: {text}", duty.cluster, duty.shard))));
        }
        problems.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
        problems
    }

    /// One verdict over all nodes and shards. A fleet without nodes, or one that cannot be asked, is unknown.
    pub fn verdict(&self) -> NodeVerdict {
        let nodes = self.nodes.iter().map(|node| node.verdict);
        let shards = self.shard_problems().into_iter().map(|(verdict, _)| verdict);
        let error = self.error.as_ref().map(|_| NodeVerdict::Unknown);
        nodes.chain(shards).chain(error).max().unwrap_or(NodeVerdict::Unknown)
    }
}

/// The view as who asks the fleet and who shows it share it. Nobody is asked while nobody looks.
#[derive(Debug, Default)]
pub struct FleetBoard {
    view: Mutex<FleetView>,
    looked_at: Mutex<Option<Instant>>,
}

impl FleetBoard {
    /// As it is now; it will be kept fresh for a while.
    pub fn look(&self) -> FleetView {
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.lock().clone()
    }

    /// Has somebody looked within this time?
    pub fn is_looked_at(&self, within: Duration) -> bool {
        let looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        looked_at.is_some_and(|at| at.elapsed() < within)
    }

    /// To be changed.
    pub fn lock(&self) -> MutexGuard<'_, FleetView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, verdict: NodeVerdict, shards: &[(&str, bool)]) -> NodeView {
        let silent = NodeView::silent(name.into(), "gateway".into(), "1".into(), String::new());
        let shard = |(role, is_in_step): &(&str, bool)| ShardView {
            cluster: "site".into(),
            shard: "main".into(),
            role: (*role).into(),
            is_in_step: *is_in_step,
            is_connected: true,
            ..ShardView::default()
        };
        NodeView { verdict, trouble: None, shards: shards.iter().map(shard).collect(), ..silent }
    }

    fn fleet(nodes: Vec<NodeView>) -> FleetView {
        FleetView { name: "site".into(), nodes, error: None, is_asked: true }
    }

    #[test]
    fn a_shard_needs_one_that_decides_and_one_that_could() {
        let ok = NodeVerdict::Ok;
        for (roles, verdict, text) in [
            (vec![("active", true), ("standby", true)], NodeVerdict::Ok, ""),
            (vec![("active", true), ("standby", false)], NodeVerdict::Warning, "no standby has the whole table"),
            (vec![("active", true)], NodeVerdict::Warning, "no standby is there"),
            (vec![("standby", true), ("standby", true)], NodeVerdict::Critical, "no gateway is active"),
            (vec![("active", true), ("active", true)], NodeVerdict::Critical, "n0, n1 all say that they are active"),
        ] {
            let nodes = roles.iter().enumerate().map(|(at, role)| node(&format!("n{at}"), ok, &[*role])).collect();
            let fleet = fleet(nodes);
            let problems = fleet.shard_problems();
            assert_eq!(fleet.verdict(), verdict, "{roles:?}: {problems:?}");
            let said = problems.first().map_or("", |(_, text)| text.as_str());
            assert!(said.contains(text) && text.is_empty() == said.is_empty(), "{roles:?}: {said}");
        }
    }

    #[test]
    fn a_silent_node_may_be_the_one_that_is_missed() {
        let silent = NodeView::silent("gw1".into(), "gateway".into(), "1".into(), "no answer".into());
        let fleet = fleet(vec![silent, node("gw2", NodeVerdict::Ok, &[("standby", true)])]);
        assert_eq!((fleet.silent(), fleet.verdict()), (1, NodeVerdict::Unknown));
        let problems = fleet.shard_problems();
        assert_eq!(problems, [(NodeVerdict::Unknown, "site/main: no gateway is active (a silent node may be)".into())]);
    }

    #[test]
    fn the_worst_comes_first_then_the_fullest() {
        let table = |node: NodeView, entries| NodeView { entries: Some(entries), limit: Some(100), ..node };
        let nodes = vec![
            table(node("a", NodeVerdict::Ok, &[]), 10),
            table(node("b", NodeVerdict::Ok, &[]), 90),
            node("c", NodeVerdict::Unknown, &[]),
            node("d", NodeVerdict::Critical, &[]),
            node("e", NodeVerdict::Warning, &[]),
        ];
        let fleet = fleet(nodes);
        assert!(fleet.worst_first().iter().map(|node| node.name.as_str()).eq(["d", "c", "e", "b", "a"]));
        assert_eq!(FleetView::default().verdict(), NodeVerdict::Unknown, "nobody is no good news");
    }

    #[test]
    fn nobody_is_asked_while_nobody_looks() {
        let board = FleetBoard::default();
        assert!(!board.is_looked_at(Duration::from_secs(3600)));
        assert_eq!(board.look(), FleetView::default());
        assert!(board.is_looked_at(Duration::from_secs(3600)) && !board.is_looked_at(Duration::ZERO));
    }
}

//! What a machine that becomes active does with the entries it has held: they go into the kernel's table, a bounded number a turn. An entry that is there already is an older one, and is replaced.
use keepstate_conntrack::parse_saved_line;
use keepstate_linux::ctnetlink::{CtClient, CtFlow, CtNatRange, CtTuple};
use std::collections::VecDeque;

/// Entries entered in one turn.
const ENTRIES_PER_TURN: usize = 512;

/// What has come of the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreCounts {
    /// Entries in the kernel's table.
    pub restored: u64,
    /// Of these: without their helper or their master, which this machine has not.
    pub incomplete: u64,
    /// Entries that the kernel refused.
    pub refused: u64,
    /// Why it refused the last one.
    pub last_refusal: Option<String>,
}

/// Entries on their way into the kernel's table.
#[derive(Debug, Default)]
pub struct Restoring {
    lines: VecDeque<Box<str>>,
    /// Expected connections whose master may come later.
    before_master: Vec<CtFlow>,
    counts: RestoreCounts,
}

impl Restoring {
    /// Begins with these lines.
    pub fn new(lines: Vec<Box<str>>) -> Restoring {
        Restoring { lines: lines.into(), ..Restoring::default() }
    }

    /// What has been done so far.
    pub fn counts(&self) -> &RestoreCounts {
        &self.counts
    }

    /// Enters some; true when all are done.
    pub fn poll(&mut self, table: &mut CtClient) -> bool {
        for _ in 0..ENTRIES_PER_TURN {
            let Some(line) = self.lines.pop_front() else {
                self.enter_expected(table);
                return true;
            };
            match parse_saved_line(&line) {
                Ok(flow) if flow.master.is_some() => {
                    if enter(table, &flow).is_ok() {
                        self.counts.restored += 1;
                    } else {
                        self.before_master.push(flow);
                    }
                }
                Ok(flow) => self.enter_with_or_without_helper(table, flow),
                Err(why) => self.refuse(why),
            }
        }
        false
    }

    /// Expected connections may be the masters of others; at last come those whose masters are nowhere.
    fn enter_expected(&mut self, table: &mut CtClient) {
        loop {
            let before = self.before_master.len();
            self.before_master.retain(|flow| enter(table, flow).is_err());
            self.counts.restored += (before - self.before_master.len()) as u64;
            if before == self.before_master.len() {
                break;
            }
        }
        for flow in std::mem::take(&mut self.before_master) {
            match enter(table, &CtFlow { master: None, ..flow.clone() }) {
                Ok(()) => {
                    self.counts.restored += 1;
                    self.counts.incomplete += 1;
                }
                Err(_) => self.enter_with_or_without_helper(table, CtFlow { master: None, ..flow }),
            }
        }
    }

    fn enter_with_or_without_helper(&mut self, table: &mut CtClient, flow: CtFlow) {
        match enter(table, &flow) {
            Ok(()) => self.counts.restored += 1,
            Err(_) if flow.helper.is_some() && enter(table, &CtFlow { helper: None, ..flow.clone() }).is_ok() => {
                self.counts.restored += 1;
                self.counts.incomplete += 1;
            }
            Err(why) => self.refuse(why),
        }
    }

    fn refuse(&mut self, why: String) {
        self.counts.refused += 1;
        self.counts.last_refusal = Some(why);
    }
}

/// Creates an entry; what has one of its tuples goes first.
fn enter(table: &mut CtClient, flow: &CtFlow) -> Result<(), String> {
    match table.create(flow) {
        Err(error) if error.errno() == Some(libc::EEXIST) => {}
        done => return done.map_err(|error| error.to_string()),
    }
    let same_original = CtFlow { reply: CtTuple::default(), ..key_only(flow) };
    let same_reply = CtFlow { original: CtTuple::default(), reply: translated_reply(flow), ..key_only(flow) };
    for other in [same_original, same_reply] {
        // Only one of them may exist.
        let _ = table.delete(&other);
    }
    table.create(flow).map_err(|error| error.to_string())
}

fn key_only(flow: &CtFlow) -> CtFlow {
    CtFlow { family: flow.family, zone: flow.zone, original: flow.original, reply: flow.reply, ..CtFlow::default() }
}

/// The reply direction as it is behind the translations.
fn translated_reply(flow: &CtFlow) -> CtTuple {
    let mut reply = flow.reply;
    for (nat, address, port) in [
        (flow.source_nat, &mut reply.destination, &mut reply.destination_port),
        (flow.destination_nat, &mut reply.source, &mut reply.source_port),
    ] {
        let Some(CtNatRange { address: translated, ports }) = nat else { continue };
        *address = Some(translated);
        match (ports, reply.icmp_id) {
            (Some([id, _]), Some(_)) => reply.icmp_id = Some(id),
            (Some([first, _]), None) => *port = Some(first),
            (None, _) => {}
        }
    }
    reply
}

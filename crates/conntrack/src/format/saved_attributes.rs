//! What `-o save` adds behind an entry because conntrack's options cannot say it: `# keepstate NAME=VALUE …`.
//!
//! conntrack passes over these words when it reads such a line, since they are no options; `keepstate conntrack -R` gives the attributes
//! back to the entry. docs/differences.md lists them.
use super::labels::set_bits;
use super::text_buf::{TextBuf, word_escape};
use keepstate_linux::ctnetlink::{
    CtFlow, CtLabels, CtNatRange, CtProtoInfo, CtSeqAdj, CtSynproxy, CtTcpInfo, CtTuple, Status, TcpState,
};
use std::fmt::Write as _;
use std::net::IpAddr;

/// The two words in front of the attributes.
pub(crate) const LEAD: [&str; 2] = ["#", "keepstate"];

/// The attributes of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedAttributes {
    /// Flags and window scale of both directions.
    tcp: Option<[(u8, u8); 2]>,
    reply_icmp_id: Option<u16>,
    labels: Option<CtLabels>,
    helper: Option<Box<str>>,
    /// Status bits that `-u` does not have.
    helper_bit: bool,
    nat_done: bool,
    seqadj: [Option<CtSeqAdj>; 2],
    synproxy: Option<CtSynproxy>,
    master: Option<CtTuple>,
}

/// `IP_CT_TCP_FLAG_*` of `nf_conntrack_tcp.h`.
pub(crate) mod tcp_flag {
    pub(crate) const SACK_PERM: u8 = 0x02;
    /// This side closed first.
    pub(crate) const CLOSE_INIT: u8 = 0x04;
    /// Windows are not checked.
    pub(crate) const BE_LIBERAL: u8 = 0x08;
    /// Flags that mean the same without the sequence numbers seen so far, which nobody can save:
    /// WINDOW_SCALE, SACK_PERM, CLOSE_INIT, BE_LIBERAL, SIMULTANEOUS_OPEN.
    pub(crate) const SAVED: u8 = 0x8f;
}

/// The flags of a side that is restored with `--state` alone: nobody knows its windows, so they are not checked. From TIME_WAIT on, both
/// sides have closed.
pub(crate) fn liberal_tcp_flags(state: u8) -> u8 {
    let closed = if state >= TcpState::TimeWait.number() { tcp_flag::CLOSE_INIT } else { 0 };
    tcp_flag::SACK_PERM | tcp_flag::BE_LIBERAL | closed
}

impl SavedAttributes {
    /// What an entry has beyond conntrack's options.
    pub(crate) fn of(flow: &CtFlow) -> SavedAttributes {
        let bits = flow.status.unwrap_or_default();
        let decided = bits.intersects(Status::SRC_NAT_DONE | Status::DST_NAT_DONE);
        SavedAttributes {
            tcp: saved_tcp(&flow.protoinfo),
            reply_icmp_id: flow.reply.icmp_id.filter(|id| flow.original.icmp_id != Some(*id)),
            labels: flow.labels.filter(|labels| *labels != [0; 16]),
            helper: flow.helper.clone(),
            helper_bit: bits.contains(Status::HELPER) && flow.helper.is_none(),
            nat_done: decided && !bits.intersects(Status::SRC_NAT | Status::DST_NAT),
            seqadj: flow.seqadj.map(|side| side.filter(|side| *side != CtSeqAdj::default())),
            synproxy: flow.synproxy.filter(|proxied| *proxied != CtSynproxy::default()),
            master: flow.master,
        }
    }

    /// Gives them to an entry that is about to be created.
    pub(crate) fn apply(&self, flow: &mut CtFlow) {
        if let (Some([original, reply]), CtProtoInfo::Tcp(info)) = (self.tcp, &mut flow.protoinfo) {
            *info = restored_tcp(info, [original, reply]);
        }
        if let Some(id) = self.reply_icmp_id {
            restore_icmp_id(flow, id);
        }
        flow.labels = self.labels.or(flow.labels);
        flow.helper = self.helper.clone().or_else(|| flow.helper.take());
        let mut bits = flow.status.unwrap_or_default();
        bits.set(Status::HELPER, self.helper_bit || bits.contains(Status::HELPER));
        if self.nat_done && flow.destination_nat.is_none() {
            // A translation to what it is already: the kernel takes note that it has decided.
            flow.destination_nat = flow.reply.source.map(|address| CtNatRange { address, ports: None });
        }
        flow.seqadj = self.seqadj;
        flow.synproxy = self.synproxy;
        if self.master.is_some() {
            flow.master = self.master;
            // The kernel sets this bit with the master, and refuses it from others.
            bits.remove(Status::EXPECTED);
        }
        flow.status = flow.status.map(|_| bits);
    }

    /// Appends them, if there is any.
    pub(super) fn push(&self, text: &mut TextBuf) {
        if *self == SavedAttributes::default() {
            return;
        }
        text.ensure_space();
        for word in LEAD {
            text.push(word).push(" ");
        }
        if let Some([original, reply]) = self.tcp {
            let _ = write!(text, "tcp={:#04x}/{},{:#04x}/{} ", original.0, original.1, reply.0, reply.1);
        }
        if let Some(id) = self.reply_icmp_id {
            text.field("reply-icmp-id", id);
        }
        if let Some(labels) = self.labels {
            push_list(text, "labels", set_bits(labels).map(u32::from));
        }
        if let Some(helper) = &self.helper {
            text.push("helper=").push_escaped(helper, word_escape).push(" ");
        }
        for (set, word) in [(self.helper_bit, "status=HELPER "), (self.nat_done, "nat=done ")] {
            text.push(if set { word } else { "" });
        }
        for (name, side) in ["seqadj-orig", "seqadj-reply"].into_iter().zip(self.seqadj) {
            if let Some(CtSeqAdj { correction_pos, offset_before, offset_after }) = side {
                push_list(text, name, [correction_pos, offset_before, offset_after].into_iter());
            }
        }
        if let Some(CtSynproxy { isn, its, tsoff }) = self.synproxy {
            push_list(text, "synproxy", [isn, its, tsoff].into_iter());
        }
        if let Some(master) = self.master {
            text.push("master=").number(master.protocol.unwrap_or(0));
            text.push(",").address_opt(master.source).push(",").address_opt(master.destination);
            for port in [master.source_port, master.destination_port] {
                text.push(",").number(port.unwrap_or(0));
            }
            text.push(" ");
        }
    }

    /// Reads the words behind [`LEAD`].
    ///
    /// # Errors
    /// The word that is not understood.
    pub(crate) fn parse(words: &[String]) -> Result<SavedAttributes, String> {
        let mut read = SavedAttributes::default();
        for word in words {
            read.take(word).ok_or_else(|| word.clone())?;
        }
        Ok(read)
    }

    fn take(&mut self, word: &str) -> Option<()> {
        let (name, value) = word.split_once('=')?;
        match name {
            "tcp" => {
                let (original, reply) = value.split_once(',')?;
                self.tcp = Some([parse_side(original)?, parse_side(reply)?]);
            }
            "reply-icmp-id" => self.reply_icmp_id = Some(value.parse().ok()?),
            "labels" => {
                let bits = value.split(',').map(|bit| bit.parse::<u32>().ok().and_then(|bit| 1_u128.checked_shl(bit)));
                self.labels = Some(bits.sum::<Option<u128>>()?.to_le_bytes());
            }
            "helper" if !value.is_empty() => self.helper = Some(value.into()),
            "status" if value == "HELPER" => self.helper_bit = true,
            "nat" if value == "done" => self.nat_done = true,
            "seqadj-orig" => self.seqadj[0] = Some(parse_seqadj(value)?),
            "seqadj-reply" => self.seqadj[1] = Some(parse_seqadj(value)?),
            "synproxy" => {
                let [isn, its, tsoff] = parse_list(value)?;
                self.synproxy = Some(CtSynproxy { isn, its, tsoff });
            }
            "master" => self.master = Some(parse_master(value)?),
            _ => return None,
        }
        Some(())
    }
}

/// Flags and window scale, where they are not those that `--state` gives.
fn saved_tcp(protocol: &CtProtoInfo) -> Option<[(u8, u8); 2]> {
    let CtProtoInfo::Tcp(CtTcpInfo { state: Some(state), flags: [Some(original), Some(reply)], wscale }) = protocol
    else {
        return None;
    };
    let sides = [original, reply].map(|[flags, _]| flags & tcp_flag::SAVED);
    let scales = wscale.map(|scale| scale.unwrap_or(0));
    let usual = liberal_tcp_flags(*state);
    (sides != [usual; 2] || scales != [0; 2]).then_some([(sides[0], scales[0]), (sides[1], scales[1])])
}

/// As saved, but without a check of windows: the positions of the windows are not saved.
fn restored_tcp(info: &CtTcpInfo, sides: [(u8, u8); 2]) -> CtTcpInfo {
    CtTcpInfo {
        flags: sides.map(|(flags, _)| Some([flags & tcp_flag::SAVED | tcp_flag::BE_LIBERAL, tcp_flag::SAVED])),
        wscale: sides.map(|(_, scale)| Some(scale)),
        ..*info
    }
}

/// Has the id of ICMP's answers translated, as the addresses are; without a translation it is merely told.
fn restore_icmp_id(flow: &mut CtFlow, id: u16) {
    let original = flow.original.icmp_id;
    let only_id = |nat: Option<CtNatRange>, address| nat.is_some_and(|nat| Some(nat.address) == address);
    let by_source = only_id(flow.source_nat, flow.original.source);
    let by_destination = only_id(flow.destination_nat, flow.original.destination);
    // The destination is translated first. If each translation changed nothing but the id, any id will do in between.
    let between = (0..=2).find(|between| *between != id && Some(*between) != original);
    let id_of_destination = match (by_source, by_destination) {
        (true, true) => between,
        (true, false) => None,
        (false, _) => Some(id),
    };
    if flow.source_nat.is_none() && flow.destination_nat.is_none() {
        flow.reply.icmp_id = Some(id);
    }
    if let Some(range) = &mut flow.source_nat {
        range.ports = Some([id, id]);
    }
    if let Some(range) = &mut flow.destination_nat {
        range.ports = id_of_destination.map(|id| [id, id]);
    }
}

fn push_list(text: &mut TextBuf, name: &str, numbers: impl Iterator<Item = u32>) {
    let mut lead = "=";
    text.push(name);
    for number in numbers {
        text.push(lead).number(number);
        lead = ",";
    }
    text.push(" ");
}

fn parse_side(text: &str) -> Option<(u8, u8)> {
    let (flags, scale) = text.split_once('/')?;
    let flags = u8::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
    Some((flags, scale.parse().ok()?))
}

/// As many numbers as are asked for.
fn parse_list<const N: usize>(text: &str) -> Option<[u32; N]> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn parse_seqadj(text: &str) -> Option<CtSeqAdj> {
    let [correction_pos, offset_before, offset_after] = parse_list(text)?;
    Some(CtSeqAdj { correction_pos, offset_before, offset_after })
}

fn parse_master(text: &str) -> Option<CtTuple> {
    let mut parts = text.split(',');
    let protocol = parts.next()?.parse().ok()?;
    let mut address = || parts.next()?.parse::<IpAddr>().ok();
    let (source, destination) = (address()?, address()?);
    let mut port = || parts.next()?.parse::<u16>().ok();
    let tuple = CtTuple {
        protocol: Some(protocol),
        source: Some(source),
        destination: Some(destination),
        source_port: Some(port()?),
        destination_port: Some(port()?),
        ..CtTuple::default()
    };
    parts.next().is_none().then_some(tuple)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn written_attributes_are_read_again() {
        let text = "tcp=0x0b/7,0x8f/14 reply-icmp-id=99 labels=0,5,127 helper=ftp status=HELPER nat=done \
                    seqadj-orig=1,2,4294967295 seqadj-reply=4,5,6 synproxy=7,8,9 master=6,fd00::1,fd00::2,21,65535 ";
        let read = SavedAttributes::parse(&words(text.trim_end())).unwrap();
        let mut written = TextBuf::default();
        read.push(&mut written);
        assert_eq!(std::str::from_utf8(written.as_bytes()).unwrap(), format!(" # keepstate {text}"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for word in [
            "later=1",
            "tcp",
            "tcp=1/2,3/4",
            "tcp=0x100/0,0x00/0",
            "labels=128",
            "labels=",
            "helper=",
            "nat=x",
            "synproxy=1,2",
            "seqadj-orig=1,2,3,4",
            "master=6,fd00::1,fd00::2,21",
            "master=6,x,fd00::2,21,22",
            "[USERSPACE]",
            "-F",
        ] {
            assert_eq!(SavedAttributes::parse(&words(word)), Err(word.to_owned()));
        }
    }

    /// A name of somebody else's that held blanks would be read as further words.
    #[test]
    fn names_stay_one_word() {
        let mut text = TextBuf::default();
        SavedAttributes { helper: Some("a -F \"b\n".into()), ..SavedAttributes::default() }.push(&mut text);
        assert_eq!(text.as_bytes(), b" # keepstate helper=a?-F??b ");
    }
}

//! A selection of connections in the words of `conntrack -L`: for views that filter while they run.
use super::error::ConntrackError;
use super::grammar::Table;
use super::parse;
use crate::filter_args::FilterArgs;
use crate::flow_filter::FlowFilter;
use crate::format::{OutputOptions, engine_flow};
use keepstate_engine::{Entry, Tuple};
use keepstate_linux::ctnetlink::CtFlow;

/// Which connections match: what `conntrack -L` with these options would list. The default matches all.
#[derive(Clone, Debug, Default)]
pub struct FlowSelection {
    filter: FlowFilter,
}

impl FlowSelection {
    /// Reads filter options, separated by spaces: `-p tcp --dport 443 --state ESTABLISHED`.
    ///
    /// # Errors
    /// A sentence for the user, in conntrack's words.
    pub fn parse(words: &str) -> Result<FlowSelection, String> {
        let mut args = vec!["-L".to_owned()];
        args.extend(words.split_whitespace().map(str::to_owned));
        let request = parse::parse(&args).map_err(|error| match error {
            ConntrackError::Usage(text) | ConntrackError::Failed(text) => text,
            ConntrackError::ClosedPipe => String::new(),
        })?;
        // A filter by label shows labels.
        let output = OutputOptions { labels: false, ..request.output };
        if request.zero || output != OutputOptions::default() || request.table != Table::default() {
            return Err(
                "only options that select connections: -p, -s, -d, --dport, --state, -u, -m, -w and others".into()
            );
        }
        Ok(FlowSelection { filter: request.filter })
    }

    /// The same selection as these options make.
    pub fn of_args(args: &FilterArgs) -> FlowSelection {
        FlowSelection { filter: args.flow_filter() }
    }

    /// Is this connection selected?
    pub fn matches(&self, flow: &CtFlow) -> bool {
        self.filter.matches(flow)
    }

    /// Is this connection of our engine selected?
    pub fn matches_entry(&self, entry: &Entry) -> bool {
        self.filter.matches(&engine_flow::from_entry(entry))
    }

    /// Would a connection that begins with this tuple be selected, or the one that it is a reply of? For packets without a connection.
    pub fn matches_tuple(&self, tuple: &Tuple) -> bool {
        let Some(inverse) = tuple.invert() else { return self.filter.matches(&engine_flow::from_tuples(tuple, tuple)) };
        [(tuple, &inverse), (&inverse, tuple)]
            .into_iter()
            .any(|(original, reply)| self.filter.matches(&engine_flow::from_tuples(original, reply)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use keepstate_linux::ctnetlink::{CtFamily, CtProtoInfo, CtTcpInfo, CtTuple};

    fn web() -> CtFlow {
        let original = CtTuple {
            source: Some([10, 0, 0, 1].into()),
            destination: Some([192, 0, 2, 1].into()),
            protocol: Some(6),
            source_port: Some(4000),
            destination_port: Some(443),
            ..CtTuple::default()
        };
        CtFlow {
            family: Some(CtFamily::V4),
            original,
            protoinfo: CtProtoInfo::Tcp(CtTcpInfo { state: Some(3), ..CtTcpInfo::default() }),
            ..CtFlow::default()
        }
    }

    #[test]
    fn the_words_of_conntrack_select() {
        for (words, expected) in [
            ("", true),
            ("-p tcp", true),
            ("-p tcp --dport 443 --state ESTABLISHED", true),
            ("-s 10.0.0.0/8", true),
            ("-p udp", false),
            ("-p tcp --dport 80", false),
            ("-d 10.0.0.1", false),
            ("-f ipv6", false),
        ] {
            assert_eq!(FlowSelection::parse(words).unwrap().matches(&web()), expected, "{words}");
        }
    }

    #[test]
    fn what_does_not_select_is_refused() {
        for words in ["-o json", "-z", "dying", "--dport 80", "-p nonsense", "-D", "-E", "x y"] {
            assert!(FlowSelection::parse(words).is_err(), "{words}");
        }
    }
}

//! The living connections of a running gateway, asked for one port.
use anyhow::{Context, Result};
use keepstate_flowlog::{LogSession, LogTime, PortHolder, SocketAddress, WhoQuestion};
use keepstate_gateway::control_client;
use keepstate_linux::ctnetlink::{CtClient, CtDumpKind, CtFlow, CtTuple, DumpFilter};
use keepstate_linux::netlink::NetlinkSocket;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// How long a gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A question of so long ago is one about now.
const NOW: Duration = Duration::from_secs(5);

/// What the table says.
pub(super) struct GatewayAnswer {
    pub(super) holders: Vec<PortHolder>,
    pub(super) uncertain: Vec<String>,
}

/// Asks the gateway of this socket.
///
/// # Errors
/// None listens, or it does not answer.
pub(super) fn ask(socket: &Path, question: WhoQuestion, now: LogTime) -> Result<GatewayAnswer> {
    let stream = control_client::open_ctnetlink(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut client = CtClient::from_socket(NetlinkSocket::over_stream(stream));
    let mut holders = Vec::new();
    let listed = client.dump(CtDumpKind::Confirmed, &DumpFilter::default(), |flow| {
        holders.extend(holder_of(flow, &question));
        ControlFlow::Continue(())
    });
    listed.with_context(|| format!("asking the gateway of {}", socket.display()))?;
    let mut uncertain = Vec::new();
    if question.at.0.saturating_add(u64::try_from(NOW.as_nanos()).unwrap_or(0)) < now.0 {
        uncertain
            .push("a gateway knows living connections only: one that has ended since is in its flow log".to_owned());
    }
    if holders.iter().any(|holder| holder.from.is_none()) {
        uncertain.push("since when is not known: the connection began while nf_conntrack_timestamp was off".to_owned());
    }
    Ok(GatewayAnswer { holders, uncertain })
}

/// Who has the port by this connection, if it is the one asked for.
fn holder_of(flow: &CtFlow, question: &WhoQuestion) -> Option<PortHolder> {
    let [source, destination] = ends(&flow.original)?;
    let [answers_from, answers_to] = ends(&flow.reply)?;
    let protocol = flow.original.protocol?;
    // For ICMP the second number is type and code, which NAT leaves alone.
    let left = if flow.original.icmp_id.is_some() {
        [
            SocketAddress { port: answers_from.port, ..answers_to },
            SocketAddress { port: destination.port, ..answers_from },
        ]
    } else {
        [answers_to, answers_from]
    };
    let session = LogSession::new(protocol, flow.zone.unwrap_or(0), [source, destination], left);
    let from = flow.start.map(LogTime);
    let is_peer = question.peer.is_none_or(|(address, port)| {
        session.peer().is_some_and(|peer| peer.address == address && port.is_none_or(|port| port == peer.port))
    });
    let is_it = session.outside() == Some(question.outside)
        && question.protocol.is_none_or(|asked| asked == protocol)
        && is_peer
        && from.is_none_or(|from| from <= question.at);
    is_it.then(|| PortHolder { from, ..PortHolder::of(&session) })
}

fn ends(tuple: &CtTuple) -> Option<[SocketAddress; 2]> {
    let first = tuple.source_port.or(tuple.icmp_id).unwrap_or(0);
    let kind = u16::from(tuple.icmp_type.unwrap_or(0)) << 8 | u16::from(tuple.icmp_code.unwrap_or(0));
    let second = tuple.destination_port.unwrap_or(kind);
    Some([
        SocketAddress { address: tuple.source?, port: first },
        SocketAddress { address: tuple.destination?, port: second },
    ])
}

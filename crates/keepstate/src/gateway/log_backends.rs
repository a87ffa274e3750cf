//! What flow logs are written with that the gateway does not know: NATS, and Parquet if this program was built with it.
use crate::parquet_log;
use anyhow::{Context, Result};
use keepstate_gateway::cluster::ClusterServers;
use keepstate_gateway::flow_log::{CarrierStarter, LogBackends, SubjectCarrier, SubjectMessages};
use keepstate_nats::MessageSender;
use std::io;
use std::sync::Arc;

/// All that this program was built with.
pub(super) fn all() -> LogBackends {
    LogBackends { carrier: Some(CarrierStarter(Arc::new(connect))), converter: parquet_log::converter() }
}

struct NatsCarrier(MessageSender);

impl SubjectCarrier for NatsCarrier {
    fn publish(&mut self, messages: SubjectMessages) -> io::Result<()> {
        self.0.publish(messages).map_err(io::Error::other)
    }
}

fn connect(servers: &ClusterServers) -> Result<Box<dyn SubjectCarrier>> {
    let options = super::cluster_transport::nats_options(servers, "keepstate flow log".into());
    Ok(Box::new(NatsCarrier(MessageSender::connect(options).context("a flow log")?)))
}

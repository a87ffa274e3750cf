//! One session from either end, without I/O: received bytes in, bytes to send out.
//!
//! A codec crate encodes and decodes the packets; here is the order of packets, and where a packet ends in a stream (MQTT 5, section 2.1.4: a
//! type byte, then a length of one to four bytes). A packet longer than [`MAX_PACKET`] or malformed ends the session.
use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::{Qos, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode, SubackReasonCode, SubackReturnCode};

/// Maximum length of a packet, in bytes.
pub const MAX_PACKET: usize = 65_536;

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A packet is too long.
    #[error("packet longer than {MAX_PACKET} bytes")]
    TooLong,
    /// A packet cannot be decoded.
    #[error("malformed MQTT packet")]
    Malformed,
    /// A packet comes at the wrong time, or from the wrong end.
    #[error("unexpected MQTT packet")]
    Unexpected,
    /// The server refuses the session.
    #[error("session refused by the server")]
    Refused,
    /// The other end sent DISCONNECT.
    #[error("disconnected by the other end")]
    Disconnected,
}

/// The protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.
    V5,
}

/// Packet types (MQTT 5, section 2.1.2).
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const CONNACK: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const PINGRESP: u8 = 13;
    pub(super) const DISCONNECT: u8 = 14;
}

/// Splits a stream into packets.
#[derive(Debug, Default)]
struct PacketReader(Vec<u8>);

impl PacketReader {
    /// The next complete packet: its first byte, and what follows the length.
    fn next_packet(&mut self) -> Result<Option<(u8, Vec<u8>)>, SessionError> {
        let Some((first, after)) = self.0.split_first() else { return Ok(None) };
        let (mut length, mut digits) = (0usize, 0);
        loop {
            let Some(digit) = after.get(digits) else { return Ok(None) };
            length |= usize::from(digit & 0x7f) << (7 * digits);
            digits += 1;
            if digit & 0x80 == 0 {
                break;
            }
            if digits == 4 {
                return Err(SessionError::Malformed);
            }
        }
        if length > MAX_PACKET {
            return Err(SessionError::TooLong);
        }
        let Some(rest) = after.get(digits..digits + length) else { return Ok(None) };
        let packet = (*first, rest.to_vec());
        self.0.drain(..1 + digits + length);
        if self.0.is_empty() {
            // Tens of thousands of sessions: none keeps a buffer between packets.
            self.0 = Vec::new();
        }
        Ok(Some(packet))
    }
}

/// The events of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientEvents {
    /// The session was accepted.
    pub accepted: bool,
    /// Received PINGRESP packets.
    pub pongs: u32,
    /// Received PUBACK packets.
    pub acknowledged: u32,
}

/// The client end of a session.
#[derive(Debug)]
pub struct MqttClient {
    version: MqttVersion,
    reader: PacketReader,
    open: bool,
}

impl MqttClient {
    /// A session before its [CONNECT](MqttClient::connect).
    pub fn new(version: MqttVersion) -> MqttClient {
        MqttClient { version, reader: PacketReader::default(), open: false }
    }

    /// A CONNECT packet; `None` if the client id is not valid.
    pub fn connect(&self, name: &str, keep_alive: u16) -> Option<Vec<u8>> {
        Some(match self.version {
            MqttVersion::V4 => {
                let connect =
                    v3_1_1::Connect::builder().client_id(name).ok()?.clean_session(true).keep_alive(keep_alive);
                connect.build().ok()?.to_continuous_buffer()
            }
            MqttVersion::V5 => {
                let connect = v5_0::Connect::builder().client_id(name).ok()?.clean_start(true).keep_alive(keep_alive);
                connect.build().ok()?.to_continuous_buffer()
            }
        })
    }

    /// A PINGREQ packet; the same in both versions.
    pub fn ping(&self) -> Vec<u8> {
        vec![kind::PINGREQ << 4, 0]
    }

    /// A PUBLISH packet with QoS 1; `None` if the topic is not valid.
    pub fn publish(&self, topic: &str, payload: &[u8], id: u16) -> Option<Vec<u8>> {
        Some(match self.version {
            MqttVersion::V4 => {
                let publish = v3_1_1::Publish::builder().topic_name(topic).ok()?.qos(Qos::AtLeastOnce).packet_id(id);
                publish.payload(payload.to_vec()).build().ok()?.to_continuous_buffer()
            }
            MqttVersion::V5 => {
                let publish = v5_0::Publish::builder().topic_name(topic).ok()?.qos(Qos::AtLeastOnce).packet_id(id);
                publish.payload(payload.to_vec()).build().ok()?.to_continuous_buffer()
            }
        })
    }

    /// Handles received bytes.
    ///
    /// # Errors
    /// The reason why the session ends.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<ClientEvents, SessionError> {
        self.reader.0.extend_from_slice(bytes);
        let mut events = ClientEvents::default();
        while let Some((first, rest)) = self.reader.next_packet()? {
            match first >> 4 {
                kind::CONNACK if !self.open => {
                    let good = match self.version {
                        MqttVersion::V4 => v3_1_1::Connack::parse(&rest)
                            .map(|(packet, _)| packet.return_code() == ConnectReturnCode::Accepted),
                        MqttVersion::V5 => v5_0::Connack::parse(&rest)
                            .map(|(packet, _)| packet.reason_code() == ConnectReasonCode::Success),
                    };
                    self.open = good.map_err(|_| SessionError::Malformed)?;
                    if !self.open {
                        return Err(SessionError::Refused);
                    }
                    events.accepted = true;
                }
                kind::PINGRESP if self.open => events.pongs += 1,
                kind::PUBACK if self.open => {
                    let read = match self.version {
                        MqttVersion::V4 => v3_1_1::Puback::parse(&rest).map(drop),
                        MqttVersion::V5 => v5_0::Puback::parse(&rest).map(drop),
                    };
                    read.map_err(|_| SessionError::Malformed)?;
                    events.acknowledged += 1;
                }
                kind::DISCONNECT => return Err(SessionError::Disconnected),
                _ => return Err(SessionError::Unexpected),
            }
        }
        Ok(events)
    }
}

/// The server end of a session.
#[derive(Debug, Default)]
pub struct MqttServer {
    reader: PacketReader,
    version: Option<MqttVersion>,
}

impl MqttServer {
    /// Whether CONNECT was accepted.
    pub fn is_open(&self) -> bool {
        self.version.is_some()
    }

    /// Handles received bytes and appends the reply to `reply`. Returns the number of PUBLISH packets.
    ///
    /// # Errors
    /// The reason why the session ends; the reply is to be sent even then.
    pub fn receive(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> Result<u32, SessionError> {
        self.reader.0.extend_from_slice(bytes);
        let mut published = 0;
        // Another protocol is refused at its first byte, not when a packet of that length is complete.
        if !self.is_open() && self.reader.0.first().is_some_and(|first| first >> 4 != kind::CONNECT) {
            return Err(SessionError::Unexpected);
        }
        while let Some((first, rest)) = self.reader.next_packet()? {
            let Some(version) = self.version else {
                if first >> 4 != kind::CONNECT {
                    return Err(SessionError::Unexpected);
                }
                self.push_connack(&rest, reply)?;
                continue;
            };
            match first >> 4 {
                kind::PINGREQ => reply.extend([kind::PINGRESP << 4, 0]),
                kind::PUBLISH => {
                    push_puback(version, first & 15, &rest, reply)?;
                    published += 1;
                }
                kind::SUBSCRIBE => push_suback(version, &rest, reply)?,
                kind::DISCONNECT => return Err(SessionError::Disconnected),
                _ => return Err(SessionError::Unexpected),
            }
        }
        Ok(published)
    }

    fn push_connack(&mut self, rest: &[u8], reply: &mut Vec<u8>) -> Result<(), SessionError> {
        // The protocol level is at the same offset in all versions.
        let (version, connack) = match rest.get(6) {
            Some(4) => {
                v3_1_1::Connect::parse(rest).map_err(|_| SessionError::Malformed)?;
                let connack =
                    v3_1_1::Connack::builder().session_present(false).return_code(ConnectReturnCode::Accepted).build();
                (MqttVersion::V4, connack.map(|packet| packet.to_continuous_buffer()))
            }
            Some(5) => {
                v5_0::Connect::parse(rest).map_err(|_| SessionError::Malformed)?;
                let connack =
                    v5_0::Connack::builder().session_present(false).reason_code(ConnectReasonCode::Success).build();
                (MqttVersion::V5, connack.map(|packet| packet.to_continuous_buffer()))
            }
            _ => return Err(SessionError::Malformed),
        };
        reply.extend(connack.map_err(|_| SessionError::Malformed)?);
        self.version = Some(version);
        Ok(())
    }
}

/// The reply to PUBLISH: none for QoS 0, PUBACK for QoS 1. QoS 2 is not supported.
fn push_puback(version: MqttVersion, flags: u8, rest: &[u8], reply: &mut Vec<u8>) -> Result<(), SessionError> {
    let (qos, id) = match version {
        MqttVersion::V4 => {
            v3_1_1::Publish::parse(flags, Arc::from(rest)).map(|(packet, _)| (packet.qos(), packet.packet_id()))
        }
        MqttVersion::V5 => {
            v5_0::Publish::parse(flags, Arc::from(rest)).map(|(packet, _)| (packet.qos(), packet.packet_id()))
        }
    }
    .map_err(|_| SessionError::Malformed)?;
    match (qos, id) {
        (Qos::AtMostOnce, _) => Ok(()),
        (Qos::AtLeastOnce, Some(id)) => {
            let puback = match version {
                MqttVersion::V4 => {
                    v3_1_1::Puback::builder().packet_id(id).build().map(|packet| packet.to_continuous_buffer())
                }
                MqttVersion::V5 => {
                    v5_0::Puback::builder().packet_id(id).build().map(|packet| packet.to_continuous_buffer())
                }
            };
            reply.extend(puback.map_err(|_| SessionError::Malformed)?);
            Ok(())
        }
        _ => Err(SessionError::Unexpected),
    }
}

/// The reply to SUBSCRIBE: granted, although no message is ever delivered.
fn push_suback(version: MqttVersion, rest: &[u8], reply: &mut Vec<u8>) -> Result<(), SessionError> {
    let suback = match version {
        MqttVersion::V4 => v3_1_1::Subscribe::parse(rest).and_then(|(packet, _)| {
            let codes = vec![SubackReturnCode::SuccessMaximumQos0; packet.entries().len()];
            let suback = v3_1_1::Suback::builder().packet_id(packet.packet_id()).return_codes(codes).build();
            suback.map(|packet| packet.to_continuous_buffer())
        }),
        MqttVersion::V5 => v5_0::Subscribe::parse(rest).and_then(|(packet, _)| {
            let codes = vec![SubackReasonCode::GrantedQos0; packet.entries().len()];
            let suback = v5_0::Suback::builder().packet_id(packet.packet_id()).reason_codes(codes).build();
            suback.map(|packet| packet.to_continuous_buffer())
        }),
    };
    reply.extend(suback.map_err(|_| SessionError::Malformed)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use proptest::prelude::*;

    fn versions() -> [MqttVersion; 2] {
        [MqttVersion::V4, MqttVersion::V5]
    }

    #[test]
    fn session_connects_pings_and_publishes() {
        for version in versions() {
            let (mut client, mut server, mut reply) = (MqttClient::new(version), MqttServer::default(), Vec::new());
            assert_eq!(server.receive(&client.connect("one", 60).unwrap(), &mut reply), Ok(0));
            assert!(server.is_open() && client.receive(&reply).unwrap().accepted);
            reply.clear();
            let both = [client.ping(), client.publish("a/b", b"hello", 7).unwrap()].concat();
            // One byte at a time: TCP has no packet boundaries.
            let published: u32 = both.iter().map(|byte| server.receive(&[*byte], &mut reply).unwrap()).sum();
            assert_eq!(published, 1);
            assert_eq!(client.receive(&reply), Ok(ClientEvents { accepted: false, pongs: 1, acknowledged: 1 }));
        }
    }

    #[test]
    fn first_packet_must_be_connect() {
        let mut reply = Vec::new();
        assert_eq!(MqttServer::default().receive(&[0xc0, 0], &mut reply), Err(SessionError::Unexpected));
        assert_eq!(MqttServer::default().receive(b"GET / HTTP/1.1\r\n\r\n", &mut reply), Err(SessionError::Unexpected));
        assert_eq!(
            MqttServer::default().receive(&[0x10, 0xff, 0xff, 0xff, 0xff], &mut reply),
            Err(SessionError::Malformed)
        );
        assert_eq!(
            MqttServer::default().receive(&[0x10, 0xff, 0xff, 0xff, 0x7f], &mut reply),
            Err(SessionError::TooLong)
        );
        assert_eq!(MqttClient::new(MqttVersion::V5).receive(&[0xd0, 0]), Err(SessionError::Unexpected));
        assert!(reply.is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, v5: bool, begun: bool) {
            let version = if v5 { MqttVersion::V5 } else { MqttVersion::V4 };
            let (mut client, mut server, mut reply) = (MqttClient::new(version), MqttServer::default(), Vec::new());
            if begun {
                server.receive(&client.connect("one", 60).unwrap(), &mut reply).unwrap();
                client.receive(&reply).unwrap();
            }
            let _ = server.receive(&bytes, &mut reply);
            let _ = client.receive(&bytes);
        }
    }
}

//! One session from either end, without IO: bytes heard in, bytes to say out.
//!
//! The packets are those of a codec crate; here is only who says what when, and where one packet ends in a stream (MQTT 5, 2.1.4: a type, a length of one to four bytes). What is longer than
//! [`LONGEST`] or cannot be read ends the session.
use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::{Qos, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode, SubackReasonCode, SubackReturnCode};

/// The longest packet, in bytes.
pub const MAX_PACKET: usize = 65_536;

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A packet is longer than anybody here says.
    #[error("a packet of more than {MAX_PACKET} bytes")]
    TooLong,
    /// It cannot be read.
    #[error("bytes that are no packet of MQTT")]
    Malformed,
    /// It is said at the wrong time, or by the wrong end.
    #[error("a packet that does not belong here")]
    Unexpected,
    /// The other end refuses the session.
    #[error("the session is refused")]
    Refused,
    /// The other end says that it ends.
    #[error("the other end has said goodbye")]
    Disconnected,
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 3.1.1
    V4,
    /// 5
    V5,
}

/// Kinds of packet (MQTT 5, 2.1.2).
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

/// Puts a stream's pieces together to packets.
#[derive(Debug, Default)]
struct PacketReader(Vec<u8>);

impl PacketReader {
    /// The next packet: first byte, rest.
    fn next_packet(&mut self) -> Result<Option<(u8, Vec<u8>)>, SessionError> {
        let Some((first, behind)) = self.0.split_first() else { return Ok(None) };
        let (mut length, mut digits) = (0usize, 0);
        loop {
            let Some(digit) = behind.get(digits) else { return Ok(None) };
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
        let Some(rest) = behind.get(digits..digits + length) else { return Ok(None) };
        let packet = (*first, rest.to_vec());
        self.0.drain(..1 + digits + length);
        if self.0.is_empty() {
            // Tens of thousands of sessions hold nothing between their packets.
            self.0 = Vec::new();
        }
        Ok(Some(packet))
    }
}

/// What a client has heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientEvents {
    /// The session was accepted.
    pub accepted: bool,
    /// Answers to pings.
    pub pongs: u32,
    /// Acknowledged messages.
    pub acknowledged: u32,
}

/// A client's end.
#[derive(Debug)]
pub struct MqttClient {
    version: MqttVersion,
    reader: PacketReader,
    open: bool,
}

impl MqttClient {
    /// A session that is yet to be [greeted](Client::greet).
    pub fn new(version: MqttVersion) -> MqttClient {
        MqttClient { version, reader: PacketReader::default(), open: false }
    }

    /// CONNECT; `None` if this name cannot be one.
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

    /// PINGREQ: the same in both versions.
    pub fn ping(&self) -> Vec<u8> {
        vec![kind::PINGREQ << 4, 0]
    }

    /// PUBLISH, to be acknowledged.
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

    /// What these bytes say.
    ///
    /// # Errors
    /// Why the session ends.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<ClientEvents, SessionError> {
        self.reader.0.extend_from_slice(bytes);
        let mut heard = ClientEvents::default();
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
                    heard.accepted = true;
                }
                kind::PINGRESP if self.open => heard.pongs += 1,
                kind::PUBACK if self.open => {
                    let read = match self.version {
                        MqttVersion::V4 => v3_1_1::Puback::parse(&rest).map(drop),
                        MqttVersion::V5 => v5_0::Puback::parse(&rest).map(drop),
                    };
                    read.map_err(|_| SessionError::Malformed)?;
                    heard.acknowledged += 1;
                }
                kind::DISCONNECT => return Err(SessionError::Disconnected),
                _ => return Err(SessionError::Unexpected),
            }
        }
        Ok(heard)
    }
}

/// A server's end.
#[derive(Debug, Default)]
pub struct MqttServer {
    reader: PacketReader,
    version: Option<MqttVersion>,
}

impl MqttServer {
    /// Has the client been accepted?
    pub fn is_open(&self) -> bool {
        self.version.is_some()
    }

    /// What these bytes say; what to answer is appended to `answer`. Gives how many messages were published.
    ///
    /// # Errors
    /// Why the session ends; the answer is to be sent even then.
    pub fn receive(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> Result<u32, SessionError> {
        self.reader.0.extend_from_slice(bytes);
        let mut published = 0;
        // Who begins with another protocol is not waited for until a packet of that length is whole.
        if !self.is_open() && self.reader.0.first().is_some_and(|first| first >> 4 != kind::CONNECT) {
            return Err(SessionError::Unexpected);
        }
        while let Some((first, rest)) = self.reader.next_packet()? {
            let Some(version) = self.version else {
                if first >> 4 != kind::CONNECT {
                    return Err(SessionError::Unexpected);
                }
                self.push_connack(&rest, answer)?;
                continue;
            };
            match first >> 4 {
                kind::PINGREQ => answer.extend([kind::PINGRESP << 4, 0]),
                kind::PUBLISH => {
                    push_puback(version, first & 15, &rest, answer)?;
                    published += 1;
                }
                kind::SUBSCRIBE => push_suback(version, &rest, answer)?,
                kind::DISCONNECT => return Err(SessionError::Disconnected),
                _ => return Err(SessionError::Unexpected),
            }
        }
        Ok(published)
    }

    fn push_connack(&mut self, rest: &[u8], answer: &mut Vec<u8>) -> Result<(), SessionError> {
        // Name and level stand at the same place in every version.
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
        answer.extend(connack.map_err(|_| SessionError::Malformed)?);
        self.version = Some(version);
        Ok(())
    }
}

/// The answer to PUBLISH: none, or PUBACK. Delivery exactly once is not spoken here.
fn push_puback(version: MqttVersion, flags: u8, rest: &[u8], answer: &mut Vec<u8>) -> Result<(), SessionError> {
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
            answer.extend(puback.map_err(|_| SessionError::Malformed)?);
            Ok(())
        }
        _ => Err(SessionError::Unexpected),
    }
}

/// The answer to SUBSCRIBE: granted, though nothing will ever come.
fn push_suback(version: MqttVersion, rest: &[u8], answer: &mut Vec<u8>) -> Result<(), SessionError> {
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
    answer.extend(suback.map_err(|_| SessionError::Malformed)?);
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
            let (mut client, mut server, mut said) = (MqttClient::new(version), MqttServer::default(), Vec::new());
            assert_eq!(server.receive(&client.connect("one", 60).unwrap(), &mut said), Ok(0));
            assert!(server.is_open() && client.receive(&said).unwrap().accepted);
            said.clear();
            let both = [client.ping(), client.publish("a/b", b"hello", 7).unwrap()].concat();
            // One byte at a time: a stream has no edges.
            let published: u32 = both.iter().map(|byte| server.receive(&[*byte], &mut said).unwrap()).sum();
            assert_eq!(published, 1);
            assert_eq!(client.receive(&said), Ok(ClientEvents { accepted: false, pongs: 1, acknowledged: 1 }));
        }
    }

    #[test]
    fn first_packet_must_be_connect() {
        let mut answer = Vec::new();
        assert_eq!(MqttServer::default().receive(&[0xc0, 0], &mut answer), Err(SessionError::Unexpected));
        assert_eq!(
            MqttServer::default().receive(b"GET / HTTP/1.1\r\n\r\n", &mut answer),
            Err(SessionError::Unexpected)
        );
        assert_eq!(
            MqttServer::default().receive(&[0x10, 0xff, 0xff, 0xff, 0xff], &mut answer),
            Err(SessionError::Malformed)
        );
        assert_eq!(
            MqttServer::default().receive(&[0x10, 0xff, 0xff, 0xff, 0x7f], &mut answer),
            Err(SessionError::TooLong)
        );
        assert_eq!(MqttClient::new(MqttVersion::V5).receive(&[0xd0, 0]), Err(SessionError::Unexpected));
        assert!(answer.is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, v5: bool, begun: bool) {
            let version = if v5 { MqttVersion::V5 } else { MqttVersion::V4 };
            let (mut client, mut server, mut said) = (MqttClient::new(version), MqttServer::default(), Vec::new());
            if begun {
                server.receive(&client.connect("one", 60).unwrap(), &mut said).unwrap();
                client.receive(&said).unwrap();
            }
            let _ = server.receive(&bytes, &mut said);
            let _ = client.receive(&bytes);
        }
    }
}

//! Target `mqtt`: any bytes as an MQTT stream, at the client and at the server: no panic, and the same result however the stream is split.
use keepstate_lab::mqtt::session::{MqttClient, MqttServer, MqttVersion};

/// The first byte selects the end and the split; the rest is the stream.
pub fn mqtt(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let version = if first & 1 == 0 { MqttVersion::V4 } else { MqttVersion::V5 };
    let size = usize::from(first >> 2).max(1);
    let greeting = MqttClient::new(version).connect("fuzz", 60).unwrap_or_default();
    let begun = if first & 2 == 0 { rest.to_vec() } else { [&greeting[..], rest].concat() };
    // Undivided and split, the results are equal up to the end or first error.
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let at_one_go = MqttServer::default().receive(&begun, &mut whole);
    let mut server = MqttServer::default();
    let mut in_pieces = Ok(0);
    for piece in begun.chunks(size) {
        match (server.receive(piece, &mut pieces), &mut in_pieces) {
            (Ok(more), Ok(published)) => *published += more,
            (Err(broken), _) => {
                in_pieces = Err(broken);
                break;
            }
            _ => break,
        }
    }
    assert_eq!((at_one_go, whole), (in_pieces, pieces), "pieces make no difference");
    let mut client = MqttClient::new(version);
    let _ = client.receive(&[0x20, 2, 0, 0]);
    let _ = client.receive(rest);
}

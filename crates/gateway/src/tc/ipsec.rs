//! IPsec policies (xfrm) for what is forwarded: which packets they stop. Packets leave by the kernel's neighbours, past the place where it would apply them, so what one blocks, or would encrypt, is
//! dropped here: nothing leaves in the clear that is to be encrypted. For what the machine itself sends and takes the kernel applies them.
use keepstate_linux::xfrm::{IpsecDirection, XfrmAction, XfrmPolicy};
use keepstate_router::RouteQuery;
use std::net::IpAddr;

/// Those of the policies that concern what is forwarded.
pub(super) fn concerning_forwarded(policies: Vec<XfrmPolicy>) -> Vec<XfrmPolicy> {
    let concerns = |policy: &XfrmPolicy| policy.direction != IpsecDirection::In;
    let found: Vec<XfrmPolicy> = policies.into_iter().filter(concerns).collect();
    // Where all of them allow, nobody would see the difference.
    if found.iter().all(|policy| policy.action == XfrmAction::Allow) { Vec::new() } else { found }
}

/// Is a packet that would leave by this interface one that the kernel would drop or encrypt?
pub(super) fn stops(policies: &[XfrmPolicy], query: &RouteQuery, oif: u32) -> bool {
    let directions: &[IpsecDirection] =
        if query.iif.is_some() { &[IpsecDirection::Forward, IpsecDirection::Out] } else { &[IpsecDirection::Out] };
    directions.iter().any(|direction| {
        let first = policies.iter().find(|policy| policy.direction == *direction && is_for(policy, query, oif));
        first.is_some_and(|policy| policy.action != XfrmAction::Allow)
    })
}

fn is_for(policy: &XfrmPolicy, query: &RouteQuery, oif: u32) -> bool {
    // Its source may be translated to the one host that such a policy is for.
    let is_of_host = policy.direction == IpsecDirection::Out
        && policy.source.1 == if query.source.is_ipv4() { 32 } else { 128 }
        && policy.source.0.is_ipv4() == query.source.is_ipv4();
    let port = |(port, mask): (u16, u16), of: u16| (port ^ of) & mask == 0;
    (is_of_host || contains(policy.source, query.source))
        && contains(policy.destination, query.destination)
        && [0, query.protocol].contains(&policy.protocol)
        && port(policy.source_port, query.ports.0)
        && port(policy.destination_port, query.ports.1)
        && [0, oif].contains(&policy.ifindex)
        && (policy.mark.0 ^ query.mark) & policy.mark.1 == 0
}

fn contains((prefix, length): (IpAddr, u8), address: IpAddr) -> bool {
    let length = u32::from(length);
    match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            length == 0 || (prefix.to_bits() ^ address.to_bits()).checked_shr(32 - length.min(32)) == Some(0)
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            length == 0 || (prefix.to_bits() ^ address.to_bits()).checked_shr(128 - length.min(128)) == Some(0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: (&str, &str), direction: IpsecDirection, action: XfrmAction) -> XfrmPolicy {
        let prefix = |text: &str| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        XfrmPolicy {
            source: prefix(text.0),
            destination: prefix(text.1),
            protocol: 0,
            source_port: (0, 0),
            destination_port: (0, 0),
            ifindex: 0,
            mark: (0, 0),
            priority: 0,
            direction,
            action,
        }
    }

    fn query(source: &str, destination: &str, iif: Option<u32>) -> RouteQuery {
        RouteQuery {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            iif,
            mark: 5,
            tos: 0,
            flow_label: 0,
            protocol: 6,
            ports: (1000, 80),
        }
    }

    #[test]
    fn the_first_policy_that_is_for_a_packet_counts() {
        use IpsecDirection::{Forward, Out};
        use XfrmAction::{Allow, Block, Transform};
        let all = ("0.0.0.0/0", "0.0.0.0/0");
        let lan = ("10.0.0.0/9", "192.0.2.0/25");
        let from_lan = query("10.1.2.3", "192.0.2.127", Some(3));
        let port = |port| XfrmPolicy { destination_port: (port, 0xffff), ..policy(all, Forward, Block) };
        let mark = |mark| XfrmPolicy { mark, ..policy(all, Out, Block) };
        for (policies, stopped) in [
            (vec![policy(lan, Forward, Block)], true),
            (vec![policy(lan, Out, Transform)], true),
            (vec![policy(("10.128.0.0/9", "192.0.2.0/25"), Out, Transform)], false),
            (vec![policy(("10.0.0.0/9", "192.0.2.128/25"), Out, Transform)], false),
            (vec![policy(("::/0", "::/0"), Out, Block)], false),
            (vec![policy(lan, Out, Allow), policy(all, Out, Block)], false),
            (vec![policy(all, Out, Block), policy(lan, Out, Allow)], true),
            (vec![policy(lan, Out, Allow), policy(all, Forward, Block)], true),
            // It may be translated to that one.
            (vec![policy(("198.51.100.1/32", "192.0.2.0/25"), Out, Transform)], true),
            (vec![policy(("198.51.100.1/32", "192.0.2.0/25"), Forward, Block)], false),
            (vec![port(80)], true),
            (vec![port(81)], false),
            (vec![mark((4, 4))], true),
            (vec![mark((2, 2))], false),
            (vec![XfrmPolicy { protocol: 17, ..policy(all, Out, Block) }], false),
            (vec![XfrmPolicy { ifindex: 7, ..policy(all, Out, Block) }], false),
            (vec![XfrmPolicy { ifindex: 4, ..policy(all, Out, Block) }], true),
        ] {
            assert_eq!(stops(&policies, &from_lan, 4), stopped, "{policies:?}");
        }
        let own = query("10.1.2.3", "192.0.2.1", None);
        assert!(!stops(&[policy(lan, Forward, Block)], &own, 4) && stops(&[policy(lan, Out, Block)], &own, 4));
        let v6 = query("2001:db8::1", "2001:db8:1::1", Some(3));
        let net = |length: u8| policy(("2001:db8::/64", &format!("2001:db8:1::/{length}")), Out, Block);
        assert!(stops(&[net(128 - 1)], &v6, 4) && stops(&[net(0)], &v6, 4) && !stops(&[net(128)], &v6, 4));
        assert!(concerning_forwarded(vec![policy(all, Out, Allow), policy(all, IpsecDirection::In, Block)]).is_empty());
    }
}

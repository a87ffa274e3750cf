//! Whatever the programs print, reading it must not panic.
use super::listed_ruleset::RulesetFormat;
use super::{iptables, ipvs, nftables, openvswitch, table_ct_users, tc};
use proptest::prelude::*;

/// Words of the programs that are read here, in any order, and any text between them.
fn texts() -> impl Strategy<Value = String> {
    let words = [
        "*nat\n",
        ":INPUT ACCEPT [0:0]\n",
        "-A INPUT ",
        "-m ",
        "--dport ",
        "80:",
        ",",
        "-j DNAT ",
        "--to-destination ",
        "[::1]:9-",
        "! ",
        "\"",
        "\\",
        "{\"nftables\":[",
        "{\"rule\":{\"expr\":[",
        "{\"match\":{\"left\":",
        "]}",
        "}",
        "\"set\":[",
        "actions=ct(",
        "TCP ",
        "-> ",
        "\n",
        " ",
    ];
    let piece = prop_oneof![4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever a program prints, reading it ends, and in no panic.
    #[test]
    fn arbitrary_command_output_does_not_panic(text in texts(), listing in texts()) {
        if let Ok(tables) = iptables::parse(&format!("*t\n:INPUT DROP [0:0]\n-A INPUT {text}"), RulesetFormat::IptablesLegacy, "ip") {
            prop_assert!(tables[0].chains.len() == 1 || text.contains('\n'));
            tables.iter().for_each(|table| drop(table_ct_users(table)));
        }
        let _ = iptables::parse(&text, RulesetFormat::IptablesNft, "ip6");
        let _ = nftables::parse(&text, &listing);
        let _ = (tc::parse_qdiscs(&text), tc::parse_ct_actions(&text));
        let (servers, flows) = (ipvs::parse(&text), openvswitch::parse_ct_flows(&text));
        prop_assert!(servers.len() <= text.lines().count() && flows.len() <= text.lines().count());
    }
}

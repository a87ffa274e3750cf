//! `keepstate lab` as a newcomer runs it: the whole story comes out as it should, and nothing is left behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{keepstate, skipped};
use std::process::Command;

#[test]
fn the_story_comes_out_and_nothing_is_left_behind() {
    let ran = keepstate(&["lab", "--clients", "60"], b"");
    if ran.err.contains("needs root") {
        return skipped("the laboratory: it needs root, network namespaces and iproute2");
    }
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for told in [
        "60 of 60 clients got in",
        "their sources are translated",
        "nf_conntrack: table full, dropping packet",
        "none was lost meanwhile",
        "answered by 10.1.0.2, 10.1.0.3, 10.1.0.2, 10.1.0.3",
        "Everything was as it should be.",
    ] {
        assert!(ran.out.contains(told), "{told:?} in\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'), "no colours where nobody sees them");
    let spaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&spaces.stdout).contains("keepstate-lab-"), "a namespace was left");
}

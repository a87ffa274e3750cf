//! The DaemonSet and the Helm chart: YAML that says what it should, with as few rights as the page says, and command lines that the program takes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use clap::Parser;
use common::report_skipped;
use keepstate::cli::Cli;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// The documents of a YAML text, by Python's parser; `None` where there is none.
fn parse_yaml(text: &str) -> Option<Vec<Value>> {
    let script = "import json, sys, yaml\nprint(json.dumps([d for d in yaml.safe_load_all(sys.argv[1]) if d]))";
    if !Command::new("python3").args(["-c", "import yaml"]).output().is_ok_and(|output| output.status.success()) {
        report_skipped("the files for Kubernetes as YAML: apt-get install python3-yaml");
        return None;
    }
    let output = Command::new("python3").args(["-c", script, text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A DaemonSet with no more rights than NET_ADMIN and `more`, whose command line the program takes.
fn check_daemonset(document: &Value, more: &[&str]) {
    assert_eq!(document["kind"], "DaemonSet");
    let pod = &document["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(document["spec"]["selector"]["matchLabels"], document["spec"]["template"]["metadata"]["labels"]);
    let container = &pod["containers"][0];
    let rights = &container["securityContext"];
    assert_eq!(
        (&rights["privileged"], &rights["allowPrivilegeEscalation"]),
        (&Value::Bool(false), &Value::Bool(false))
    );
    assert_eq!(rights["readOnlyRootFilesystem"], true);
    assert_eq!(rights["capabilities"]["drop"], serde_json::json!(["ALL"]));
    let added: Vec<&str> = rights["capabilities"]["add"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(added, [&["NET_ADMIN"], more].concat());
    let words = container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let words = words.map(|word| word.replace("$(NODE_IP)", "192.0.2.1"));
    Cli::try_parse_from(std::iter::once("keepstate".to_owned()).chain(words)).unwrap();
}

#[test]
fn the_daemonset_has_net_admin_and_nothing_else() {
    let Some(documents) = parse_yaml(&fs::read_to_string(packaging("kubernetes/daemonset.yaml")).unwrap()) else {
        return;
    };
    assert_eq!(documents.len(), 1);
    check_daemonset(&documents[0], &[]);
}

#[test]
fn the_chart_has_every_value_that_its_template_uses() {
    let template = fs::read_to_string(packaging("helm/keepstate/templates/daemonset.yaml")).unwrap();
    let Some(values) = parse_yaml(&fs::read_to_string(packaging("helm/keepstate/values.yaml")).unwrap()) else {
        return;
    };
    let chart = parse_yaml(&fs::read_to_string(packaging("helm/keepstate/Chart.yaml")).unwrap()).unwrap();
    assert_eq!(chart[0]["appVersion"], env!("CARGO_PKG_VERSION"), "Chart.yaml");
    let mut used = BTreeSet::new();
    for rest in template.split(".Values.").skip(1) {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap();
        used.insert(rest[..end].to_owned());
    }
    assert!(used.len() > 5, "{used:?}");
    for name in &used {
        assert!(values[0].pointer(&format!("/{}", name.replace('.', "/"))).is_some(), "{name} is not in values.yaml");
    }
    for name in values[0].as_object().unwrap().keys() {
        assert!(used.iter().any(|one| one.split('.').next() == Some(name)), "{name} is not used");
    }
}

#[test]
fn helm_renders_the_chart_to_a_daemonset() {
    if Command::new("helm").arg("version").output().is_err() {
        return report_skipped("the Helm chart rendered: helm is not in Debian 12; https://helm.sh/docs/intro/install");
    }
    for (privileges, more) in [("table", &[][..]), ("namespaces", &["SYS_ADMIN", "SYS_PTRACE"])] {
        let chart = packaging("helm/keepstate");
        let set = format!("privileges={privileges}");
        let output = Command::new("helm").args(["template", "ks", "--set", &set]).arg(chart).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let Some(documents) = parse_yaml(&String::from_utf8(output.stdout).unwrap()) else { return };
        check_daemonset(&documents[0], more);
    }
}

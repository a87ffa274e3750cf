//! A log in hourly files: lines while the hour lasts, Parquet afterwards; and what says that this program was built without it.
#[cfg(not(feature = "parquet"))]
use crate::common::keepstate;
use crate::log_testbed::LogTestbed;

const LOG: &str = "
[[flow-log]]
to = \"hours\"
format = \"parquet\"
peers = true
";

#[cfg(feature = "parquet")]
mod built {
    use super::*;
    use crate::log_testbed::{SESSIONS, wait_until};
    use std::fs;

    #[test]
    fn an_hour_that_is_over_becomes_parquet_and_who_reads_both() {
        let Some(mut lab) = LogTestbed::new("hour", LOG) else { return };
        fs::create_dir(lab.path("hours")).unwrap();
        lab.start();
        lab.send_packets();
        wait_until("every record is written", || lab.stats()["flow_log_records"].as_u64() > Some(SESSIONS.into()));
        lab.stop();
        // Run again later: what it had written is of an hour that is over.
        for entry in fs::read_dir(lab.path("hours")).unwrap().map(Result::unwrap) {
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(text.lines().count() > SESSIONS.into(), "{text}");
            fs::rename(entry.path(), lab.path("hours/flows-2026-01-01T00.jsonl")).unwrap();
        }
        lab.start();
        wait_until("it is converted", || {
            lab.path("hours/flows-2026-01-01T00.parquet").exists()
                && !lab.path("hours/flows-2026-01-01T00.jsonl").exists()
        });
        lab.send_packets();
        wait_until("they are written", || lab.stats()["flow_log_records"].as_u64() > Some(SESSIONS.into()));
        lab.stop();
        let files: Vec<String> = fs::read_dir(lab.path("hours"))
            .unwrap()
            .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
            .collect();
        assert!(files.len() >= 2, "{files:?}");
        let mut words = vec!["192.0.2.1:20007", "--at", "now", "--json"];
        words.extend(files.iter().map(String::as_str));
        let answer = lab.who(&words);
        assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
        let parquet = lab.text_path("hours/flows-2026-01-01T00.parquet");
        let alone = lab.who(&["192.0.2.1:20007", "--at", "now", "--peer", "198.51.100.7:53", &parquet]);
        assert!(
            alone.out.starts_with("10.1.0.2 port 20007 (udp) had 192.0.2.1:20007 from "),
            "{}{}",
            alone.out,
            alone.err
        );
        let nobody = lab.who(&["192.0.2.1:19999", "--at", "now", &parquet]);
        assert_eq!(nobody.code, Some(1), "{}", nobody.out);
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_program_without_parquet_says_so() {
    let Some(lab) = LogTestbed::new("hour", LOG) else { return };
    std::fs::create_dir(lab.path("hours")).unwrap();
    let ran = keepstate(&["gateway", "--config", &lab.text_path("gateway.toml")], b"");
    assert!(ran.code == Some(1) && ran.err.contains("--features parquet"), "{}", ran.err);
    std::fs::write(lab.path("a.parquet"), "PAR1").unwrap();
    let asked = lab.who(&["192.0.2.1:1", "--at", "now", &lab.text_path("a.parquet")]);
    assert!(asked.code == Some(2) && asked.err.contains("--features parquet"), "{}", asked.err);
}

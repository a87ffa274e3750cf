//! Target `sysctl`: any text as a sysctl file.

use keepstate_engine::sysctl_conf::{self as sysctl, SkippedLines};
use keepstate_engine::{Sysctl, Sysctls};

/// Parses `data` as a sysctl file; what it sets must survive writing and parsing.
pub fn sysctl(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut sysctls = Sysctls::default();
    if let Err(fault) = sysctl::apply_file(&text, &mut sysctls) {
        let line = fault.line.expect("a fault in a file is in a line");
        assert!(line >= 1 && line <= text.lines().count(), "line {line} is one of the file's");
        assert!(!fault.to_string().contains('\n'), "a fault is told in one line");
    }
    let mut written = String::new();
    for knob in Sysctl::ALL {
        // Those that are only read, and those whose default is not what is computed, are as they were.
        if sysctls[*knob] != Sysctls::default()[*knob] {
            written += &format!("net.netfilter.{} = {}\n", knob.name(), sysctls[*knob]);
        }
    }
    let mut again = Sysctls::default();
    assert_eq!(
        sysctl::apply_file(&written, &mut again),
        Ok(SkippedLines::default()),
        "what was read can be read again: {written}"
    );
    assert_eq!(again, sysctls);
}

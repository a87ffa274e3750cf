//! Target `sysctl`: any text as a sysctl file.

use keepstate_engine::sysctl_conf::{self as sysctl, SkippedLines};
use keepstate_engine::{Sysctl, Sysctls};

/// Parses `data` as a sysctl file; the values it sets must survive writing and parsing.
pub fn sysctl(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut sysctls = Sysctls::default();
    if let Err(error) = sysctl::apply_file(&text, &mut sysctls) {
        let line = error.line.expect("an error in a file has a line");
        assert!(line >= 1 && line <= text.lines().count(), "line {line} is one of the file's");
        assert!(!error.to_string().contains('\n'), "an error is one line");
    }
    let mut written = String::new();
    for knob in Sysctl::ALL {
        // Read-only sysctls, and those with a computed default, are unchanged.
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

//! BPF programs that use the connection table: XDP and tc programs that call the kernel's functions for it (kfuncs).
//!
//! The kernel lists the programs and their instructions. For one that calls any kfunc, `bpftool` is run, which knows the names of the functions called.
#![allow(unsafe_code, reason = "bpf(2) has no wrapper in rustix, and aya does not give a program's instructions")]
use super::finding::{Confidence, CtUser, CtUserKind, NotChecked};
use crate::command;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A loaded program.
struct BpfProgram {
    id: u32,
    prog_type: u32,
    name: String,
    /// Its instructions, 8 bytes each; `None` if the kernel does not show them.
    instructions: Option<Vec<u8>>,
}

/// Checks every loaded program.
pub(super) fn find_ct_programs(found: &mut Vec<CtUser>, unseen: &mut Vec<NotChecked>) {
    let what = "BPF programs that use connection tracking";
    let mut last = 0;
    for _ in 0..MAX_PROGRAMS {
        last = match next_program_id(last) {
            Ok(Some(id)) => id,
            Ok(None) => return,
            // A kernel without BPF has no such programs.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return,
            Err(error) => {
                let why = format!("cannot list BPF programs: {error}; run as root (CAP_SYS_ADMIN)");
                return unseen.push(NotChecked { what: what.into(), why });
            }
        };
        match read_program(last) {
            Ok(program) => check_program(&program, found, unseen),
            // Unloaded in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => unseen.push(NotChecked { what: format!("BPF program {last}"), why: error.to_string() }),
        }
    }
    unseen.push(NotChecked { what: what.into(), why: format!("more than {MAX_PROGRAMS} programs are loaded") });
}

fn check_program(program: &BpfProgram, found: &mut Vec<CtUser>, unseen: &mut Vec<NotChecked>) {
    let BpfProgram { id, prog_type: kind, name, instructions } = program;
    // Programs of other types cannot call these functions.
    if !CT_KFUNC_PROG_TYPES.contains(kind) || instructions.as_deref().is_some_and(|code| !calls_kfunc(code)) {
        return;
    }
    let what = format!("BPF program {id} ({name})");
    match command::listing(&["bpftool", "prog", "dump", "xlated", "id", &id.to_string()]) {
        Ok(listing) => {
            let functions = ct_kfuncs(&listing);
            if !functions.is_empty() {
                found.push(CtUser {
                    kind: CtUserKind::Bpf,
                    listed_by: "bpf",
                    location: format!("program {id}"),
                    number: Some(u64::from(*id)),
                    description: format!("{name} calls {}", functions.join(", ")),
                    owner: None,
                    confidence: Confidence::Certain,
                });
            }
        }
        Err(why) => {
            let why = format!("it calls kernel functions, and only bpftool can name them: {why}");
            unseen.push(NotChecked { what, why });
        }
    }
}

/// Do these instructions call a kfunc? The opcode of a call is 0x85, and the upper half of the
/// second byte says of what: 2 means a kernel function (`BPF_PSEUDO_KFUNC_CALL` of linux/bpf.h).
fn calls_kfunc(instructions: &[u8]) -> bool {
    let source = |registers: u8| if cfg!(target_endian = "little") { registers >> 4 } else { registers & 15 };
    instructions.chunks_exact(8).any(|code| matches!(code, [0x85, registers, ..] if source(*registers) == 2))
}

/// The conntrack functions named in a listing of `bpftool prog dump xlated`, each once.
fn ct_kfuncs(listing: &str) -> Vec<String> {
    let words = listing.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let mut names: Vec<String> = words
        .filter(|word| ["bpf_xdp_ct_", "bpf_skb_ct_", "bpf_ct_"].iter().any(|start| word.starts_with(start)))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The next higher program id.
fn next_program_id(after: u32) -> io::Result<Option<u32>> {
    // start_id, next_id, open_flags.
    let mut attributes = [after, 0, 0];
    // SAFETY: the attributes are three numbers of which the kernel reads the first and the third and writes the second, and their
    // size is told.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_GET_NEXT_ID, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    match done {
        0 => Ok(Some(attributes[1])),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        },
    }
}

fn read_program(id: u32) -> io::Result<BpfProgram> {
    let mut attributes = [id, 0, 0];
    // SAFETY: as in `next_program_id`; the kernel returns a new descriptor, which nobody else owns.
    let file = unsafe {
        let file =
            libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, attributes.as_mut_ptr(), size_of_val(&attributes));
        let file = i32::try_from(file).ok().filter(|file| *file >= 0).ok_or_else(io::Error::last_os_error)?;
        OwnedFd::from_raw_fd(file)
    };
    let short = obj_get_info(&file, &mut [])?;
    let asked = CT_KFUNC_PROG_TYPES.contains(&short.prog_type);
    let length = if asked { usize::try_from(short.xlated_prog_len).unwrap_or(0).min(MAX_INSTRUCTION_BYTES) } else { 0 };
    let mut code = vec![0; length];
    let full = obj_get_info(&file, &mut code)?;
    let shown = full.xlated_prog_insns != 0 && length > 0;
    let name = full.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(BpfProgram {
        id,
        prog_type: full.prog_type,
        name: String::from_utf8_lossy(name).into_owned(),
        instructions: shown.then_some(code),
    })
}

/// The beginning of `struct bpf_prog_info` of linux/bpf.h, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct BpfProgInfo {
    prog_type: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Reads the information about a program; its instructions go to `code`.
fn obj_get_info(file: &OwnedFd, code: &mut [u8]) -> io::Result<BpfProgInfo> {
    #[repr(C)]
    struct Attributes {
        file: u32,
        length: u32,
        info: u64,
    }
    let mut info = BpfProgInfo::default();
    if !code.is_empty() {
        info.xlated_prog_len = u32::try_from(code.len()).unwrap_or(0);
        info.xlated_prog_insns = code.as_mut_ptr() as u64;
    }
    let mut attributes = Attributes {
        file: u32::try_from(file.as_raw_fd()).unwrap_or(0),
        length: u32::try_from(size_of::<BpfProgInfo>()).unwrap_or(0),
        info: &raw mut info as u64,
    };
    // SAFETY: `attributes` tells the kernel where `info` is and how long, and `info` where `code` is and how long; all three outlive
    // the call, and nothing else looks at them meanwhile.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<Attributes>()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// Commands of bpf(2).
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// The program types that may call conntrack functions: `BPF_PROG_TYPE_SCHED_CLS` and `BPF_PROG_TYPE_XDP`.
const CT_KFUNC_PROG_TYPES: [u32; 2] = [3, 6];
/// Most programs that are checked.
const MAX_PROGRAMS: usize = 4096;
/// Most bytes of one: a million instructions, the kernel's own limit.
const MAX_INSTRUCTION_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kfunc_calls_are_distinguished_from_helpers() {
        let helper = [0x85, 0, 0, 0, 1, 0, 0, 0];
        let local = [0x85, 0x10, 0, 0, 1, 0, 0, 0];
        let kernel = [0x85, 0x20, 0, 0, 1, 0, 0, 0];
        assert!(!calls_kfunc(&[helper, local].concat()));
        assert!(calls_kfunc(&[helper, kernel].concat()) == cfg!(target_endian = "little"));
        assert!(!calls_kfunc(&[0x85, 0x20]));
    }

    #[test]
    fn ct_kfuncs_are_found_in_a_bpftool_dump() {
        let listing = "  12: (85) call bpf_skb_ct_lookup#52312\n  20: (85) call bpf_ct_release#9\n  21: (85) call bpf_map_lookup_elem#1";
        assert_eq!(ct_kfuncs(listing), ["bpf_ct_release", "bpf_skb_ct_lookup"]);
    }

    /// Loads a program that returns 0: two instructions. `None` without the right to.
    fn load() -> Option<OwnedFd> {
        #[repr(C)]
        #[derive(Default)]
        struct Attributes {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            version: u32,
            flags: u32,
            name: [u8; 16],
        }
        let code: [u64; 2] = [0xb7, 0x95];
        let license = c"GPL";
        let mut attributes = Attributes {
            kind: CT_KFUNC_PROG_TYPES[0],
            count: 2,
            instructions: code.as_ptr() as u64,
            license: license.as_ptr() as u64,
            name: *b"keepstate_test\0\0",
            ..Attributes::default()
        };
        // SAFETY: `attributes` tells where the two instructions and the license are; all of them outlive the call. The descriptor
        // is new and nobody else's.
        unsafe {
            let file = libc::syscall(libc::SYS_bpf, 5, &raw mut attributes, size_of::<Attributes>());
            i32::try_from(file).ok().filter(|file| *file >= 0).map(|file| OwnedFd::from_raw_fd(file))
        }
    }

    #[test]
    fn reads_a_loaded_program() {
        let Some(file) = load() else {
            return keepstate_test_support::report_skipped("loading a BPF program needs root");
        };
        let id = obj_get_info(&file, &mut []).unwrap().id;
        let BpfProgram { prog_type: kind, name, instructions, .. } = read_program(id).unwrap();
        assert_eq!((kind, name.as_str()), (CT_KFUNC_PROG_TYPES[0], "keepstate_test"));
        let code = instructions.unwrap();
        assert!(code.ends_with(&[0x95, 0, 0, 0, 0, 0, 0, 0]) && !calls_kfunc(&code), "{code:x?}");
        assert_eq!(next_program_id(id - 1).unwrap(), Some(id));
        drop(file);
    }

    #[test]
    fn lists_programs_or_reports_why_not() {
        let (mut found, mut unseen) = (Vec::new(), Vec::new());
        find_ct_programs(&mut found, &mut unseen);
        // Without permission, that is reported.
        assert!(unseen.iter().all(|unseen| !unseen.why.is_empty()), "{unseen:?}");
    }
}

//! A house: a network namespace, where one program is run on tables made for it.
//!
//! It lives as long as its holder, a process that waits for the end of what it reads; when the test ends, in whatever way, the pipe is closed, the holder goes, and
//! with it the namespace. It has a mount namespace too, so that `/etc/xtables` can be its own. It never touches the namespaces that the test itself runs in.
use crate::case_file::Case;
use crate::outcome::Outcome;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Debian's program.
pub const DEBIAN: &str = "/usr/sbin/conntrack";

pub struct NetnsFixture {
    holder: Child,
    room: TempDir,
    prepared: Option<PreparedTables>,
    /// The gateway whose table is used instead of the kernel's.
    gateway: Option<Child>,
}

/// A set-up that reigns, and what it left in the tables.
struct PreparedTables {
    story: String,
    title: String,
    since: Instant,
    table: String,
    expected: String,
}

impl PreparedTables {
    /// Whether it will do for `case` too. Not for long: what remains of timeouts is compared with another house's.
    fn can_reuse_for(&self, case: &Case) -> bool {
        let same = self.story == case.story && self.title == case.title && case.stir.is_none();
        same && self.since.elapsed() < Duration::from_millis(900)
            && !case.set_up.iter().any(|line| line.contains("xtables"))
    }
}

impl NetnsFixture {
    /// Makes the namespaces, and puts `program` where the shell finds it as `conntrack`.
    ///
    /// # Errors
    /// What was missing.
    pub fn new(program: &Path) -> Result<NetnsFixture, String> {
        let room = TempDir::new().map_err(|error| error.to_string())?;
        fs::set_permissions(room.path(), fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        // By another process: a file that this one has open for writing cannot be executed.
        let installed = Command::new("install")
            .args(["-D", "-m", "755"])
            .arg(program)
            .arg(room.path().join("judged/conntrack"))
            .status();
        if !installed.is_ok_and(|status| status.success()) {
            return Err(format!("{} cannot be copied", program.display()));
        }
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", HOLDER_SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        let house = NetnsFixture { holder, room, prepared: None, gateway: None };
        if line == "ready\n" { Ok(house) } else { Err("no namespaces of its own".into()) }
    }

    /// Makes the namespaces, and a gateway there, whose table `conntrack` means from then on.
    ///
    /// # Errors
    /// What was missing.
    pub fn with_gateway(keepstate: &Path) -> Result<NetnsFixture, String> {
        let mut house = NetnsFixture::new(keepstate)?;
        let room = house.room.path();
        let put = |name: &str, text: &str, mode: u32| {
            let path = room.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        let written = fs::rename(room.join("judged/conntrack"), room.join("keepstate"))
            .and_then(|()| put("judged/conntrack", CLIENT_SCRIPT, 0o755))
            .and_then(|()| put("ruleset", "", 0o644));
        written.map_err(|error| error.to_string())?;
        let socket = room.join("socket");
        // It ends with this process, however that ends.
        let gateway = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter", "--target", &house.holder.id().to_string(), "--net", "--mount"])
            .arg(room.join("keepstate"))
            .args(["gateway", "--device", "judged0=10.255.0.1/24", "--ruleset"])
            .arg(room.join("ruleset"))
            .arg("--control")
            .arg(&socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("setpriv: {error}"))?;
        house.gateway = Some(gateway);
        let until = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = house.gateway.as_mut().is_none_or(|gateway| !matches!(gateway.try_wait(), Ok(None)));
            if ended || Instant::now() > until {
                return Err("the gateway does not run".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(house)
    }

    /// The next case begins with empty tables.
    pub fn forget_prepared(&mut self) {
        self.prepared = None;
    }

    /// Empties the tables, sets up the case, runs it. Where the case before left everything as the same set-up had made it, that is used again.
    ///
    /// # Errors
    /// If what goes before the command did not succeed: which line, and what it said.
    pub fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        let room = self.room.path();
        let prepared = self.prepared.take().filter(|prepared| prepared.can_reuse_for(case));
        for folder in ["left", "work"].map(|name| room.join(name)) {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).map_err(|error| error.to_string())?;
        }
        fs::write(room.join("script"), script(case, prepared.is_some(), self.gateway.is_some()))
            .map_err(|error| error.to_string())?;
        let since = Instant::now();
        let target = self.holder.id().to_string();
        let status = Command::new("nsenter")
            .args(["--target", &target, "--net", "--mount", "timeout", "-s", "KILL", "150", "sh"])
            .arg(room.join("script"))
            .env("ROOM", room)
            .env("LINE", &case.line)
            .env("SIGNAL", &case.signal)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| format!("nsenter: {error}"))?;
        let text = |name: &str| {
            String::from_utf8_lossy(&fs::read(room.join("left").join(name)).unwrap_or_default()).into_owned()
        };
        let fault = text("fault");
        if !fault.is_empty() || !status.success() {
            return Err(format!(
                "{} {}",
                if fault.is_empty() { "it did not end" } else { fault.trim() },
                text("log").trim()
            ));
        }
        let outcome = Outcome {
            out: text("out"),
            err: text("err"),
            code: text("code").trim().to_owned(),
            table: text("table"),
            expected: text("expect"),
            ordered: case.stir.is_some(),
            seconds: prepared.as_ref().map_or(since, |prepared| prepared.since).elapsed().as_secs(),
        };
        let prepared = prepared.unwrap_or_else(|| PreparedTables {
            story: case.story.clone(),
            title: case.title.clone(),
            since,
            table: text("table-before"),
            expected: text("expect-before"),
        });
        if outcome.tables_unchanged(&prepared.table, &prepared.expected) {
            self.prepared = Some(prepared);
        }
        Ok(outcome)
    }
}

impl Drop for NetnsFixture {
    fn drop(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// What the shell does for a case.
fn script(case: &Case, prepared: bool, gateway: bool) -> String {
    let mut script = SHELL_FUNCTIONS.to_owned();
    if gateway {
        script.push_str(GATEWAY_SHELL_FUNCTIONS);
    }
    let steps = |script: &mut String, lines: &[String]| {
        for line in lines {
            let quoted = line.replace('\'', "'\\''");
            let line = match line.strip_prefix("echo ").and_then(|rest| rest.split_once(" > /proc/sys/net/netfilter/"))
            {
                Some((value, knob)) if gateway => &format!("knob {knob}={value}"),
                _ => line,
            };
            let _ = writeln!(script, "{{ {line}\n}} >> $LEFT/log 2>&1 < /dev/null || fault '{quoted}'");
        }
    };
    if !prepared {
        script.push_str(if gateway { GATEWAY_RESET_SCRIPT } else { RESET_SCRIPT });
        steps(&mut script, &case.set_up);
        script.push_str(if case.stir.is_none() { "show -before\n" } else { "" });
    }
    match &case.stir {
        None => {
            let _ = write!(
                script,
                "(PATH=$ROOM/judged:$PATH\n{}\n) > $LEFT/out 2> $LEFT/err < /dev/null\necho $? > $LEFT/code\n",
                case.line
            );
        }
        Some(stir) => {
            script.push_str(START_WATCH_SCRIPT);
            steps(&mut script, stir);
            script.push_str(STOP_WATCH_SCRIPT);
        }
    }
    script.push_str("labels; show ''\n");
    script
}

const HOLDER_SCRIPT: &str = "
    ip link set lo up && nft list ruleset && mkdir -p /etc/xtables && mount -t tmpfs tmpfs /etc/xtables || exit 1
    echo ready
    exec cat > /dev/null";

/// What the scripts are made of.
const SHELL_FUNCTIONS: &str = r#"
LEFT=$ROOM/left
# Looks, 10 ms apart, before something that should happen counts as failed.
PATIENCE=6000
fault() { echo "$*" > $LEFT/fault; exit 0; }
labels() { printf '# a comment\n0 zero\n1 one\n2 two\n\n31 last-of-word\n127 top\n' > /etc/xtables/connlabel.conf; }
nft() { : > $ROOM/rules; command nft "$@"; }
# The sockets that listen to a group of netfilter's, and what waits to be read by them.
listeners() {
    while read -r socket protocol port groups waiting rest; do
        [ "$protocol" = 12 ] && [ "$groups" != 00000000 ] && echo "$waiting"
    done < /proc/net/netlink
}
# Whether the command under test is waiting (S), has ended (Z or nothing), or is busy.
state() { read -r number name state rest < /proc/$pid/stat 2> /dev/null || state=Z; }
# What is in the tables, by Debian's program.
show() {
    read -r count < /proc/sys/net/netfilter/nf_conntrack_count
    [ $count = 0 ] && return
    conntrack -L -o extended,labels > $LEFT/table$1 2>> $LEFT/log || fault 'the table cannot be read'
    conntrack -L expect > $LEFT/expect$1 2>> $LEFT/log || fault 'the expectations cannot be read'
}
cd $ROOM/work
"#;
/// What a gateway's house calls `conntrack`.
const CLIENT_SCRIPT: &str = "#!/bin/sh\nKEEPSTATE_GATEWAY=$ROOM/socket exec $ROOM/keepstate conntrack \"$@\"\n";
/// The same words where the table is a gateway's. It has labels without a rule that uses them.
const GATEWAY_SHELL_FUNCTIONS: &str = r#"
PATH=$ROOM/judged:$PATH
control() { $ROOM/keepstate control --socket $ROOM/socket "$@"; }
knob() { control set "$1" > /dev/null; }
nft() { :; }
# The events that wait, in one line, if there is a listener.
listeners() {
    stats=$(control stats --json | tr -d ' \n')
    case $stats in
        *'"listeners":0'[,}]*) ;;
        *) echo "$stats" | sed -n 's/.*"events_waiting":\([0-9]*\).*/\1/p' ;;
    esac
}
show() {
    [ "$(conntrack -C)" = 0 ] && return
    conntrack -L -o extended,labels > $LEFT/table$1 2>> $LEFT/log || fault 'the table cannot be read'
    conntrack -L expect > $LEFT/expect$1 2>> $LEFT/log || fault 'the expectations cannot be read'
}
"#;
const GATEWAY_RESET_SCRIPT: &str = r#"
conntrack -F 2> /dev/null
[ "$(conntrack -C)" = 0 ] || fault "the table is not empty"
knob nf_conntrack_acct=0; knob nf_conntrack_timestamp=0
# Who listened to the case before may not have left yet.
for try in $(seq $PATIENCE); do
    [ -z "$(listeners)" ] && break
    sleep 0.01
done
labels
"#;
/// The state that every case begins with.
const RESET_SCRIPT: &str = r#"
[ -e $ROOM/rules ] && { command nft flush ruleset || fault 'rules stay'; rm $ROOM/rules; }
cd /proc/sys/net/netfilter
echo 0 > nf_conntrack_acct; echo 0 > nf_conntrack_timestamp; echo 1 > nf_conntrack_events
# Expectations go with their connections.
for try in $(seq $PATIENCE); do
    read -r count < nf_conntrack_count
    [ $count = 0 ] && break
    conntrack -F 2> /dev/null; [ $try = 1 ] || sleep 0.02
done
[ $count = 0 ] || fault "the table is not empty: $count"
cd $ROOM/work
labels
"#;
/// Starts the command, and waits until it listens (the kernel, or the gateway, lists its membership) or has ended.
const START_WATCH_SCRIPT: &str = r#"
PATH=$ROOM/judged:$PATH sh -c "exec $LINE" > $LEFT/out 2> $LEFT/err < /dev/null &
pid=$!
listening=
for try in $(seq $PATIENCE); do
    [ -n "$(listeners)" ] && { listening=yes; break; }
    state; [ $state = Z ] && break
    sleep 0.01
done
[ -n "$listening" ] || [ $state = Z ] || fault 'the command does not listen'
"#;
/// Waits until the command has taken every event, and ends it. The events of a command that has returned are all in the listener's queue; a queue that is empty, and after
/// that a listener that sleeps again, means that it has printed them.
const STOP_WATCH_SCRIPT: &str = r#"
calm=0
for try in $(seq $PATIENCE); do
    waiting=$(listeners)
    state; [ $state = Z ] && break
    if [ "$waiting" = 0 ] && [ $state = S ]; then calm=$((calm + 1)); else calm=0; fi
    [ $calm = 3 ] && break
    sleep 0.01
done
[ $calm = 3 ] || [ $state = Z ] || fault 'the command does not take its events'
kill -$SIGNAL $pid 2> /dev/null
wait $pid
echo $? > $LEFT/code
"#;

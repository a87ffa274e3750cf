//! Who the two sides are: real programs where the machine has them, small ones of our own where it has not.
use super::builtin_servers::{self, BuiltinServer};
use super::topology::{CommandOutput, GATEWAY_ADDR, INSIDE_ADDRS, SERVER_ADDR, Side, Topology, find_program};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The published port, and that of the servers behind it.
pub(super) const PUBLISHED_PORT: u16 = 8080;
/// The name that the name server knows.
pub(super) const DNS_NAME: &str = "lab.example";
/// How long a real server may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call of a client takes at most.
const CALL_TIMEOUT_SECS: &str = "3";

/// The peers of one stage.
#[derive(Debug)]
pub(super) struct Peers {
    curl: Option<PathBuf>,
    /// mosquitto_pub and mosquitto_sub, if a broker listens.
    broker: Option<(PathBuf, PathBuf)>,
    dig: Option<PathBuf>,
    iperf3: Option<PathBuf>,
    /// Real ones, by name.
    pub(super) installed: Vec<&'static str>,
    /// Those that are our own, and why.
    pub(super) builtin: Vec<(&'static str, String)>,
    /// Servers of our own, which live as long.
    _builtin_servers: Vec<BuiltinServer>,
}

impl Peers {
    /// Starts them on a stage.
    pub(super) fn start(stage: &mut Topology) -> Result<Peers> {
        let (real, ours) = (Vec::new(), Vec::new());
        let mut peers = Peers {
            curl: None,
            broker: None,
            dig: None,
            iperf3: None,
            installed: real,
            builtin: ours,
            _builtin_servers: Vec::new(),
        };
        peers.curl = peers.find_client("curl", "curl", "curl");
        peers.start_web(stage)?;
        peers.broker = peers.start_broker(stage)?;
        peers.dig = peers.start_dns(stage)?;
        peers.iperf3 = peers.start_iperf3(stage)?;
        Ok(peers)
    }

    /// A program that the machine has; else it is noted what it would have to be given.
    fn find_client(&mut self, program: &'static str, what: &'static str, package: &str) -> Option<PathBuf> {
        let there = find_program(program);
        match there {
            Some(_) => self.installed.push(program),
            None => self.builtin.push((what, format!("apt-get install {package}"))),
        }
        there
    }

    /// Web servers: one outside that says whom it sees, two inside that say who they are.
    fn start_web(&mut self, stage: &mut Topology) -> Result<()> {
        let outer = [SocketAddr::new(SERVER_ADDR, 80)];
        let inner = INSIDE_ADDRS.map(|address| SocketAddr::new(address, PUBLISHED_PORT));
        if let Some(nginx) = find_program("nginx") {
            for (side, name, at) in [(Side::Server, "outer", &outer[..]), (Side::Client, "inner", &inner)] {
                let file = stage.work_dir.write(&format!("{name}.nginx"), &nginx_config(name, at))?;
                let folder = stage.work_dir.path().display().to_string();
                stage.spawn_background(
                    side,
                    &nginx,
                    &["-e", "stderr", "-p", &folder, "-c", &file.display().to_string()],
                )?;
            }
            if wait_listening(stage, Side::Server, outer[0])? && wait_listening(stage, Side::Client, inner[0])? {
                self.installed.push("nginx");
                return Ok(());
            }
        }
        self.builtin.push(("the web servers", "apt-get install nginx-light".into()));
        for (side, at) in [(Side::Server, &outer[..]), (Side::Client, &inner)] {
            for at in at {
                self._builtin_servers.push(BuiltinServer::serve_page(stage.netns_of(side), *at)?);
            }
        }
        Ok(())
    }

    fn start_broker(&mut self, stage: &mut Topology) -> Result<Option<(PathBuf, PathBuf)>> {
        let tools = (find_program("mosquitto"), find_program("mosquitto_pub"), find_program("mosquitto_sub"));
        let (Some(broker), Some(publish), Some(subscribe)) = tools else {
            self.builtin.push(("the MQTT broker", "apt-get install mosquitto mosquitto-clients".into()));
            return Ok(None);
        };
        let log = stage.work_dir.file("broker.log");
        let text = format!(
            "listener 1883 {SERVER_ADDR}\nallow_anonymous true\nuser root\npersistence false\n\
             log_dest file {}\nlog_type notice\nconnection_messages true\n",
            log.display()
        );
        let file = stage.work_dir.write("mosquitto.conf", &text)?;
        stage.spawn_background(Side::Server, &broker, &["-c", &file.display().to_string()])?;
        if !wait_listening(stage, Side::Server, SocketAddr::new(SERVER_ADDR, 1883))? {
            self.builtin.push(("the MQTT broker", "mosquitto does not come up here".into()));
            return Ok(None);
        }
        self.installed.push("mosquitto");
        Ok(Some((publish, subscribe)))
    }

    fn start_dns(&mut self, stage: &mut Topology) -> Result<Option<PathBuf>> {
        let (Some(dig), Some(dnsmasq)) = (find_program("dig"), find_program("dnsmasq")) else {
            self.builtin.push(("the name server", "apt-get install dnsutils dnsmasq-base".into()));
            return Ok(None);
        };
        let (at, name) = (format!("--listen-address={SERVER_ADDR}"), format!("--address=/{DNS_NAME}/{SERVER_ADDR}"));
        let words = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="];
        let who = ["--user=root", "--group=root", "--bind-interfaces", &at, &name];
        stage.spawn_background(Side::Server, &dnsmasq, &[&words[..], &who].concat())?;
        // It answers TCP too, by which it can be seen to be there.
        if !wait_listening(stage, Side::Server, SocketAddr::new(SERVER_ADDR, 53))? {
            self.builtin.push(("the name server", "dnsmasq does not come up here".into()));
            return Ok(None);
        }
        self.installed.extend(["dig", "dnsmasq"]);
        Ok(Some(dig))
    }

    fn start_iperf3(&mut self, stage: &mut Topology) -> Result<Option<PathBuf>> {
        let Some(iperf3) = self.find_client("iperf3", "the measure of speed", "iperf3") else {
            self._builtin_servers.push(BuiltinServer::serve_bytes(
                stage.netns_of(Side::Server),
                SocketAddr::new(SERVER_ADDR, builtin_servers::THROUGHPUT_PORT),
            )?);
            return Ok(None);
        };
        stage.spawn_background(Side::Server, &iperf3, &["-s", "-B", &SERVER_ADDR.to_string()])?;
        // It serves one client at a time: who looks whether it is there takes the next one's place for a moment.
        std::thread::sleep(Duration::from_millis(300));
        Ok(Some(iperf3))
    }

    /// Fetches a page: what was typed, what came.
    pub(super) fn fetch(
        &self,
        stage: &Topology,
        from: Side,
        address: IpAddr,
        port: u16,
    ) -> Result<(String, CommandOutput)> {
        let at = SocketAddr::new(address, port);
        let url = if port == 80 { format!("http://{address}/") } else { format!("http://{at}/") };
        match &self.curl {
            Some(curl) => {
                let ran = stage.run(from, curl, &["-sS", "--noproxy", "*", "--max-time", CALL_TIMEOUT_SECS, &url])?;
                Ok((format!("curl {url}"), ran))
            }
            None => {
                let got = stage.netns_of(from).enter(|| builtin_servers::http_get(at))?;
                let ran = match got {
                    Ok(out) => CommandOutput { success: true, stdout: out, stderr: String::new() },
                    Err(error) => CommandOutput { success: false, stdout: String::new(), stderr: error.to_string() },
                };
                Ok((format!("(built in) GET {url}"), ran))
            }
        }
    }

    /// Publishes a message and has it delivered; what the broker wrote of whom it saw. `None` without a broker.
    pub(super) fn publish_message(&self, stage: &Topology) -> Result<Option<(CommandOutput, String)>> {
        let Some((publish, subscribe)) = &self.broker else { return Ok(None) };
        let at = SERVER_ADDR.to_string();
        // Kept by the broker, so that it does not matter who comes first.
        stage.run(Side::Client, publish, &["-h", &at, "-t", "lab", "-m", "hello", "-r", "-q", "1"])?;
        let heard =
            stage.run(Side::Client, subscribe, &["-h", &at, "-t", "lab", "-C", "1", "-W", CALL_TIMEOUT_SECS])?;
        let log = std::fs::read_to_string(stage.work_dir.file("broker.log")).unwrap_or_default();
        let mut came =
            log.lines().filter(|line| line.contains("connected from") && !line.contains(&format!("from {at}")));
        Ok(Some((heard, came.next_back().unwrap_or_default().to_owned())))
    }

    /// Asks for a name. `None` without a name server.
    pub(super) fn resolve_name(&self, stage: &Topology) -> Result<Option<CommandOutput>> {
        let Some(dig) = &self.dig else { return Ok(None) };
        let words = ["+short", "+time=1", "+tries=3", DNS_NAME, &format!("@{SERVER_ADDR}")];
        stage.run(Side::Client, dig, &words).map(Some)
    }

    /// Bits a second of a transfer from inside to outside, for some seconds: what was typed, what was measured.
    pub(super) fn measure_throughput(&self, stage: &Topology, seconds: u32) -> Result<(String, Option<f64>)> {
        let Some(iperf3) = &self.iperf3 else {
            let at = SocketAddr::new(SERVER_ADDR, builtin_servers::THROUGHPUT_PORT);
            let got = stage
                .netns_of(Side::Client)
                .enter(|| builtin_servers::measure_download(at, Duration::from_secs(seconds.into())))?;
            return Ok((format!("(built in) a transfer of {seconds} s from {SERVER_ADDR}"), got.ok()));
        };
        let (at, time) = (SERVER_ADDR.to_string(), seconds.to_string());
        let ran = stage.run(Side::Client, iperf3, &["-c", &at, "-t", &time, "-J"])?;
        let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let speed = told.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
        Ok((format!("iperf3 -c {at} -t {time}"), speed))
    }

    /// Asks the published port so often, and counts who answered.
    pub(super) fn count_balanced(&self, stage: &Topology, times: u32) -> Result<(String, [u32; 2], u32)> {
        let (mut typed, mut counts, mut others) = (String::new(), [0; 2], 0);
        for _ in 0..times {
            let (command, ran) = self.fetch(stage, Side::Server, GATEWAY_ADDR, PUBLISHED_PORT)?;
            let answered =
                INSIDE_ADDRS.iter().zip(&mut counts).find(|(inside, _)| ran.stdout.contains(&format!("I am {inside}")));
            match answered {
                Some((_, count)) => *count += 1,
                None => others += 1,
            }
            typed = command;
        }
        Ok((typed, counts, others))
    }
}

/// What nginx is told; it leaves nothing outside of the folder.
fn nginx_config(name: &str, at: &[SocketAddr]) -> String {
    let servers: Vec<String> = at
        .iter()
        .map(|at| {
            format!(
                "  server {{ listen {at}; location / {{ default_type text/plain; return 200 \"I am {}, you are $remote_addr\\n\"; }} }}\n",
                at.ip()
            )
        })
        .collect();
    let folders: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {name}.{kind};\n"))
        .into();
    format!(
        "daemon off;\nmaster_process off;\npid {name}.pid;\nevents {{ }}\nhttp {{\n  access_log off;\n{}{}}}\n",
        folders.concat(),
        servers.concat()
    )
}

/// Does somebody listen there before our patience ends?
fn wait_listening(stage: &Topology, side: Side, at: SocketAddr) -> Result<bool> {
    let end = Instant::now() + START_TIMEOUT;
    while Instant::now() < end {
        if stage.netns_of(side).enter(|| TcpStream::connect_timeout(&at, Duration::from_millis(500)).is_ok())? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

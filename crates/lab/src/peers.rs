//! Who the two sides are: real programs where the machine has them, small ones of our own where it has not.
use super::stage::{GATEWAY, INSIDE, Ran, SERVER, Side, Stage, found};
use super::web::{self, Web};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The published port, and that of the servers behind it.
pub(super) const PUBLISHED: u16 = 8080;
/// The name that the name server knows.
pub(super) const NAME: &str = "lab.example";
/// How long a real server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a call of a client takes at most.
const CALL: &str = "3";

/// The peers of one stage.
#[derive(Debug)]
pub(super) struct Peers {
    curl: Option<PathBuf>,
    /// mosquitto_pub and mosquitto_sub, if a broker listens.
    broker: Option<(PathBuf, PathBuf)>,
    dig: Option<PathBuf>,
    iperf3: Option<PathBuf>,
    /// Real ones, by name.
    pub(super) real: Vec<&'static str>,
    /// Those that are our own, and why.
    pub(super) ours: Vec<(&'static str, String)>,
    /// Servers of our own, which live as long.
    _webs: Vec<Web>,
}

impl Peers {
    /// Starts them on a stage.
    pub(super) fn begin(stage: &mut Stage) -> Result<Peers> {
        let (real, ours) = (Vec::new(), Vec::new());
        let mut peers = Peers { curl: None, broker: None, dig: None, iperf3: None, real, ours, _webs: Vec::new() };
        peers.curl = peers.client("curl", "curl", "curl");
        peers.web(stage)?;
        peers.broker = peers.broker(stage)?;
        peers.dig = peers.names(stage)?;
        peers.iperf3 = peers.iperf3(stage)?;
        Ok(peers)
    }

    /// A program that the machine has; else it is noted what it would have to be given.
    fn client(&mut self, program: &'static str, what: &'static str, package: &str) -> Option<PathBuf> {
        let there = found(program);
        match there {
            Some(_) => self.real.push(program),
            None => self.ours.push((what, format!("apt-get install {package}"))),
        }
        there
    }

    /// Web servers: one outside that says whom it sees, two inside that say who they are.
    fn web(&mut self, stage: &mut Stage) -> Result<()> {
        let outer = [SocketAddr::new(SERVER, 80)];
        let inner = INSIDE.map(|address| SocketAddr::new(address, PUBLISHED));
        if let Some(nginx) = found("nginx") {
            for (side, name, at) in [(Side::Server, "outer", &outer[..]), (Side::Client, "inner", &inner)] {
                let file = stage.folder.write(&format!("{name}.nginx"), &nginx_configuration(name, at))?;
                let folder = stage.folder.path().display().to_string();
                stage.keep(side, &nginx, &["-e", "stderr", "-p", &folder, "-c", &file.display().to_string()])?;
            }
            if listens(stage, Side::Server, outer[0])? && listens(stage, Side::Client, inner[0])? {
                self.real.push("nginx");
                return Ok(());
            }
        }
        self.ours.push(("the web servers", "apt-get install nginx-light".into()));
        for (side, at) in [(Side::Server, &outer[..]), (Side::Client, &inner)] {
            for at in at {
                self._webs.push(Web::serve(stage.side(side), *at)?);
            }
        }
        Ok(())
    }

    fn broker(&mut self, stage: &mut Stage) -> Result<Option<(PathBuf, PathBuf)>> {
        let tools = (found("mosquitto"), found("mosquitto_pub"), found("mosquitto_sub"));
        let (Some(broker), Some(publish), Some(subscribe)) = tools else {
            self.ours.push(("the MQTT broker", "apt-get install mosquitto mosquitto-clients".into()));
            return Ok(None);
        };
        let log = stage.folder.file("broker.log");
        let text = format!(
            "listener 1883 {SERVER}\nallow_anonymous true\nuser root\npersistence false\n\
             log_dest file {}\nlog_type notice\nconnection_messages true\n",
            log.display()
        );
        let file = stage.folder.write("mosquitto.conf", &text)?;
        stage.keep(Side::Server, &broker, &["-c", &file.display().to_string()])?;
        if !listens(stage, Side::Server, SocketAddr::new(SERVER, 1883))? {
            self.ours.push(("the MQTT broker", "mosquitto does not come up here".into()));
            return Ok(None);
        }
        self.real.push("mosquitto");
        Ok(Some((publish, subscribe)))
    }

    fn names(&mut self, stage: &mut Stage) -> Result<Option<PathBuf>> {
        let (Some(dig), Some(dnsmasq)) = (found("dig"), found("dnsmasq")) else {
            self.ours.push(("the name server", "apt-get install dnsutils dnsmasq-base".into()));
            return Ok(None);
        };
        let (at, name) = (format!("--listen-address={SERVER}"), format!("--address=/{NAME}/{SERVER}"));
        let words = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="];
        let who = ["--user=root", "--group=root", "--bind-interfaces", &at, &name];
        stage.keep(Side::Server, &dnsmasq, &[&words[..], &who].concat())?;
        // It answers TCP too, by which it can be seen to be there.
        if !listens(stage, Side::Server, SocketAddr::new(SERVER, 53))? {
            self.ours.push(("the name server", "dnsmasq does not come up here".into()));
            return Ok(None);
        }
        self.real.extend(["dig", "dnsmasq"]);
        Ok(Some(dig))
    }

    fn iperf3(&mut self, stage: &mut Stage) -> Result<Option<PathBuf>> {
        let Some(iperf3) = self.client("iperf3", "the measure of speed", "iperf3") else {
            self._webs.push(Web::pour(stage.side(Side::Server), SocketAddr::new(SERVER, web::POURS))?);
            return Ok(None);
        };
        stage.keep(Side::Server, &iperf3, &["-s", "-B", &SERVER.to_string()])?;
        // It serves one client at a time: who looks whether it is there takes the next one's place for a moment.
        std::thread::sleep(Duration::from_millis(300));
        Ok(Some(iperf3))
    }

    /// Fetches a page: what was typed, what came.
    pub(super) fn fetch(&self, stage: &Stage, from: Side, address: IpAddr, port: u16) -> Result<(String, Ran)> {
        let at = SocketAddr::new(address, port);
        let url = if port == 80 { format!("http://{address}/") } else { format!("http://{at}/") };
        match &self.curl {
            Some(curl) => {
                let ran = stage.run(from, curl, &["-sS", "--noproxy", "*", "--max-time", CALL, &url])?;
                Ok((format!("curl {url}"), ran))
            }
            None => {
                let got = stage.side(from).enter(|| web::fetch(at))?;
                let ran = match got {
                    Ok(out) => Ran { good: true, out, err: String::new() },
                    Err(error) => Ran { good: false, out: String::new(), err: error.to_string() },
                };
                Ok((format!("(built in) GET {url}"), ran))
            }
        }
    }

    /// Publishes a message and has it delivered; what the broker wrote of whom it saw. `None` without a broker.
    pub(super) fn message(&self, stage: &Stage) -> Result<Option<(Ran, String)>> {
        let Some((publish, subscribe)) = &self.broker else { return Ok(None) };
        let at = SERVER.to_string();
        // Kept by the broker, so that it does not matter who comes first.
        stage.run(Side::Client, publish, &["-h", &at, "-t", "lab", "-m", "hello", "-r", "-q", "1"])?;
        let heard = stage.run(Side::Client, subscribe, &["-h", &at, "-t", "lab", "-C", "1", "-W", CALL])?;
        let log = std::fs::read_to_string(stage.folder.file("broker.log")).unwrap_or_default();
        let mut came =
            log.lines().filter(|line| line.contains("connected from") && !line.contains(&format!("from {at}")));
        Ok(Some((heard, came.next_back().unwrap_or_default().to_owned())))
    }

    /// Asks for a name. `None` without a name server.
    pub(super) fn name(&self, stage: &Stage) -> Result<Option<Ran>> {
        let Some(dig) = &self.dig else { return Ok(None) };
        let words = ["+short", "+time=1", "+tries=3", NAME, &format!("@{SERVER}")];
        stage.run(Side::Client, dig, &words).map(Some)
    }

    /// Bits a second of a transfer from inside to outside, for some seconds: what was typed, what was measured.
    pub(super) fn speed(&self, stage: &Stage, seconds: u32) -> Result<(String, Option<f64>)> {
        let Some(iperf3) = &self.iperf3 else {
            let at = SocketAddr::new(SERVER, web::POURS);
            let got = stage.side(Side::Client).enter(|| web::drink(at, Duration::from_secs(seconds.into())))?;
            return Ok((format!("(built in) a transfer of {seconds} s from {SERVER}"), got.ok()));
        };
        let (at, time) = (SERVER.to_string(), seconds.to_string());
        let ran = stage.run(Side::Client, iperf3, &["-c", &at, "-t", &time, "-J"])?;
        let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_default();
        let speed = told.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
        Ok((format!("iperf3 -c {at} -t {time}"), speed))
    }

    /// Asks the published port so often, and counts who answered.
    pub(super) fn balance(&self, stage: &Stage, times: u32) -> Result<(String, [u32; 2], u32)> {
        let (mut typed, mut counts, mut others) = (String::new(), [0; 2], 0);
        for _ in 0..times {
            let (command, ran) = self.fetch(stage, Side::Server, GATEWAY, PUBLISHED)?;
            let answered =
                INSIDE.iter().zip(&mut counts).find(|(inside, _)| ran.out.contains(&format!("I am {inside}")));
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
fn nginx_configuration(name: &str, at: &[SocketAddr]) -> String {
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
fn listens(stage: &Stage, side: Side, at: SocketAddr) -> Result<bool> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if stage.side(side).enter(|| TcpStream::connect_timeout(&at, Duration::from_millis(500)).is_ok())? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

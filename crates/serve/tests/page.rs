//! The page in a real browser, and the stream that feeds it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod common;

use common::{Served, connection, get, request};
use keepstate_live::{FleetView, NodeFinding, NodeVerdict, NodeView, ShardView};
use keepstate_serve::{ActiveFinding, MetricNames};
use keepstate_test_support::report_skipped;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn the_page_refers_to_nothing_outside_and_everything_it_refers_to_is_there() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    let page = get(&served, "/");
    assert!(
        page.contains("<h1>a &lt;b&gt;namespace&lt;/b&gt;</h1>") || page.contains("a &#60;b&#62;namespace"),
        "{page}"
    );
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere:\n{page}");
    assert!(!page.contains("<script>") && !page.contains("style=") && !page.contains("onclick"), "nothing inline");
    let named = page.split('"').filter(|text| text.starts_with("/assets/")).collect::<Vec<_>>();
    assert_eq!(named.len(), 5, "{named:?}");
    for path in named {
        assert!(get(&served, path).len() > 100, "{path}");
    }
    assert!(get(&served, "/assets/uPlot.LICENSE").contains("MIT License"));
    for path in ["/assets/../Cargo.toml", "/assets/nothing", "/assets/%2e%2e/Cargo.toml"] {
        assert!(request(&served, "GET", path, "127.0.0.1", "").starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[test]
fn the_stream_tells_what_is_new() {
    let Some(mut served) = Served::start(MetricNames::Keepstate) else { return };
    let mut stream = TcpStream::connect(served.exporter.address()).unwrap();
    write!(stream, "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut document = || lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
    let first = document();
    for part in [r#""entries":30"#, r#"["tcp ESTABLISHED",10]"#, r#"["10.0.0.9",20,"#, r#"["udp 10.0.0.2:53",20,"#] {
        assert!(first.contains(part), "{part} in {first}");
    }
    served.client.create(&connection(17, 5000)).unwrap();
    assert!(std::iter::repeat_with(document).take(60).any(|text| text.contains(r#""entries":31"#)));
}

/// A browser without a window, driven over its debugging pipe: JSON messages that end with a zero byte.
struct Browser {
    child: Child,
    answers: BufReader<ChildStdout>,
    last_id: u64,
    session: Option<String>,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Opens a page; `None` without a browser, which is reported.
    fn open(url: &str, window: &str) -> Option<Browser> {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().display();
        let line = format!(
            "exec chromium --headless --no-sandbox --disable-gpu --remote-debugging-pipe --window-size={window} \
             --user-data-dir={data} about:blank 3<&0 4>&1 >/dev/null 2>&1"
        );
        if !Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success()) {
            report_skipped("chromium is not installed");
            return None;
        }
        let mut child =
            Command::new("sh").args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut browser = Browser { child, answers, last_id: 0, session: None, _folder: folder };
        let Some(target) = browser.call("Target.createTarget", json!({ "url": url })) else {
            report_skipped("chromium does not run here");
            return None;
        };
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        Some(browser)
    }

    /// Calls a method and waits for its result; `None` if the browser has ended.
    fn call(&mut self, method: &str, params: Value) -> Option<Value> {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        write!(self.child.stdin.as_mut()?, "{message}\0").ok()?;
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).ok().filter(|count| *count > 0)?;
            answer.pop();
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == json!(self.last_id) {
                return Some(answer["result"].take());
            }
        }
    }

    /// With KEEPSTATE_SCREENSHOTS=FOLDER: what it shows, as a picture.
    fn keep_screenshot(&mut self, name: &str) {
        if let Some(folder) = std::env::var_os("KEEPSTATE_SCREENSHOTS") {
            let shot = self.call("Page.captureScreenshot", json!({})).unwrap();
            let file = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
            std::fs::write(file, shot["data"].as_str().unwrap()).unwrap();
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", params).map_or(Value::Null, |mut result| result["result"]["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let _ = self.call("Browser.close", json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_browser_shows_the_table_and_no_markup_of_strangers() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    {
        let mut facts = served.facts.lock();
        let title = "<img src=x onerror=alert(1)> is full".to_owned();
        facts.findings = vec![ActiveFinding { name: "table-full", severity: "critical", title }];
        facts.diagnosed_at = Some(1);
    }
    let url = format!("http://{}/", served.exporter.address());
    for window in ["500,844", "1280,900"] {
        let Some(mut browser) = Browser::open(&url, window) else { return };
        let until = Instant::now() + Duration::from_secs(60);
        let mut dom = String::new();
        while !dom.contains(r#"<strong id="entries">30</strong>"#) {
            assert!(Instant::now() < until, "the script has not filled the page: {dom}");
            dom = browser.evaluate("document.documentElement.outerHTML").as_str().unwrap_or_default().to_owned();
        }
        assert!(dom.contains("<td>tcp ESTABLISHED</td><td class=\"number\">10</td>"), "{dom}");
        assert!(dom.contains("<td>&lt;img src=x onerror=alert(1)&gt; is full</td>"), "escaped: {dom}");
        assert_eq!(browser.evaluate("document.images.length"), json!(0));
        assert_eq!(browser.evaluate("document.querySelectorAll('#chart canvas').length"), json!(1), "{dom}");
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.evaluate(fits), json!(true), "nothing is wider than a window of {window}");
        // A connection is shown whole, and below its state where there is no room beside it.
        let whole = "[...document.querySelectorAll('#flows td')].every((cell) => cell.scrollWidth <= cell.clientWidth + 1 \
                     && cell.getBoundingClientRect().right <= innerWidth)";
        assert_eq!(browser.evaluate(whole), json!(true), "{window}");
        for (scheme, paper) in [("dark", "rgb(20, 23, 26)"), ("light", "rgb(255, 255, 255)")] {
            let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            browser.call("Emulation.setEmulatedMedia", features);
            assert_eq!(browser.evaluate("getComputedStyle(document.body).backgroundColor"), json!(paper), "{scheme}");
        }
        browser.keep_screenshot(&format!("page-{window}"));
    }
}

/// A fleet in trouble, with a name that is markup.
fn fleet() -> FleetView {
    let silent =
        |name: &str, reason: &str| NodeView::silent(name.into(), "gateway".into(), "0.1.0".into(), reason.into());
    let node = |name: &str, verdict, entries, role: &str| NodeView {
        verdict,
        trouble: None,
        entries: Some(entries),
        limit: Some(262_144),
        new_per_second: 1234.5,
        time_to_full: "full in 25 min".into(),
        shards: vec![ShardView {
            cluster: "site".into(),
            shard: "main".into(),
            role: role.into(),
            epoch: 7,
            decided_by: "lease".into(),
            is_in_step: true,
            is_connected: true,
            ..ShardView::default()
        }],
        ..silent(name, "")
    };
    let title = "<img src=x onerror=alert(1)> is full".to_owned();
    let finding = NodeFinding { name: "table-full".into(), is_critical: true, title };
    let nodes = vec![
        NodeView { findings: vec![finding], ..node("gw1", NodeVerdict::Critical, 262_144, "active") },
        node("gw2", NodeVerdict::Ok, 200_000, "standby"),
        silent("edge", "it does not answer, last heard of 3 min ago"),
    ];
    FleetView { name: "site <b>".into(), nodes, error: None, is_asked: true }
}

#[test]
fn a_browser_shows_the_fleet_the_worst_first_and_who_decides() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    *served.fleet.lock() = fleet();
    assert!(get(&served, "/").contains("href=\"/fleet\""), "the page of the table leads there");
    let page = get(&served, "/fleet");
    assert!(!page.contains("site <b>") && !page.contains("<script>") && !page.contains("style="), "{page}");
    let url = format!("http://{}/fleet", served.exporter.address());
    for window in ["500,844", "1280,900"] {
        let Some(mut browser) = Browser::open(&url, window) else { return };
        let until = Instant::now() + Duration::from_secs(60);
        while browser.evaluate("document.querySelectorAll('#nodes tbody tr').length") != json!(3) {
            assert!(Instant::now() < until, "{}", browser.evaluate("document.documentElement.outerHTML"));
        }
        let names = "[...document.querySelectorAll('#nodes tbody tr')].map((row) => row.cells[0].textContent).join()";
        assert_eq!(browser.evaluate(names), json!("gw1,edge,gw2"));
        let shard = "[...document.querySelectorAll('#shards tbody td')].map((cell) => cell.textContent).join()";
        assert_eq!(browser.evaluate(shard), json!("site/main,gw1,7,lease,gw2,,0,"));
        assert_eq!(browser.evaluate("document.getElementById('verdict').textContent"), json!("critical"));
        assert_eq!(browser.evaluate("document.getElementById('silent').textContent"), json!(", 1 without an answer"));
        assert_eq!(browser.evaluate("document.images.length"), json!(0), "nothing sent is markup");
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.evaluate(fits), json!(true), "nothing is wider than a window of {window}");
        browser.keep_screenshot(&format!("fleet-{window}"));
    }
    // What is said when nothing can be asked any more; the nodes stay.
    served.fleet.lock().error = Some("cannot ask fleet site".into());
    let Some(mut browser) = Browser::open(&url, "500,844") else { return };
    let until = Instant::now() + Duration::from_secs(60);
    while browser.evaluate("document.getElementById('note').textContent") != json!("no new data: cannot ask fleet site")
    {
        assert!(Instant::now() < until);
    }
}

//! A real browser: Debian's Chromium without a window, led over the DevTools protocol.
//!
//! Each has a profile of its own below a directory that goes with it, believes every certificate, finds every host below
//! `.test` on loopback and no other host anywhere. Everything it is told waits a bounded time; it ends with its value.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// How long the browser may take to start, and for anything that it is told.
const START: Duration = Duration::from_secs(40);
const LIMIT: Duration = Duration::from_secs(20);

const FLAGS: [&str; 17] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--password-store=basic",
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
    // Reports of violations leave at once, not within a minute.
    "--short-reporting-delay",
];

/// The browser; ended when dropped.
pub struct Chromium {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    sent: u64,
    events: Vec<Event>,
    dir: TempDir,
}

/// A tab, in a context (cookies, storage, workers) of its own.
#[derive(Debug, Clone)]
pub struct Tab {
    session: String,
    context: String,
}

/// What the browser says unasked.
#[derive(Debug, Clone)]
pub struct Event {
    pub session: String,
    pub method: String,
    pub params: Value,
}

/// How a navigation has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The page has loaded with everything that it names.
    Loaded,
    /// There is no page: the answer was taken for a download, or nothing came; in Chromium's words.
    Nothing(String),
}

impl Chromium {
    /// Starts the browser.
    ///
    /// # Panics
    /// Where there is none, or it does not come up in time.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("chromium").tempdir().unwrap();
        let child = spawn(dir.path());
        let mut started = Starting { child, dir };
        let address = started.address().await;
        let (port, path) = address.split_once('\n').expect("a port and a path");
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("the DevTools port");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = client_async_with_config(url, stream, Some(config)).await.expect("DevTools");
        let Starting { child, dir } = started;
        let mut browser = Self { child, socket, sent: 0, events: Vec::new(), dir };
        let attach = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
        browser.tell("Target.setAutoAttach", attach).await;
        browser
    }

    /// A new tab in a context of its own. Downloads are put below [`Chromium::downloads`].
    pub async fn tab(&mut self) -> Tab {
        let context = self.tell("Target.createBrowserContext", json!({ "disposeOnDetach": true })).await;
        let context = text(&context["browserContextId"]);
        let target = json!({ "url": "about:blank", "browserContextId": context });
        let target = self.tell("Target.createTarget", target).await;
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let session = text(&self.tell("Target.attachToTarget", attached).await["sessionId"]);
        let tab = Tab { session, context };
        let downloads = self.downloads();
        let save = json!({ "behavior": "allow", "browserContextId": tab.context, "downloadPath": downloads,
                           "eventsEnabled": true });
        self.tell("Browser.setDownloadBehavior", save).await;
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Audits.enable", "Network.enable"] {
            self.ask(&tab, domain, json!({})).await;
        }
        let attach = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
        self.ask(&tab, "Target.setAutoAttach", attach).await;
        tab
    }

    /// Closes a tab, and forgets its cookies and its storage.
    pub async fn close(&mut self, tab: Tab) {
        self.tell("Target.disposeBrowserContext", json!({ "browserContextId": tab.context })).await;
        self.events.retain(|event| event.session != tab.session);
    }

    /// Leads a tab to an address and waits until the page has loaded.
    pub async fn open(&mut self, tab: &Tab, url: &str) -> Opened {
        self.open_from(tab, url, None).await
    }

    /// The same, as if a page with this address had led there.
    pub async fn open_from(&mut self, tab: &Tab, url: &str, referrer: Option<&str>) -> Opened {
        let before = self.events.len();
        let mut params = json!({ "url": url });
        if let Some(referrer) = referrer {
            params["referrer"] = json!(referrer);
        }
        let answer = self.ask(tab, "Page.navigate", params).await;
        if let Some(error) = answer["errorText"].as_str() {
            return Opened::Nothing(error.to_owned());
        }
        self.wait(tab, before, "Page.loadEventFired", |_| true).await;
        Opened::Loaded
    }

    /// Runs a script in the page, by itself no part of it; its value, awaited where it is a promise.
    ///
    /// # Panics
    /// When it throws.
    pub async fn run(&mut self, tab: &Tab, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask(tab, "Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Runs a script until it says `true`.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn until(&mut self, tab: &Tab, script: &str) {
        let end = Instant::now() + LIMIT;
        while self.run(tab, script).await != json!(true) {
            let said = self.lines(tab);
            assert!(Instant::now() < end, "never true: {script}; the browser said {said:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What broke a Content-Security-Policy in a tab so far, its workers included: `directive: what`.
    pub fn violations(&self, tab: &Tab) -> Vec<String> {
        let workers = self.workers(tab);
        let ours = |event: &&Event| event.session == tab.session || workers.contains(&event.session);
        self.events.iter().filter(ours).filter_map(violation).collect()
    }

    /// The same, only of pages: each once, `directive: address` or `directive: inline or eval`.
    pub fn issues(&self, tab: &Tab) -> Vec<String> {
        let ours = self.events.iter().filter(|event| event.session == tab.session);
        ours.filter_map(issue).collect()
    }

    /// What pages of a tab and the browser have written to the console, one line each.
    pub fn lines(&self, tab: &Tab) -> Vec<String> {
        let workers = self.workers(tab);
        let ours = |event: &&Event| event.session == tab.session || workers.contains(&event.session);
        self.events.iter().filter(ours).filter_map(line).collect()
    }

    /// Every event of a tab with this name so far.
    pub fn events(&self, tab: &Tab, method: &str) -> Vec<Value> {
        let named = |event: &&Event| event.session == tab.session && event.method == method;
        self.events.iter().filter(named).map(|event| event.params.clone()).collect()
    }

    /// Forgets what a tab has said.
    pub fn forget(&mut self) {
        self.events.clear();
    }

    /// Where downloads go.
    pub fn downloads(&self) -> std::path::PathBuf {
        self.dir.path().join("downloads")
    }

    /// Waits for an event of a tab, of those after `from` (a count of events) too; its parameters.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn wait(
        &mut self,
        tab: &Tab,
        from: usize,
        method: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = tokio::time::Instant::now() + LIMIT;
        let mut seen = from;
        loop {
            while let Some(event) = self.events.get(seen) {
                seen += 1;
                if event.session == tab.session && event.method == method && wanted(&event.params) {
                    return event.params.clone();
                }
            }
            let read = timeout_at(end, self.read()).await;
            assert!(read.is_ok(), "no {method} in time; the browser said {:#?}", self.lines(tab));
        }
    }

    /// Sends a command to a tab; its result.
    pub async fn ask(&mut self, tab: &Tab, method: &str, params: Value) -> Value {
        let session = tab.session.clone();
        self.send(method, params, Some(&session)).await
    }

    /// Sends a command to the browser; its result.
    pub async fn tell(&mut self, method: &str, params: Value) -> Value {
        self.send(method, params, None).await
    }

    async fn send(&mut self, method: &str, params: Value, session: Option<&str>) -> Value {
        self.sent += 1;
        let id = self.sent;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        let exchange = async {
            self.socket.send(Message::text(command.to_string())).await.expect("DevTools listens");
            loop {
                if let Some(answer) = self.read().await.filter(|answer| answer["id"] == id) {
                    return answer;
                }
            }
        };
        let answer = timeout(LIMIT, exchange).await.unwrap_or_else(|_| panic!("no answer to {method}"));
        assert!(answer.get("error").is_none(), "{method} {params}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// Reads once: an answer is given back, an event kept. Workers that appear are listened to.
    async fn read(&mut self) -> Option<Value> {
        let message = self.socket.next().await.expect("DevTools goes on").expect("DevTools speaks");
        let value: Value = serde_json::from_str(message.to_text().unwrap_or("null")).unwrap_or_default();
        let Some(method) = value["method"].as_str() else {
            return value.get("id").is_some().then_some(value);
        };
        if method == "Target.attachedToTarget" {
            self.listen_to(&value["params"]).await;
        }
        self.events.push(Event {
            session: text(&value["sessionId"]),
            method: method.to_owned(),
            params: value["params"].clone(),
        });
        None
    }

    async fn listen_to(&mut self, attached: &Value) {
        if attached["targetInfo"]["type"].as_str().is_none_or(|kind| kind == "page" || kind == "tab") {
            return;
        }
        for domain in ["Runtime.enable", "Log.enable", "Audits.enable"] {
            self.sent += 1;
            // Its answer is nobody's: a worker may know no such domain.
            let command = json!({ "id": self.sent, "method": domain, "sessionId": attached["sessionId"] });
            let _ = self.socket.send(Message::text(command.to_string())).await;
        }
    }

    /// Sessions of a tab's workers and frames.
    fn workers(&self, tab: &Tab) -> Vec<String> {
        let attached = self.events.iter().filter(|event| event.method == "Target.attachedToTarget");
        let of_tab = |event: &&Event| {
            let info = &event.params["targetInfo"];
            event.session == tab.session
                || (info["browserContextId"] == json!(tab.context) && info["type"] != json!("page"))
        };
        attached.filter(of_tab).map(|event| text(&event.params["sessionId"])).collect()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A browser that is not yet to be spoken to; ended if it never is.
struct Starting {
    child: Child,
    dir: TempDir,
}

impl Starting {
    /// The port and the path of DevTools, two lines.
    async fn address(&mut self) -> String {
        let (file, end_of_wait) = (self.dir.path().join("DevToolsActivePort"), Instant::now() + START);
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if text.lines().count() == 2 {
                return text.trim().to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end_of_wait {
                end(&mut self.child);
                let said = std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
                panic!("chromium has not come up ({ended:?}): {said}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn spawn(dir: &Path) -> Child {
    let stderr = File::create(dir.join("stderr")).unwrap();
    Command::new("chromium")
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", dir.display()))
        .arg("about:blank")
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("the tests need the program `chromium` (Debian: chromium): {error}"))
}

/// Ends the browser and the processes that it has started, which are a group of their own.
fn end(child: &mut Child) {
    let group = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = child.kill();
    let _ = child.wait();
}

fn violation(event: &Event) -> Option<String> {
    // What a worker breaks is only written to the log.
    issue(event).or_else(|| line(event).filter(|line| line.contains("Content Security Policy")))
}

fn issue(event: &Event) -> Option<String> {
    let issue = &event.params["issue"];
    if event.method != "Audits.issueAdded" || issue["code"] != json!("ContentSecurityPolicyIssue") {
        return None;
    }
    let details = &issue["details"]["contentSecurityPolicyIssueDetails"];
    let blocked = details["blockedURL"].as_str().unwrap_or("inline or eval");
    Some(format!("{}: {blocked}", text(&details["violatedDirective"])))
}

fn line(event: &Event) -> Option<String> {
    let params = &event.params;
    match &*event.method {
        "Log.entryAdded" => {
            let entry = &params["entry"];
            Some(format!("{} {}", text(&entry["text"]), text(&entry["url"])))
        }
        "Runtime.consoleAPICalled" => {
            let words = params["args"].as_array().into_iter().flatten();
            Some(words.map(|word| text(&word["value"])).collect::<Vec<_>>().join(" "))
        }
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"]["exception"]["description"].to_string()),
        _ => None,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

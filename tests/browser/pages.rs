//! Stand-ins for the applications: pages with the same kinds of parts as the real ones have, by what was measured on those.

use crate::common::strict::Request;

/// A picture of one pixel.
const PIXEL: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
/// The share page's one style, and what its policy names it by in the strict variant.
pub const SHARE_STYLE: &str = "body{font:1rem sans-serif}main{margin:1rem}";

/// An answer.
pub struct Page {
    pub kind: &'static str,
    pub body: Vec<u8>,
    /// Whole lines.
    pub headers: &'static str,
}

impl Page {
    pub fn bytes(self) -> Vec<u8> {
        let Self { kind, body, headers } = self;
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{headers}\r\n");
        [head.into_bytes(), body].concat()
    }
}

pub fn html(body: impl Into<String>) -> Page {
    Page { kind: "text/html; charset=utf-8", body: body.into().into_bytes(), headers: "" }
}

pub fn script(body: &str) -> Page {
    Page { kind: "text/javascript", body: body.into(), headers: "" }
}

fn style(body: &str) -> Page {
    Page { kind: "text/css", body: body.into(), headers: "" }
}

fn json(body: &str) -> Page {
    Page { kind: "application/json", body: body.into(), headers: "" }
}

fn pixel() -> Page {
    Page { kind: "image/gif", body: PIXEL.to_vec(), headers: "" }
}

/// What the application of this host answers.
pub fn answer(request: &Request) -> Vec<u8> {
    let host = request.header("host").unwrap_or_default().split('.').next().unwrap_or_default();
    let path = request.target.split('?').next().unwrap_or_default();
    let page = match host {
        "keepstack" | "keepstrict" => keepstack(path),
        "arkeep" | "arkeepstrict" | "arkeepprivate" => arkeep(path),
        "archipy" => json(r#"{"detail":"Not Found"}"#),
        "coolify" => coolify(path),
        "dokploy" => dokploy(path),
        _ => generic(path),
    };
    page.bytes()
}

/// A page without anything inline, its script and style each at one address, `data:` pictures; a share page with one style.
fn keepstack(path: &str) -> Page {
    const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'%3E%3C/svg%3E";
    match path {
        "/app.js" => script(
            "fetch('/api/assets').then(answer => answer.json()).then(() => {
               const pictures = document.createElement('div');
               pictures.innerHTML = '<img src=/api/assets/0d9b4a52-6f3e-4b0e-9a55-0c2f1c1f7f10/thumb>';
               document.body.append(pictures);
               document.body.style.margin = 0;
               pictures.firstChild.onload = () => { window.ran = getComputedStyle(document.body).color; };
             });",
        ),
        "/styles.css" => style(&format!("body{{color:rgb(1, 2, 3)}}select{{background:url(\"{ICON}\")}}")),
        "/api/assets" => json(r#"{"assets":[]}"#),
        _ if path.ends_with("/thumb") || path.ends_with("/preview") => pixel(),
        _ if path.starts_with("/s/") => html(format!(
            "<!doctype html><html lang=en><title>A file</title><style>{SHARE_STYLE}</style><main><h1>A file</h1>\
             <img src=\"{path}/preview\" alt=\"A file\"><a href=\"{path}/file\" download>Download</a></main>"
        )),
        _ => html(format!(
            "<!doctype html><html lang=en><title>Library</title><link rel=icon href=\"{ICON}\">\
             <link rel=stylesheet href=/styles.css><select><option>All</select><script src=/app.js></script>"
        )),
    }
}

/// A bundle of modules, styles that scripts put in (an empty element first), fonts from afar, a film, a service worker, a
/// WebSocket, and zod's question whether it may eval.
fn arkeep(path: &str) -> Page {
    match path {
        "/assets/index.js" => script(
            "document.head.append(document.createElement('style'));
             document.body.style.margin = 0;
             try { new Function(''); } catch { window.noEval = true; }
             const worker = navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready);
             const socket = new Promise(done => {
               const live = new WebSocket(`wss://${location.host}/api/v1/ws?token=x&topics=a`);
               live.onerror = live.onopen = done;
             });
             const chunk = import('/assets/page.js');
             const fetched = fetch('/api/v1/setup/status');
             Promise.all([worker, socket, chunk, fetched]).then(() => {
               window.ran = getComputedStyle(document.body).color;
             });",
        ),
        "/assets/page.js" => script("export default 1;"),
        "/assets/index.css" => style(
            "@font-face{font-family:A;src:url(https://fonts.gstatic.com/s/a.woff2)}\
             body{color:rgb(1, 2, 3);font-family:A;background:url(data:image/gif;base64,R0lGODlhAQABAAAAACw=)}",
        ),
        "/sw.js" => script("self.onactivate = event => event.waitUntil(fetch('/assets/index.css'));"),
        "/manifest.webmanifest" => json(r#"{"name":"Arkeep"}"#),
        _ if path.starts_with("/api/") => json(r#"{"data":{"completed":true}}"#),
        _ if path.starts_with("/assets/") => Page { kind: "video/mp4", body: b"x".to_vec(), headers: "" },
        _ => html(
            "<!doctype html><html lang=en><title>Arkeep</title><link rel=manifest href=/manifest.webmanifest>\
             <link rel=stylesheet href=\"https://fonts.googleapis.com/css2?family=A\">\
             <link rel=stylesheet crossorigin href=/assets/index.css><div id=app></div>\
             <video src=/assets/login-bg.mp4 muted></video>\
             <script type=module crossorigin src=/assets/index.js></script>",
        ),
    }
}

/// Laravel with Livewire and Alpine: inline scripts, attributes that are evaluated, inline styles.
fn coolify(path: &str) -> Page {
    match path {
        "/js/app.js" => script("window.alpine = new Function('return 1')();"),
        _ => html(
            "<!doctype html><title>Coolify</title><style>body{color:rgb(1, 2, 3)}</style><script src=/js/app.js></script>\
             <body onload=\"window.ran = window.alpine && getComputedStyle(document.body).color\" style=\"margin:0\">\
             <script>window.inline = 1</script>",
        ),
    }
}

/// Next.js: inline scripts that carry the page's data.
fn dokploy(path: &str) -> Page {
    match path {
        "/_next/static/app.js" => {
            script("window.ran = window.__data && getComputedStyle(document.body).color;")
        }
        _ => html(
            "<!doctype html><title>Dokploy</title><style>body{color:rgb(1, 2, 3)}</style><body>\
             <script>window.__data = {}</script><script defer src=/_next/static/app.js></script>",
        ),
    }
}

/// What most frameworks put into a page.
fn generic(path: &str) -> Page {
    match path {
        "/static/app.js" => script(
            "const picture = new Image();
             picture.onload = () => { window.ran = window.inline && getComputedStyle(document.body).color; };
             fetch('/static/pixel').then(answer => answer.blob())
               .then(blob => { picture.src = URL.createObjectURL(blob); document.body.append(picture); });",
        ),
        "/static/pixel" => pixel(),
        _ => html(
            "<!doctype html><title>Notes</title><style>body{color:rgb(1, 2, 3)}</style>\
             <body style=\"margin:0\"><img src=\"data:image/gif;base64,R0lGODlhAQABAAAAACw=\">\
             <form action=/search></form><script>window.inline = 1</script><script src=/static/app.js></script>",
        ),
    }
}

//! A stand-in for Keepstack's share links, which counts as the application does: it looks whether a download is left, and
//! writes that one has gone a moment later. Each range counts anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

use super::strict::Request;
use super::upstream::{Session, Upstream};

/// The file behind every link.
pub const FILE: &[u8] = &[b'f'; 4000];
/// Between the look and the note, and before the second half of a slow answer.
pub const MOMENT: Duration = Duration::from_millis(30);

/// The application; `count` is what it has written down.
pub struct Keepstack {
    pub upstream: Upstream,
    pub count: Arc<AtomicU32>,
}

impl Keepstack {
    /// Links that may be downloaded so often. `lossy`: what it writes is what it has read and one more, so that two who
    /// come at once are one in its books.
    pub fn start(max: u32, lossy: bool) -> Self {
        let count = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&count);
        let upstream = Upstream::scripted(move |mut session| {
            while let Some(request) = session.request() {
                if !answer(&mut session, &request, &counted, (max, lossy)) {
                    return;
                }
            }
        });
        Self { upstream, count }
    }
}

fn answer(session: &mut Session, request: &Request, count: &AtomicU32, (max, lossy): (u32, bool)) -> bool {
    let path = request.target.split('?').next().unwrap_or_default();
    if !path.ends_with("/file") {
        return session.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\npage");
    }
    let seen = count.load(SeqCst);
    if seen >= max {
        let body = r#"{"detail":"Download limit reached"}"#;
        return session
            .send(format!("HTTP/1.1 410 Gone\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }
    // One that dawdles writes long after what came later has been written.
    sleep(if request.target.contains("dawdle") { MOMENT * 10 } else { MOMENT });
    match lossy {
        true => count.store(seen + 1, SeqCst),
        false => drop(count.fetch_add(1, SeqCst)),
    }
    let from = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<usize>().ok());
    let head = match from {
        Some(from) => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n",
            FILE.len() - 1,
            FILE.len(),
            FILE.len() - from
        ),
        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", FILE.len()),
    };
    let body = &FILE[from.unwrap_or(0)..];
    let (first, second) = body.split_at(body.len() / 2);
    if !session.send(format!("{head}Accept-Ranges: bytes\r\nETag: \"x\"\r\n\r\n").as_bytes())
        || !session.send(first)
    {
        return false;
    }
    if path.contains("slow") {
        sleep(MOMENT * 30);
    }
    session.send(second)
}

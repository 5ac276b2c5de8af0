//! An upstream that records every byte of every connection and answers by a script.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::strict::{self, Request};
use super::wait_until;

/// Answers with status 200 and a body of two bytes.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// The upstream; its threads end with the test's process.
pub struct Upstream {
    pub address: SocketAddr,
    records: Arc<Mutex<Vec<Arc<Record>>>>,
}

/// One connection as the upstream saw it.
#[derive(Default)]
pub struct Record {
    received: Mutex<Vec<u8>>,
    closed: AtomicBool,
}

/// One connection, for a script.
pub struct Session {
    stream: TcpStream,
    record: Arc<Record>,
    /// Received, not yet taken by the script.
    ahead: Vec<u8>,
}

impl Upstream {
    /// Answers each request, body included, with these bytes.
    pub fn answering(answer: &'static [u8]) -> Self {
        Self::by_request(move |_| answer.to_vec())
    }

    /// Answers each request with what the function makes of it.
    pub fn by_request(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |mut session| {
            while let Some(request) = session.request() {
                if !session.send(&answer(&request)) {
                    return;
                }
            }
        })
    }

    /// Runs the script for each connection, on a thread of its own; the connection is closed when it returns.
    pub fn scripted(script: impl Fn(Session) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let records = Arc::<Mutex<Vec<Arc<Record>>>>::default();
        let (known, script) = (Arc::clone(&records), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let record = Arc::<Record>::default();
                known.lock().unwrap().push(Arc::clone(&record));
                let (script, session) =
                    (Arc::clone(&script), Session { stream: stream.unwrap(), record, ahead: Vec::new() });
                std::thread::spawn(move || {
                    let record = Arc::clone(&session.record);
                    script(session);
                    record.closed.store(true, Ordering::SeqCst);
                });
            }
        });
        Self { address, records }
    }

    /// Connections so far.
    pub fn connections(&self) -> Vec<Arc<Record>> {
        self.records.lock().unwrap().clone()
    }

    /// The connection that has received this text, once there is one.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn connection_with(&self, text: &str) -> Arc<Record> {
        let mut found = None;
        wait_until(Duration::from_secs(10), || {
            found = self
                .connections()
                .into_iter()
                .find(|record| record.bytes().windows(text.len()).any(|window| window == text.as_bytes()));
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no connection has received {text:?}"))
    }

    /// Every byte of every connection, one after the other.
    pub fn bytes(&self) -> Vec<u8> {
        self.connections().iter().flat_map(|record| record.bytes()).collect()
    }

    /// What a strict parser sees in the connections. One that is just being received is waited for.
    ///
    /// # Panics
    /// When it sees anything but whole, well-formed requests.
    pub fn requests(&self) -> Vec<Request> {
        let of = |record: &Arc<Record>| {
            let mut read = Err(String::new());
            wait_until(Duration::from_secs(2), || {
                read = strict::requests(&record.bytes());
                read.is_ok()
            });
            read.unwrap_or_else(|why| panic!("{why} in {:?}", String::from_utf8_lossy(&record.bytes())))
        };
        self.connections().iter().flat_map(of).collect()
    }

    /// Whether every connection has ended in time, seen from here.
    pub fn all_closed_within(&self, limit: Duration) -> bool {
        wait_until(limit, || self.connections().iter().all(|record| record.is_closed()))
    }
}

impl Record {
    pub fn bytes(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

impl Session {
    /// The next whole request; `None` when the peer is done or sends what is none.
    pub fn request(&mut self) -> Option<Request> {
        loop {
            if let Some((request, length)) = strict::first(&self.ahead).ok()? {
                self.ahead.drain(..length);
                return Some(request);
            }
            self.more()?;
        }
    }

    /// The next request's head, without waiting for its body.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = strict::head_end(&self.ahead) {
                let head: Vec<u8> = self.ahead.drain(..end).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            self.more()?;
        }
    }

    /// Reads once, at most this many bytes are then ahead; how many there are, `None` at the end.
    pub fn more(&mut self) -> Option<usize> {
        let mut piece = [0; 65536];
        let length = self.stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        self.record.received.lock().unwrap().extend_from_slice(&piece[..length]);
        self.ahead.extend_from_slice(&piece[..length]);
        Some(self.ahead.len())
    }

    /// Bytes received and not yet taken.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes what is ahead, as it came.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ahead)
    }

    /// Sends; whether the peer took it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads until the peer ends the connection.
    pub fn until_closed(&mut self) {
        while self.more().is_some() {
            self.ahead.clear();
        }
    }

    /// Ends the connection by a reset, once what was sent has arrived.
    pub fn reset(&self) {
        // Bytes that the peer has not read yet would be lost with the reset.
        std::thread::sleep(Duration::from_millis(100));
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Ends the connection for both directions.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

//! A parser of HTTP/1.1 requests that forgives nothing: what it sees is what the strictest application would see.

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The one value of a header; `None` when it is missing.
    ///
    /// # Panics
    /// When there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert_eq!(values.next(), None, "{name} comes more than once");
        first
    }

    /// All values of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All requests in these bytes; an error says why they are not whole, well-formed requests.
pub fn requests(mut bytes: &[u8]) -> Result<Vec<Request>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (request, length) = first(bytes)?.ok_or("a request that is not whole")?;
        found.push(request);
        bytes = &bytes[length..];
    }
    Ok(found)
}

/// The first request and its length; `None`: more is needed.
pub fn first(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some(end) = head_end(bytes) else { return Ok(None) };
    let mut request = head(&bytes[..end - 4])?;
    let rest = &bytes[end..];
    let body = match (request.header("content-length"), request.header("transfer-encoding")) {
        (Some(_), Some(_)) => return Err("both length and chunked".into()),
        (Some(length), None) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| "length")?;
            rest.get(..length).map(|body| (body.to_vec(), length))
        }
        (Some(length), None) => return Err(format!("length {length:?}")),
        (None, Some("chunked")) => chunked(rest)?,
        (None, Some(other)) => return Err(format!("transfer-encoding {other:?}")),
        (None, None) => Some((Vec::new(), 0)),
    };
    Ok(body.map(|(body, length)| {
        request.body = body;
        (request, end + length)
    }))
}

/// Where the first head ends, its empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn head(bytes: &[u8]) -> Result<Request, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "head is no text")?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("request line {line:?}"));
    };
    if !is_token(method) || !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.is_empty() {
        return Err(format!("request line {line:?}"));
    }
    let headers = lines.map(header).collect::<Result<Vec<_>, _>>()?;
    if headers.iter().filter(|(name, _)| name == "host").count() != 1 {
        return Err("not one Host".into());
    }
    Ok(Request { method: method.into(), target: target.into(), headers, body: Vec::new() })
}

fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("header {line:?}"))?;
    let clean = value.bytes().all(|byte| byte == b'\t' || byte >= 0x20 && byte != 0x7f);
    if !is_token(name) || !clean {
        return Err(format!("header {line:?}"));
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| "chunk size")?;
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("chunk size {size:?}"));
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| "chunk size")?;
        at += line + 2;
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !data.ends_with(b"\r\n") {
            return Err("chunk is longer than it says, or a trailer".into());
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

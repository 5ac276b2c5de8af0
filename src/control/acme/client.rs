//! How the authority is spoken to: https only, each request on a connection of its own, one deadline for it, a cap on its
//! answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{DATE, HOST, HeaderMap, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For one request, from the name to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// A chain of certificates is far smaller.
const LARGEST: usize = 256 << 10;

/// A client of one authority.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    deadline: Duration,
}

/// What went wrong between us and the authority, in words.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Broken {
    why: String,
    /// It does not answer, or says itself that it cannot.
    pub down: bool,
    /// Seconds that it asks to wait.
    pub wait: Option<u64>,
}

impl Client {
    pub fn new(tls: ClientConfig) -> Self {
        Self { tls: Arc::new(tls), deadline: DEADLINE }
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Broken> {
        let url = request.uri().to_string();
        let answered = tokio::time::timeout(self.deadline, self.asked(request)).await;
        let late = || Broken::silent(format!("no whole answer within {:?}", self.deadline));
        let answer = answered.unwrap_or_else(|_| Err(late()));
        answer.map_err(|broken| Broken { why: format!("{url}: {}", broken.why), ..broken })
    }

    async fn asked(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Broken> {
        let uri = request.uri().clone();
        if uri.scheme_str() != Some("https") {
            return Err(Broken::answer("the authority leads to an address without TLS".into()));
        }
        let authority = uri.authority().ok_or_else(|| Broken::answer("it names no host".into()))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(443);
        let named =
            HeaderValue::from_str(authority.as_str()).map_err(|error| Broken::answer(error.to_string()))?;
        request.headers_mut().insert(HOST, named);
        *request.uri_mut() = path_of(&uri).map_err(Broken::answer)?;
        let stream = TcpStream::connect((&*host, port))
            .await
            .map_err(|error| Broken::silent(format!("no connection: {error}")))?;
        let name =
            ServerName::try_from(host).map_err(|_| Broken::answer("its host is no name for TLS".into()))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream =
            connector.connect(name, stream).await.map_err(|error| Broken::silent(format!("TLS: {error}")))?;
        let said = |error: hyper::Error| Broken::silent(format!("broken answer: {error}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
        let answered = async move {
            let answer = sender.send_request(request).await.map_err(said)?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let why = |error| format!("an answer broken or larger than {} KiB: {error}", LARGEST >> 10);
            let body = body.map_err(|error| Broken::answer(why(error)))?;
            Ok::<_, Broken>((parts, body.to_bytes()))
        };
        // The connection ends after its answer, when nobody holds its sender any more.
        let (answer, _) = tokio::join!(answered, connection);
        let (parts, body) = answer?;
        // Here, where its fields are still known: what follows sees no more than the body, if that makes sense at all.
        if parts.status.is_server_error() || parts.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Broken::refusal(&parts, &body));
        }
        Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move { client.exchange(request).await.map_err(|error| Error::Other(Box::new(error))) })
    }
}

fn path_of(uri: &Uri) -> Result<Uri, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse().map_err(|_| "its path is none".to_owned())
}

impl Broken {
    fn silent(why: String) -> Self {
        Self { why, down: true, wait: None }
    }

    fn answer(why: String) -> Self {
        Self { why, down: false, wait: None }
    }

    fn refusal(parts: &Parts, body: &[u8]) -> Self {
        let said = serde_json::from_slice::<Problem>(body)
            .map_or_else(|_| String::new(), |said| format!(": {said}"));
        let status = parts.status;
        let why = format!("it answers {status}{said}");
        Self { why, down: status.is_server_error(), wait: wait_of(&parts.headers) }
    }
}

/// Seconds, or a date by the authority's own clock (RFC 9110 section 10.2.3).
fn wait_of(headers: &HeaderMap) -> Option<u64> {
    let text = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let date = |text| OffsetDateTime::parse(text, &Rfc2822).ok();
    let asked = text(RETRY_AFTER)?;
    let until = || u64::try_from((date(asked)? - date(text(DATE)?)?).whole_seconds()).ok();
    asked.parse().ok().or_else(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(url: &str) -> Broken {
        let roots = rustls::RootCertStore::empty();
        let provider = Arc::new(crate::listener::tls::provider());
        let tls =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = Client {
            deadline: Duration::from_millis(200),
            ..Client::new(tls.with_root_certificates(roots).with_no_client_auth())
        };
        let request = Request::get(url).body(BodyWrapper::default()).unwrap();
        client.exchange(request).await.err().unwrap()
    }

    #[tokio::test]
    async fn one_that_stalls_is_given_up_and_one_without_tls_is_not_asked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let late = ask(&format!("https://localhost:{port}/dir")).await;
        assert!(late.down && late.why.contains("no whole answer within 200ms"), "{late}");
        let clear = ask(&format!("http://localhost:{port}/dir")).await;
        assert!(!clear.down && clear.why.contains("without TLS"), "{clear}");
    }

    #[test]
    fn a_refusal_says_what_the_authority_said_and_how_long_it_wants_to_be_left_alone() {
        let refusal = |status: u16, wait: &str, body: &str| {
            let answer = Response::builder().status(status).header(RETRY_AFTER, wait);
            let answer = answer.header(DATE, "Sun, 06 Nov 1994 08:49:37 GMT").body(()).unwrap();
            Broken::refusal(&answer.into_parts().0, body.as_bytes())
        };
        let page = refusal(502, "no number", "<html>");
        assert_eq!((page.down, page.wait, &*page.why), (true, None, "it answers 502 Bad Gateway"));
        let limited = refusal(429, " 60 ", "{\"detail\":\"too many\"}");
        assert_eq!((limited.down, limited.wait), (false, Some(60)));
        assert_eq!(refusal(503, "Sun, 06 Nov 1994 09:49:37 GMT", "").wait, Some(3600));
        assert_eq!(refusal(503, "Sun, 06 Nov 1994 07:49:37 GMT", "").wait, None);
        assert!(
            limited.why.contains("429 Too Many Requests") && limited.why.contains("too many"),
            "{limited}"
        );
    }
}

//! Fetches one small document over https: no redirects, one deadline, a cap on its size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::uri::Authority;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Fetches `url`, at most `largest` bytes of it; `deadline` is for all of it, from the name to the last byte.
///
/// # Errors
/// What went wrong, in words for the operator.
pub(super) async fn get(
    url: &str,
    ca_file: Option<&Path>,
    largest: usize,
    deadline: Duration,
) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    let authority = uri.authority().ok_or("it names no host")?.clone();
    let fetched = async {
        let tls = uri.scheme_str() == Some("https");
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream =
            TcpStream::connect((&*host, port)).await.map_err(|error| format!("no connection: {error}"))?;
        if !tls {
            return asked(stream, &uri, &authority, largest).await;
        }
        let name = ServerName::try_from(host).map_err(|_| "its host is no name for TLS".to_owned())?;
        let connector = TlsConnector::from(Arc::new(client_config(ca_file)?));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        asked(stream, &uri, &authority, largest).await
    };
    tokio::time::timeout(deadline, fetched)
        .await
        .map_err(|_| format!("not answered whole within {deadline:?}"))?
}

async fn asked<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: T,
    uri: &Uri,
    authority: &Authority,
    largest: usize,
) -> Result<Bytes, String> {
    let said = |error: hyper::Error| format!("broken answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answered = async move {
        let answer = sender.send_request(request).await.map_err(said)?;
        if answer.status() != http::StatusCode::OK {
            return Err(format!(
                "answered {} (redirects are not followed: name the last address)",
                answer.status()
            ));
        }
        let body = Limited::new(answer.into_body(), largest).collect().await;
        body.map(|body| body.to_bytes())
            .map_err(|error| format!("broken or larger than {} KiB: {error}", largest >> 10))
    };
    // The connection ends after its answer, when nobody holds its sender any more.
    let (answer, _) = tokio::join!(answered, connection);
    answer
}

/// TLS that trusts the CAs of a file, or those of this machine.
///
/// # Errors
/// When there is no CA to trust, in words.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let unreadable = |why: String| format!("{}: {why}", path.display());
            for certificate in
                CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?
            {
                let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err("there is no CA to trust: install ca-certificates, or name `ca_file`".into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

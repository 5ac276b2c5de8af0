//! TLS to upstreams: the protocol is settled in the handshake, never guessed; nothing that came before it is an answer.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wire::Wire;
use crate::config::upstream::UpstreamTls;
use crate::gateway::ForwardError;

/// For HTTP/1.1.
pub const HTTP1: &[u8] = b"http/1.1";
/// For gRPC.
pub const HTTP2: &[u8] = b"h2";

/// Shakes hands, and offers one protocol.
///
/// # Errors
/// [`ForwardError::Connect`], with the way out where there is one.
pub async fn connect(
    how: &UpstreamTls,
    wire: Wire,
    protocol: &'static [u8],
) -> Result<TlsStream<Wire>, ForwardError> {
    let connector = TlsConnector::from(Arc::clone(&how.config));
    let stream =
        connector.with_alpn(vec![protocol.to_vec()]).connect(how.name.clone(), wire).await.map_err(
            |error| ForwardError::Connect(io::Error::new(error.kind(), explain(&error, protocol))),
        )?;
    // HTTP/1.1 may go unsaid, HTTP/2 not (RFC 9113, 3.2).
    if protocol == HTTP2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err(ForwardError::Protocol(
            "gRPC needs HTTP/2, and over TLS the upstream offers none".into(),
        ));
    }
    Ok(stream)
}

fn explain(error: &io::Error, protocol: &[u8]) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let remedy = cause.map_or("", |cause| remedy(cause, protocol));
    format!("TLS: {error}{remedy}")
}

/// What helps, in parentheses; empty where nothing is known.
fn remedy(error: &Error, protocol: &[u8]) -> &'static str {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            " (name the CA that has signed it in upstream_tls.ca_file)"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => " (name the host that it has in upstream_tls.server_name)",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            " (renew it at the upstream)"
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) if protocol == HTTP2 => {
            " (gRPC needs HTTP/2, and the upstream offers none)"
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            " (the upstream offers no HTTP/1.1; only gRPC goes by HTTP/2)"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            CLIENT_CERTIFICATE
        }
        Error::InvalidMessage(_) => " (does this port speak TLS?)",
        _ => "",
    }
}

/// What helps where a handshake was refused afterwards.
pub const CLIENT_CERTIFICATE: &str =
    " (if it asks for a client certificate, name one it knows in upstream_tls.cert and upstream_tls.key)";

/// What helps when a connection broke: with TLS 1.3 a missing client certificate shows only after the handshake.
pub fn remedy_of(mut cause: &(dyn std::error::Error + 'static)) -> &'static str {
    loop {
        if let Some(error) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(Error::AlertReceived(_)) = error.downcast_ref::<Error>()
        {
            return CLIENT_CERTIFICATE;
        }
        let Some(source) = cause.source() else { return "" };
        cause = source;
    }
}

//! One order, from the first word to a certificate that has been looked at (RFC 8555 section 7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType,
    Error, Identifier, KeyAuthorization, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::client::Broken;
use super::hook::{Hook, Record};
use crate::config::acme::Challenge as Way;
use crate::config::values::HostPattern;
use crate::listener::tls::provider;
use crate::stores::challenges::{Challenge, Challenges};
use crate::telemetry::audit::plain;

/// For the authority to look at a challenge, or to sign, each; the order as a whole is bounded by its owner.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(200))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));
/// An order of ours has one; more are a mistake of the authority.
const MOST_AUTHORIZATIONS: usize = 4;
/// RFC 8555 wants 128 bits in base64url; nobody needs so many characters.
const LONGEST_TOKEN: usize = 256;
/// What of an authority's words is repeated, in characters.
const REPEATED: usize = 400;

/// What an order is made with.
pub(super) struct Means {
    pub account: Account,
    pub host: HostPattern,
    pub profile: Option<Box<str>>,
    /// What is tried, the first first, if the authority offers it.
    pub ways: Vec<Way>,
    pub replaces: Option<CertificateIdentifier<'static>>,
    pub challenges: Arc<Challenges>,
    pub hook: Hook,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub why: String,
    pub blame: Blame,
}

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The host's: it can be tried again later.
    Host,
    /// Nothing can be had from this authority now.
    Authority,
    /// The authority does not know our account any more.
    Account,
}

/// What an open challenge has put somewhere; what it takes away again when it ends.
enum Open {
    Here { _challenge: Challenge },
    Dns(Record),
}

/// Key and chain in PEM, as the authority gave them: not looked at yet.
pub(super) async fn obtain(means: &Means) -> Result<String, Failure> {
    let identifiers = [Identifier::Dns(means.host.to_string())];
    let mut order = begin(means, &identifiers).await?;
    let mut open = Vec::new();
    let proved = prove(means, &mut order, &mut open).await;
    let proved = match proved {
        Ok(()) => settle(&mut order).await,
        Err(failure) => Err(failure),
    };
    for record in open.iter().filter_map(Open::record) {
        // The record does no harm; that the hook fails is said with the order, if that fails too.
        let _ = means.hook.run("cleanup", record).await;
    }
    drop(open);
    proved?;
    finish(means, &mut order).await
}

async fn begin(means: &Means, identifiers: &[Identifier]) -> Result<Order, Failure> {
    let order = || {
        let order = NewOrder::new(identifiers);
        match &means.profile {
            Some(profile) => order.profile(profile),
            None => order,
        }
    };
    if let Some(replaces) = &means.replaces {
        // It may have been replaced already, or the authority may not know it: then this is an order like any other.
        if let Ok(order) = means.account.new_order(&order().replaces(replaces.clone())).await {
            return Ok(order);
        }
    }
    Ok(means.account.new_order(&order()).await?)
}

/// Answers every challenge that is still open and tells the authority to look.
async fn prove(means: &Means, order: &mut Order, open: &mut Vec<Open>) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    let mut count = 0;
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        count += 1;
        if count > MOST_AUTHORIZATIONS {
            return Err(Failure::host("the authority wants more shown than was asked for"));
        }
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(Failure::host(format!("the authorization is {other:?}"))),
        }
        let way = way(means, &authorization)?;
        let offered = authorization.challenge(kind_of(way));
        let mut challenge = offered.ok_or_else(|| Failure::host("the challenge is gone"))?;
        open.push(answer(means, way, &challenge).await?);
        challenge.set_ready().await?;
    }
    Ok(())
}

fn way(means: &Means, authorization: &AuthorizationHandle<'_>) -> Result<Way, Failure> {
    let offers = |way: &&Way| authorization.challenges.iter().any(|one| one.r#type == kind_of(**way));
    means.ways.iter().find(offers).copied().ok_or_else(|| {
        let words: Vec<_> = means.ways.iter().map(|way| way.word()).collect();
        Failure::host(format!("the authority offers none of {}", words.join(", ")))
    })
}

async fn answer(means: &Means, way: Way, challenge: &ChallengeHandle<'_>) -> Result<Open, Failure> {
    let token = &challenge.token;
    let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if token.is_empty() || token.len() > LONGEST_TOKEN || !plain {
        return Err(Failure::host("the authority's token is none"));
    }
    // Whatever it says whom it is for: it is answered for the host of this order only.
    let host = means.host.name();
    let authorization = challenge.key_authorization();
    match way {
        Way::Http01 => {
            let challenge = means.challenges.answer(host, token, authorization.as_str());
            Ok(Open::Here { _challenge: challenge })
        }
        Way::TlsAlpn01 => {
            let certificate = certificate(host, &authorization).map_err(Failure::host)?;
            Ok(Open::Here { _challenge: means.challenges.show(host, Arc::new(certificate)) })
        }
        Way::Dns01 => {
            let record = Record { name: format!("_acme-challenge.{host}"), value: authorization.dns_value() };
            means.hook.run("present", &record).await.map_err(Failure::host)?;
            Ok(Open::Dns(record))
        }
    }
}

/// RFC 8737: self-signed, for the host alone, with the challenge's digest.
fn certificate(host: &str, authorization: &KeyAuthorization) -> Result<CertifiedKey, String> {
    let mut params = CertificateParams::new([host.to_owned()]).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(authorization.digest().as_ref())];
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = provider().key_provider.load_private_key(der).map_err(|error| error.to_string())?;
    // Not by what looks whether key and certificate belong together: it takes no critical extension that it does not know.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

async fn settle(order: &mut Order) -> Result<(), Failure> {
    if order.state().status == OrderStatus::Ready {
        return Ok(());
    }
    let status = order.poll_ready(&PATIENCE).await;
    match status {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(refused(order, None).await),
        Err(error @ Error::Api(_)) => Err(refused(order, Some(error)).await),
        Err(error) => Err(error.into()),
    }
}

/// What the authority has seen in place of the answer: of all that it says this helps most.
async fn refused(order: &mut Order, error: Option<Error>) -> Failure {
    let mut authorizations = order.authorizations();
    if let Some(Ok(mut authorization)) = authorizations.next().await
        && let Ok(state) = authorization.refresh().await
        && let Some(found) = state.challenges.iter().find_map(|one| Some((&one.r#type, one.error.as_ref()?)))
    {
        let (kind, problem) = found;
        let kind = Way::ALL.into_iter().find(|way| kind_of(*way) == *kind).map_or("challenge", Way::word);
        return Failure::host(format!("{kind}: {problem}"));
    }
    error.map_or_else(|| Failure::host("the authority says that the order is invalid"), Failure::from)
}

/// A key of its own for each certificate.
async fn finish(means: &Means, order: &mut Order) -> Result<String, Failure> {
    let made = |error: rcgen::Error| Failure::host(error.to_string());
    let key = KeyPair::generate().map_err(made)?;
    let mut params = CertificateParams::new([means.host.to_string()]).map_err(made)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(made)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(format!("{}{chain}", key.serialize_pem()))
}

fn kind_of(way: Way) -> ChallengeType {
    match way {
        Way::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Way::Http01 => ChallengeType::Http01,
        Way::Dns01 => ChallengeType::Dns01,
    }
}

impl Open {
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Dns(record) => Some(record),
            Self::Here { .. } => None,
        }
    }
}

impl Failure {
    /// Of the host; an authority's words are cut and made harmless.
    pub fn host(why: impl Into<String>) -> Self {
        Self { why: short(&why.into()), blame: Blame::Host }
    }

    /// Of the authority.
    pub fn authority(why: impl Into<String>) -> Self {
        Self { why: short(&why.into()), blame: Blame::Authority }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let blame = match &error {
            Error::Api(problem) => match problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()) {
                Some("accountDoesNotExist") => Blame::Account,
                Some("serverInternal" | "badNonce" | "externalAccountRequired" | "userActionRequired") => {
                    Blame::Authority
                }
                _ => Blame::Host,
            },
            Error::Other(inner) if inner.downcast_ref::<Broken>().is_some_and(|broken| broken.silent) => {
                Blame::Authority
            }
            _ => Blame::Host,
        };
        let why = match &error {
            Error::Api(problem)
                if blame == Blame::Authority && of_kind(problem, "externalAccountRequired") =>
            {
                format!(
                    "the authority wants an account that it knows: name acme.eab_kid and eab_key_file ({problem})"
                )
            }
            Error::Api(problem) => problem.to_string(),
            Error::Json(error) => format!("the authority's answer makes no sense: {error}"),
            Error::Timeout(_) => "the authority has not come to an end in time".into(),
            error => error.to_string(),
        };
        Self { why: short(&why), blame }
    }
}

fn of_kind(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().and_then(|known| known.rsplit(':').next()) == Some(kind)
}

fn short(text: &str) -> String {
    plain(text).chars().take(REPEATED).collect()
}

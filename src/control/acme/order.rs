//! One order, from the first word to a certificate that has been looked at (RFC 8555 section 7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType,
    Error, Identifier, KeyAuthorization, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::bounds::Bounds;
use super::failure::{Failure, is_about_replacing};
use super::hook::Record;
use super::records::Records;
use crate::config::acme::Challenge as Way;
use crate::config::values::HostPattern;
use crate::listener::tls::provider;
use crate::stores::challenges::{Challenge, Challenges};

/// For the authority to look at a challenge, or to sign, each; the order as a whole is bounded by its owner.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(200))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));
/// An order of ours has one; more are a mistake of the authority.
const MOST_AUTHORIZATIONS: usize = 4;
/// RFC 8555 wants 128 bits in base64url; nobody needs so many characters.
const LONGEST_TOKEN: usize = 256;
/// What an order is made with.
pub(super) struct Means {
    pub account: Account,
    pub host: HostPattern,
    pub profile: Option<Box<str>>,
    /// What is tried, the first first, if the authority offers it.
    pub ways: Vec<Way>,
    pub replaces: Option<CertificateIdentifier<'static>>,
    pub challenges: Arc<Challenges>,
    pub bounds: Bounds,
}

/// What open challenges have put somewhere: here it ends with this, in the DNS it has to be taken away.
struct Open<'a> {
    here: Vec<Challenge>,
    records: &'a mut Records,
}

/// Key and chain in PEM, as the authority gave them: not looked at yet.
pub(super) async fn obtain(means: &Means, records: &mut Records) -> Result<String, Failure> {
    if means.ways.first() == Some(&Way::Dns01) {
        // What a process that was killed has left.
        records.take_away().await;
    }
    let mut open = Open { here: Vec::new(), records };
    let proved = means.bounds.hold(prove(means, &mut open)).await;
    let Open { here, records } = open;
    drop(here);
    records.take_away().await;
    let mut order = proved?;
    means.bounds.hold(finish(means, &mut order)).await
}

/// An order that the authority is content with.
async fn prove(means: &Means, open: &mut Open<'_>) -> Result<Order, Failure> {
    let mut order = begin(means, &[Identifier::Dns(means.host.to_string())]).await?;
    answer_all(means, &mut order, open).await?;
    settle(&mut order).await?;
    Ok(order)
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
        match means.account.new_order(&order().replaces(replaces.clone())).await {
            Err(error) if is_about_replacing(&error) => {}
            begun => return Ok(begun?),
        }
    }
    Ok(means.account.new_order(&order()).await?)
}

/// Answers every challenge that is still open and tells the authority to look.
async fn answer_all(means: &Means, order: &mut Order, open: &mut Open<'_>) -> Result<(), Failure> {
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
        answer(means, way, &challenge, open).await?;
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

async fn answer(
    means: &Means,
    way: Way,
    challenge: &ChallengeHandle<'_>,
    open: &mut Open<'_>,
) -> Result<(), Failure> {
    let token = &challenge.token;
    let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if token.is_empty() || token.len() > LONGEST_TOKEN || !plain {
        return Err(Failure::host("the authority's token is none"));
    }
    // Whatever it says whom it is for: it is answered for the host of this order only.
    let host = means.host.name();
    let authorization = challenge.key_authorization();
    match way {
        Way::Http01 => open.here.push(means.challenges.answer(host, token, authorization.as_str())),
        Way::TlsAlpn01 => {
            let certificate = certificate(host, &authorization).map_err(Failure::host)?;
            open.here.push(means.challenges.show(host, Arc::new(certificate)));
        }
        Way::Dns01 => {
            let record = Record { name: format!("_acme-challenge.{host}"), value: authorization.dns_value() };
            open.records.put(record).await.map_err(Failure::host)?;
        }
    }
    Ok(())
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

//! `[site.client_certificates]`. A CA or revocation file that is missing, empty or broken refuses the config: nobody is let
//! in because nothing could be verified.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::certificates::{bytes_of, chain, told};
use super::{Table, Value};
use crate::config::client_certificates::{ClientCertificates, Paper};
use crate::config::values::ValueError;

const CA_HELP: &str = "name the PEM file of the CA that signs the clients' certificates";
const CRL_HELP: &str = "name a PEM file with a CRL of each CA in ca_file, as `openssl ca -gencrl` writes it";

/// Reads the table of a site, if there is one. `None` also when something is wrong, which is told.
pub(super) fn read(site: &mut Table<'_>) -> Option<ClientCertificates> {
    let mut table = site.table("client_certificates")?;
    let modes = [("required", true), ("optional", false)];
    let mode = table.needs("mode");
    let required = mode.as_ref().and_then(|mode| mode.choice(&modes));
    let ca = table.needs("ca_file");
    let crl = table.get("crl_file");
    let allowed = table.list("allowed", name);
    let (doc, span) = (table.doc, table.span.clone());
    table.finish();
    if mode.is_none() {
        let help = "write mode = \"required\", or \"optional\" where some clients have none";
        doc.missing(span.clone(), "`client_certificates` names no `mode`", help);
    }
    let Some(ca) = ca else {
        doc.missing(span, "`client_certificates` names no `ca_file`", CA_HELP);
        return None;
    };
    let authorities = authorities(&ca);
    let revoked = match &crl {
        Some(crl) => Some(revocations(crl)?),
        None => None,
    };
    build(&ca, required?, authorities?, revoked, allowed.unwrap_or_default())
}

fn name(text: &str) -> Result<Box<str>, ValueError> {
    let wrong =
        |message: &str, help: &str| ValueError { message: format!("`{text}`: {message}"), help: help.into() };
    let help = "write a common name, DNS name, mail address, URI or address of a certificate; \"*.example.com\" is any one label";
    if text.is_empty() || text.trim() != text {
        return Err(wrong("a name is empty, or has blanks round it", help));
    }
    if text.contains('*') && text.parse::<crate::config::values::HostPattern>().is_err() {
        return Err(wrong("`*` stands only as the first label of a DNS name", help));
    }
    Ok(text.into())
}

/// The CAs: certificates, and their subjects.
struct Authorities {
    path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    subjects: Vec<String>,
    papers: Vec<Paper>,
}

fn authorities(value: &Value<'_>) -> Option<Authorities> {
    let path = value.doc.named_file(value.text()?);
    let chain = told(value, chain(&path))?;
    let (mut subjects, mut papers) = (Vec::new(), Vec::new());
    for one in &chain {
        let Ok((_, certificate)) = X509Certificate::from_der(one) else {
            return wrong(
                value,
                format!("{} holds something that is no certificate", path.display()),
                CA_HELP,
            );
        };
        if !certificate.is_ca() {
            let message = format!("`{}` in {} is no CA", certificate.subject(), path.display());
            return wrong(value, message, CA_HELP);
        }
        let ends = certificate.validity().not_after;
        papers.push(Paper {
            past: format!("the CA `{}` has expired on {ends}", certificate.subject()),
            help: "renew it, and the certificates that it has signed",
            ends: ends.timestamp(),
        });
        subjects.push(certificate.subject().to_string());
    }
    warn(value, &papers);
    Some(Authorities { path, chain, subjects, papers })
}

/// Revocation lists: where they stand, and what they hold.
struct Revocations {
    path: PathBuf,
    lists: Vec<CertificateRevocationListDer<'static>>,
    papers: Vec<Paper>,
}

fn revocations(value: &Value<'_>) -> Option<Revocations> {
    let path = value.doc.named_file(value.text()?);
    let bytes = told(value, bytes_of(&path))?;
    let Ok(lists) = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>()
    else {
        return wrong(value, format!("{} is damaged or cut short", path.display()), CRL_HELP);
    };
    if lists.is_empty() {
        return wrong(value, format!("{} holds no revocation list", path.display()), CRL_HELP);
    }
    let mut papers = Vec::new();
    for list in &lists {
        let Ok((_, list)) = CertificateRevocationList::from_der(list) else {
            return wrong(
                value,
                format!("{} holds something that is no revocation list", path.display()),
                CRL_HELP,
            );
        };
        papers.extend(list.next_update().map(|next| Paper {
            past: format!("the revocation list of `{}` was to be renewed on {next}", list.issuer()),
            help: "it is used as it is; fetch the new one, or certificates revoked since then are let in",
            ends: next.timestamp(),
        }));
    }
    warn(value, &papers);
    Some(Revocations { path, lists, papers })
}

/// What has ended already; what ends later is for `status` and the log to say.
fn warn(value: &Value<'_>, papers: &[Paper]) {
    let now = i64::try_from(value.doc.now.unix()).unwrap_or(i64::MAX);
    for paper in papers.iter().filter(|paper| paper.ends < now) {
        value.doc.warning(value.span.clone(), paper.past.clone(), paper.help);
    }
}

fn build(
    value: &Value<'_>,
    required: bool,
    authorities: Authorities,
    revoked: Option<Revocations>,
    allowed: Vec<Box<str>>,
) -> Option<ClientCertificates> {
    let mut digest = Context::new(&SHA256);
    digest.update(&[u8::from(required), u8::from(revoked.is_some())]);
    let mut roots = RootCertStore::empty();
    for one in &authorities.chain {
        digest.update(&(one.len() as u64).to_be_bytes());
        digest.update(one);
        if roots.add(one.clone()).is_err() {
            let message = format!("{} holds something that cannot be a CA", authorities.path.display());
            return wrong(value, message, CA_HELP);
        }
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let mut papers = authorities.papers;
    let (crl_file, lists) = match revoked {
        Some(revoked) => {
            papers.extend(revoked.papers);
            (Some(revoked.path), revoked.lists)
        }
        None => (None, Vec::new()),
    };
    for list in &lists {
        digest.update(&(list.len() as u64).to_be_bytes());
        digest.update(list);
    }
    if !lists.is_empty() {
        builder = builder.with_crls(lists);
    }
    if !required {
        builder = builder.allow_unauthenticated();
    }
    let verifier = match builder.build() {
        Ok(verifier) => verifier,
        Err(error) => return wrong(value, format!("the certificates cannot be used: {error}"), CRL_HELP),
    };
    let mut id = [0; 32];
    id.copy_from_slice(digest.finish().as_ref());
    let (ca_file, authorities) = (authorities.path, authorities.subjects);
    Some(ClientCertificates { required, ca_file, crl_file, allowed, authorities, papers, verifier, id })
}

fn wrong<T>(value: &Value<'_>, message: String, help: &str) -> Option<T> {
    value.wrong(ValueError { message, help: help.into() });
    None
}

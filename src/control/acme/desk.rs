//! Our place at one authority: the account, opened once when it is first needed.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, CertificateIdentifier, Error, ExternalAccountKey, NewAccount,
};
use tokio::sync::{Mutex, watch};

use super::bounds::Bounds;
use super::client::Client;
use super::failure::{Blame, Failure};
use super::hook::Hook;
use super::leaf_der;
use super::order::{Means, obtain};
use super::records::Records;
use super::trust::client_config;
use crate::clock::Now;
use crate::config::acme::{Acme, Challenge as Way};
use crate::config::values::HostPattern;
use crate::stores::certificates::CertificateStore;
use crate::stores::challenges::Challenges;
use crate::telemetry::audit::Say;

/// Where an authority says nothing of renewal windows it is asked again after so many seconds.
const SILENT: u64 = 24 * 3600;
/// For each half of an order, to be content with what is shown and to sign, beside what the command for the DNS may take.
const HALF: Duration = Duration::from_secs(300);

/// One authority, one account.
pub(super) struct Desk {
    pub acme: Acme,
    pub store: CertificateStore,
    say: Say,
    open: Mutex<Option<Account>>,
    closed: watch::Sender<bool>,
}

/// When the authority wants a certificate renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// In Unix seconds; `None`: it does not say.
    pub window: Option<(u64, u64)>,
    /// Seconds to the next question.
    pub again: u64,
}

impl Desk {
    pub fn new(acme: Acme, store: CertificateStore, say: Say) -> Self {
        Self { acme, store, say, open: Mutex::new(None), closed: watch::Sender::new(false) }
    }

    /// For the log.
    pub fn name(&self) -> &str {
        &self.acme.directory
    }

    /// Nobody asks here any more: what is under way is given up, and takes away what it has put somewhere.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether it is closed.
    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    fn bounds(&self) -> Bounds {
        Bounds::new(HALF + self.acme.dns_timeout, self.closed.subscribe())
    }

    /// Key and chain for a host.
    pub async fn order(
        &self,
        host: &HostPattern,
        ways: Vec<Way>,
        challenges: Arc<Challenges>,
        now: Now,
    ) -> Result<String, Failure> {
        let bounds = self.bounds();
        let account = bounds.hold(self.account()).await?;
        let hook = Hook { command: self.acme.dns_command.clone(), limit: self.acme.dns_timeout };
        let mut records = Records::of(host, hook, self.store.clone(), Arc::clone(&self.say));
        let (host, profile) = (host.clone(), self.acme.profile.clone());
        let replaces = self.identifier(&host, now);
        let means = Means { account, host, profile, ways, replaces, challenges, bounds };
        let obtained = obtain(&means, &mut records).await;
        if obtained.as_ref().is_err_and(|failure| failure.blame == Blame::Account) {
            self.forget().await;
        }
        obtained
    }

    /// Asks when to renew what is kept of a host (RFC 9773).
    pub async fn window(&self, host: &HostPattern, now: Now) -> Result<Window, Failure> {
        let silent = Window { window: None, again: SILENT };
        let Some(identifier) = self.identifier(host, now) else { return Ok(silent) };
        let asked = async {
            let account = self.account().await?;
            match account.renewal_info(&identifier).await {
                Ok((info, again)) => {
                    let unix = |time: time::OffsetDateTime| u64::try_from(time.unix_timestamp()).unwrap_or(0);
                    let (from, to) = (unix(info.suggested_window.start), unix(info.suggested_window.end));
                    Ok(Window { window: (from <= to).then_some((from, to)), again: again.as_secs() })
                }
                Err(Error::Unsupported(_)) => Ok(silent),
                Err(error) => Err(error.into()),
            }
        };
        self.bounds().hold(asked).await
    }

    fn identifier(&self, host: &HostPattern, now: Now) -> Option<CertificateIdentifier<'static>> {
        let pem = self.store.certificate(host).ok()??;
        crate::listener::tls::Leaf::given(&pem, host, now).ok()?;
        let der = leaf_der(&pem)?;
        CertificateIdentifier::try_from(&der).ok().map(CertificateIdentifier::into_owned)
    }

    /// The account; the first who needs it opens it, the others wait.
    async fn account(&self) -> Result<Account, Failure> {
        let mut open = self.open.lock().await;
        if let Some(account) = &*open {
            return Ok(account.clone());
        }
        Ok(open.insert(self.enter().await?).clone())
    }

    async fn enter(&self) -> Result<Account, Failure> {
        let client = Client::new(client_config(self.acme.ca.as_deref()).map_err(Failure::authority)?);
        if let Some(kept) = self.kept() {
            let opened = Account::builder_with_http(Box::new(client.clone())).from_credentials(kept).await;
            match opened {
                Err(error @ (Error::KeyRejected | Error::Crypto)) => self.unusable(&error.to_string()),
                opened => return opened.map_err(of_authority),
            }
        }
        let contact = format!("mailto:{}", self.acme.email);
        let new =
            NewAccount { contact: &[&contact], terms_of_service_agreed: true, only_return_existing: false };
        let external = self.acme.external_account.as_ref();
        let external = external.map(|account| ExternalAccountKey::new(account.kid.to_string(), &account.key));
        let builder = Account::builder_with_http(Box::new(client));
        let created = builder.create(&new, self.acme.url().to_owned(), external.as_ref()).await;
        let (account, credentials) = created.map_err(of_authority)?;
        self.keep(&credentials);
        (self.say)(&format!("an account at {} is opened for {}", self.name(), self.acme.email));
        Ok(account)
    }

    fn kept(&self) -> Option<AccountCredentials> {
        let read = self.store.account().map_err(|error| error.to_string()).and_then(|json| match json {
            None => Ok(None),
            Some(json) if json.is_empty() => Ok(None),
            Some(json) => serde_json::from_str(&json).map(Some).map_err(|error| error.to_string()),
        });
        read.unwrap_or_else(|why| {
            self.unusable(&why);
            None
        })
    }

    fn unusable(&self, why: &str) {
        let path = self.store.path().display();
        (self.say)(&format!("the account in {path} is of no use: {why}; another is opened"));
    }

    fn keep(&self, credentials: &AccountCredentials) {
        let written = serde_json::to_string(credentials).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|json| self.store.keep_account(&json)) {
            let path = self.store.path().display();
            (self.say)(&format!("the account is not kept for a restart: {path}: {error}"));
        }
    }

    /// The authority does not know it any more: the next who needs one opens another.
    async fn forget(&self) {
        *self.open.lock().await = None;
        if let Err(error) = self.store.keep_account("") {
            let path = self.store.path().display();
            (self.say)(&format!("the account in {path} is unknown to the authority, and stays: {error}"));
        }
    }
}

/// Without an account nothing can be had, whatever the reason.
fn of_authority(error: Error) -> Failure {
    Failure { blame: Blame::Authority, ..Failure::from(error) }
}

//! What an authority is answered that tries whether a host is ours: set while an order runs, gone with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

/// The open challenges. Read by workers, written by the control thread only; as many as orders run at once.
#[derive(Debug, Default)]
pub struct Challenges {
    open: ArcSwap<Open>,
}

#[derive(Debug, Default, Clone)]
struct Open {
    /// Token → host and answer (HTTP-01).
    answers: BTreeMap<String, (String, String)>,
    /// Host → certificate (TLS-ALPN-01).
    certificates: BTreeMap<String, Arc<CertifiedKey>>,
}

/// One challenge; it ends when this is dropped.
#[derive(Debug)]
pub struct Challenge {
    of: Arc<Challenges>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Token(String),
    Host(String),
}

impl Challenges {
    /// Answers this token on the `http` listener, to whoever asks for it under this host (lower case).
    pub fn answer(self: &Arc<Self>, host: &str, token: &str, answer: &str) -> Challenge {
        self.change(|open| drop(open.answers.insert(token.to_owned(), (host.to_owned(), answer.to_owned()))));
        Challenge { of: Arc::clone(self), place: Place::Token(token.to_owned()) }
    }

    /// Shows this certificate to whoever comes for this host (lower case) by `acme-tls/1`.
    pub fn show(self: &Arc<Self>, host: &str, certificate: Arc<CertifiedKey>) -> Challenge {
        self.change(|open| drop(open.certificates.insert(host.to_owned(), Arc::clone(&certificate))));
        Challenge { of: Arc::clone(self), place: Place::Host(host.to_owned()) }
    }

    /// The answer to a token, if it is one of this host's.
    pub fn answer_to(&self, host: &str, token: &str) -> Option<String> {
        let open = self.open.load();
        open.answers.get(token).filter(|(known, _)| known == host).map(|(_, answer)| answer.clone())
    }

    /// The certificate for a host's challenge.
    pub fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.open.load().certificates.get(host).cloned()
    }

    fn change(&self, change: impl Fn(&mut Open)) {
        self.open.rcu(|open| {
            let mut open = Open::clone(open);
            change(&mut open);
            open
        });
    }
}

impl Drop for Challenge {
    fn drop(&mut self) {
        self.of.change(|open| match &self.place {
            Place::Token(token) => drop(open.answers.remove(token)),
            Place::Host(host) => drop(open.certificates.remove(host)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_for_its_host_and_for_as_long_as_its_order_runs() {
        let challenges = Arc::<Challenges>::default();
        let open = challenges.answer("a.test", "token", "token.thumb");
        assert_eq!(challenges.answer_to("a.test", "token").as_deref(), Some("token.thumb"));
        assert_eq!(challenges.answer_to("b.test", "token"), None);
        assert_eq!(challenges.answer_to("a.test", "other"), None);
        drop(open);
        assert_eq!(challenges.answer_to("a.test", "token"), None);
    }
}

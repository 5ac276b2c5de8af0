//! From what was reported to what a Content-Security-Policy should say: `portcullis csp`.
//!
//! 1. A proposal begins with the policy in force and only ever adds.
//! 2. A report is a stranger's word, so that it alone adds nothing. Added is what the config or the app file knows too: the
//!    route of an asset, an origin that another policy of the app file names; and what cannot run, such as a picture in a
//!    `data:` address.
//! 3. Never added: scripts in the page itself, `eval`, hashes, and whatever serves what users have uploaded.
//!
//! Caveat: who looks at the rest must look at the application, not at the report.

use serde::{Deserialize, Serialize};

use crate::config::app::Harmless;
use crate::config::class::Class;
use crate::config::csp::Csp;
use crate::config::settings::{CspChoice, Site};
use crate::stores::reports::{Counted, Known, Violation, What};

/// What was reported of the pages of one class, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassProposal {
    /// The class.
    pub class: String,
    /// The policy in force, with its placeholders; `None`: there is none.
    pub policy: Option<String>,
    /// The tightest policy that also allows what is known to be the application's; `None`: the one in force.
    pub proposed: Option<String>,
    /// The violations, the most frequent first.
    pub violations: Vec<Judged>,
}

/// One kind of violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The directive that was broken.
    pub directive: String,
    /// What it did not allow.
    pub blocked: String,
    /// What is made of it.
    pub judgement: Judgement,
    /// The source to add, where one is proposed.
    pub source: Option<String>,
    /// Why, for people.
    pub why: String,
    /// How often it was reported.
    pub count: u64,
    /// By how many clients; 4 is 4 or more.
    pub clients: usize,
    /// Unix milliseconds of the first time.
    pub first: u64,
    /// Unix milliseconds of the last time.
    pub last: u64,
    /// Something did not work in a browser; else it was only reported.
    pub enforced: bool,
}

/// What is made of a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The gateway knows it too: to be allowed.
    Proposed,
    /// Nobody but the reports says so: somebody must look.
    Unverified,
    /// Known to mean nothing.
    Harmless,
}

/// What a site's reports come to, by class; classes without any are left out.
pub fn proposals(site: &Site, known: &Known) -> Vec<ClassProposal> {
    Class::ALL.into_iter().filter_map(|class| proposal(site, class, known)).collect()
}

fn proposal(site: &Site, class: Class, known: &Known) -> Option<ClassProposal> {
    let of_class = known.violations.iter().filter(|(violation, _)| violation.class == class);
    let policy = match &site.headers.csp {
        CspChoice::Off => None,
        CspChoice::Own(policy) => Some(&**policy),
        CspChoice::App | CspChoice::Variant(_) => Some(site.app_csp(class)),
    };
    let knowledge = Knowledge { site, class, policy: Csp::read(policy.unwrap_or_default()) };
    let mut violations: Vec<Judged> =
        of_class.map(|(violation, counted)| knowledge.judged(violation, counted)).collect();
    if violations.is_empty() {
        return None;
    }
    violations.sort_by_key(|one| std::cmp::Reverse((one.count, one.last)));
    let mut proposed = knowledge.policy.clone();
    for one in &violations {
        if let (Judgement::Proposed, Some(source)) = (one.judgement, &one.source) {
            proposed.allow(&one.directive, source);
        }
    }
    let changed = policy.is_some() && proposed != knowledge.policy;
    Some(ClassProposal {
        class: class.word().to_owned(),
        policy: policy.map(str::to_owned),
        proposed: changed.then(|| proposed.to_string()),
        violations,
    })
}

/// What the gateway knows by itself of the pages of a class.
struct Knowledge<'a> {
    site: &'a Site,
    class: Class,
    policy: Csp,
}

type Said = (Judgement, Option<String>, String);

impl Knowledge<'_> {
    fn judged(&self, violation: &Violation, counted: &Counted) -> Judged {
        let (judgement, source, why) = self.judge(violation);
        Judged {
            directive: violation.directive.to_owned(),
            blocked: named(&violation.what),
            judgement,
            source,
            why,
            count: counted.count,
            clients: counted.clients(),
            first: counted.first,
            last: counted.last,
            enforced: counted.enforced,
        }
    }

    fn judge(&self, violation: &Violation) -> Said {
        if violation.what == What::Extension {
            return harmless("a browser's extension wanted it, not the site");
        }
        if self.is_harmless(violation) {
            return harmless(&format!("the app file of {} knows it: nothing breaks", self.site.app.title));
        }
        let directive = violation.directive;
        match &violation.what {
            What::Word("inline") if directive.starts_with("style-src") => self.by_app_file(
                directive,
                "'unsafe-inline'",
                "a style in the page itself, which no policy of the app file allows",
            ),
            What::Word("inline") => unverified(
                "a script in the page itself: planted, or the application's; a nonce tells them apart",
            ),
            What::Word(_) => unverified("text that becomes a script; never needed by what is well kept"),
            What::Scheme(scheme) if is_passive(directive) => {
                self.add(directive, format!("{scheme}:"), "what is only shown or heard cannot run")
            }
            What::Scheme(scheme) => unverified(&format!(
                "{scheme}: holds any text, a planted script too; only for what cannot run"
            )),
            What::Own(class, pattern) => self.own(directive, *class, pattern),
            What::Origin(origin) => {
                self.by_app_file(directive, origin, "another site, which nothing but these reports names")
            }
            What::Extension => harmless("a browser's extension"),
        }
    }

    /// Something of the site itself.
    fn own(&self, directive: &str, class: Class, pattern: &str) -> Said {
        if self.policy.names(directive, "'self'") {
            return harmless("the policy allows it by now");
        }
        if class == Class::Asset && is_loaded(directive) {
            return match self.source_of(pattern) {
                Some(source) => self.add(directive, source, "a route of class `asset`"),
                None => unverified("a route that is no longer one of class `asset`"),
            };
        }
        if is_passive(directive) || directive == "connect-src" {
            let why = format!("the site itself, a route of class `{class}`");
            return self.add(directive, "'self'".into(), &why);
        }
        if matches!(class, Class::Download | Class::Preview | Class::ShareDownload | Class::Upload) {
            return unverified("it serves what users have uploaded, which must not run");
        }
        let why = format!(
            "of the site itself, but of class `{class}`: if it belongs to the application, name its path as `asset` in the app file"
        );
        unverified(&why)
    }

    /// A source that another policy of the app file names for this class and directive.
    fn by_app_file(&self, directive: &str, source: &str, otherwise: &str) -> Said {
        let app = &self.site.app;
        let policies = std::iter::once(&app.csp).chain(app.csp_variants.iter().map(|(_, policies)| policies));
        let mut policies = policies.map(|policies| Csp::read(policies.get(self.class)));
        if policies.any(|policy| policy.names(directive, source)) {
            return self.add(
                directive,
                source.to_owned(),
                &format!("the app file of {} names it", app.title),
            );
        }
        unverified(otherwise)
    }

    fn add(&self, directive: &str, source: String, why: &str) -> Said {
        if self.policy.names(directive, &source) {
            return harmless("the policy allows it by now");
        }
        (Judgement::Proposed, Some(source), why.to_owned())
    }

    /// What an asset's route is in a policy: the path, or the folder.
    fn source_of(&self, pattern: &str) -> Option<String> {
        let app = self.site.app.routes.iter().map(|route| (route.class, &route.pattern));
        let own = self.site.routes.iter().map(|route| (route.class, &route.pattern));
        let mut assets = app.chain(own).filter(|(class, _)| *class == Class::Asset);
        assets.find(|(_, known)| known.as_str() == pattern)?;
        let path = match pattern.strip_suffix("/*") {
            Some(folder) => format!("{folder}/"),
            None => pattern.to_owned(),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        (path.len() > 1 && path.bytes().all(plain)).then(|| format!("{{origin}}{path}"))
    }

    fn is_harmless(&self, violation: &Violation) -> bool {
        let said = self.site.app.csp_harmless.iter().filter(|(class, _)| *class == self.class);
        let what = named(&violation.what);
        said.into_iter().any(|(_, Harmless { directive, what: known })| {
            let halves = violation.directive.strip_prefix(&**directive);
            **known == *what && matches!(halves, Some("" | "-elem" | "-attr"))
        })
    }
}

fn harmless(why: &str) -> Said {
    (Judgement::Harmless, None, why.to_owned())
}

fn unverified(why: &str) -> Said {
    (Judgement::Unverified, None, why.to_owned())
}

/// What cannot run, whatever it holds.
fn is_passive(directive: &str) -> bool {
    matches!(directive, "img-src" | "media-src" | "font-src")
}

/// What has an address of its own in a policy.
fn is_loaded(directive: &str) -> bool {
    directive.ends_with("-src") || directive.ends_with("-src-elem")
}

/// What was not allowed, in one word for people and for app files.
fn named(what: &What) -> String {
    match what {
        What::Word(word) | What::Scheme(word) => (*word).to_owned(),
        What::Own(class, pattern) => format!("{pattern} ({class})"),
        What::Origin(origin) => origin.to_string(),
        What::Extension => "extension".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;

    use super::*;
    use crate::clock::Now;
    use crate::config;
    use crate::request::client::Client;
    use crate::stores::reports::{Noted, Reports, Sender};

    fn site(app: &str, headers: &str) -> Site {
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.test\"]\napp = \"{app}\"\nupstream = \"http://127.0.0.1:1\"\n\
             [site.headers]\n{headers}\n[[site.route]]\nmatch = \"/themes/*\"\nclass = \"asset\"\n"
        );
        let now = Now { mono: 1, wall: 1_782_000_000_000 };
        let loaded = config::parse(Path::new("/etc/portcullis.toml"), &text, now);
        loaded.unwrap_or_else(|problems| panic!("{problems}")).settings.sites.remove(0)
    }

    fn judged(site: &Site, class: Class, reported: Vec<(&'static str, What)>) -> ClassProposal {
        let reports = Reports::default();
        let noted = reported.into_iter().map(|(directive, what)| Noted {
            violation: Violation { class, directive, what },
            enforced: true,
        });
        let client = Client::Address(IpAddr::from([192, 0, 2, 1]));
        reports.note("a.test", Sender { client, now: 1 }, noted.collect(), 0);
        proposals(site, &reports.of("a.test")).remove(0)
    }

    fn judgements(proposal: &ClassProposal) -> Vec<(&str, Judgement)> {
        let mut all: Vec<_> =
            proposal.violations.iter().map(|one| (one.blocked.as_str(), one.judgement)).collect();
        all.sort_by_key(|(blocked, _)| (*blocked).to_owned());
        all
    }

    #[test]
    fn no_report_alone_adds_an_origin_a_hash_or_a_way_for_scripts() {
        for app in config::builtin_apps() {
            let site = site(app, "");
            let strange = [
                What::Origin("https://evil.test".into()),
                What::Word("inline"),
                What::Word("eval"),
                What::Word("wasm-eval"),
                What::Scheme("data"),
                What::Scheme("blob"),
                What::Own(Class::ShareDownload, "/s/{token}/file".into()),
                What::Own(Class::Page, "/*".into()),
                What::Own(Class::Asset, "/no/such/route".into()),
            ];
            for directive in
                ["script-src", "script-src-elem", "worker-src", "object-src", "frame-src", "base-uri"]
            {
                let reported = strange.iter().map(|what| (directive, what.clone())).collect();
                let found = judged(&site, Class::Share, reported);
                assert_eq!(found.proposed, None, "{app} {directive}");
                let added: Vec<_> =
                    found.violations.iter().filter(|one| one.judgement == Judgement::Proposed).collect();
                assert!(added.is_empty(), "{app} {directive}: {added:?}");
            }
        }
    }

    #[test]
    fn what_the_gateway_knows_too_is_added_and_nothing_else() {
        let keepstack = site("keepstack", "");
        let found = judged(
            &keepstack,
            Class::Page,
            vec![
                ("script-src-elem", What::Own(Class::Asset, "/themes/*".into())),
                ("img-src", What::Scheme("blob")),
                ("font-src", What::Own(Class::Page, "/*".into())),
                ("script-src-elem", What::Own(Class::Download, "/api/assets/{uuid}/file".into())),
                ("img-src", What::Origin("https://tracker.test".into())),
            ],
        );
        let page = keepstack.app_csp(Class::Page);
        let wanted = page
            .replace("{origin}/app.js", "{origin}/app.js {origin}/themes/")
            .replace("'self' data:", "'self' data: blob:");
        assert_eq!(found.proposed, Some(wanted + "; font-src 'self'"));
        let unverified: Vec<_> =
            found.violations.iter().filter(|one| one.judgement == Judgement::Unverified).collect();
        assert_eq!(unverified.len(), 2, "{unverified:?}");
        let arkeep = site("arkeep", "csp = \"app:strict\"");
        let found = judged(&arkeep, Class::Page, vec![("style-src-elem", What::Word("inline"))]);
        assert!(found.proposed.unwrap().contains("'unsafe-inline'"), "the app file's plain policy says so");
    }

    #[test]
    fn what_is_known_to_mean_nothing_is_said_to_mean_nothing() {
        let private = site("arkeep", "csp = \"app:private\"");
        let found = judged(
            &private,
            Class::Page,
            vec![
                ("script-src", What::Word("eval")),
                ("script-src", What::Extension),
                ("style-src-elem", What::Origin("https://fonts.googleapis.com".into())),
                ("font-src", What::Origin("https://fonts.gstatic.com".into())),
                ("font-src", What::Origin("https://fonts.evil.test".into())),
                ("img-src", What::Scheme("data")),
            ],
        );
        let harmless = Judgement::Harmless;
        assert_eq!(
            judgements(&found),
            [
                ("data", harmless),
                ("eval", harmless),
                ("extension", harmless),
                ("https://fonts.evil.test", Judgement::Unverified),
                ("https://fonts.googleapis.com", harmless),
                ("https://fonts.gstatic.com", harmless),
            ]
        );
        assert_eq!(found.proposed, None);
    }
}

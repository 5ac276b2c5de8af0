//! What is not wrong about a download host and a companion cookie, and yet worth a word.

use super::{Running, Warning};
use crate::config::app::Carrier;
use crate::config::settings::Site;
use crate::config::values::HostPattern;

/// Of one site.
pub(super) fn of(site: &Site, running: Option<&Running>) -> impl Iterator<Item = Warning> {
    let long = running.filter(|running| running.long_tokens.contains(&site.name()));
    same_site(site).into_iter().chain(long.map(|_| companion_long(site)))
}

/// Only where cookies are worth something: a `__Host-` cookie and a token in a header stay where they are.
fn same_site(site: &Site) -> Option<Warning> {
    let downloads = site.download_host.as_ref()?;
    let tokens = &site.app.tokens;
    let cookies = tokens.refresh_cookie.is_some()
        || tokens.carriers.iter().any(|carrier| matches!(carrier, Carrier::Cookie(_)));
    let near = site.hosts.iter().find(|host| are_one_site(host, downloads)).filter(|_| cookies)?;
    Some(Warning {
        word: "download_host_same_site",
        what: format!(
            "download_host {downloads} is of the same domain as {near}, so browsers take both for one site: cookies that {} \
             sets for the whole domain are sent there too (the gateway drops them), and SameSite does not tell them apart",
            site.app.title
        ),
        remedy: "a domain of its own for downloads is best; else see that the application sets no cookie with `Domain=`"
            .into(),
    })
}

/// By the last two labels, which is right but below suffixes of two, such as `co.uk`: there it warns once too often.
fn are_one_site(one: &HostPattern, other: &HostPattern) -> bool {
    let domain = |host: &HostPattern| {
        let labels: Vec<&str> = host.name().rsplitn(3, '.').take(2).collect();
        labels.join(".").to_owned()
    };
    domain(one) == domain(other)
}

fn companion_long(site: &Site) -> Warning {
    Warning {
        word: "companion_too_long",
        what: format!(
            "a login of {} has handed out a token that does not fit into a companion cookie of 4 KiB, so that browsers get \
             none: pictures and downloads that need it are refused",
            site.name()
        ),
        remedy: "shorten the application's tokens (fewer claims), or remove companion_cookie; \
                 portcullis_companion_cookies_not_set_total counts"
            .into(),
    }
}

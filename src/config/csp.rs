//! A Content-Security-Policy as directives and sources, for those who reason about one. What browsers get is the text.

use std::fmt;

/// Where browsers send reports of violations, on every site; the gateway's own.
pub const COLLECTOR: &str = "/.well-known/portcullis/csp";

/// What stands in a policy for the nonce of one answer.
pub const NONCE: &str = "{nonce}";

/// A policy, in the order in which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csp(Vec<(String, Vec<String>)>);

impl Csp {
    /// Reads a policy that `config::load` has taken; as browsers do, of two directives of one name the first counts.
    pub fn read(text: &str) -> Self {
        let mut directives: Vec<(String, Vec<String>)> = Vec::new();
        for directive in text.split(';') {
            let mut words = directive.split_ascii_whitespace();
            let Some(name) = words.next().map(str::to_ascii_lowercase) else { continue };
            if directives.iter().all(|(known, _)| *known != name) {
                directives.push((name, words.map(str::to_owned).collect()));
            }
        }
        Self(directives)
    }

    /// The directive that rules over this one, and its sources: itself, or what it falls back to; `None`: nothing does, so
    /// that all is allowed.
    pub fn ruling(&self, directive: &str) -> Option<(&str, &[String])> {
        fallbacks(directive).find_map(|name| {
            let found = self.0.iter().find(|(known, _)| known == name);
            found.map(|(name, sources)| (name.as_str(), sources.as_slice()))
        })
    }

    /// Whether a source of just these words stands where this directive is ruled.
    pub fn names(&self, directive: &str, source: &str) -> bool {
        let sources = self.ruling(directive).map(|(_, sources)| sources).unwrap_or_default();
        sources.iter().any(|known| known.eq_ignore_ascii_case(source))
    }

    /// Allows a source, and nothing that it does not have to: the directive of just this kind is added where another one
    /// ruled, so that what else that one rules stays as it was.
    pub fn allow(&mut self, directive: &str, source: &str) {
        let wanted = written(directive);
        let inherited = self.ruling(wanted).map(|(_, sources)| sources.to_vec()).unwrap_or_default();
        let place = self.0.iter().position(|(known, _)| known == wanted);
        let sources = match place.and_then(|place| self.0.get_mut(place)) {
            Some((_, sources)) => sources,
            None => {
                self.0.push((wanted.to_owned(), inherited));
                let Some((_, sources)) = self.0.last_mut() else { return };
                sources
            }
        };
        sources.retain(|known| known != "'none'");
        if !sources.iter().any(|known| known == source) {
            sources.push(source.to_owned());
        }
    }

    /// Whether it takes a page its origin.
    pub fn sandboxes(&self) -> bool {
        let sandbox = self.0.iter().find(|(name, _)| name == "sandbox");
        sandbox.is_some_and(|(_, words)| words.iter().all(|word| word != "allow-same-origin"))
    }

    /// Whether it says itself where reports go.
    pub fn reports_elsewhere(&self) -> bool {
        self.0.iter().any(|(name, _)| name == "report-uri" || name == "report-to")
    }
}

impl fmt::Display for Csp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, sources)) in self.0.iter().enumerate() {
            let gap = if place == 0 { "" } else { "; " };
            write!(f, "{gap}{name}")?;
            sources.iter().try_for_each(|source| write!(f, " {source}"))?;
        }
        Ok(())
    }
}

/// The directives that a browser asks, one after the other (CSP 3, 6.8.4), the effective one first.
fn fallbacks(directive: &str) -> impl Iterator<Item = &str> {
    let chain: &[&str] = match directive {
        "script-src-elem" | "script-src-attr" => &["script-src", "default-src"],
        "style-src-elem" | "style-src-attr" => &["style-src", "default-src"],
        "worker-src" => &["child-src", "script-src", "default-src"],
        "frame-src" => &["child-src", "default-src"],
        "script-src" | "style-src" | "child-src" | "connect-src" | "font-src" | "img-src"
        | "manifest-src" | "media-src" | "object-src" | "fenced-frame-src" => &["default-src"],
        _ => &[],
    };
    std::iter::once(directive).chain(chain.iter().copied())
}

/// The directive that people write for it: the halves of scripts and styles are seldom told apart.
fn written(directive: &str) -> &str {
    match directive {
        "script-src-elem" | "script-src-attr" => "script-src",
        "style-src-elem" | "style-src-attr" => "style-src",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_falls_back_as_in_a_browser() {
        let policy =
            Csp::read("default-src 'none'; Script-Src 'self'; img-src a.test; img-src b.test; sandbox");
        assert_eq!(policy.ruling("script-src-elem").unwrap().0, "script-src");
        assert_eq!(policy.ruling("worker-src").unwrap().0, "script-src");
        assert_eq!(policy.ruling("font-src").unwrap().1, ["'none'"]);
        assert_eq!(policy.ruling("img-src").unwrap().1, ["a.test"]);
        assert_eq!(policy.ruling("form-action"), None);
        assert_eq!(
            policy.to_string(),
            "default-src 'none'; script-src 'self'; img-src a.test; sandbox",
            "what a browser reads of it"
        );
    }

    #[test]
    fn allowing_a_source_opens_nothing_beside_it() {
        let mut policy = Csp::read("default-src 'none'; img-src 'self'");
        policy.allow("img-src", "data:");
        policy.allow("img-src", "data:");
        policy.allow("font-src", "'self'");
        policy.allow("style-src-attr", "'unsafe-inline'");
        assert_eq!(
            policy.to_string(),
            "default-src 'none'; img-src 'self' data:; font-src 'self'; style-src 'unsafe-inline'"
        );
        let mut policy = Csp::read("default-src 'self'");
        policy.allow("img-src", "data:");
        assert_eq!(policy.to_string(), "default-src 'self'; img-src 'self' data:", "what it had it keeps");
    }
}

//! Which route a path means: in each of its three views the site's own routes come before the app file's, and over the
//! views the strictest class wins, whatever the method (DESIGN 4.3).

use std::collections::HashMap;

use http::Method;

use super::{Route, Site};
use crate::config::app::{precedence, takes};
use crate::config::csp::COLLECTOR;
use crate::config::path_pattern::PathPattern;
use crate::request::path::PathViews;

/// The route of a request.
#[derive(Debug, Clone, Copy)]
pub struct Found<'p> {
    /// Its place in [`Site::routes`].
    pub place: usize,
    /// The route.
    pub route: &'p Route,
}

/// Where among many routes to look for those of a path: by the literal text that their patterns begin with.
#[derive(Debug)]
pub(super) struct RouteIndex {
    /// Places of routes, for the views as sent and for the folded view.
    plain: HashMap<Box<str>, Vec<usize>>,
    folded: HashMap<Box<str>, Vec<usize>>,
    /// All patterns are in lower case: a path that is its own folded form needs one look only.
    alike: bool,
}

impl RouteIndex {
    pub(super) fn new(routes: &[Route]) -> Self {
        let by_head = |pattern: fn(&Route) -> &PathPattern| {
            let mut heads: HashMap<Box<str>, Vec<usize>> = HashMap::new();
            for (place, route) in routes.iter().enumerate() {
                heads.entry(pattern(route).head().into()).or_default().push(place);
            }
            heads
        };
        Self {
            plain: by_head(|route| &route.pattern),
            folded: by_head(|route| &route.folded),
            alike: routes.iter().all(|route| route.folded == route.pattern),
        }
    }

    /// The places of all routes that may match, and of some that do not.
    fn candidates<'i>(&'i self, path: &'i str, folded: bool) -> impl Iterator<Item = usize> + 'i {
        let heads = if folded { &self.folded } else { &self.plain };
        let ends = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
        let starts = ends.chain([path.len()]).filter_map(|end| path.get(..end));
        starts.filter_map(|start| heads.get(start)).flatten().copied()
    }
}

impl Site {
    /// The route of a request; `None` only for a site without routes, which `compile` does not make.
    pub fn route(&self, method: &Method, path: &PathViews) -> Option<Found<'_>> {
        if path.folded() == COLLECTOR {
            // However it is spelled, and whatever else matches: the application never hears of it.
            return self.routes.first().map(|route| Found { place: 0, route });
        }
        let raw = self.route_of_view(method, path.raw(), false);
        let normal =
            if path.normal() == path.raw() { raw } else { self.route_of_view(method, path.normal(), false) };
        let folded = if self.index.alike && path.folded() == path.raw() {
            raw
        } else {
            self.route_of_view(method, path.folded(), true)
        };
        // Of equals the first wins: the views as sent say more (a token's case) than the folded one.
        let mut best = raw;
        for view in [normal, folded] {
            if view.map(|found| found.route.class.strictness())
                > best.map(|found| found.route.class.strictness())
            {
                best = view;
            }
        }
        best
    }

    /// The site's own route where it is at least as specific as the app file's, else the stricter of both: a site route of
    /// `/*` must not open what the app file closes.
    fn route_of_view(&self, method: &Method, path: &str, folded: bool) -> Option<Found<'_>> {
        let candidates = self.index.candidates(path, folded);
        let (theirs, own) = self.best_of(candidates, |route| route.matches(method, path, folded));
        let Some(own) = own else { return theirs };
        let weaker = theirs.is_some_and(|theirs| {
            theirs.route.pattern.specificity() > own.route.pattern.specificity()
                && theirs.route.class.strictness() > own.route.class.strictness()
        });
        if weaker { theirs } else { Some(own) }
    }

    /// The best match among the app file's routes and among the site's own. Of equals the last one in the list counts.
    fn best_of(
        &self,
        places: impl Iterator<Item = usize>,
        matches: impl Fn(&Route) -> bool,
    ) -> (Option<Found<'_>>, Option<Found<'_>>) {
        let (mut theirs, mut own) = (None, None);
        for place in places {
            let Some(route) = self.routes.get(place).filter(|route| matches(route)) else { continue };
            let rank = (precedence(route.class, &route.pattern), place);
            let best = if route.own { &mut own } else { &mut theirs };
            if best.as_ref().is_none_or(|(least, _)| rank > *least) {
                *best = Some((rank, Found { place, route }));
            }
        }
        (theirs.map(|(_, found)| found), own.map(|(_, found)| found))
    }
}

impl Route {
    fn matches(&self, method: &Method, path: &str, folded: bool) -> bool {
        if !takes(self.method.as_ref(), method) {
            return false;
        }
        let pattern = if folded { &self.folded } else { &self.pattern };
        pattern.matches(path) || (self.class.restricts() && pattern.matches_above(path))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Now;
    use crate::config;
    use crate::policy::{Policy, compile};
    use crate::stores::kept::Kept;

    fn policy(app: &str) -> Policy {
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.test\"]\napp = \"{app}\"\nupstream = \"http://127.0.0.1:1\"\n\
             [[site.route]]\nmatch = \"/Api/*\"\nclass = \"upload\"\n[[site.route]]\nmatch = \"/x*\"\nclass = \"metrics\"\n\
             [[site.route]]\nmatch = \"/{{any}}/login\"\nclass = \"api\"\n[[site.route]]\nmatch = \"/\"\nclass = \"docs\"\n"
        );
        let now = Now { mono: 1, wall: 1_782_000_000_000 };
        let loaded = config::parse(Path::new("/etc/portcullis.toml"), &text, now);
        let settings = loaded.unwrap_or_else(|problems| panic!("{problems}")).settings;
        compile(&settings, &Kept::new(16))
    }

    /// Every route is asked.
    fn slowly(site: &Site, path: &str, folded: bool) -> [Option<usize>; 2] {
        let all = 0..site.routes.len();
        let (theirs, own) = site.best_of(all, |route| route.matches(&Method::GET, path, folded));
        [theirs, own].map(|found| found.map(|found| found.place))
    }

    fn quickly(site: &Site, path: &str, folded: bool) -> [Option<usize>; 2] {
        let candidates = site.index.candidates(path, folded);
        let (theirs, own) = site.best_of(candidates, |route| route.matches(&Method::GET, path, folded));
        [theirs, own].map(|found| found.map(|found| found.place))
    }

    #[test]
    fn the_index_finds_the_route_that_asking_all_of_them_finds() {
        for app in config::builtin_apps() {
            let policy = policy(app);
            let site = policy.site(0).unwrap();
            let patterns =
                site.routes.iter().map(|route| route.pattern.as_str().replace(['{', '}', '*'], "x"));
            for path in patterns.flat_map(|path| {
                [
                    path.clone(),
                    format!("{path}/"),
                    format!("{path}/more/below"),
                    format!("/{path}"),
                    path + "x",
                ]
            }) {
                for folded in [false, true] {
                    assert_eq!(quickly(site, &path, folded), slowly(site, &path, folded), "{app} {path}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_index_misses_no_route_of_any_path(
            words in proptest::collection::vec("(|api|Api|x|xy|auth|login|metrics|s|assets|[a-z]{1,3})", 0..5)
        ) {
            let policy = policy("generic");
            let site = policy.site(0).unwrap();
            let path = format!("/{}", words.join("/"));
            for folded in [false, true] {
                prop_assert_eq!(quickly(site, &path, folded), slowly(site, &path, folded));
            }
        }
    }
}

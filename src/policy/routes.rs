//! Which route a path means: in each of its three views the site's own routes come before the app file's, and over the
//! views the strictest class wins, whatever the method (DESIGN 4.3).

use http::Method;

use super::{Route, Site};
use crate::config::app::{precedence, takes};
use crate::request::path::PathViews;

/// The route of a request.
#[derive(Debug, Clone, Copy)]
pub struct Found<'p> {
    /// Its place in [`Site::routes`].
    pub place: usize,
    /// The route.
    pub route: &'p Route,
}

impl Site {
    /// The route of a request; `None` only for a site without routes, which `compile` does not make.
    pub fn route(&self, method: &Method, path: &PathViews) -> Option<Found<'_>> {
        let raw = self.route_of_view(method, path.raw(), false);
        let normal =
            if path.normal() == path.raw() { raw } else { self.route_of_view(method, path.normal(), false) };
        let folded = self.route_of_view(method, path.folded(), true);
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
        let best = |own: bool| {
            let routes = self.routes.iter().enumerate();
            routes
                .filter(|(_, route)| route.own == own && route.matches(method, path, folded))
                .max_by_key(|(_, route)| precedence(route.class, &route.pattern))
                .map(|(place, route)| Found { place, route })
        };
        let theirs = best(false);
        let Some(own) = best(true) else { return theirs };
        let weaker = theirs.is_some_and(|theirs| {
            theirs.route.pattern.specificity() > own.route.pattern.specificity()
                && theirs.route.class.strictness() > own.route.class.strictness()
        });
        if weaker { theirs } else { Some(own) }
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

//! Which route a path means: in each of its three views the site's own routes come before the app file's, and over the
//! views the strictest class wins, whatever the method (DESIGN 4.3).

use http::Method;

use super::{Route, Site};
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

    fn route_of_view(&self, method: &Method, path: &str, folded: bool) -> Option<Found<'_>> {
        let mut best: Option<Found<'_>> = None;
        for (place, route) in self.routes.iter().enumerate() {
            if route.matches(method, path, folded) && best.is_none_or(|best| route.rank() > best.route.rank())
            {
                best = Some(Found { place, route });
            }
        }
        best
    }
}

impl Route {
    fn matches(&self, method: &Method, path: &str, folded: bool) -> bool {
        if self.method.as_ref().is_some_and(|wanted| !same_method(wanted, method)) {
            return false;
        }
        let pattern = if folded { &self.folded } else { &self.pattern };
        pattern.matches(path) || (self.class.restricts() && pattern.matches_above(path))
    }

    fn rank(&self) -> (bool, u8, (usize, usize, bool)) {
        (self.own, self.class.strictness(), self.pattern.specificity())
    }
}

/// HEAD is answered like GET by every framework; what guards GET guards HEAD.
fn same_method(wanted: &Method, method: &Method) -> bool {
    wanted == method || (*wanted == Method::GET && *method == Method::HEAD)
}

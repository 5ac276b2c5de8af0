//! The decision: guards in their order. Only [`decide`] can make a [`Permit`], and the upstream takes nothing without one.
//! A try at a secret gets its permit withheld: only what its own guard says turns it into one.

use crate::clock::Now;
use crate::config::cluster::Cluster;
use crate::guards::allowlist::{self, Allowlist};
use crate::guards::browser::Browser;
use crate::guards::members::Members;
use crate::guards::rate::Rate;
use crate::guards::share::{self, Charged};
use crate::guards::size::Size;
use crate::guards::stripped::Stripped;
use crate::guards::tries::{Kind, Passed, Tries};
use crate::guards::values::Values;
use crate::guards::{Denial, Guard, Verdict, blocks, login, verify};
use crate::policy::{Route, RouteGuards};
use crate::request::credential::Presented;
use crate::request::facts::Facts;
use crate::stores::blocks::Index;

/// Proof that every guard has passed. Private fields: only [`decide`] can make one.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    upstream: Cluster,
    stripped: Stripped,
    charged: Option<Charged>,
}

/// What the guards of facts have come to, when none refuses.
#[derive(Debug)]
pub enum Decision {
    /// It may go on.
    Permit(Permit),
    /// It is a try at a secret: the last guard has not been asked yet.
    Withheld(Withheld),
}

/// A permit that nobody can use before the guard of its try has passed.
#[must_use]
#[derive(Debug)]
pub struct Withheld {
    permit: Permit,
    kind: Kind,
    observe: bool,
    now: Now,
}

impl Withheld {
    /// At what it is a try.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The guard only observes here.
    pub fn observes(&self) -> bool {
        self.observe
    }

    /// Gives the permit out, if the guard has let the try pass, or only observes. `on` hears the verdict.
    ///
    /// # Errors
    /// The guard's denial.
    pub fn settle(
        self,
        said: Result<Passed, Denial>,
        on: &mut impl FnMut(&'static str, &Verdict),
    ) -> Result<(Permit, Passed), Denial> {
        match said {
            Ok(passed) => {
                pass(login::NAME, Verdict::Pass, self.observe, on)?;
                Ok((self.permit, passed))
            }
            Err(denial) => {
                let passed = Passed::observed(&denial);
                let mut permit = self.permit;
                if let Err(denial) = pass(denial.guard, Verdict::Deny(denial), self.observe, on) {
                    // The application is not asked: it was no miss.
                    permit.charged().into_iter().for_each(|charged| charged.take_back(self.now));
                    return Err(denial);
                }
                Ok((permit, passed))
            }
        }
    }
}

impl Permit {
    /// Where the request may go.
    pub fn upstream(&self) -> &Cluster {
        &self.upstream
    }

    /// Which of the application's token cookies are left out of the request, and expired in the browser.
    pub fn stripped(&self) -> Stripped {
        self.stripped
    }

    /// What the share guard has charged, to be settled by the answer; once.
    pub fn charged(&mut self) -> Option<Charged> {
        self.charged.take()
    }
}

/// Judges a request: a function of route, blocks, facts and the tokens presented, without waiting or asking the time. It
/// allocates nothing, but where a token is verified for the first time.
///
/// The order is a security property: change it only together with `tests/order.rs`. `on` hears every verdict, in order.
///
/// # Errors
/// The first denial.
pub fn decide(
    route: &Route,
    index: &Index,
    cx: &Facts,
    presented: &[Presented],
    on: &mut impl FnMut(&'static str, &Verdict),
) -> Result<Decision, Denial> {
    // No `..` here: a new guard does not compile until it has been given its place.
    let RouteGuards {
        allowlist: networks,
        verify: tokens,
        members,
        browser,
        size,
        values,
        rate,
        share: links,
        tries,
    } = &route.guards;
    let observe = route.observe;
    // Cheapest, and hides the endpoint. Where a class is closed by default it enforces always, as the blocks do.
    let reached = allowlist::check(networks.as_ref(), index, cx);
    pass(Allowlist::NAME, reached, observe.allowlist, on)?;
    // Emergency blocks: before anything that costs or counts.
    let judged = blocks::check(index, cx);
    pass(blocks::NAME, judged.verdict, false, on)?;
    let mut stripped = judged.stripped;
    // Before whatever counts: a page of another site spends nobody's budget.
    pass(Browser::NAME, browser.check(cx), observe.browser, on)?;
    if let Some(denial) = links.as_ref().and_then(|links| links.embedded(cx)) {
        pass(share::NAME, Verdict::Deny(denial), observe.share, on)?;
    }
    // Before what would spend a budget or read a body for a forger.
    if let Some(tokens) = tokens {
        let verified = tokens.check(cx, presented);
        pass(verify::NAME, verified.verdict, observe.verify, on)?;
        if !observe.verify {
            stripped = stripped.and(verified.stripped);
        }
    }
    // What a verified token is good for.
    if let Some(members) = members {
        pass(Members::NAME, members.check(cx), observe.members, on)?;
    }
    pass(Size::NAME, size.check(cx), observe.size, on)?;
    pass(Values::NAME, values.check(cx), observe.values, on)?;
    // Before anything that reads a body.
    let rate_verdict = rate.as_ref().map_or(Verdict::Pass, |rate| rate.check(cx));
    pass(Rate::NAME, rate_verdict, observe.rate, on)?;
    // Last of those that need no body: what it charges is settled by the application's answer.
    let mut charged = None;
    if let Some(links) = links {
        let judged = links.check(cx);
        charged = judged.charged;
        pass(share::NAME, judged.verdict, observe.share, on)?;
    }
    let permit = Permit { upstream: route.upstream.clone(), stripped, charged };
    // Last, since it wants the body: what costs most, and what counts, after all that can refuse without.
    Ok(match Tries::of(cx).filter(|_| tries.is_some()) {
        Some(kind) => Decision::Withheld(Withheld { permit, kind, observe: observe.login, now: cx.now }),
        None => Decision::Permit(permit),
    })
}

fn pass(
    guard: &'static str,
    verdict: Verdict,
    observe: bool,
    on: &mut impl FnMut(&'static str, &Verdict),
) -> Result<(), Denial> {
    let verdict = match verdict {
        Verdict::Deny(denial) if observe => Verdict::WouldDeny(denial),
        other => other,
    };
    on(guard, &verdict);
    match verdict {
        Verdict::Pass | Verdict::WouldDeny(_) => Ok(()),
        Verdict::Deny(denial) => Err(denial),
    }
}

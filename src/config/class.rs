//! The classes of routes: what an app file says of a route, and all that a guard needs to know of it.

use std::fmt;
use std::str::FromStr;

/// What kind of route a request is for (DESIGN 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// HTML for people.
    Page,
    /// Scripts, styles, pictures of the application itself.
    Asset,
    /// JSON and the like.
    Api,
    /// Takes a password, hands out a token.
    Login,
    /// A callback of a single sign-on that hands over a token.
    Oidc,
    /// Exchanges a long-lived credential for a new token.
    Refresh,
    /// Ends a session.
    Logout,
    /// First run, registration.
    Setup,
    /// Machines joining.
    Enroll,
    /// A public link.
    Share,
    /// What a public link serves.
    ShareDownload,
    /// Takes large bodies.
    Upload,
    /// Serves what users uploaded.
    Download,
    /// Pictures made of what users uploaded.
    Preview,
    /// WebSocket and server-sent events.
    Live,
    /// gRPC.
    Rpc,
    /// Liveness and readiness of the application.
    Health,
    /// Prometheus metrics of the application.
    Metrics,
    /// API documentation.
    Docs,
    /// For administrators of the application.
    Admin,
}

impl Class {
    /// Every class, in the order of the enum: `ALL[class as usize] == class`.
    pub const ALL: [Self; 20] = [
        Self::Page,
        Self::Asset,
        Self::Api,
        Self::Login,
        Self::Oidc,
        Self::Refresh,
        Self::Logout,
        Self::Setup,
        Self::Enroll,
        Self::Share,
        Self::ShareDownload,
        Self::Upload,
        Self::Download,
        Self::Preview,
        Self::Live,
        Self::Rpc,
        Self::Health,
        Self::Metrics,
        Self::Docs,
        Self::Admin,
    ];

    /// The word used in config, logs and metric labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Asset => "asset",
            Self::Api => "api",
            Self::Login => "login",
            Self::Oidc => "oidc",
            Self::Refresh => "refresh",
            Self::Logout => "logout",
            Self::Setup => "setup",
            Self::Enroll => "enroll",
            Self::Share => "share",
            Self::ShareDownload => "share_download",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Preview => "preview",
            Self::Live => "live",
            Self::Rpc => "rpc",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Docs => "docs",
            Self::Admin => "admin",
        }
    }

    /// Closed to everybody but loopback unless `only_from` says otherwise (DESIGN 3); such a class matches
    /// whatever the method.
    pub const fn restricts(self) -> bool {
        matches!(self, Self::Health | Self::Metrics | Self::Docs | Self::Setup)
    }

    /// How strict a class is, when the views of one path match routes of different classes: the greatest wins.
    pub const fn strictness(self) -> u8 {
        match self {
            Self::Metrics => 19,
            Self::Setup => 18,
            Self::Docs => 17,
            Self::Health => 16,
            Self::Admin => 15,
            Self::Login => 14,
            Self::Enroll => 13,
            Self::Refresh => 12,
            Self::Oidc => 11,
            Self::Logout => 10,
            Self::ShareDownload => 9,
            Self::Share => 8,
            Self::Download => 7,
            Self::Preview => 6,
            Self::Upload => 5,
            Self::Api => 4,
            Self::Rpc => 3,
            Self::Live => 2,
            Self::Asset => 1,
            Self::Page => 0,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Class {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|class| class.word() == word).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_holds_every_class_in_order_and_words_parse_back() {
        for (place, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(place, class as usize);
            assert_eq!(class.word().parse(), Ok(class));
        }
    }

    #[test]
    fn strictness_is_a_total_order() {
        let mut ranks: Vec<_> = Class::ALL.iter().map(|class| class.strictness()).collect();
        ranks.sort_unstable();
        ranks.dedup();
        assert_eq!(ranks.len(), Class::ALL.len());
    }
}

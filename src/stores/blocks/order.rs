//! An order to block: what a person asks for, before the gateway has given it a number and an end.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::record::What;

/// The body of `POST /v1/block`, and what the spool keeps while the gateway is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What to block. A `before` is set by the gateway when it takes the order.
    pub what: What,
    /// A host name of the only site where it shall hold.
    #[serde(default)]
    pub site: Option<String>,
    /// For how long, in milliseconds; `None`: the default of the kind.
    #[serde(default)]
    pub lasting: Option<u64>,
    /// Unix seconds when the token ends by itself, as it says.
    #[serde(default)]
    pub expires: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// The person has said that a wide block is meant.
    #[serde(default)]
    pub yes: bool,
}

/// An order that waits in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spooled {
    /// Of this form: 1.
    pub schema: u64,
    /// The order.
    pub order: Order,
    /// Who gave it.
    pub by: String,
    /// Unix milliseconds when it was given.
    pub created: u64,
}

/// What makes a block so wide that a slip would lock out many: it wants `yes`. `None`: it is not wide.
pub fn width(what: &What) -> Option<String> {
    match what {
        What::Everyone { .. } => Some("it ends the sessions of everyone".to_owned()),
        What::Address { network: IpNet::V4(net) } if net.prefix_len() < 16 => {
            Some(format!("{net} is wider than a /16"))
        }
        What::Address { network: IpNet::V6(net) } if net.prefix_len() < 32 => {
            Some(format!("{net} is wider than a /32"))
        }
        _ => None,
    }
}

//! How a client's address was found, in words: what `explain` says of it.

use std::net::IpAddr;

use http::request::Parts;

use super::Link;
use super::read;
use crate::policy::Policy;
use crate::request::client::{Found, How};

/// Whose connection a question is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    /// The socket's own peer.
    pub carrier: IpAddr,
    /// The peer after a PROXY header.
    pub peer: IpAddr,
    /// The connection is a proxy's own.
    pub own: bool,
}

impl Whose {
    /// Of a connection from `from`, whose PROXY header names `proxied`.
    ///
    /// # Errors
    /// When the gateway would close such a connection, in words.
    pub fn of(from: IpAddr, proxied: Option<IpAddr>, policy: &Policy) -> Result<Self, String> {
        let carrier = from.to_canonical();
        let taken = policy.settings.listen.proxy_protocol && policy.trusted_proxies.contains(carrier);
        match proxied {
            Some(_) if !policy.settings.listen.proxy_protocol => Err(
                "`listen.proxy_protocol` is \"off\": a connection that begins with a PROXY header is closed"
                    .into(),
            ),
            Some(_) if !taken => Err(format!(
                "{carrier} is not in listen.trusted_proxies: its connection is closed when it begins with a PROXY header"
            )),
            Some(peer) => Ok(Self { carrier, peer: peer.to_canonical(), own: false }),
            None => Ok(Self { carrier, peer: carrier, own: taken }),
        }
    }

    /// How the client was found.
    pub fn tell(&self, found: Found, link: &dyn Link, policy: &Policy, head: &Parts) -> String {
        debug_assert_eq!(read::client(link, policy, head), found.client, "what is told is what is done");
        let Self { carrier, peer, own } = self;
        let before = match (carrier == peer, own) {
            (false, _) => format!("the PROXY header of {carrier} names {peer}; "),
            (true, true) => format!("{carrier} must begin with a PROXY header, here one that says LOCAL; "),
            (true, false) => String::new(),
        };
        format!("{before}{}", by(found, *peer))
    }
}

fn by(found: Found, peer: IpAddr) -> String {
    let client = found.client;
    match found.how {
        How::Peer => format!("{peer} is not in trusted_proxies, so it is the client, whatever it claims"),
        How::Own => format!("the connection is {peer}'s own"),
        How::Tunnel => format!(
            "{peer} is on this machine or in its network, is not in trusted_proxies, and yet names a client: nobody can be believed"
        ),
        How::Silent => format!("{peer} is in trusted_proxies and sends no X-Forwarded-For"),
        How::Hop(place) => format!(
            "{peer} is in trusted_proxies; {client} is X-Forwarded-For's {} and the first that is not in trusted_proxies",
            element(place)
        ),
        How::LastHop(place) => format!(
            "{peer} is in trusted_proxies, and so is all of X-Forwarded-For; {client} is its {} and the last",
            element(place)
        ),
        How::Garbage(place) => format!(
            "{peer} is in trusted_proxies, but X-Forwarded-For's {} is no address: what stands before it is anybody's word",
            element(place)
        ),
    }
}

fn element(place: usize) -> String {
    format!("element {place} from the right")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::client::Client;

    #[test]
    fn each_way_has_its_words() {
        let client = Client::Address("203.0.113.7".parse().unwrap());
        let ways =
            [How::Peer, How::Own, How::Tunnel, How::Silent, How::Hop(2), How::LastHop(3), How::Garbage(1)];
        let mut told: Vec<String> =
            ways.into_iter().map(|how| by(Found { client, how }, "10.0.0.5".parse().unwrap())).collect();
        assert!(told.iter().all(|text| text.contains("10.0.0.5")));
        assert!(
            told[4].contains("203.0.113.7") && told[4].contains("element 2 from the right"),
            "{}",
            told[4]
        );
        told.sort();
        told.dedup();
        assert_eq!(told.len(), ways.len());
    }
}

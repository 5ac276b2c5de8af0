//! Who tries: the account as it was typed, and what is known of the device and the address.

use super::Presented;
use super::device::Known;
use crate::guards::login::{Device, Try};
use crate::guards::tries::Tries;
use crate::request::facts::Facts;
use crate::stores::logins::fold;

/// As whom, from which device.
#[derive(Default)]
pub struct Who {
    /// As it was typed.
    pub account: Option<String>,
    /// As it is counted.
    pub folded: Option<String>,
    /// The device's number, if its cookie is good.
    pub device: Option<[u8; 8]>,
    /// The other accounts that the device is known for.
    pub others: Vec<Known>,
    /// Somebody has logged in from here lately.
    pub address: bool,
    /// Basic credentials were let in from here lately.
    pub heard: bool,
    /// The path that it says it came from.
    pub from: Option<Box<str>>,
    /// Basic credentials of another account beside the body.
    pub beside: Option<Box<Presented>>,
}

impl Who {
    /// Who comes by this request, by the number of his device if that is known. Nothing is known of Basic credentials yet: see
    /// [`Who::heard`].
    pub fn of(account: Option<String>, device: Option<[u8; 8]>, tries: &Tries, facts: &Facts) -> Self {
        let known = |name: &String| tries.login().knows_address(facts.client, name, facts.now);
        let address = device.is_none() && account.as_ref().is_some_and(known);
        let folded = account.as_deref().map(fold);
        Self { folded, account, device, address, ..Self::default() }
    }

    /// For Basic credentials, which never prove as much as a login: also by where they were let in.
    pub fn heard(mut self, tries: &Tries, facts: &Facts) -> Self {
        let heard = |name: &String| tries.login().heard_address(facts.client, name, facts.now);
        self.heard = !self.address && self.account.as_ref().is_some_and(heard);
        self
    }

    /// As the guard is asked.
    pub fn attempt(&self, facts: &Facts) -> Try<'_> {
        let device = match self.device {
            Some(id) => Device::Cookie(id),
            None if self.address => Device::Address,
            None if self.heard => Device::Heard,
            None => Device::Unknown,
        };
        let (account, typed) = (self.folded.as_deref(), self.account.as_deref());
        Try { client: facts.client, account, typed, device, now: facts.now }
    }
}

//! What a request is, before anyone judges it.

pub mod body;
pub mod carriers;
pub mod certificate;
pub mod client;
pub mod credential;
pub mod facts;
pub mod logout_token;
pub mod path;
pub mod report;
pub mod share_key;
pub mod target;
pub mod tokens_in;
pub mod verification;

//! Figures of the release binary. Linux only; `make instructions` and `make footprint` call it.
//!
//! `instructions`: instructions per request, counted by callgrind: exact to a few parts in a hundred on any machine.
//! `logins`: the same for a login and for another POST.
//! `handshakes`: full handshakes per CPU second, beside nginx and HAProxy.
//! `footprint`: memory of an idle connection, and the time from the start to the first answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measurement, not the product"
)]
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures real time and prints what it finds"
)]

mod client;
mod footprint;
mod handshakes;
mod instructions;
mod rig;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    if wants("instructions") {
        instructions::run();
    }
    if wants("logins") {
        instructions::logins();
    }
    if wants("handshakes") {
        handshakes::run();
    }
    if wants("footprint") {
        footprint::run();
    }
}

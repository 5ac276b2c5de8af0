//! Tokens and app files of the tests' own.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

/// An app file in a directory of its own.
pub struct App {
    dir: TempDir,
}

impl App {
    /// An application that looks for tokens of this format in every place that there is.
    pub fn everywhere(format: &str) -> Self {
        Self::new(
            format,
            r#"["bearer", "basic", "cookie:sid", "query:token", "subprotocol"]"#,
            "refresh_cookie = \"renew\"\nrefresh_lifetime = \"168h\"",
        )
    }

    /// An application with these carriers.
    pub fn new(format: &str, carriers: &str, more: &str) -> Self {
        let text = format!(
            "schema = 1\nname = \"probe\"\ntitle = \"Probe\"\ndefault_class = \"page\"\n\n[routes]\n\
             api = [\"/api/*\"]\nlogin = [\"/login\"]\nlive = [\"/live/*\"]\nupload = [\"POST /up/*\"]\n\
             download = [\"/down/*\"]\nshare = [\"/s/{{token}}\"]\nshare_download = [\"/s/{{token}}/file\"]\n\n\
             [tokens]\nformat = \"{format}\"\ncarriers = {carriers}\nlifetime = \"24h\"\n{more}\n\n\
             [denials.401]\nbody = '{{\"who\":\"nobody\"}}'\n[denials.404]\nbody = '{{\"what\":\"nothing\"}}'\n"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.toml"), text).unwrap();
        Self { dir }
    }

    /// What a config calls it.
    pub fn path(&self) -> String {
        self.dir.path().join("app.toml").display().to_string()
    }
}

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `base64url(json).base64url(hmac)`.
pub fn pair(claims: &str) -> String {
    signed(URL_SAFE_NO_PAD.encode(claims))
}

/// A pair as Keepstack makes it, good for a week.
pub fn session(subject: u64) -> String {
    pair(&format!(r#"{{"sub":{subject},"role":"admin","exp":{}}}"#, now() + 604_800))
}

/// `header.claims.signature`.
pub fn jwt(claims: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    signed(format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims)))
}

/// A JWT of this subject and number, issued at this time.
pub fn login(subject: &str, jti: &str, issued: u64) -> String {
    jwt(&format!(r#"{{"sub":"{subject}","jti":"{jti}","iat":{issued},"exp":{}}}"#, now() + 3600))
}

fn signed(text: String) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"of the application, not of the gateway");
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    format!("{text}.{signature}")
}

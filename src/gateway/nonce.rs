//! A fresh nonce in each page: in its policy, and in the tags that the application has marked for it.
//!
//! 1. What is replaced is one word only, a secret between the application and the gateway. Whoever plants a script in a title
//!    cannot write it, so that his script gets no nonce. Tags are not looked for: a gateway that put the nonce into every
//!    `<script>` would put it into planted ones too.
//! 2. The nonce has the length of the word, 32 characters of 64 at least: the page keeps its length, and nothing is buffered
//!    but the beginning of a word at the end of a piece.
//! 3. A page with a nonce is nobody else's and never old: it is not stored, has no ETag and no ranges, and conditions of the
//!    browser do not reach the application. What the application compresses all the same keeps its word, and runs no script.
//!
//! Caveat: the word must not show where the gateway does not replace it: in scripts, JSON, other hosts, public templates.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::exchange::Exchange;
use crate::guards::headers::HeaderSet;
use crate::request::body::{Body, BodyError, Broken, Source, Tail};

/// What a page that is made anew each time cannot keep.
static STALE: [HeaderName; 8] = [
    header::ETAG,
    header::LAST_MODIFIED,
    header::ACCEPT_RANGES,
    header::EXPIRES,
    header::AGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// What would make an application answer something else than the whole page, as it is.
static CONDITIONS: [HeaderName; 7] = [
    header::ACCEPT_ENCODING,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// Takes out of a request what stands against a page with a nonce.
pub fn ask_for_the_whole_page(headers: &mut HeaderMap) {
    for name in &CONDITIONS {
        headers.remove(name);
    }
}

/// Gives an answer a nonce of its own, where its class has them: in the policy, and in the page if it is one.
pub fn put_in(mut answer: Response<Body>, set: &HeaderSet, exchange: &mut Exchange) -> Response<Body> {
    let Some(word) = set.nonce_word() else { return answer };
    let nonce = fresh(word.len());
    set.apply_nonce(answer.headers_mut(), nonce.as_deref());
    let Some(nonce) = nonce.filter(|_| is_page(answer.headers())) else { return answer };
    let compressed = answer.headers().contains_key(header::CONTENT_ENCODING);
    if compressed || answer.status() == StatusCode::PARTIAL_CONTENT {
        exchange.because("the page has no nonce: the application has compressed it, or sent a part of it");
        return answer;
    }
    for name in &STALE {
        answer.headers_mut().remove(name);
    }
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.map(|body| match body {
        Body::Stream(_) => {
            let word = word.as_bytes().to_vec();
            let page = Page { body, word, nonce: nonce.into_bytes(), held: Vec::new() };
            Body::stream(Source::Own(Box::pin(page)), Box::new(Nobody))
        }
        Body::Full(whole) => {
            let word = word.as_bytes().to_vec();
            let mut page = Page { body: Body::Empty, word, nonce: nonce.into_bytes(), held: Vec::new() };
            let passed = page.pass(&whole);
            Body::Full([&passed[..], &page.held].concat().into())
        }
        Body::Empty => Body::Empty,
    })
}

/// So many characters that nobody can foresee; `None`: there is no chance to be had, and no script runs.
fn fresh(length: usize) -> Option<String> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let mut text = URL_SAFE_NO_PAD.encode(&bytes);
    text.truncate(length);
    Some(text)
}

fn is_page(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let name = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    name.eq_ignore_ascii_case(b"text/html") || name.eq_ignore_ascii_case(b"application/xhtml+xml")
}

/// A page on its way, whose word is replaced.
struct Page {
    body: Body,
    word: Vec<u8>,
    /// As long as the word.
    nonce: Vec<u8>,
    /// The end of the last piece, which may be the beginning of the word.
    held: Vec<u8>,
}

impl Page {
    /// What of it can go on, once this has come.
    fn pass(&mut self, piece: &[u8]) -> Bytes {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(piece);
        let mut from = 0;
        while let Some(at) = find(text.get(from..).unwrap_or_default(), &self.word) {
            let end = from + at + self.word.len();
            if let Some(place) = text.get_mut(from + at..end) {
                place.copy_from_slice(&self.nonce);
            }
            from = end;
        }
        // Nothing before `from` can begin the word any more.
        let rest = text.get(from..).unwrap_or_default();
        let longest = self.word.len().saturating_sub(1).min(rest.len());
        let begun = (1..=longest)
            .rev()
            .find(|length| self.word.get(..*length).is_some_and(|beginning| rest.ends_with(beginning)));
        self.held = text.split_off(text.len() - begun.unwrap_or(0));
        text.into()
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len().max(1)).position(|window| window == word)
}

impl HttpBody for Page {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        loop {
            let frame = match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(BodyError::Peer(error))) => return Poll::Ready(Some(Err(error))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    let rest = std::mem::take(&mut this.held);
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest.into()))));
                }
            };
            // Trailers of a page would come before what is held: they say nothing that a page needs.
            let passing = frame.into_data().map(|piece| this.pass(&piece)).unwrap_or_default();
            if !passing.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passing))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, held) = (self.body.size_hint(), self.held.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}

/// Watches nothing: the body inside is watched.
struct Nobody;

impl Tail for Nobody {
    fn data(&mut self, _: &Bytes) -> Result<(), BodyError> {
        Ok(())
    }

    fn complete(&mut self) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORD: &[u8] = b"aab-aab-aac";
    const NONCE: &[u8] = b"0123456789x";

    fn replaced(pieces: &[&[u8]]) -> Vec<u8> {
        let mut page =
            Page { body: Body::Empty, word: WORD.to_vec(), nonce: NONCE.to_vec(), held: Vec::new() };
        let mut whole: Vec<u8> = pieces.iter().flat_map(|piece| page.pass(piece)).collect();
        whole.append(&mut page.held);
        whole
    }

    #[test]
    fn a_nonce_is_fresh_and_as_long_as_the_word() {
        let (one, other) = (fresh(32).unwrap(), fresh(32).unwrap());
        assert_ne!(one, other);
        assert!(
            one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
    }

    proptest! {
        #[test]
        fn wherever_a_page_is_cut_it_comes_out_the_same(
            parts in proptest::collection::vec("(aab-aab-aac|aab-|aa|<p nonce=\"|x)", 0..12),
            cuts in proptest::collection::vec(0_usize..80, 0..6),
        ) {
            let page = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(page.len())).collect();
            cuts.extend([0, page.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &page[cut[0]..cut[1]]).collect();
            let text = String::from_utf8(page.clone()).unwrap();
            let wanted = text.replace("aab-aab-aac", "0123456789x").into_bytes();
            prop_assert_eq!(replaced(&pieces), wanted);
        }
    }
}

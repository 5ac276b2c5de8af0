//! What the head of an answer must be, beyond what hyper asks: two hops must never read it in two ways.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, Version};

use crate::gateway::ForwardError;

/// Refuses an answer that says its length twice, or in a way that only some understand.
///
/// # Errors
/// [`ForwardError::Protocol`], with what is wrong.
pub fn check<B>(answer: &Response<B>) -> Result<(), ForwardError> {
    let wrong = if answer.status().as_u16() > 599 {
        Some("a status above 599")
    } else {
        framing(answer.headers(), answer.version())
    };
    wrong.map_or(Ok(()), |wrong| Err(ForwardError::Protocol(wrong.into())))
}

fn framing(headers: &HeaderMap, version: Version) -> Option<&'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), encodings.next()) {
        (Some(_), Some(_)) => Some("Content-Length and Transfer-Encoding in one answer"),
        (Some(length), None) if lengths.next().is_some() || !is_number(length.as_bytes()) => {
            Some("a Content-Length that is not one number")
        }
        (None, Some(_)) if version < Version::HTTP_11 => Some("Transfer-Encoding in HTTP/1.0"),
        (None, Some(encoding))
            if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Some("a Transfer-Encoding that is not `chunked`")
        }
        _ => None,
    }
}

fn is_number(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_can_be_read_in_two_ways_is_refused() {
        let judge = |version, headers: &[(&str, &str)]| {
            let mut answer = Response::builder().version(version);
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            check(&answer.body(()).unwrap()).is_ok()
        };
        let h11 = Version::HTTP_11;
        assert!(judge(h11, &[]));
        assert!(judge(h11, &[("content-length", "12")]));
        assert!(judge(h11, &[("transfer-encoding", "Chunked")]));
        assert!(!judge(h11, &[("content-length", "12"), ("transfer-encoding", "chunked")]));
        assert!(!judge(h11, &[("content-length", "12"), ("content-length", "12")]));
        for length in ["", "+1", "1, 1", "0x1", "-1"] {
            assert!(!judge(h11, &[("content-length", length)]), "{length:?}");
        }
        for encoding in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "xchunked"] {
            assert!(!judge(h11, &[("transfer-encoding", encoding)]), "{encoding:?}");
        }
        assert!(!judge(Version::HTTP_10, &[("transfer-encoding", "chunked")]));
    }
}

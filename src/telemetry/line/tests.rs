use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them(value: u64) {
        let mut text = String::new();
        text::digits(&mut text, value, 1);
        prop_assert_eq!(text, value.to_string());
        let mut text = String::new();
        text::digits(&mut text, value % 100, 3);
        prop_assert_eq!(text, format!("{:03}", value % 100));
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them(address: IpAddr) {
        let mut text = String::new();
        text::client(Some(address), "", &mut text);
        prop_assert_eq!(text, address.to_string());
    }
}

fn entry() -> Entry<'static> {
    Entry {
        wall: 1_795_324_028_123,
        id: "01J",
        client: Some([203, 0, 113, 7].into()),
        site: "files.example.com",
        class: Some(Class::Login),
        method: "POST",
        target: "/api/auth/login?token=SECRET",
        version: "HTTP/1.1",
        referer: Some(b"https://files.example.com/?code=SECRET"),
        agent: Some(b"curl/8 \"quoted\"\n"),
        location: None,
        status: 429,
        verdict: Verdict::Denied { guard: "rate", reason: "rate_limited" },
        received: 12,
        sent: 34,
        duration: Duration::from_micros(1234),
        upstream: None,
        cause: None,
        token: Some("abc"),
        certificate: Some("agent 1\"\n"),
    }
}

fn line(form: Form, entry: &Entry<'_>) -> String {
    let mask = Mask::default();
    Pen::default().write(form, entry, Masks { site: &mask, all: &mask }).to_owned()
}

#[test]
fn json_lines_parse_and_hold_every_field() {
    let line: serde_json::Value = serde_json::from_str(&line(Form::Json, &entry())).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "time": "2026-11-22T05:07:08.123Z", "id": "01J", "client": "203.0.113.7",
            "site": "files.example.com", "class": "login", "method": "POST",
            "path": "/api/auth/login?token=***", "protocol": "HTTP/1.1", "status": 429, "verdict": "deny",
            "guard": "rate", "reason": "rate_limited", "bytes_in": 12, "bytes_out": 34, "duration_ms": 1.234,
            "token": "abc", "certificate": "agent 1%22%0A", "referer": "https://files.example.com/?code=***",
            "agent": "curl/8 %22quoted%22%0A",
        })
    );
}

#[test]
fn the_combined_form_is_apaches() {
    assert_eq!(
        line(Form::Combined, &entry()),
        "203.0.113.7 - - [22/Nov/2026:05:07:08 +0000] \"POST /api/auth/login?token=*** HTTP/1.1\" 429 34 \
         \"https://files.example.com/?code=***\" \"curl/8 %22quoted%22%0A\"\n"
    );
}

#[test]
fn what_readers_of_the_combined_form_stumble_over_is_written_as_near_as_they_take_it() {
    let odd = Entry { client: None, method: "M-SEARCH", referer: Some(b""), agent: None, ..entry() };
    assert_eq!(
        line(Form::Combined, &odd),
        "192.0.0.8 - - [22/Nov/2026:05:07:08 +0000] \"M_SEARCH /api/auth/login?token=*** HTTP/1.1\" 429 34 \"-\" \"-\"\n"
    );
}

#[test]
fn people_read_who_refused_what_and_why() {
    assert_eq!(
        line(Form::Readable, &entry()),
        "05:07:08 203.0.113.7     429 login          POST /api/auth/login?token=***  refused by rate: \
         rate_limited  1 ms\n"
    );
}

#[test]
fn a_second_that_is_kept_is_the_second_that_is_written() {
    let mask = Mask::default();
    let mut pen = Pen::default();
    for wall in
        [1_795_324_028_123, 1_795_324_028_999, 1_795_324_029_000, 0, 951_782_400_000, 4_102_444_799_999]
    {
        for form in [Form::Json, Form::Combined, Form::Readable] {
            let entry = Entry { wall, ..entry() };
            let kept = pen.write(form, &entry, Masks { site: &mask, all: &mask }).to_owned();
            assert_eq!(kept, line(form, &entry));
        }
    }
}

#[test]
fn a_gap_says_how_many_and_when() {
    let mut gap = Gap::default();
    (0..37).for_each(|second| gap.grow(1_795_324_028_123 + second * 1000));
    let written = |form| {
        let mut out = String::new();
        gap.write(form, &mut out);
        out
    };
    let json: serde_json::Value = serde_json::from_str(&written(Form::Json)).unwrap();
    assert_eq!(json["dropped"], 37);
    assert_eq!(
        (&json["since"], &json["time"]),
        (&"2026-11-22T05:07:08.123Z".into(), &"2026-11-22T05:07:44.123Z".into())
    );
    assert_eq!(
        written(Form::Combined),
        "# 37 lines dropped between 2026-11-22T05:07:08.123Z and 2026-11-22T05:07:44.123Z: they could not be \
         written in time\n"
    );
}

proptest! {
    #[test]
    fn whatever_a_stranger_sends_is_one_printable_line(
        target in "\\PC{0,40}", method in ".{0,10}", bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for form in [Form::Json, Form::Combined, Form::Readable] {
            let entry = Entry {
                target: &target, method: &method, agent: Some(&bytes), referer: Some(&bytes),
                location: Some(&bytes), ..entry()
            };
            let line = line(form, &entry);
            let text = line.strip_suffix('\n').unwrap();
            prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text:?}");
            match form {
                Form::Json => prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}"),
                Form::Combined => prop_assert_eq!(text.matches('"').count(), 6),
                Form::Readable => {}
            }
        }
    }

    #[test]
    fn a_line_is_bounded_whatever_a_stranger_sends(length in 0_usize..6000, byte in any::<u8>()) {
        let bytes = vec![byte; length];
        let target = format!("/{}", "a/%s".repeat(length / 4));
        let method = "M".repeat(length);
        let entry = Entry {
            target: &target, method: &method, agent: Some(&bytes), referer: Some(&bytes), location: Some(&bytes),
            ..entry()
        };
        // goaccess takes 4,096 bytes.
        prop_assert!(line(Form::Combined, &entry).len() < 4096);
        prop_assert!(line(Form::Json, &entry).len() < 8192);
    }
}

//! The head of a request to the proxy of a step of a build: no bytes make the reader panic, and what goes out is
//! one request, to the place that it names.
#![no_main]

use aos_build::run::Endpoint;
use aos_build::run::proxy_request::{Request, head_length, parse};
use libfuzzer_sys::fuzz_target;

/// Whether two names mean one place: what is written parses back.
fn assert_canonical(endpoint: &Endpoint) {
    assert_eq!(endpoint.to_string().parse::<Endpoint>().expect("it is canonical"), *endpoint);
}

fuzz_target!(|bytes: &[u8]| {
    let Some(head) = head_length(bytes).and_then(|length| bytes.get(..length)) else { return };
    match parse(head) {
        Err(_) => {}
        Ok(Request::Connect(to)) => assert_canonical(&to),
        Ok(Request::Forward { to, head, body }) => {
            assert_canonical(&to);
            let text = String::from_utf8(head).expect("a head is text");
            let lines = text.strip_suffix("\r\n\r\n").expect("a head has an end").split("\r\n");
            assert!(lines.clone().all(|line| !line.is_empty() && !line.contains(['\r', '\n', '\0'])));
            let values = |name: &'static str| {
                lines.clone().skip(1).filter_map(move |line| {
                    let (own, value) = line.split_once(": ")?;
                    own.eq_ignore_ascii_case(name).then_some(value)
                })
            };
            assert_eq!(values("host").count(), 1);
            assert_eq!(values("connection").collect::<Vec<_>>(), ["close"]);
            assert_eq!(values("transfer-encoding").count(), 0);
            let lengths: Vec<u64> =
                values("content-length").map(|value| value.parse().expect("a length is a number")).collect();
            assert!(lengths.len() <= 1 && lengths.first().copied().unwrap_or(0) == body);
        }
    }
});

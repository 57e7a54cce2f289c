//! The head of a proxy request (RFC 9110 and 9112), read in one canonical way or refused. Who writes it is a step
//! of a build: a stranger.

use std::str::FromStr;

use super::super::endpoint::{Endpoint, Host};

/// Bytes of a head: what common servers take.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header lines of a head.
const HEADERS_MAX: usize = 128;
/// The port of `http`.
const HTTP_PORT: u16 = 80;
/// Headers between one hop and the next (RFC 9110, 7.6.1), and those for proxies.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
];

/// A request that is understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// A tunnel.
    Connect(Endpoint),
    /// One request of `http`.
    Forward {
        /// Where it goes.
        to: Endpoint,
        /// The head as the server gets it.
        head: Vec<u8>,
        /// Bytes of the body.
        body: u64,
    },
}

/// Why a request is not understood: a status line and a sentence, without anything of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Status and reason.
    pub status: &'static str,
    /// One sentence.
    pub why: &'static str,
}

const fn bad<T>(why: &'static str) -> Result<T, Bad> {
    Err(Bad { status: "400 Bad Request", why })
}

/// The length of the head with its empty line, if it is there.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head, which ends with its empty line.
pub fn parse(head: &[u8]) -> Result<Request, Bad> {
    let Ok(text) = str::from_utf8(head) else { return bad("the request has bytes that are not text") };
    let Some(text) = text.strip_suffix("\r\n\r\n") else { return bad("the request has no end") };
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let [method, target, version] = first.split(' ').collect::<Vec<_>>()[..] else {
        return bad("the first line is not METHOD TARGET VERSION");
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return bad("the version is neither HTTP/1.1 nor HTTP/1.0");
    }
    if !is_token(method) || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return bad("the first line has characters that are not allowed");
    }
    let headers: Vec<(&str, &str)> = lines.map(header).collect::<Result<_, _>>()?;
    if headers.len() > HEADERS_MAX {
        return bad("the request has too many headers");
    }
    if method == "CONNECT" {
        return Endpoint::from_str(target)
            .map(Request::Connect)
            .or_else(|_| bad("CONNECT takes HOST:PORT, with a canonical name or address"));
    }
    forward(method, target, &headers)
}

fn is_token(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_good)
}

/// One header line; no blank before the colon, no continuation, no control character.
fn header(line: &str) -> Result<(&str, &str), Bad> {
    let Some((name, value)) = line.split_once(':') else { return bad("a header has no colon") };
    let value = value.trim_matches([' ', '\t']);
    if !is_token(name) || value.chars().any(|letter| letter.is_control() && letter != '\t') {
        return bad("a header has characters that are not allowed");
    }
    Ok((name, value))
}

fn forward(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Request, Bad> {
    let Some(rest) = strip_scheme(target) else {
        return bad("this is a proxy: the target is CONNECT HOST:PORT or starts with http://");
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let Some(to) = authority_endpoint(authority) else {
        return bad("the target's host is not a canonical name or address, without user");
    };
    if path.contains('#') {
        return bad("the target has a fragment");
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let named = |wanted: &'static str| {
        headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    let hosts: Vec<&str> = named("host").collect();
    if hosts.len() > 1 || hosts.iter().any(|host| authority_endpoint(host).as_ref() != Some(&to)) {
        return bad("the Host header names something else than the target");
    }
    if named("transfer-encoding").next().is_some() {
        return Err(Bad { status: "411 Length Required", why: "a body needs a Content-Length" });
    }
    let mut lengths = named("content-length");
    let body = lengths.next().map_or(Some(0), length);
    let (Some(body), None) = (body, lengths.next()) else { return bad("Content-Length is not one number") };
    let listed: Vec<String> = named("connection")
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        if lower != "host" && !HOP_BY_HOP.contains(&lower.as_str()) && !is_dropped(&lower, &listed) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    Ok(Request::Forward { to, head: head.into_bytes(), body })
}

/// Whether a header is for this hop only since `Connection` lists it. The body's length is not the
/// client's to take away.
fn is_dropped(name: &str, listed: &[String]) -> bool {
    name != "content-length" && listed.iter().any(|one| one == name)
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case("http://").then_some(rest)
}

/// Host and port of a URI's authority; the port may be left out.
fn authority_endpoint(authority: &str) -> Option<Endpoint> {
    match Endpoint::from_str(authority) {
        Ok(endpoint) => Some(endpoint),
        Err(_) => Some(Endpoint { host: Host::parse(authority).ok()?, port: HTTP_PORT }),
    }
}

/// Plain digits.
fn length(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Heads near good ones: parts of them in any order, and bytes of any kind in between.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let known = prop::sample::select(vec![
            "GET ",
            "CONNECT ",
            "POST ",
            "http://",
            "a.example",
            ":80",
            "/x?y",
            " HTTP/1.1",
            "\r\n",
            "\n",
            "\r",
            " ",
            "\t",
            "Host: ",
            "Content-Length: ",
            "Connection: ",
            "Transfer-Encoding: chunked",
            "7",
            ":",
            "@",
            "[::1]",
            "#",
            "\0",
        ]);
        let part = prop_oneof![8 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..4)];
        let start = prop_oneof![
            Just("GET http://a.example/ HTTP/1.1\r\n"),
            Just("CONNECT a.example:80 HTTP/1.1\r\n"),
            Just("")
        ];
        (start, prop::collection::vec(part, 0..20))
            .prop_map(|(start, parts)| [start.as_bytes(), &parts.concat(), b"\r\n\r\n"].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Whatever comes in, one head goes out, to the endpoint that its Host header names.
        #[test]
        fn what_goes_out_is_one_request(head in heads()) {
            let Ok(Request::Forward { to, head, .. }) = parse(&head) else { return Ok(()) };
            let text = String::from_utf8(head).unwrap();
            prop_assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4), "{:?}", text);
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "{:?}", text);
            let named = |name: &str| text.lines().filter(|line| line.to_ascii_lowercase().starts_with(name)).count();
            prop_assert_eq!((named("host:"), named("connection:"), named("transfer-encoding:")), (1, 1, 0), "{:?}", text);
            prop_assert!(named("content-length:") <= 1);
            let host = text.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
            prop_assert_eq!(authority_endpoint(host), Some(to));
        }
    }

    fn read(text: &str) -> Result<Request, Bad> {
        parse(text.replace('\n', "\r\n").as_bytes())
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn tunnels() {
        let connect = |target: &str| read(&format!("CONNECT {target} HTTP/1.1\nHost: x\n\n"));
        assert_eq!(connect("pypi.org:443"), Ok(Request::Connect(endpoint("pypi.org:443"))));
        assert_eq!(connect("PYPI.org:443"), Ok(Request::Connect(endpoint("pypi.org:443"))));
        for bad in [
            "pypi.org",
            "pypi.org.:443",
            "u@pypi.org:443",
            "pypi.org:443/",
            "http://pypi.org:443",
            ":443",
            "pypi.org:0",
            "pypi.org:99999",
            "2130706433:443",
            "0x7f000001:443",
            "[::1:443",
            "pypi.org\0:443",
        ] {
            assert!(connect(bad).is_err(), "{bad:?}");
        }
    }

    fn forwarded(text: &str) -> (String, String, u64) {
        match read(text).unwrap() {
            Request::Forward { to, head, body } => {
                (to.to_string(), String::from_utf8(head).unwrap().replace("\r\n", "\n"), body)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_written_again() {
        assert_eq!(
            forwarded(
                "GET http://deb.debian.org/debian/x?y HTTP/1.1\nHost: deb.debian.org\nAccept: */*\nProxy-Connection: keep-alive\nConnection: X-Own, Keep-Alive\nX-Own: 1\n\n"
            ),
            (
                "deb.debian.org:80".into(),
                "GET /debian/x?y HTTP/1.1\nHost: deb.debian.org\nConnection: close\nAccept: */*\n\n".into(),
                0
            )
        );
        let (to, head, body) = forwarded(
            "POST HTTP://a.example:8080 HTTP/1.0\nContent-Length: 12\nConnection: content-length\n\n",
        );
        assert_eq!((to.as_str(), body), ("a.example:8080", 12));
        assert_eq!(head, "POST / HTTP/1.1\nHost: a.example:8080\nConnection: close\nContent-Length: 12\n\n");
        assert_eq!(
            forwarded("GET http://a.example?q HTTP/1.1\n\n").1.lines().next(),
            Some("GET /?q HTTP/1.1")
        );
    }

    #[test]
    fn what_can_be_read_two_ways_is_refused() {
        for bad in [
            "GET / HTTP/1.1\nHost: a.example\n\n",
            "GET https://a.example/ HTTP/1.1\n\n",
            "GET ftp://a.example/ HTTP/1.1\n\n",
            "GET http://u:p@a.example/ HTTP/1.1\n\n",
            "GET http://a.example./ HTTP/1.1\n\n",
            "GET http://a.example/#f HTTP/1.1\n\n",
            "GET http:///x HTTP/1.1\n\n",
            "GET http://127.1/ HTTP/1.1\n\n",
            "GET http://a.example/ HTTP/2\n\n",
            "GET  http://a.example/ HTTP/1.1\n\n",
            "GET http://a.example/ x HTTP/1.1\n\n",
            "G(T http://a.example/ HTTP/1.1\n\n",
            "GET http://a.example/ HTTP/1.1\nHost: b.example\n\n",
            "GET http://a.example/ HTTP/1.1\nHost: a.example\nHost: a.example\n\n",
            "GET http://a.example/ HTTP/1.1\nHost: a.example:81\n\n",
            "GET http://a.example/ HTTP/1.1\nHost : a.example\n\n",
            "GET http://a.example/ HTTP/1.1\nX: 1\n Y: 2\n\n",
            "GET http://a.example/ HTTP/1.1\nX: a\0b\n\n",
            "GET http://a.example/ HTTP/1.1\nX: a\rY: b\n\n",
            "GET http://a.example/ HTTP/1.1\nno colon\n\n",
            "POST http://a.example/ HTTP/1.1\nContent-Length: 1\nContent-Length: 1\n\n",
            "POST http://a.example/ HTTP/1.1\nContent-Length: +1\n\n",
            "POST http://a.example/ HTTP/1.1\nContent-Length: 1, 1\n\n",
            "POST http://a.example/ HTTP/1.1\nTransfer-Encoding: chunked\n\n",
            "POST http://a.example/ HTTP/1.1\nTransfer-Encoding: x\nContent-Length: 3\n\n",
            "\n\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(parse(b"GET http://a.example/ HTTP/1.1\nHost: a.example\n\n").is_err());
        assert!(parse(b"GET http://a.example/\xff HTTP/1.1\r\n\r\n").is_err());
        assert!(
            read(&format!("GET http://a.example/ HTTP/1.1\n{}\n", "X: 1\n".repeat(HEADERS_MAX + 1))).is_err()
        );
    }
}

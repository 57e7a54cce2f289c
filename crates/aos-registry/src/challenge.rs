//! What a registry asks for with 401: `WWW-Authenticate` (RFC 9110, section 11.6.1).

use http_auth::ChallengeParser;

/// A login that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request (RFC 7617).
    Basic,
    /// A token of a token service
    /// (<https://distribution.github.io/distribution/spec/auth/token/>).
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The best of what is offered: a token rather than a password. What cannot be parsed is not
    /// offered.
    pub(crate) fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            for challenge in ChallengeParser::new(header).map_while(Result::ok) {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    if let Some(realm) = parameter("realm") {
                        return Some(Self::Bearer { realm, service: parameter("service") });
                    }
                } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (headers, expected) in [
            (
                vec![
                    r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a,b:pull""#,
                ],
                bearer("https://auth.example/token", Some("reg")),
            ),
            (vec![r#"Basic realm="r", bearer REALM="x\"y""#], bearer("x\"y", None)),
            (vec!["Basic realm=\"r\""], Some(Challenge::Basic)),
            (vec!["Negotiate", "basic realm=r"], Some(Challenge::Basic)),
            (vec!["Bearer service=\"x\""], None),
            (vec!["Digest realm=\"r\", nonce=\"n\""], None),
            (vec!["\"\"\"", ""], None),
        ] {
            assert_eq!(Challenge::of(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_parsed_without_a_panic(text in "[ -~\\PC]{0,200}", prefix in "(Bearer |Basic |)") {
            Challenge::of([format!("{prefix}{text}").as_str()].into_iter());
        }
    }
}

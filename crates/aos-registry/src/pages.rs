//! Lists that come in pages: `Link: <...>; rel="next"` (RFC 8288), as the distribution
//! specification uses it.

use crate::bounds::{PAGE_BODY_MAX, PAGES_MAX};
use crate::error::RequestError;
use crate::origin::Origin;
use crate::session::Session;
use crate::transport::{Answer, Call};
use reqwest::header::{ACCEPT, HeaderValue, LINK};
use reqwest::{Method, StatusCode, Url};

/// The pages of a list, at most [`PAGES_MAX`].
pub(crate) struct Pages<'a> {
    session: &'a Session,
    what: &'static str,
    next: Option<Url>,
    seen: usize,
}

impl Session {
    pub(crate) fn pages(&self, first: Url, what: &'static str) -> Pages<'_> {
        Pages { session: self, what, next: Some(first), seen: 0 }
    }
}

impl Pages<'_> {
    /// The next page's body.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, RequestError> {
        let Some(url) = self.next.take() else { return Ok(None) };
        if self.seen == PAGES_MAX {
            return Err(self.session.wrong(self.what, format!("it has more than {PAGES_MAX} pages")));
        }
        self.seen += 1;
        let call = Call::new(Method::GET, url, self.what)
            .header(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"));
        let answer = self.session.send(&call).await?;
        if answer.status() != StatusCode::OK {
            return Err(answer.fail().await);
        }
        self.next = self.following(&answer)?;
        answer.bytes(PAGE_BODY_MAX).await.map(Some)
    }

    /// The next page, which is of the same registry.
    fn following(&self, answer: &Answer) -> Result<Option<Url>, RequestError> {
        let Some(target) = answer.headers(&LINK).find_map(next_link) else { return Ok(None) };
        let url = answer
            .join(target)
            .ok_or_else(|| self.session.wrong(self.what, "its next page has no address"))?;
        if Origin::of(&url).as_ref() != Some(self.session.home()) {
            return Err(self.session.wrong(self.what, "its next page is at another host"));
        }
        Ok(Some(url))
    }
}

/// The target of a link to the next page.
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = |parameter: &str| matches!(parameter.trim(), "rel=\"next\"" | "rel=next");
        parameters.split(';').any(next).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        for (header, expected) in [
            ("</v2/a/tags/list?n=2&last=b>; rel=\"next\"", Some("/v2/a/tags/list?n=2&last=b")),
            ("<x>; rel=prev, <y>; title=z; rel=next", Some("y")),
            ("<x>; rel=\"prev\"", None),
            ("x; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), expected, "{header}");
        }
    }
}

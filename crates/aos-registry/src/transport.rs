//! One request: connections, redirects, time-outs and bounded bodies.
//!
//! The rules of where a request may go are here and nowhere else ([`check_target`]):
//! - plain HTTP only to loopback and named hosts; never from HTTPS to HTTP;
//! - at most [`REDIRECTS_MAX`] redirects;
//! - `Authorization` only to the origin that it was made for;
//! - a server with a public address never makes us talk to an address that is not public, by name
//!   or by number: names are checked when they are resolved, at the moment of connecting.
//!
//! HTTP/1.1 only: parallel blobs get connections of their own, and none waits for another's
//! flow-control window. No proxy, no cookie, no decompression.

mod answer;
mod stall;

pub(crate) use answer::{Answer, Pieces};

use crate::address::is_public;
use crate::bounds::{FINISH_IDLES, HOSTS_MAX, REDIRECTS_MAX, URL_MAX};
use crate::error::RequestError;
use crate::options::Options;
use crate::origin::Origin;
use crate::shown::shown;
use crate::tls;
use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Method, Url};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// The name by which people know Docker Hub, and the host of its API.
const HUB: &str = "docker.io";
const HUB_API: &str = "registry-1.docker.io";

/// Which addresses a request may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// All: the user named the host, or somebody whose address is not public.
    Any,
    /// Public ones: a server with a public address named the host.
    Public,
}

/// What a request carries. It can be made again, for a retry or a redirect.
#[derive(Clone)]
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    /// A stream of so many bytes; the counter says how many have gone.
    Stream(Arc<dyn Fn() -> reqwest::Body + Send + Sync>, Arc<AtomicU64>),
}

/// Whose redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// All that the rules allow.
    Follow,
    /// Those within the origin: the body is a secret.
    Within,
}

/// A request.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) reach: Reach,
    pub(crate) redirects: Redirects,
    /// Idle time-outs that the answer may take.
    pub(crate) idles: u32,
    /// What is asked for, in messages.
    pub(crate) what: String,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, what: impl Into<String>) -> Self {
        let (headers, body, redirects) = (HeaderMap::new(), Body::Empty, Redirects::Follow);
        Self { method, url, headers, body, reach: Reach::Any, redirects, idles: 1, what: what.into() }
    }

    pub(crate) fn header(mut self, name: reqwest::header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    pub(crate) fn reach(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// The answer comes after work that grows with the blob.
    pub(crate) fn patient(self) -> Self {
        Self { idles: FINISH_IDLES, ..self }
    }

    /// The body is a secret.
    pub(crate) fn secret(self) -> Self {
        Self { redirects: Redirects::Within, ..self }
    }
}

/// Connections to hosts. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) options: Arc<Options>,
    clients: Arc<Mutex<BTreeMap<(Origin, Reach), reqwest::Client>>>,
}

impl Transport {
    pub(crate) fn new(options: Options) -> Self {
        Self { options: Arc::new(options), clients: Arc::default() }
    }

    /// How a registry is spoken to, by its name: plain HTTP to loopback and named hosts that have
    /// no certificates of their own, else TLS.
    pub(crate) fn base(&self, registry: &str) -> Option<Url> {
        let registry = if registry == HUB { HUB_API } else { registry };
        let plain = Url::parse(&format!("http://{registry}/")).ok()?;
        let origin = Origin::of(&plain)?;
        let secured = tls::directory(&self.options, &origin).is_some();
        if self.may_be_plain(&origin) && !secured {
            return Some(plain);
        }
        Url::parse(&format!("https://{registry}/")).ok()
    }

    fn may_be_plain(&self, origin: &Origin) -> bool {
        origin.is_loopback() || self.options.plain_http.names(&origin.host, &origin.authority())
    }

    /// Sends a request and follows its redirects. `authorization` goes to `home` only.
    pub(crate) async fn send(
        &self,
        call: &Call,
        home: &Origin,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RequestError> {
        let (mut url, mut reach, mut from) = (call.url.clone(), call.reach, home.clone());
        for _ in 0..=REDIRECTS_MAX {
            let origin = self.check_target(&url, &from, reach, &call.what)?;
            let at_home = origin == *home;
            if call.redirects == Redirects::Within && !at_home {
                let (host, what, target) = (from.authority(), call.what.clone(), shown(url.as_str()));
                let reason = "a secret must not be sent on to another host";
                return Err(RequestError::Target { host, what, target, reason });
            }
            let response =
                self.send_once(call, &url, &origin, reach, authorization.filter(|_| at_home)).await?;
            if response.remote_addr().is_some_and(|peer| is_public(peer.ip())) {
                reach = Reach::Public;
            }
            let answer = Answer {
                response,
                origin,
                at_home,
                reach,
                what: call.what.clone(),
                idle: self.options.timeouts.idle,
            };
            if !follows(&call.method, answer.status().as_u16()) {
                return Ok(answer);
            }
            url = answer.url(LOCATION)?;
            from = answer.origin;
        }
        Err(RequestError::Redirects { host: home.authority(), what: call.what.clone() })
    }

    /// Says whether a place that `from` named may be used; its origin.
    pub(crate) fn check_target(
        &self,
        url: &Url,
        from: &Origin,
        reach: Reach,
        what: &str,
    ) -> Result<Origin, RequestError> {
        let refuse = |reason| RequestError::Target {
            host: from.authority(),
            what: what.to_owned(),
            target: shown(url.as_str()),
            reason,
        };
        if url.as_str().len() > URL_MAX {
            return Err(refuse("it is too long"));
        }
        let origin = Origin::of(url).ok_or_else(|| refuse("it is not an HTTP address without a user"))?;
        if from.https && !origin.https {
            return Err(refuse("it leaves TLS"));
        }
        if !origin.https && !self.may_be_plain(&origin) {
            return Err(refuse("plain HTTP is spoken to this machine and to named hosts only"));
        }
        let inner = origin.address().map_or_else(|| origin.is_loopback(), |address| !is_public(address));
        if reach == Reach::Public && inner {
            return Err(refuse("a public server must not send us to an address that is not public"));
        }
        Ok(origin)
    }

    async fn send_once(
        &self,
        call: &Call,
        url: &Url,
        origin: &Origin,
        reach: Reach,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, RequestError> {
        let client = self.client(origin, reach)?;
        let mut request = client.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let mut moved = None;
        match &call.body {
            Body::Empty => {}
            Body::Bytes(bytes) => request = request.body(bytes.clone()),
            Body::Stream(make, counter) => {
                counter.store(0, std::sync::atomic::Ordering::Relaxed);
                moved = Some(counter);
                request = request.body(make());
            }
        }
        let idle = self.options.timeouts.idle * call.idles;
        let (host, what) = (origin.authority(), call.what.clone());
        match stall::watch(request.send(), moved, idle).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(source)) if source.is_connect() => {
                Err(RequestError::Connect { host, source: source.without_url() })
            }
            Some(Err(source)) => Err(RequestError::Broken { host, what, source: source.without_url() }),
            None => Err(RequestError::Stalled { host, what, idle }),
        }
    }

    /// The connections to an origin. Nobody can make us keep more than [`HOSTS_MAX`] of them.
    fn client(&self, origin: &Origin, reach: Reach) -> Result<reqwest::Client, RequestError> {
        let key = (origin.clone(), reach);
        if let Some(client) = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(client.clone());
        }
        let timeouts = self.options.timeouts;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::settings(&self.options, origin)?)
            .user_agent(concat!("aos/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(timeouts.connect)
            .pool_max_idle_per_host(self.options.parallel);
        if reach == Reach::Public {
            builder = builder.dns_resolver(PublicOnly);
        }
        let client =
            builder.build().map_err(|source| RequestError::Setup { host: origin.authority(), source })?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= HOSTS_MAX {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// Which statuses send this request elsewhere. 303 would turn an upload into a download.
fn follows(method: &Method, status: u16) -> bool {
    match status {
        301..=303 => *method == Method::GET || *method == Method::HEAD,
        307 | 308 => true,
        _ => false,
    }
}

/// Resolves names to their public addresses.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                let message =
                    format!("`{}` has no public address, and a public server names it", shown(name.as_str()));
                return Err(std::io::Error::other(message).into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::PlainHttp;

    fn transport() -> Transport {
        let plain_http = PlainHttp::also(["inner.example", "one.example:5000"]);
        Transport::new(Options { plain_http, certificates: Vec::new(), ..Options::default() })
    }

    #[test]
    fn plain_http_is_for_loopback_and_named_hosts() {
        for (registry, expected) in [
            ("reg.example", "https://reg.example/"),
            ("reg.example:80", "https://reg.example:80/"),
            ("docker.io", "https://registry-1.docker.io/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.1", "http://127.0.0.1/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("localhost.example", "https://localhost.example/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/"),
            ("inner.example:81", "http://inner.example:81/"),
            ("one.example:5000", "http://one.example:5000/"),
            ("one.example:5001", "https://one.example:5001/"),
        ] {
            assert_eq!(transport().base(registry).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn a_public_server_does_not_send_us_inside() {
        let from = Origin::of(&Url::parse("https://reg.example/").unwrap()).unwrap();
        let check = |target: &str, reach| {
            let url = Url::parse(target).unwrap();
            transport().check_target(&url, &from, reach, "a blob").map_err(|error| error.to_string())
        };
        for target in [
            "https://10.0.0.1/",
            "https://169.254.169.254/",
            "https://[::1]/",
            "https://localhost/",
            "https://[fd00::1]/",
        ] {
            let refused = check(target, Reach::Public).unwrap_err();
            assert!(refused.contains("not public"), "{target}: {refused}");
            check(target, Reach::Any).unwrap();
        }
        check("https://1.1.1.1/", Reach::Public).unwrap();
        check("https://cdn.example/", Reach::Public).unwrap();
    }

    #[tokio::test]
    async fn a_name_is_checked_when_it_is_resolved() {
        let resolved = PublicOnly.resolve("localhost".parse().unwrap()).await;
        let refused = resolved.err().unwrap().to_string();
        assert!(refused.contains("`localhost` has no public address"), "{refused}");
        // And the client of such a request resolves names in this way.
        let transport = transport();
        let url = Url::parse("https://localhost:1/").unwrap();
        let origin = Origin::of(&url).unwrap();
        let call = Call::new(Method::GET, url.clone(), "a blob");
        let error = transport.send_once(&call, &url, &origin, Reach::Public, None).await.unwrap_err();
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        let mut text = String::new();
        while let Some(cause) = source {
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        assert!(text.contains("no public address"), "{text}");
    }
}

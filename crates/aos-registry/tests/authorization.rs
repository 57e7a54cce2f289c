//! Credentials: who gets them, who does not, and for how long they are offered. Redirects: where
//! they may lead.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_registry::{
    Client, Credential, DockerConfig, Options, Problem, PullError, RequestError, Secret, Silent,
};
use common::{Reply, Request, Server, Shelf, TestStore, chain, client, full, ok, options};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Base64 of `user:secret`.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

fn shelf() -> Shelf {
    let source = TestStore::new();
    let package = source.package(3, &[100_000, 2000]);
    Shelf::with(&source.repository, &package, "1.0.0")
}

fn with(server: &Server, credential: Credential) -> Client {
    let mut credentials = DockerConfig::default();
    credentials.insert(&server.address, credential);
    Client::new(Options { credentials, ..options() })
}

fn user() -> Credential {
    Credential::Basic { user: "user".to_owned(), password: Secret::new("secret") }
}

async fn pull(server: &Server, client: &Client) -> Result<(), String> {
    let store = TestStore::new();
    let pulled = client.pull(&server.reference("team/web:1.0.0"), &store.lease, &Silent).await;
    pulled.map(drop).map_err(|error| chain(&error))
}

fn challenge(text: &str) -> Reply {
    full(401, &[("www-authenticate", text)], r#"{"errors":[{"message":"who are you"}]}"#)
}

/// A registry that wants this value of `Authorization`.
fn guarded(shelf: &Shelf, wanted: &str, offer: &str) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let (shelf, wanted, offer) = (shelf.clone(), wanted.to_owned(), offer.to_owned());
    move |request| {
        if request.header("authorization") == Some(&wanted) {
            shelf.answer(request)
        } else {
            challenge(&offer)
        }
    }
}

#[tokio::test]
async fn basic_credentials() {
    let server = Server::start(guarded(&shelf(), BASIC, "Basic realm=\"r\""));
    pull(&server, &with(&server, user())).await.unwrap();
    // Not before they are asked for, and from then on with each request.
    let log = server.log();
    assert_eq!(log[0].header("authorization"), None);
    assert!(log[1..].iter().all(|request| request.header("authorization") == Some(BASIC)));
    let text = pull(&server, &client()).await.unwrap_err();
    assert!(text.contains("there are no credentials") && text.contains("docker login"), "{text}");
    let wrong = Credential::Basic { user: "user".to_owned(), password: Secret::new("wrong") };
    let asked = server.log().len();
    let text = pull(&server, &with(&server, wrong)).await.unwrap_err();
    assert!(text.contains("not accepted") && !text.contains("wrong"), "{text}");
    assert_eq!(server.log().len() - asked, 2);
}

#[tokio::test]
async fn helpers_are_named_and_not_run() {
    let server = Server::start(guarded(&shelf(), BASIC, "Basic realm=\"r\""));
    let text = pull(&server, &with(&server, Credential::Helper("desktop".to_owned()))).await.unwrap_err();
    assert!(text.contains("docker-credential-desktop, which is not executed"), "{text}");
    let config = br#"{"credsStore": "secretservice"}"#;
    let credentials = DockerConfig::parse(config, Path::new("config.json")).unwrap();
    let text = pull(&server, &Client::new(Options { credentials, ..options() })).await.unwrap_err();
    assert!(text.contains("docker-credential-secretservice"), "{text}");
    // A registry that does not ask is not asked about.
    let shelf = shelf();
    let open = Server::start(move |request| shelf.answer(request));
    pull(&open, &with(&open, Credential::Helper("desktop".to_owned()))).await.unwrap();
}

/// A token service: what it was asked, and the tokens it gives out, numbered.
fn token_service(accept: &'static str) -> (Server, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let server = Server::start(move |request| {
        let by_post = String::from_utf8_lossy(&request.body).contains(accept);
        if request.header("authorization").unwrap_or("anonymous") != accept && !by_post {
            return full(401, &[], "");
        }
        let number = count.fetch_add(1, Ordering::SeqCst);
        ok(format!(r#"{{"access_token":"t{number}","expires_in":60}}"#))
    });
    (server, given)
}

#[tokio::test]
async fn tokens_of_a_service() {
    let (service, given) = token_service(BASIC);
    let offer = format!("Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"x\"", service.address);
    let server = Server::start(guarded(&shelf(), "Bearer t0", &offer));
    pull(&server, &with(&server, user())).await.unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 1, "one token for all requests");
    let asked = &service.log()[0];
    assert_eq!((asked.method.as_str(), asked.header("authorization")), ("GET", Some(BASIC)));
    assert_eq!(asked.target, "/token?service=reg&scope=repository%3Ateam%2Fweb%3Apull");
    assert!(server.log().iter().all(|request| request.header("authorization") != Some(BASIC)));
    let text = pull(&server, &client()).await.unwrap_err();
    assert!(text.contains("there are no credentials"), "{text}");
}

#[tokio::test]
async fn anonymous_tokens() {
    let (service, _) = token_service("anonymous");
    let offer = format!("Bearer realm=\"http://{}/token\"", service.address);
    let server = Server::start(guarded(&shelf(), "Bearer t0", &offer));
    pull(&server, &client()).await.unwrap();
}

#[tokio::test]
async fn refresh_tokens_are_exchanged() {
    let (service, _) = token_service("refresh_token=a%2Fb");
    let offer = format!("Bearer realm=\"http://{}/token?x=y\",service=\"reg\"", service.address);
    let server = Server::start(guarded(&shelf(), "Bearer t0", &offer));
    pull(&server, &with(&server, Credential::Identity(Secret::new("a/b")))).await.unwrap();
    let asked = &service.log()[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token?x=y"));
    let form = String::from_utf8_lossy(&asked.body).into_owned();
    assert!(
        form.contains(
            "grant_type=refresh_token&service=reg&client_id=aos&scope=repository%3Ateam%2Fweb%3Apull"
        ),
        "{form}"
    );
    // The form is a secret: it is not sent on to another host.
    let elsewhere = Server::start(|_| ok(r#"{"token":"t"}"#));
    let away = format!("http://{}/", elsewhere.address);
    let service = Server::start(move |_| full(307, &[("location", &away)], ""));
    let offer = format!("Bearer realm=\"http://{}/token\"", service.address);
    let server = Server::start(guarded(&shelf(), "Bearer t", &offer));
    let text = pull(&server, &with(&server, Credential::Identity(Secret::new("a/b")))).await.unwrap_err();
    assert!(text.contains("must not be sent on"), "{text}");
    assert!(elsewhere.log().is_empty());
}

#[tokio::test]
async fn registry_tokens_are_sent_as_they_are() {
    let server = Server::start(guarded(&shelf(), "Bearer mine", "Bearer realm=\"http://localhost:1/\""));
    pull(&server, &with(&server, Credential::Token(Secret::new("mine")))).await.unwrap();
}

#[tokio::test]
async fn a_token_that_ends_is_renewed() {
    let (service, given) = token_service("anonymous");
    let offer = format!("Bearer realm=\"http://{}/token\"", service.address);
    let (shelf, valid) = (shelf(), given.clone());
    let uses = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let newest = format!("Bearer t{}", valid.load(Ordering::SeqCst).wrapping_sub(1));
        let ended = uses.fetch_add(1, Ordering::SeqCst) == 2;
        if request.header("authorization") != Some(&newest) || ended {
            challenge(&offer)
        } else {
            shelf.answer(request)
        }
    });
    pull(&server, &client()).await.unwrap();
    assert!(given.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn a_registry_that_always_says_401_is_believed() {
    let (service, given) = token_service("anonymous");
    let offer = format!("Bearer realm=\"http://{}/token\"", service.address);
    let server = Server::start(move |_| challenge(&offer));
    let text = pull(&server, &client()).await.unwrap_err();
    assert!(text.contains("after 2 rounds"), "{text}");
    assert_eq!((server.log().len(), given.load(Ordering::SeqCst)), (3, 2));
    for (offer, expected) in
        [("Negotiate", "no kind of login"), ("", "no kind of login"), ("Bearer x=y", "no kind of login")]
    {
        let server = Server::start(move |_| challenge(offer));
        let text = pull(&server, &with(&server, user())).await.unwrap_err();
        assert!(text.contains(expected), "{text}");
        assert_eq!(server.log().len(), 1);
    }
}

#[tokio::test]
async fn token_services_are_checked() {
    for (realm, expected) in [
        ("http://token.example/", "plain HTTP"),
        ("http://user:pw@localhost/", "without a user"),
        ("ftp://localhost/", "not an HTTP address"),
        ("http://127.0.0.1:1/", "by TLS only"),
    ] {
        let server = Server::start(move |_| challenge(&format!("Bearer realm=\"{realm}\"")));
        let store = TestStore::new();
        let client = with(&server, user());
        let error = client.pull(&server.reference("web:1.0.0"), &store.lease, &Silent).await.unwrap_err();
        let PullError::Request(RequestError::Unauthorized { problem: Problem::Realm(_), .. }) = &error else {
            panic!("{error}");
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
    for answer in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":1}"#] {
        let service = Server::start(move |_| ok(answer));
        let offer = format!("Bearer realm=\"http://{}/token\"", service.address);
        let server = Server::start(move |_| challenge(&offer));
        pull(&server, &with(&server, user())).await.unwrap_err();
        assert_eq!(server.log().len(), 1, "{answer}");
    }
    let service = Server::start(|_| ok(format!(r#"{{"token":"{}"}}"#, "x".repeat(100_000))));
    let offer = format!("Bearer realm=\"http://{}/token\"", service.address);
    let server = Server::start(move |_| challenge(&offer));
    assert!(pull(&server, &client()).await.unwrap_err().contains("65536 bytes"));
}

/// A registry whose blobs are at another host.
fn registry_with_store(
    shelf: &Shelf,
    wanted: Option<&str>,
    target: &str,
) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let (shelf, target) = (shelf.clone(), target.to_owned());
    let wanted = wanted.map(str::to_owned);
    move |request| {
        if wanted.is_some() && request.header("authorization").map(str::to_owned) != wanted {
            return challenge("Basic realm=r");
        }
        match request.path().split_once("/blobs/") {
            Some((_, digest)) => full(307, &[("location", &format!("{target}/blobs/{digest}"))], ""),
            None => shelf.answer(request),
        }
    }
}

#[tokio::test]
async fn blobs_of_another_host_come_without_credentials() {
    let shelf = shelf();
    let store = Server::start({
        let shelf = shelf.clone();
        move |request| shelf.answer(request)
    });
    let server =
        Server::start(registry_with_store(&shelf, Some(BASIC), &format!("http://{}", store.address)));
    pull(&server, &with(&server, user())).await.unwrap();
    assert_eq!(store.log().len(), 3);
    assert!(store.log().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_challenge_of_another_host_is_not_answered() {
    let shelf = shelf();
    let store = Server::start(|_| challenge("Basic realm=r"));
    let server =
        Server::start(registry_with_store(&shelf, Some(BASIC), &format!("http://{}", store.address)));
    let text = pull(&server, &with(&server, user())).await.unwrap_err();
    assert!(text.contains("401"), "{text}");
    assert!(store.log().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn redirects_that_are_refused() {
    let shelf = shelf();
    for (target, expected) in [
        ("http://10.0.0.1", "plain HTTP"),
        ("http://registry.example", "plain HTTP"),
        ("file:///etc/passwd?", "not an HTTP address"),
        ("http://a:b@localhost", "without a user"),
        ("http://[", "not an address"),
    ] {
        let server = Server::start(registry_with_store(&shelf, None, target));
        let text = pull(&server, &client()).await.unwrap_err();
        assert!(text.contains(expected), "{target}: {text}");
    }
    let long = format!("http://localhost/{}", "x".repeat(9000));
    let server = Server::start(registry_with_store(&shelf, None, &long));
    assert!(pull(&server, &client()).await.unwrap_err().contains("not an address"));
    let server = Server::start(|_| full(307, &[], ""));
    assert!(pull(&server, &client()).await.unwrap_err().contains("has no location"));
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|request| full(302, &[("location", &format!("{}x", request.target))], ""));
    let text = pull(&server, &client()).await.unwrap_err();
    assert!(text.contains("more than 5 times"), "{text}");
    assert_eq!(server.log().len(), 6);
    // Five are followed.
    let shelf = shelf();
    let server = Server::start(move |request| {
        let hops = request.target.matches('~').count();
        if hops < 5 {
            return full(308, &[("location", &format!("{}?{}", request.path(), "~".repeat(hops + 1)))], "");
        }
        shelf.answer(request)
    });
    pull(&server, &client()).await.unwrap();
}

/// Certificates for a server, in a directory as docker has it.
fn certificates(server: &Server, pem: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(&server.address);
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("ca.crt"), pem).unwrap();
    directory
}

fn trusting(directory: &tempfile::TempDir) -> Client {
    Client::new(Options { certificates: vec![directory.path().to_owned()], ..options() })
}

#[tokio::test]
async fn tls_with_an_authority_of_its_own() {
    let shelf = shelf();
    let (server, pem) = Server::tls(move |request| shelf.answer(request));
    let directory = certificates(&server, &pem);
    pull(&server, &trusting(&directory)).await.unwrap();
    // Another authority, and a name that is not in the certificate.
    let (_, other) = Server::tls(|_| not_reached());
    std::fs::write(directory.path().join(&server.address).join("ca.crt"), other).unwrap();
    let text = pull(&server, &trusting(&directory)).await.unwrap_err();
    assert!(text.contains("certificate"), "{text}");
    let numbered = server.address.replace("localhost", "127.0.0.1");
    std::fs::create_dir(directory.path().join(&numbered)).unwrap();
    std::fs::write(directory.path().join(&numbered).join("ca.crt"), &pem).unwrap();
    let reference = format!("{numbered}/web:1.0.0").parse().unwrap();
    let text = chain(&trusting(&directory).resolve(&reference).await.unwrap_err());
    assert!(text.contains("not valid for name"), "{text}");
    // What is no certificate is an error, not a smaller set of authorities.
    std::fs::write(directory.path().join(&numbered).join("ca.crt"), "nonsense").unwrap();
    let text = chain(&trusting(&directory).resolve(&reference).await.unwrap_err());
    assert!(text.contains("ca.crt` is not a PEM file"), "{text}");
}

fn not_reached() -> Reply {
    panic!("nobody asks this server")
}

#[tokio::test]
async fn tls_is_not_left() {
    let shelf = shelf();
    let plain = Server::start({
        let shelf = shelf.clone();
        move |request| shelf.answer(request)
    });
    let (server, pem) = Server::tls(registry_with_store(&shelf, None, &format!("http://{}", plain.address)));
    let directory = certificates(&server, &pem);
    let text = pull(&server, &trusting(&directory)).await.unwrap_err();
    assert!(text.contains("leaves TLS"), "{text}");
    assert!(plain.log().is_empty());
    // The token service of a registry with TLS has TLS.
    let (service, _) = token_service("anonymous");
    let offer = format!("Bearer realm=\"http://{}/token\"", service.address);
    let (server, pem) = Server::tls(move |_| challenge(&offer));
    let directory = certificates(&server, &pem);
    let text = pull(&server, &trusting(&directory)).await.unwrap_err();
    assert!(text.contains("leaves TLS"), "{text}");
    assert!(service.log().is_empty());
    // From HTTP to TLS is fine.
    let (store, pem) = Server::tls({
        let shelf = shelf.clone();
        move |request| shelf.answer(request)
    });
    let directory = certificates(&store, &pem);
    let server = Server::start(registry_with_store(&shelf, None, &format!("https://{}", store.address)));
    pull(&server, &trusting(&directory)).await.unwrap();
}

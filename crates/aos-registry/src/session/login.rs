//! Answering a challenge: Basic, or a token of a token service.

use super::{Access, Session, named};
use crate::bounds::{SECRET_MAX, TOKEN_BODY_MAX};
use crate::challenge::Challenge;
use crate::credentials::{Credential, Secret};
use crate::error::{Problem, RequestError};
use crate::origin::Origin;
use crate::transport::{Body, Call, Reach};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The name under which token services know us (<https://distribution.github.io/distribution/spec/auth/oauth/>).
const CLIENT_ID: &str = "aos";

/// What a token service answers.
#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    access_token: Option<Secret>,
}

impl Session {
    /// The value of `Authorization` that answers a challenge.
    pub(super) async fn login(
        &self,
        call: &Call,
        challenge: &Challenge,
        reach: Reach,
    ) -> Result<HeaderValue, RequestError> {
        let options = &self.inner.transport.options;
        let credential = options.credentials.of(&self.inner.registry, self.inner.repository.as_str());
        let missing = || match options.credentials.store() {
            Some(store) => Problem::Helper(store.to_owned()),
            None => Problem::None,
        };
        let problem = match (challenge, credential) {
            (_, Some(Credential::Helper(helper))) => Problem::Helper(helper.clone()),
            (_, Some(Credential::Token(token))) => return self.header(call, "Bearer", token.expose()),
            (Challenge::Basic, Some(Credential::Basic { user, password })) => {
                return self.header(call, "Basic", &encoded(user, password));
            }
            (Challenge::Basic, Some(Credential::Identity(_))) => Problem::Refused,
            (Challenge::Basic, None) => missing(),
            (Challenge::Bearer { realm, service }, credential) => {
                return self.token(call, (realm, service.as_deref()), credential, reach).await.map_err(
                    |error| {
                        // Without credentials, a refusal means that they are needed.
                        match error {
                            RequestError::Unauthorized { host, what, problem: Problem::Refused }
                                if credential.is_none() =>
                            {
                                RequestError::Unauthorized { host, what, problem: missing() }
                            }
                            other => other,
                        }
                    },
                );
            }
        };
        Err(self.unauthorized(call, problem))
    }

    /// Asks a token service for a token.
    async fn token(
        &self,
        call: &Call,
        (realm, service): (&str, Option<&str>),
        credential: Option<&Credential>,
        reach: Reach,
    ) -> Result<HeaderValue, RequestError> {
        let (url, origin) = self.realm(call, realm, reach)?;
        let scopes = self.scopes();
        let (request, authorization) = match credential {
            Some(Credential::Identity(token)) => (exchange(url, service, &scopes, token), None),
            Some(Credential::Basic { user, password }) => {
                let value = self.header(call, "Basic", &encoded(user, password))?;
                (ask(url, service, &scopes), Some(value))
            }
            _ => (ask(url, service, &scopes), None),
        };
        let transport = &self.inner.transport;
        let answer = transport.send(&request.reach(reach), &origin, authorization.as_ref()).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(self.unauthorized(call, Problem::Refused));
            }
            _ => return Err(answer.fail().await),
        }
        let wrong = answer.wrong("it is not a token".to_owned());
        let body = Zeroizing::new(answer.bytes(TOKEN_BODY_MAX).await?);
        let Ok(Tokens { token, access_token }) = serde_json::from_slice(&body) else { return Err(wrong) };
        let given = |secret: &Secret| (1..=SECRET_MAX).contains(&secret.expose().len());
        match token.filter(given).or_else(|| access_token.filter(given)) {
            Some(token) => self.header(call, "Bearer", token.expose()),
            None => Err(wrong),
        }
    }

    /// Says whether a token service may be asked.
    fn realm(&self, call: &Call, realm: &str, reach: Reach) -> Result<(Url, Origin), RequestError> {
        let refuse =
            |reason: &str| self.unauthorized(call, Problem::Realm(format!("{}: {reason}", named(realm))));
        let url = self.inner.base.join(realm).map_err(|_| refuse("it is not an address"))?;
        let home = &self.inner.home;
        let origin =
            self.inner.transport.check_target(&url, home, reach, "the token").map_err(
                |error| match error {
                    RequestError::Target { reason, .. } => refuse(reason),
                    other => other,
                },
            )?;
        if !origin.https && origin.host != home.host {
            return Err(refuse("another host gets credentials by TLS only"));
        }
        Ok((url, origin))
    }

    /// What the token is for. Token services grant a part of it, where they do not grant all.
    fn scopes(&self) -> Vec<String> {
        let repository = &self.inner.repository;
        match &self.inner.access {
            Access::Pull => vec![format!("repository:{repository}:pull")],
            Access::Push { mounts } => {
                let own = format!("repository:{repository}:pull,push");
                std::iter::once(own)
                    .chain(mounts.iter().map(|path| format!("repository:{path}:pull")))
                    .collect()
            }
        }
    }

    fn header(&self, call: &Call, scheme: &str, secret: &str) -> Result<HeaderValue, RequestError> {
        let text = Zeroizing::new(format!("{scheme} {secret}"));
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| self.unauthorized(call, Problem::Refused))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn encoded(user: &str, password: &Secret) -> Zeroizing<String> {
    let plain = Zeroizing::new(format!("{user}:{}", password.expose()));
    Zeroizing::new(STANDARD.encode(plain.as_bytes()))
}

/// A token for a user and a password, or for nobody.
fn ask(mut url: Url, service: Option<&str>, scopes: &[String]) -> Call {
    let mut query = url.query_pairs_mut();
    query.extend_pairs(service.map(|service| ("service", service)));
    query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
    drop(query);
    Call::new(Method::GET, url, "the token")
}

/// A token for a refresh token.
fn exchange(url: Url, service: Option<&str>, scopes: &[String], token: &Secret) -> Call {
    let mut form = url.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .extend_pairs(service.map(|service| ("service", service)))
        .append_pair("client_id", CLIENT_ID)
        .append_pair("scope", &scopes.join(" "))
        .append_pair("refresh_token", token.expose());
    let body = form.query().unwrap_or_default().to_owned();
    Call::new(Method::POST, url, "the token")
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
        .body(Body::Bytes(body.into()))
        .secret()
}

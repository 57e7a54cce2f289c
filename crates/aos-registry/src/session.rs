//! Requests to one repository of one registry: authorised, and tried again.
//!
//! **Credentials.** They are sent only after the registry asked for them (401), in its own
//! connection: a challenge of a host that we were redirected to is not answered. `Basic` goes to
//! the registry itself. `Bearer` names a token service (`realm`), which may be another host: the
//! registry, whom the user gave the credentials for, says who checks them, as the token
//! specification has it. The realm gets them under these rules: it is reached by TLS if the
//! registry is, else it is the registry's own host or by TLS; the rules of [`crate::transport`]
//! for targets hold; its redirects get no credentials on other hosts.
//!
//! **Rounds.** A request is answered with 401 at most twice: the first time without or with an
//! old token, the second time with a token that ended on the way. After that it is an error.
//!
//! **Concurrency.** The session is shared by the transfers of one pull or push. The current
//! authorisation is a value behind a lock that is never held across an await; two transfers that
//! renew it at the same time both succeed, and the last one stays.

mod login;

use crate::bounds::AUTHORIZATION_ROUNDS_MAX;
use crate::challenge::Challenge;
use crate::error::{Problem, RequestError};
use crate::origin::Origin;
use crate::retry::Attempts;
use crate::shown::shown;
use crate::transport::{Answer, Call, Transport};
use aos_core::reference::{Reference, RepositoryPath};
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a session may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read.
    Pull,
    /// Read and write, and read other repositories of the same registry, to mount their blobs.
    Push {
        /// Those repositories.
        mounts: Vec<RepositoryPath>,
    },
}

/// Requests to one repository. Cloning shares the authorisation.
#[derive(Clone)]
pub(crate) struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    /// The registry, with a path of `/`.
    base: Url,
    home: Origin,
    registry: String,
    repository: RepositoryPath,
    access: Access,
    authorization: Mutex<Option<HeaderValue>>,
    /// The registry has answered before: a connection that fails now is a fault that may pass.
    answered: AtomicBool,
}

impl Session {
    pub(crate) fn new(
        transport: &Transport,
        reference: &Reference,
        access: Access,
    ) -> Result<Self, RequestError> {
        let none = || RequestError::NoRegistry(reference.to_string());
        let registry = reference.registry.as_ref().ok_or_else(none)?.as_str().to_owned();
        let base = transport.base(&registry).ok_or_else(none)?;
        let home = Origin::of(&base).ok_or_else(none)?;
        Ok(Self {
            inner: Arc::new(Inner {
                transport: transport.clone(),
                base,
                home,
                registry,
                repository: reference.path.clone(),
                access,
                authorization: Mutex::new(None),
                answered: AtomicBool::new(false),
            }),
        })
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    pub(crate) fn home(&self) -> &Origin {
        &self.inner.home
    }

    pub(crate) fn repository(&self) -> &RepositoryPath {
        &self.inner.repository
    }

    /// The URL of a part of the repository, such as `manifests/1.0.0`. The parts of a reference
    /// need no escaping.
    pub(crate) fn url(&self, part: &str) -> Url {
        let mut url = self.inner.base.clone();
        url.set_path(&format!("/v2/{}/{part}", self.inner.repository));
        url
    }

    /// A request for a part of the repository.
    pub(crate) fn call(&self, method: Method, part: &str, what: impl Into<String>) -> Call {
        Call::new(method, self.url(part), what)
    }

    /// Sends a request, with credentials when asked for, and again after failures that may pass.
    /// Statuses of failure that are not to be tried again are answers.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, RequestError> {
        let mut attempts = Attempts::new(self.inner.transport.options.retries);
        loop {
            let failure = match self.attempt(call).await {
                Ok(answer) if !is_passing(answer.status()) => return Ok(answer),
                Ok(answer) => answer.fail().await,
                Err(error) => error,
            };
            self.again(&mut attempts, failure).await?;
        }
    }

    /// Waits for another attempt, or gives the failure back. Who never answered is not waited for.
    pub(crate) async fn again(
        &self,
        attempts: &mut Attempts,
        failure: RequestError,
    ) -> Result<(), RequestError> {
        if matches!(failure, RequestError::Connect { .. }) && !self.inner.answered.load(Ordering::Relaxed) {
            return Err(failure);
        }
        attempts.failed(failure).await
    }

    /// Sends a request once, with credentials when asked for.
    pub(crate) async fn attempt(&self, call: &Call) -> Result<Answer, RequestError> {
        let mut round = 0;
        loop {
            let sent = self.authorization();
            let answer = self.inner.transport.send(call, &self.inner.home, sent.as_ref()).await?;
            self.inner.answered.store(true, Ordering::Relaxed);
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            if !answer.at_home {
                return Err(answer.fail().await);
            }
            if round == AUTHORIZATION_ROUNDS_MAX {
                return Err(self.unauthorized(call, Problem::Rounds));
            }
            round += 1;
            self.renew(call, &answer, sent).await?;
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.inner.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets an authorisation that is not the one that was refused.
    async fn renew(
        &self,
        call: &Call,
        answer: &Answer,
        refused: Option<HeaderValue>,
    ) -> Result<(), RequestError> {
        let current = self.authorization();
        if current.is_some() && current != refused {
            return Ok(());
        }
        let challenge = Challenge::of(answer.headers(&WWW_AUTHENTICATE))
            .ok_or_else(|| self.unauthorized(call, Problem::Challenge))?;
        let fresh = self.login(call, &challenge, answer.reach).await?;
        if refused.as_ref() == Some(&fresh) {
            return Err(self.unauthorized(call, Problem::Refused));
        }
        *self.inner.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }

    fn unauthorized(&self, call: &Call, problem: Problem) -> RequestError {
        RequestError::Unauthorized { host: self.inner.registry.clone(), what: call.what.clone(), problem }
    }

    /// An answer that the specification does not allow.
    pub(crate) fn wrong(&self, what: &str, problem: impl Into<String>) -> RequestError {
        RequestError::Protocol {
            host: self.inner.registry.clone(),
            what: what.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Statuses after which the same request may succeed.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The text of a realm, for messages.
fn named(realm: &str) -> String {
    format!("`{}`", shown(realm))
}

//! A small HTTP server that behaves as a test tells it, well or badly, and what the tests share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of what all share")]

pub mod package;

use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::oci::Descriptor;
use aos_package::repository::{Depth, Lease, Repository};
use aos_registry::{Client, Options, Progress, Retries, Timeouts};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// The body ended before its length was there.
    pub cut: bool,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is written to a connection.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Writes an answer by hand.
pub type Script = Box<dyn FnOnce(&mut dyn Wire) -> std::io::Result<()> + Send>;

/// What the server does with a request.
pub enum Reply {
    /// A status, headers and a body with its length.
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// Whatever it writes; the connection is closed after it.
    Raw(Script),
}

pub fn full(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Reply::Full(status, headers, body.into())
}

pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
    full(200, &[], body)
}

pub fn not_found() -> Reply {
    full(404, &[], r#"{"errors":[{"code":"X","message":"not here"}]}"#)
}

pub fn raw(write: impl FnOnce(&mut dyn Wire) -> std::io::Result<()> + Send + 'static) -> Reply {
    Reply::Raw(Box::new(write))
}

/// A server on a port of its own, until the test ends.
pub struct Server {
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(handler, |stream| Ok(Box::new(stream) as Box<dyn Wire>))
    }

    /// A server with TLS for `localhost`; returns the certificate too, in PEM.
    pub fn tls(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        let wrap = move |stream| {
            let connection = rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
            Ok(Box::new(rustls::StreamOwned::new(connection, stream)) as Box<dyn Wire>)
        };
        (Self::with(handler, wrap), made.cert.pem())
    }

    fn with(
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> std::io::Result<Box<dyn Wire>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler, wrap) = (log.clone(), Arc::new(handler), Arc::new(wrap));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler, wrap) = (seen.clone(), handler.clone(), wrap.clone());
                std::thread::spawn(move || {
                    let stream = wrap(stream.unwrap());
                    // A client that goes away is no failure of the test.
                    drop(stream.and_then(|stream| serve(stream, &seen, &*handler)));
                });
            }
        });
        Self { address, log }
    }

    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    pub fn count(&self, method: &str, end: &str) -> usize {
        self.log().iter().filter(|request| request.method == method && request.path().ends_with(end)).count()
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

fn serve(stream: Box<dyn Wire>, log: &Mutex<Vec<Request>>, handler: &Handler) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let cut = request.cut;
        let reply = handler(&request);
        log.lock().unwrap().push(request.clone());
        if cut {
            return Ok(());
        }
        match reply {
            Reply::Full(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\n");
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if !(status == 204 || head.to_ascii_lowercase().contains("content-length:")) {
                    head.push_str(&format!("content-length: {}\r\n", body.len()));
                }
                head.push_str("\r\n");
                let stream = reader.get_mut();
                stream.write_all(head.as_bytes())?;
                if request.method != "HEAD" {
                    stream.write_all(&body)?;
                }
                stream.flush()?;
            }
            Reply::Raw(write) => {
                write(reader.get_mut())?;
                return reader.get_mut().flush();
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: u64 = request.header("content-length").map_or(0, |text| text.parse().unwrap());
    let read = reader.take(length).read_to_end(&mut request.body);
    request.cut = read.is_err() || (request.body.len() as u64) < length;
    Ok(Some(request))
}

/// A registry in memory that only reads.
#[derive(Clone, Default)]
pub struct Shelf {
    /// By tag and by digest, with their media types.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Shelf {
    /// A package with its blobs under a tag.
    pub fn with(repository: &Repository, package: &Descriptor, tag: &str) -> Self {
        let mut shelf = Self::default();
        shelf.add(repository, package, tag);
        shelf
    }

    pub fn add(&mut self, repository: &Repository, package: &Descriptor, tag: &str) {
        let bytes = repository.read_blob(package, 1 << 20).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest: Digest = blob["digest"].as_str().unwrap().parse().unwrap();
            let mut contents = Vec::new();
            repository.open_blob(&digest).unwrap().read_to_end(&mut contents).unwrap();
            self.blobs.insert(digest.to_string(), contents);
        }
        for name in [tag.to_owned(), package.digest.to_string()] {
            self.manifests.insert(name, (package.media_type.clone(), bytes.clone()));
        }
    }

    /// The largest blob.
    pub fn largest(&self) -> (String, Vec<u8>) {
        self.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).map(|(d, b)| (d.clone(), b.clone())).unwrap()
    }

    /// What a well-behaved registry answers, with ranges.
    pub fn answer(&self, request: &Request) -> Reply {
        let name = request.path().rsplit('/').next().unwrap();
        if request.path().contains("/manifests/") {
            return match self.manifests.get(name) {
                Some((media_type, bytes)) => full(200, &[("content-type", media_type)], bytes.clone()),
                None => not_found(),
            };
        }
        match self.blobs.get(name) {
            Some(bytes) if request.path().contains("/blobs/") => ranged(request, bytes),
            _ => not_found(),
        }
    }
}

/// Where the range of a request starts.
pub fn range_start(request: &Request) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// Bytes, or the range that is asked for.
pub fn ranged(request: &Request, bytes: &[u8]) -> Reply {
    match range_start(request) {
        None => ok(bytes),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            full(206, &[("content-range", &range)], &bytes[start..])
        }
    }
}

/// A store in a directory of its own.
pub struct TestStore {
    pub directory: tempfile::TempDir,
    pub repository: Repository,
    pub lease: Lease,
}

impl TestStore {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(directory.path()).unwrap();
        let lease = repository.lease().unwrap();
        Self { directory, repository, lease }
    }

    pub fn package(&self, seed: u64, sizes: &[usize]) -> Descriptor {
        package::package(&self.lease, "web", "1.0.0", seed, sizes)
    }

    /// The store has no fault.
    pub fn assert_sound(&self) {
        let mut problems = self.repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
        problems.retain(|problem| problem.is_damage());
        assert!(problems.is_empty(), "{problems:?}");
    }

    /// Files that are being transferred, with their sizes.
    pub fn partials(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(self.directory.path().join("partial")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
    }
}

/// Settings with short waits between attempts, and time-outs that a loaded machine keeps.
pub fn options() -> Options {
    Options {
        certificates: Vec::new(),
        timeouts: Timeouts {
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            total: Duration::from_secs(120),
        },
        retries: Retries {
            attempts: 4,
            first: Duration::from_millis(5),
            asked_max: Duration::from_millis(300),
        },
        ..Options::default()
    }
}

pub fn client() -> Client {
    Client::new(options())
}

/// A client that soon takes silence for a stall.
pub fn hasty(idle: Duration, attempts: u32) -> Client {
    let mut options = options();
    options.timeouts.idle = idle;
    options.retries.attempts = attempts;
    Client::new(options)
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Remembers what it hears.
#[derive(Default)]
pub struct Heard {
    pub notes: Mutex<Vec<String>>,
    pub totals: Mutex<BTreeMap<Digest, u64>>,
    pub moved: Mutex<BTreeMap<Digest, u64>>,
    pub calls: AtomicUsize,
}

impl Progress for Heard {
    fn blob(&self, digest: &Digest, total: u64) {
        self.totals.lock().unwrap().insert(*digest, total);
    }
    fn advance(&self, digest: &Digest, bytes: u64) {
        *self.moved.lock().unwrap().entry(*digest).or_default() += bytes;
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
}

//! One connection of a step: its request's head, the decision, and the relay.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::relay::{self, Upload};
use super::request::{self, Bad, HEAD_BYTES_MAX, Request};
use super::vet::is_public;
use super::{Rules, Stop, Woken};
use crate::run::endpoint::{Endpoint, Host};

/// How often a name that is being resolved is looked after.
const RESOLVE_PAUSE: Duration = Duration::from_millis(50);
/// Time for an answer of a few hundred bytes to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Blocks that a refused client may still send before it is cut off.
const UNREAD_BLOCKS_MAX: u32 = 64;

/// Why a connection gets no further than an answer.
struct Refusal {
    status: &'static str,
    why: String,
}

impl From<Bad> for Refusal {
    fn from(bad: Bad) -> Self {
        Self { status: bad.status, why: bad.why.to_owned() }
    }
}

fn forbidden<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal { status: "403 Forbidden", why })
}

fn unreachable<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal { status: "502 Bad Gateway", why })
}

/// Serves one connection to its end.
pub(super) fn serve(client: &TcpStream, rules: &Rules, stop: &Stop) {
    match read_head(client, rules, stop) {
        Ok(Some((head, rest))) => {
            if let Err(refusal) = answer(client, &head, &rest, rules, stop) {
                rules.note(format!("the step's connection was refused: {}", refusal.why));
                refuse(client, &refusal, stop);
            }
        }
        Ok(None) => {}
        Err(_) => {
            // The client is gone, or it is time to end: there is nobody to answer.
        }
    }
}

/// Reads until the head is whole: the head, and what came after it. `None` if there is no head
/// within its time and length; a head that is too long is answered.
fn read_head(mut client: &TcpStream, rules: &Rules, stop: &Stop) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    client.set_nonblocking(true)?;
    let deadline = Instant::now() + rules.times.head;
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    loop {
        match client.read(&mut block) {
            Ok(0) => return Ok(None),
            Ok(count) => bytes.extend_from_slice(block.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if stop.wait(&[(client.as_fd(), PollFlags::IN)], Some(left))? != Woken::Ready {
                    return Ok(None);
                }
                continue;
            }
            Err(error) => return Err(error),
        }
        let length = request::head_length(bytes.get(..HEAD_BYTES_MAX.min(bytes.len())).unwrap_or_default());
        if let Some(length) = length {
            let rest = bytes.split_off(length);
            return Ok(Some((bytes, rest)));
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            let status = "431 Request Header Fields Too Large";
            let why = format!("the head is over {HEAD_BYTES_MAX} bytes");
            refuse(client, &Refusal { status, why }, stop);
            return Ok(None);
        }
    }
}

/// Decides, connects and relays. An error after the connection is made ends it without an answer.
fn answer(
    mut client: &TcpStream,
    head: &[u8],
    rest: &[u8],
    rules: &Rules,
    stop: &Stop,
) -> Result<(), Refusal> {
    let request = request::parse(head)?;
    let (to, first, rest, upload) = match &request {
        Request::Connect(to) => (to, None, rest, Upload::All),
        Request::Forward { to, head, body } => {
            // What follows the body belongs to no request.
            let most = usize::try_from(*body).unwrap_or(usize::MAX).min(rest.len());
            let rest = rest.get(..most).unwrap_or_default();
            let left = body.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX));
            (to, Some(head), rest, Upload::Bytes(left))
        }
    };
    if !rules.endpoints.contains(to) {
        return forbidden(format!("{to} is not in the step's `net`"));
    }
    let mut server = connect(to, rules, stop)?;
    let mut relayed = || -> io::Result<()> {
        server.set_write_timeout(Some(rules.times.idle))?;
        match first {
            Some(head) => server.write_all(head)?,
            None => {
                client.set_nonblocking(false)?;
                client.set_write_timeout(Some(ANSWER_TIME))?;
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            }
        }
        server.write_all(rest)?;
        relay::run(client, &server, upload, rules.times.idle, stop)
    };
    if relayed().is_err() {
        // One of the two has gone: closing both tells the other.
    }
    Ok(())
}

/// A connection to one of the endpoint's addresses: the vetted address itself is connected to.
fn connect(to: &Endpoint, rules: &Rules, stop: &Stop) -> Result<TcpStream, Refusal> {
    let addresses = match &to.host {
        Host::Address(address) => vec![*address],
        Host::Name(_) => {
            let found = resolve(to, rules, stop)?;
            let public: Vec<IpAddr> = found.into_iter().filter(|address| is_public(*address)).collect();
            if public.is_empty() {
                return forbidden(format!(
                    "{to} leads to this machine or a private network; write the address itself in `net` if that is meant"
                ));
            }
            public
        }
    };
    let mut last = String::from("it has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&SocketAddr::new(address, to.port), rules.times.connect) {
            Ok(server) => return Ok(server),
            Err(error) => last = error.to_string(),
        }
        if stop.wait(&[], Some(Duration::ZERO)).is_ok_and(|woken| woken == Woken::Stop) {
            break;
        }
    }
    unreachable(format!("{to} cannot be reached: {last}"))
}

/// Resolves in a thread of its own, since the system's resolver takes its time and cannot be ended.
fn resolve(to: &Endpoint, rules: &Rules, stop: &Stop) -> Result<Vec<IpAddr>, Refusal> {
    let Host::Name(name) = &to.host else { return Ok(Vec::new()) };
    let (sender, receiver) = mpsc::sync_channel(1);
    let (name, port, resolver) = (name.clone(), to.port, rules.resolve.clone());
    let body = move || {
        if sender.send(resolver(&name, port)).is_err() {
            // Nobody waits any longer.
        }
    };
    if std::thread::Builder::new().name("aos-proxy-resolve".to_owned()).spawn(body).is_err() {
        return unreachable(format!("{to} cannot be resolved: no thread"));
    }
    let deadline = Instant::now() + rules.times.resolve;
    loop {
        match receiver.recv_timeout(RESOLVE_PAUSE) {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => return unreachable(format!("{to} cannot be resolved: {error}")),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return unreachable(format!("{to} cannot be resolved"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let is_over = stop.wait(&[], Some(Duration::ZERO)).is_ok_and(|woken| woken == Woken::Stop);
        if is_over || Instant::now() >= deadline {
            return unreachable(format!("{to} cannot be resolved in time"));
        }
    }
}

/// Answers with a refusal and closes.
fn refuse(client: &TcpStream, refusal: &Refusal, stop: &Stop) {
    let body = format!("aos: {}\n", refusal.why);
    let answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        refusal.status,
        body.len()
    );
    if send_last(client, answer.as_bytes(), stop).is_err() {
        // The client is gone.
    }
}

/// Sends the last bytes, and takes what the client still sends: closing a connection with unread
/// bytes would reset it, and the client would not see the answer.
fn send_last(mut client: &TcpStream, bytes: &[u8], stop: &Stop) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(ANSWER_TIME))?;
    client.write_all(bytes)?;
    client.shutdown(Shutdown::Write)?;
    client.set_nonblocking(true)?;
    let deadline = Instant::now() + ANSWER_TIME;
    let mut block = vec![0; HEAD_BYTES_MAX];
    let mut left = UNREAD_BLOCKS_MAX;
    while left > 0 {
        match client.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(_) => left -= 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let time = deadline.saturating_duration_since(Instant::now());
                if stop.wait(&[(client.as_fd(), PollFlags::IN)], Some(time))? != Woken::Ready {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

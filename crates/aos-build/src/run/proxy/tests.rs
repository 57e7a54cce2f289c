//! The proxy against a resolver that lies: what is vetted is what is connected to.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use super::{Proxy, Rules, Times};
use crate::run::Endpoint;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Running {
    address: std::net::SocketAddr,
    notes: Receiver<String>,
    lookups: Arc<AtomicUsize>,
    proxy: Option<Proxy>,
}

/// A proxy for these endpoints whose resolver answers the addresses in turn.
fn running(endpoints: &[&str], answers: Vec<Vec<IpAddr>>, times: Times) -> Running {
    let (sender, notes) = sync_channel(16);
    let endpoints: Vec<Endpoint> = endpoints.iter().map(|one| one.parse().unwrap()).collect();
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let resolve = Arc::new(move |_: &_, _: u16| {
        let index = counted.fetch_add(1, Ordering::SeqCst);
        Ok(answers.get(index).or(answers.last()).cloned().unwrap_or_default())
    });
    let rules = Rules { resolve, times, ..Rules::new(&endpoints, sender) };
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    Running { address, notes, lookups, proxy: Some(Proxy::on(listener, rules).unwrap()) }
}

impl Running {
    fn ask(&self, request: &str) -> String {
        let mut client = TcpStream::connect(self.address).unwrap();
        client.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }
}

fn short() -> Times {
    let second = Duration::from_secs(1);
    Times { head: second, resolve: second, connect: second, idle: second }
}

#[test]
fn a_name_that_leads_inside_is_refused() {
    for inside in
        ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
    {
        let proxy = running(&["rebound.example:80"], vec![vec![inside.parse().unwrap()]], short());
        let answer = proxy.ask("CONNECT rebound.example:80 HTTP/1.1\n\n");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{inside}: {answer}");
        assert!(proxy.notes.recv().unwrap().contains("leads to this machine or a private network"));
    }
}

/// The second answer is never asked for: the address of the first is the one that is used.
#[test]
fn a_name_is_resolved_once() {
    let public = "192.0.2.1".parse().unwrap();
    let proxy = running(&["rebound.example:80"], vec![vec![public], vec![LOOPBACK]], short());
    let answer = proxy.ask("GET http://rebound.example/ HTTP/1.1\n\n");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(proxy.lookups.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_not_declared_is_not_even_resolved() {
    let proxy = running(&["a.example:443"], vec![vec![LOOPBACK]], short());
    for target in
        ["b.example:443", "a.example:80", "xa.example:443", "a.example.evil.example:443", "127.0.0.1:443"]
    {
        let answer = proxy.ask(&format!("CONNECT {target} HTTP/1.1\n\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{target}: {answer}");
    }
    assert_eq!(proxy.lookups.load(Ordering::SeqCst), 0);
}

/// A body is forwarded to its end; what follows it on the same connection goes nowhere.
#[test]
fn a_second_request_is_not_smuggled() {
    let origin = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = origin.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut client, _) = origin.accept().unwrap();
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut bytes = Vec::new();
        let mut block = [0; 1024];
        while let Ok(count @ 1..) = client.read(&mut block) {
            bytes.extend_from_slice(&block[..count]);
        }
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        String::from_utf8(bytes).unwrap()
    });
    let proxy = running(
        &[&format!("127.0.0.1:{port}")],
        Vec::new(),
        Times { idle: Duration::from_secs(5), ..short() },
    );
    let answer = proxy.ask(&format!(
        "POST http://127.0.0.1:{port}/ HTTP/1.1\nContent-Length: 4\n\nbodyGET http://evil.example/ HTTP/1.1\nHost: evil.example\n\n"
    ));
    assert!(answer.ends_with("ok"), "{answer}");
    let got = server.join().unwrap();
    assert!(got.ends_with("\r\n\r\nbody") && !got.contains("evil"), "{got}");
}

#[test]
fn silence_ends_at_its_time() {
    let origin = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = origin.local_addr().unwrap().port();
    let proxy = running(&[&format!("127.0.0.1:{port}")], Vec::new(), short());
    // A head that never ends, a tunnel in which nobody speaks.
    for request in ["GET http", &format!("CONNECT 127.0.0.1:{port} HTTP/1.1\n\n")] {
        let started = Instant::now();
        let answer = proxy.ask(request);
        assert!(answer.is_empty() || answer.ends_with("established\r\n\r\n"), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

/// Whatever is open, and whatever waits.
#[test]
fn the_proxy_ends_when_it_is_dropped() {
    let origin = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = origin.local_addr().unwrap().port();
    let mut proxy = running(&[&format!("127.0.0.1:{port}"), "slow.example:80"], Vec::new(), Times::default());
    let clients: Vec<TcpStream> = (0..80)
        .map(|index| {
            let mut client = TcpStream::connect(proxy.address).unwrap();
            let to = if index % 2 == 0 { format!("127.0.0.1:{port}") } else { "slow.example:80".to_owned() };
            client.write_all(format!("CONNECT {to} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    drop(proxy.proxy.take());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(clients);
}

//! The objects on a bus of their own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use aos_client::names::{AGENT_INTERFACE, BUS_NAME, MANAGER_INTERFACE, MANAGER_PATH, agent_path};
use zbus::fdo::{IntrospectableProxy, PropertiesProxy};

use crate::tests::World;

/// A message bus that ends with the test.
struct Bus(Child);

impl Bus {
    #[expect(clippy::disallowed_methods, reason = "a bus for the test is a program of its own")]
    fn start(folder: &Path) -> (Self, String) {
        let address = format!("unix:path={}", folder.join("bus").display());
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address", "--address", &address])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(daemon), address)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What has no gate is the version and nothing else.
#[tokio::test]
async fn nothing_of_an_agent_is_a_property() {
    let world = World::new();
    let (_bus, address) = Bus::start(&world.path(""));
    let connect = || async { zbus::connection::Builder::address(address.as_str()).build().await.unwrap() };
    let (server, client) = (connect().await, connect().await);
    let daemon = world.daemon().await;
    let gate = super::access::Gate::new(&server, 8, 2);
    super::serve(&server, Arc::clone(&daemon.service), gate.clone()).await.unwrap();
    let signals = super::signals::Signals::new(&server, Arc::clone(&daemon.service), gate);
    super::take_name(&server).await.unwrap();
    daemon.run("a", "always").await.unwrap();
    let path = agent_path("a");
    tokio::spawn(signals.run(daemon.events));

    let introspect = async |path: &str| {
        let builder = IntrospectableProxy::builder(&client).destination(BUS_NAME).path(path.to_owned());
        builder.build().await.unwrap().introspect().await.unwrap()
    };
    while !introspect(&path).await.contains(AGENT_INTERFACE) {
        tokio::task::yield_now().await;
    }
    let (manager, agent) = (introspect(MANAGER_PATH).await, introspect(&path).await);
    assert!(!agent.contains("<property") && !agent.contains("ObjectManager"), "{agent}");
    let properties: Vec<_> = manager.lines().filter(|line| line.contains("<property")).collect();
    assert!(matches!(properties[..], [only] if only.contains("\"Version\"")), "{properties:?}");
    assert!(!manager.contains("ObjectManager"), "{manager}");

    let get_all = async |path: &str, interface: &'static str| {
        let builder = PropertiesProxy::builder(&client).destination(BUS_NAME).path(path.to_owned());
        let proxy = builder.build().await.unwrap();
        let names = proxy.get_all(interface.try_into().unwrap()).await.unwrap();
        names.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(get_all(&path, AGENT_INTERFACE).await, [] as [&str; 0]);
    assert_eq!(get_all(MANAGER_PATH, MANAGER_INTERFACE).await, ["Version"]);
    let managed = client
        .call_method(
            Some(BUS_NAME),
            MANAGER_PATH,
            Some("org.freedesktop.DBus.ObjectManager"),
            "GetManagedObjects",
            &(),
        )
        .await;
    assert!(managed.is_err(), "{managed:?}");
}

//! The objects on a bus of their own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use aos_client::names::{AGENT_INTERFACE, BUS_NAME, MANAGER_INTERFACE, MANAGER_PATH, agent_path};
use aos_client::{Change, ChangeOptions, Client, ClientError, RunOptions};
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

/// Root is let through; anybody else is refused here, where there is no polkit, by the action that counts.
#[tokio::test]
async fn what_controls_an_agent_and_the_right_to_it() {
    let world = World::new();
    let (_bus, address) = Bus::start(&world.path(""));
    let server = zbus::connection::Builder::address(address.as_str()).build().await.unwrap();
    let daemon = world.daemon().await;
    let gate = super::access::Gate::new(&server, 8, 2);
    super::serve(&server, Arc::clone(&daemon.service), gate).await.unwrap();
    super::take_name(&server).await.unwrap();
    daemon.run("a", "once").await.unwrap();
    let client = Client::connect_to(&address).await.unwrap();
    let is_root = std::fs::metadata(world.path("")).unwrap().uid() == 0;
    let judge = |right: &str, result: Result<String, ClientError>, says: &str| match result {
        Ok(answer) => assert!(is_root && answer.contains(says), "{right}: {answer}"),
        Err(error) => {
            assert!(!is_root, "{right}: {error}");
            assert!(error.to_string().contains(&format!("org.aos.agentd1.{right}:")), "{error}");
        }
    };
    let state = async || daemon.service.agent(&"a".parse().unwrap()).await.unwrap().state;
    let paused = client.pause("a").await;
    judge("manage", paused.map(|()| "done".to_owned()), "done");
    assert_eq!(state().await == "paused", is_root);
    judge("manage", client.resume("a").await.map(|()| "done".to_owned()), "done");
    assert_eq!(state().await, "running");
    let change = async |change, line: &str| {
        let changed = client.change("a", change, &[line], ChangeOptions::default()).await;
        changed.map(|changed| format!("{changed:?}"))
    };
    judge("read", client.capabilities("a").await.map(|rows| format!("{rows:?}")), "file_read: /srv/**");
    judge("manage", change(Change::Narrow, "file_read: /srv/a").await, "next-start");
    judge(
        "manage",
        change(Change::Revoke, "file_read: /srv/a").await,
        "in_force: Some([\"file_read: /srv/**\"])",
    );
    judge("grant", change(Change::Grant, "listen: 80").await, "capabilities: [\"listen: 80\"]");
    let options = ChangeOptions { apply: Some("stop".to_owned()) };
    let stopping = client.change("a", Change::Grant, &["listen: 81"], options).await;
    judge("grant", stopping.map(|changed| format!("{changed:?}")), "stopped");
    let plan = client.plan("b", "once", &["x"], RunOptions::default()).await;
    judge("read", plan, "\"agent\":\"b\"");
}

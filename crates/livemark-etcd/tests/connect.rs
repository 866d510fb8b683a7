//! Who can connect, as whom, and what is said to those who cannot.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use livemark_cluster::{Config, Engine, EngineError, If, MarkError, OpenError, Session, Standing, Written};
use livemark_etcd::{ConnectError, Etcd, Options, Tls, User};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use support::{Cluster, etcd, free_port};

fn options(user: Option<User>) -> Options {
    let mut options = Options::default();
    options.user = user;
    options
}

async fn refused(endpoints: &[&str], options: Options) -> ConnectError {
    Etcd::connect(endpoints.iter().copied(), "jobs", options).await.unwrap_err()
}

/// Each error names what is wrong. Seen to fail with a client that connects only when it is first used.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_endpoints_are_named() {
    assert_eq!(refused(&[], Options::default()).await, ConnectError::NoEndpoint);
    for namespace in ["", "a/b"] {
        let error = Etcd::connect(["127.0.0.1:1"], namespace, Options::default()).await.unwrap_err();
        assert_eq!(error, ConnectError::Namespace(namespace.to_owned()));
    }
    // Not with its password.
    let error = refused(&["http://root:secret@127.0.0.1:2379"], Options::default()).await;
    assert!(error.to_string().contains("Options::user") && !error.to_string().contains("secret"), "{error}");
    for endpoint in ["ftp://127.0.0.1:2379", "http://", "not a host:1", "https://127.0.0.1:2379"] {
        let error = refused(&[endpoint], Options::default()).await;
        assert!(matches!(&error, ConnectError::Endpoint { endpoint: named, .. } if named == endpoint), "{error}");
    }
    // Nobody listens there.
    let nobody = format!("127.0.0.1:{}", free_port());
    let error = refused(&[&nobody], Options::default()).await;
    assert!(matches!(&error, ConnectError::Unreachable { .. }) && error.to_string().contains(&nobody), "{error}");
    assert!(!error.to_string().contains("code:"), "in words: {error}");
    // Somebody listens, who is no etcd.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let _ = peer.read(&mut [0; 1024]).await;
            let _ = peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        }
    });
    assert!(matches!(refused(&[&web], Options::default()).await, ConnectError::Unreachable { .. }));
    // Somebody listens, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let began = Instant::now();
    let error = refused(&[&address, &nobody], Options::default()).await;
    assert!(matches!(&error, ConnectError::Unreachable { .. }) && began.elapsed() < Duration::from_secs(15), "{error}");
}

/// Seen to fail with a client that asks its first endpoint only.
#[tokio::test(flavor = "multi_thread")]
async fn one_good_endpoint_is_enough() {
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().map(|address| (address.to_string(), silent)).unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    let etcd = Etcd::connect([silent.0, nobody, cluster.endpoint(0)], "jobs", Options::default()).await.unwrap();
    assert_eq!(etcd.get("m/1").await, Ok(None));
}

fn enable_authentication(cluster: &Cluster) {
    let say = |args: &[&str]| {
        let done = cluster.ctl(args);
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    say(&["user", "add", "root:secret"]);
    say(&["user", "grant-role", "root", "root"]);
    say(&["role", "add", "jobs"]);
    say(&["role", "grant-permission", "jobs", "--prefix=true", "readwrite", "/livemark/v1/jobs/"]);
    say(&["user", "add", "worker:secret"]);
    say(&["user", "grant-role", "worker", "jobs"]);
    say(&["auth", "enable"]);
}

/// Seen to fail with a client that keeps its token for ever: it is denied after the restart, which forgets all tokens
/// (etcd-io/etcd#12385), and when the token has expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_authenticated_and_again_when_it_is_forgotten() {
    let Some(mut cluster) = Cluster::start(1, &["--auth-token-ttl", "2"]).await else { return };
    enable_authentication(&cluster);
    let endpoint = cluster.endpoint(0);
    for user in [None, Some(User::new("worker", "guessed")), Some(User::new("nobody", "secret"))] {
        let error = refused(&[&endpoint], options(user.clone())).await;
        assert!(matches!(error, ConnectError::Denied(_)), "{user:?}: {error}");
    }
    let worker = options(Some(User::new("worker", "secret")));
    // It may not read there.
    let other = Etcd::connect([endpoint.as_str()], "others", worker.clone()).await.unwrap_err();
    assert!(matches!(other, ConnectError::Denied(_)), "{other}");

    let etcd = Etcd::connect([endpoint.as_str()], "jobs", worker.clone()).await.unwrap();
    // Nobody asks anything until its token has expired.
    let idle = Etcd::connect([endpoint.as_str()], "jobs", worker).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(idle.get("m/7").await, Ok(None));
    let mut config = Config::with_ttl(Duration::from_secs(6));
    config.process = "worker".to_owned();
    let session: Session = Session::open(etcd.clone(), config).await.unwrap();
    let guard = session.mark(7, livemark::Finalizer::new(Some(1), "merge")).await.unwrap();
    // The token expires while nobody asks for anything but renewals and ticks.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(guard.is_current() && guard.check().await.unwrap());
    cluster.kill(0);
    cluster.launch(0);
    let began = Instant::now();
    // It believes until then, or again.
    loop {
        if etcd.put("m/8", vec![], None, If::Absent).await.is_ok() && guard.is_current() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", session.standing());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(matches!(session.standing(), Standing::Held { .. }), "it is renewed after the restart");
    assert!(guard.clear().await.unwrap());
}

/// Signed tokens are of a state of the users and roles, and old once that changes. Seen to fail with a client that knows a
/// stale token by the words for an expired one: it is denied for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_is_replaced_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "a key that the members sign tokens with").unwrap();
    let signing = format!("jwt,pub-key={0},priv-key={0},sign-method=HS256,ttl=4s", key.display());
    let Some(cluster) = Cluster::start(1, &["--auth-token", &signing]).await else { return };
    enable_authentication(&cluster);
    let worker = options(Some(User::new("worker", "secret")));
    let etcd = Etcd::connect(cluster.endpoints(), "jobs", worker).await.unwrap();
    let mut config = Config::with_ttl(Duration::from_secs(6));
    config.process = "worker".to_owned();
    let session: Session = Session::open(etcd.clone(), config).await.unwrap();
    let guard = session.mark(7, livemark::Finalizer::new(Some(1), "merge")).await.unwrap();
    for round in 0..3 {
        let added = cluster.ctl(&["--user", "root:secret", "role", "add", &format!("role{round}")]);
        assert!(added.status.success(), "{added:?}");
        assert!(matches!(etcd.get("m/7").await, Ok(Some(_))), "{round}");
        assert!(guard.replace(&livemark::Finalizer::new(Some(round), "merge")).await.unwrap());
        // And it expires.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(guard.is_current(), "{round}: {:?}", session.standing());
    }
    assert!(guard.clear().await.unwrap());
}

/// A user who may read and not write. Seen to fail with a refusal that is asked again until the session is over.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_is_told_so() {
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    for args in [
        &["role", "add", "reader"][..],
        &["role", "grant-permission", "reader", "--prefix=true", "read", "/livemark/v1/jobs/"],
        &["user", "add", "reader:secret"],
        &["user", "grant-role", "reader", "reader"],
    ] {
        assert!(cluster.ctl(args).status.success());
    }
    enable_authentication(&cluster);
    let reader = options(Some(User::new("reader", "secret")));
    let etcd = Etcd::connect(cluster.endpoints(), "jobs", reader).await.unwrap();
    let error = Session::<u64>::open(etcd.clone(), Config::default()).await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Engine(EngineError::Denied(_))), "{error}");
    // Permission is taken away while the session is there.
    let worker = options(Some(User::new("worker", "secret")));
    let etcd = Etcd::connect(cluster.endpoints(), "jobs", worker).await.unwrap();
    let session: Session = Session::open(etcd, Config::default()).await.unwrap();
    let revoked = cluster.ctl(&["--user", "root:secret", "user", "revoke-role", "worker", "jobs"]);
    assert!(revoked.status.success(), "{revoked:?}");
    let error = session.mark(7, livemark::Finalizer::new(None, "merge")).await.map(drop).unwrap_err();
    assert!(matches!(error, MarkError::Denied(_)), "{error}");
}

/// What others have put below our prefix is told of and left alone, whatever its bytes. A namespace whose name begins with
/// another's is no part of it.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_are_told_of_and_left_alone() {
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    let put = |key: &[u8], value: &[u8]| {
        let mut ctl = Command::new("etcdctl");
        ctl.env("ETCDCTL_API", "3").args(["--endpoints", &cluster.endpoint(0), "put", "--"]);
        let done = ctl.arg(OsStr::from_bytes(key)).arg(OsStr::from_bytes(value)).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    put(b"/livemark/v1/jobs/m/7", b"not ours");
    put(b"/livemark/v1/jobs/m/\xff\xfe", b"not UTF-8");
    put(b"/livemark/v1/jobs/m/008", br#"{"lease":1,"seq":1,"process":"a","context":"{}"}"#);
    put(b"/livemark/v1/jobs/s/x", b"no session");
    put(b"/livemark/v1/jobs2/m/9", b"elsewhere");
    put(b"/livemark/v1/jobs0", b"beside it");
    let etcd = cluster.connect("jobs").await;
    let session: Session = Session::open(etcd.clone(), Config::with_ttl(Duration::from_secs(4))).await.unwrap();
    assert_eq!(session.view().foreign_keys(), 3);
    let context = || livemark::Finalizer::new(Some(1), "merge");
    let error = session.mark(7, context()).await.map(drop).unwrap_err();
    assert_eq!(error, MarkError::Foreign { key: "m/7".to_owned() });
    assert!(session.try_mark(7, context()).await.is_err());
    let guard = session.try_mark(8, context()).await.unwrap();
    let other = session.try_mark(9, context()).await.unwrap();
    session.view().barrier().await.unwrap();
    assert!(guard.is_current() && other.is_current() && session.view().registry().len() == 2);
    session.close().await.unwrap();
    let left = etcd.list().await.unwrap().rows;
    assert_eq!(left.len(), 4, "{left:?}");
}

/// Seen to fail with a client that trusts whoever answers.
#[tokio::test(flavor = "multi_thread")]
async fn over_tls_both_sides_show_who_they_are() {
    if etcd().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, other) = (authority("ours"), authority("other"));
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let file = |name: &str, pem: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (server, client) = (issue("127.0.0.1"), issue("client"));
    let (certificate, key, ca) = (file("cert", &server.0), file("key", &server.1), file("ca", &ours.pem()));
    let flags = ["--cert-file", &certificate, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth=true"];
    let Some(cluster) = Cluster::start_over(1, "https", &flags).await else { return };
    let endpoint = cluster.endpoint(0);
    let with = |tls: Tls| {
        let mut options = Options::default();
        options.tls = Some(tls);
        options
    };
    let good = || Tls::trusting(ours.pem()).with_identity(client.0.clone(), client.1.clone());
    let began = Instant::now();
    let etcd = loop {
        match Etcd::connect([endpoint.as_str()], "jobs", with(good())).await {
            Ok(etcd) => break etcd,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(matches!(etcd.put("m/1", vec![], None, If::Absent).await, Ok(Written::Done(_))));
    // A host and a port: over TLS, where TLS is asked for. Seen to fail with a password in plain text.
    let plain = endpoint.strip_prefix("https://").unwrap();
    assert!(Etcd::connect([plain], "jobs", with(good())).await.is_ok());
    let error = refused(&[&format!("http://{plain}")], with(good())).await;
    assert!(matches!(error, ConnectError::Endpoint { .. }) && error.to_string().contains("plain text"), "{error}");
    for wrong in [
        Tls::trusting(other.pem()).with_identity(client.0.clone(), client.1.clone()),
        Tls::trusting(ours.pem()),
        good().with_domain("elsewhere"),
    ] {
        let error = refused(&[&endpoint], with(wrong)).await;
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    }
    let error = refused(&[&endpoint], with(Tls::trusting("no certificate"))).await;
    assert!(matches!(error, ConnectError::Endpoint { .. } | ConnectError::Unreachable { .. }), "{error}");
}

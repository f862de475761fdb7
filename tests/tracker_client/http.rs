//! Announces over HTTP and HTTPS: both families, whom TLS trusts, how many requests one tracker gets at once.

use crate::scripted::{
    GOOD, PASSKEY, V4, V6, announce, client, http_tracker, ok, outcome, perform, redirect, reply, request,
    say,
};
use seedring::tracker_client::{ClientConfig, TrackerClient, TrackerError};
use seedring::tracker_wire::AnnounceEvent;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test(flavor = "current_thread")]
async fn announces_over_http_by_both_families() {
    for (ip, family, other) in [("127.0.0.1", V4, V6), ("::1", V6, V4)] {
        let (address, mut seen) = http_tracker(ip, |_| say(ok(GOOD))).await;
        let url = format!("http://{address}/announce?passkey={PASSKEY}");
        let response = client().announce(&url, family, &request(AnnounceEvent::Started)).await.unwrap();
        assert_eq!(response.interval_secs, 900);
        assert_eq!(response.peers, ["1.2.3.4:6881".parse().unwrap()]);
        let (_, head) = seen.recv().await.unwrap();
        assert!(head.starts_with(&format!("GET /announce?passkey={PASSKEY}&info_hash=%07")), "{head}");
        assert!(
            head.contains("event=started") && head.to_lowercase().contains(&format!("host: {address}\r\n"))
        );
        assert!(head.to_lowercase().contains("\r\naccept-encoding: gzip\r\n"), "{head}");
        let nowhere = client().announce(&url, other, &request(AnnounceEvent::None)).await;
        assert!(matches!(nowhere, Err(TrackerError::NoAddress { .. })));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn compressed_answers_are_read_whether_they_say_so_or_not() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, GOOD).unwrap();
    let packed = encoder.finish().unwrap();
    let len = packed.len();
    for head in [
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len}\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-gzip\r\nContent-Length: {len}\r\n"),
        "HTTP/1.0 200 OK\r\nContent-Encoding: x-gzip\r\nConnection: close\r\n".to_owned(),
    ] {
        assert_eq!(outcome(&client(), say(reply(&head, &packed))).await.unwrap(), 900, "{head}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn https_trusts_only_what_it_is_told_to_trust() {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, crypto};
    let generated = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let der = generated.cert.der().to_vec();
    let key = PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
    let settings = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(der.clone())], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings));
    let (plain, mut plain_seen) = http_tracker("127.0.0.1", |_| say(ok(GOOD))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let downgrade = redirect(&format!("http://{plain}/announce"));
                let respond = |head: &str| {
                    say(if head.starts_with("GET /down/announce") { downgrade.clone() } else { ok(GOOD) })
                };
                perform(stream, respond).await;
            });
        }
    });
    let announce = async |client: &TrackerClient, host: &str, path: &str| {
        client.announce(&format!("https://{host}:{port}{path}"), V4, &request(AnnounceEvent::None)).await
    };
    let stranger = announce(&client(), "127.0.0.1", "/announce").await;
    assert!(matches!(stranger, Err(TrackerError::Tls { .. })), "{stranger:?}");
    let trusting =
        TrackerClient::new(ClientConfig { trusted_der: vec![der], ..ClientConfig::default() }).unwrap();
    assert_eq!(announce(&trusting, "127.0.0.1", "/announce").await.unwrap().interval_secs, 900);
    let misnamed = announce(&trusting, "127.0.0.2", "/announce").await;
    assert!(misnamed.is_err(), "{misnamed:?}");
    let misnamed = announce(&trusting, "localhost", "/announce").await;
    assert!(matches!(misnamed, Err(TrackerError::Tls { .. })), "{misnamed:?}");
    let downgrade = announce(&trusting, "127.0.0.1", "/down/announce").await;
    assert!(matches!(downgrade, Err(TrackerError::Redirect { .. })), "{downgrade:?}");
    assert!(plain_seen.try_recv().is_err(), "nothing was sent in the clear");
}

#[tokio::test(flavor = "current_thread")]
async fn many_torrents_share_a_few_requests_to_one_tracker() {
    const AT_ONCE: usize = 5;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    // The first is alone until it is answered; of the others nobody is answered before as many as may are asking, and one
    // more would show in the count.
    let everybody = Arc::new(tokio::sync::Barrier::new(AT_ONCE));
    let asking = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&ok(GOOD)).await.unwrap();
        drop(first);
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (everybody, asking) = (Arc::clone(&everybody), Arc::clone(&asking));
            tokio::spawn(async move {
                let before = asking.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                assert!(before < AT_ONCE);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                everybody.wait().await;
                asking.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                let body = if before < AT_ONCE { GOOD } else { b"too many" };
                let _ = stream.write_all(&ok(body)).await;
            });
        }
    });
    let config = ClientConfig { requests_per_host_max: AT_ONCE, ..ClientConfig::default() };
    let client = Rc::new(TrackerClient::new(config).unwrap());
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut torrents = tokio::task::JoinSet::new();
            for _ in 0..=20 * AT_ONCE {
                let (client, url) = (Rc::clone(&client), url.clone());
                torrents.spawn_local(async move {
                    announce(&client, &url, V4, AnnounceEvent::None).await.is_ok()
                });
            }
            assert!(torrents.join_all().await.into_iter().all(|fine| fine));
        })
        .await;
}

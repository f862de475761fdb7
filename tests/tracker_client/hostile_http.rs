//! HTTP trackers that mean harm or are broken: every answer is bounded, and no secret is shown.

use crate::scripted::{
    GOOD, PASSKEY, Script, V4, client, http_tracker, impatient, ok, outcome, redirect, reply, request, say,
};
use seedring::time::Duration;
use seedring::tracker_client::{Retry, TrackerError};
use seedring::tracker_wire::AnnounceEvent;

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_answers_without_end_are_cut() {
    let client = client();
    let filler = vec![b'x'; 64 * 1024];
    let close = |head: &str| Script { first: reply(head, b""), then_for_ever: filler.clone(), hang: false };
    let endless = outcome(&client, close("HTTP/1.1 200 OK\r\n")).await;
    assert!(matches!(endless, Err(TrackerError::TooLong { .. })), "{endless:?}");
    let lying = outcome(&client, close("HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n")).await;
    assert!(matches!(lying, Err(TrackerError::TooLong { .. })), "{lying:?}");
    let chunk = [b"8000\r\n".as_slice(), &[b'x'; 0x8000], b"\r\n"].concat();
    let chunked = reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"");
    let chunks = Script { first: chunked.clone(), then_for_ever: chunk, hang: false };
    let endless = outcome(&client, chunks).await;
    assert!(matches!(endless, Err(TrackerError::TooLong { .. })), "{endless:?}");
    // One byte a chunk: the overhead counts too.
    let crumbs =
        Script { first: chunked, then_for_ever: b"1;aaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".to_vec(), hang: false };
    assert!(outcome(&client, crumbs).await.is_err());
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_storms_of_heads_are_cut() {
    let client = client();
    let storm = Script {
        first: Vec::new(),
        then_for_ever: b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000),
        hang: false,
    };
    let cut = outcome(&client, storm).await;
    assert!(matches!(cut, Err(TrackerError::TooLong { .. })), "{cut:?}");
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "y".repeat(1024 * 1024));
    assert!(matches!(outcome(&client, say(reply(&large, GOOD))).await, Err(TrackerError::Http(_))));
    let many = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(5000));
    assert!(matches!(outcome(&client, say(reply(&many, GOOD))).await, Err(TrackerError::Http(_))));
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_lies_about_lengths_and_encodings_are_errors() {
    let client = client();
    for (head, body, fine) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n", GOOD, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", GOOD, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", GOOD, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"8000000000000000\r\nx".as_slice(), false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nx".as_slice(), false),
        ("HTTP/1.1 200 OK\r\n", b"<html>a page</html>".as_slice(), false),
        ("HTTP/1.1 200 OK\r\n", b"".as_slice(), false),
        ("SSH-2.0-x\r\n", GOOD, false),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n", GOOD, false),
        ("HTTP/1.1 500 Broken\r\n", b"<html>".as_slice(), false),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n", GOOD, true),
        ("HTTP/1.0 200 OK\r\n", GOOD, true),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", GOOD, true),
    ] {
        let outcome = outcome(&client, say(reply(head, body))).await;
        assert_eq!(outcome.is_ok(), fine, "{head:?} {outcome:?}");
    }
    let gzip = say(reply("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", b"\x1f\x8b\x08"));
    assert!(matches!(outcome(&client, gzip).await, Err(TrackerError::Compressed(_))));
    let brotli = say(reply("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n", b"\x0b\x00\x80"));
    assert!(matches!(outcome(&client, brotli).await, Err(TrackerError::Encoded(_))));
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![b'd'; 100 << 20]).unwrap();
    let bomb = say(reply("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", &bomb.finish().unwrap()));
    let cut = outcome(&client, bomb).await;
    assert!(matches!(cut, Err(TrackerError::TooLong { .. })), "{cut:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_silence_ends_in_a_timeout() {
    for first in [Vec::new(), b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nd8:".to_vec()] {
        let silent = Script { first, then_for_ever: Vec::new(), hang: true };
        let waited = outcome(&impatient(200), silent).await;
        assert!(matches!(waited, Err(TrackerError::Timeout(_))), "{waited:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_46_refusals_are_escaped_bounded_and_without_passkeys() {
    let reason = format!("\x1b[2Jpasskey {PASSKEY} <b>{}", "z ".repeat(40_000));
    let body = format!("d14:failure reason{}:{reason}8:retry ini5ee", reason.len());
    let error = outcome(&client(), say(ok(body.as_bytes()))).await.unwrap_err();
    let shown = error.to_string();
    assert!(!shown.contains(['\x1b', '<']) && !shown.contains(PASSKEY) && shown.len() < 1000, "{shown}");
    let TrackerError::Refused { retry, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry, Some(Retry::In(Duration::from_secs(300))));
    // Some refuse with an error status and words together.
    let forbidden = say(reply("HTTP/1.1 403 Forbidden\r\n", b"d14:failure reason3:no!e"));
    assert!(matches!(outcome(&client(), forbidden).await, Err(TrackerError::Refused { .. })));

    for url in [
        format!("wss://t.example/{PASSKEY}"),
        format!("http://:x/{PASSKEY}/announce"),
        format!("udp://t.example/{PASSKEY}"),
    ] {
        let error = client().announce(&url, V4, &request(AnnounceEvent::None)).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(PASSKEY), "{error}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_44_redirects_are_few_and_lead_to_trackers_only() {
    let client = client();
    let (address, _seen) = http_tracker("127.0.0.1", |_| say(ok(GOOD))).await;
    let good = outcome(&client, say(redirect(&format!("http://{address}/announce")))).await;
    assert_eq!(good.unwrap(), 900);
    let round = outcome(&client, say(redirect("/announce"))).await;
    assert!(matches!(round, Err(TrackerError::RedirectsTooMany)), "{round:?}");
    let admin = outcome(&client, say(redirect(&format!("http://{address}/admin?delete=all")))).await;
    assert!(matches!(admin, Err(TrackerError::LocalService { .. })), "{admin:?}");
    let cloud = outcome(&client, say(redirect("http://169.254.169.254/latest/meta-data/"))).await;
    assert!(matches!(cloud, Err(TrackerError::LocalService { .. })), "{cloud:?}");
    for location in
        ["file:///etc/passwd", "udp://127.0.0.1:1/announce", "gopher://127.0.0.1:1/announce", "http://"]
    {
        let other = outcome(&client, say(redirect(location))).await;
        assert!(matches!(other, Err(TrackerError::Redirect { .. })), "{other:?}");
    }
    let secret = outcome(&client, say(redirect(&format!("file:///{PASSKEY}")))).await.unwrap_err();
    assert!(!format!("{secret} {secret:?}").contains(PASSKEY), "{secret}");
}

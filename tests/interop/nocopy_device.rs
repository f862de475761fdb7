//! A seeder behind a device that really sends without copying: zero copy by itself, because the kernel says so.
//!
//! The device is the far end of a veth pair with a program in the kernel (tools/floors), so this needs root and
//! Linux 6.6. That the bytes are right shows elsewhere: here nobody looks at them.

use crate::content::Content;
use crate::isolation::{address, isolated};
use crate::nocopy::{Drained, Sink, drain};
use crate::seeder::{EMBEDDED_TRACKER, Seeder, is};
use seedring::metainfo::Metainfo;
use seedring::time::Duration;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

const FILE_LEN: usize = 8 << 20;
/// Some hundred of the largest sends.
const DRAINED_LEN: u64 = 256 << 20;
/// Of these in a hundred the kernel may not say that they went without a copy: the last ones of a connection that
/// ends are never sent.
const COPIED_PERCENT_MAX: u64 = 10;

fn ip(words: &str) {
    let output =
        Command::new("ip").args(words.split(' ')).output().expect("ip (package iproute2) can be started");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn zero_copy_is_used_by_itself_where_the_device_does_not_copy() {
    assert!(rustix::process::geteuid().is_root(), "needs root: the device is a program in the kernel");
    isolated("nocopy_device::zero_copy_is_used_by_itself_where_the_device_does_not_copy", || {
        ip("link add near type veth peer name far");
        // Nobody would answer who has which address.
        ip("link set near arp off up");
        ip("link set far up");
        ip("route add 10.46.0.0/24 dev near");
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content = Content::single_file(&scratch.path().join("content"), FILE_LEN, "file.bin");
        let mut seeder = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch.path());
        let torrent = std::fs::read(&seeder.torrent).expect("the torrent file is there");
        let metainfo = Metainfo::parse(&torrent).expect("it is one");
        let Ok(SocketAddr::V4(listening)) = seeder.peer_address().parse() else {
            panic!("it listens on IPv4")
        };
        assert_eq!(*listening.ip(), address(1));
        let sink = Sink {
            seeder: listening,
            near: "near".into(),
            far: "far".into(),
            address: Ipv4Addr::new(10, 46, 0, 2),
            connections: 4,
            depth: 128,
            duration: Duration::from_secs(60),
            bytes: DRAINED_LEN,
        };
        let drained = drain(&sink, &metainfo, || {}).unwrap_or_else(|error| panic!("{error}"));
        assert!(drained.bytes >= DRAINED_LEN, "the seeder is too slow: {drained:?}");
        assert!(drained.bytes_of_the_least > 0, "a peer got nothing: {drained:?}");
        let Drained { bytes, duration, packets, acknowledgements, .. } = drained;
        eprintln!("{bytes} bytes in {packets} packets, {acknowledgements} acknowledgements, {duration:?}");
        assert!(seeder.interrupt().success());
        let events = seeder.events();
        let last = events.iter().rfind(|event| is("status")(event)).expect("it ends with its figures");
        let count =
            |name: &str| last["engine"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {last}"));
        let (sends, copied) = (count("zero_copy_sends"), count("zero_copy_copied"));
        assert!(count("zero_copy_bytes") > count("bytes_sent") / 2, "hardly any zero copy: {last}");
        assert!(copied * 100 <= sends * COPIED_PERCENT_MAX, "{copied} of {sends} sends copied: {last}");
    });
}

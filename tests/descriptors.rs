//! What the engine does when the process has no descriptor left for a newcomer: it says so, and goes on when there
//! is one. The limit is the process's, so this file has one test only.

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedring::engine::EngineEvent;
use seedring::id::InfoHash;
use seedring::wire::{Message, Reserved};
use socket2::{Domain, Socket, Type};
use std::fs::File;
use support::{Leech, PATIENCE, Rig, bytes_of};

#[test]
fn running_out_of_descriptors_is_told_and_newcomers_wait_until_some_are_free() {
    // The kernel notes the limit when an accept is armed, so it has to be low from the start.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).unwrap();
    let (rig, folder) = (Rig::start(), tempfile::tempdir().unwrap());
    let content = bytes_of(1, 1 << 20);
    let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([1; 20]));
    let mut early = Leech::join(&rig, &torrent);
    let newcomer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());

    newcomer.connect(&rig.engine.addresses()[0].into()).unwrap();
    let event = rig.events.recv_timeout(PATIENCE).unwrap();
    let EngineEvent::AcceptFailed { reason } = event else { panic!("{event:?}") };
    assert!(reason.contains("ulimit -n"), "{reason}");
    assert!(early.download(&torrent) == content, "who is here already is served all the same");

    drop(taken);
    newcomer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut late = Leech::introduced(newcomer.into(), &torrent, Reserved::NONE);
    late.say(&[Message::Interested]);
    late.wait_for(|message| *message == Message::Unchoke);
    assert!(late.download(&torrent) == content);
    rig.assert_serves(&torrent, &content);
}

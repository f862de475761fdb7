//! A device that does not answer, whatever it is asked, delays nobody but those who ask for what lies on it, and does not keep
//! the process from ending. The device is a FUSE file system that the test serves itself.

mod getting;
mod support;

use getting::Run;
use rustix::process::Signal;
use seedring::choker::Slots;
use seedring::engine::{Engine, EngineConfig};
use seedring::metainfo::Metainfo;
use seedring::picker::Order;
use seedring::service;
use seedring::session::downloading::{DownloadOptions, Planned};
use seedring::session::seeding::{
    Arrival, Ending, OwnTracker, Seeding, SeedingSettings, SessionEvent, Until,
};
use seedring::storage::{Resume, resume_path};
use seedring::time::Duration;
use seedring::units::BlockSpan;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use support::held_device::{HeldDevice, opcode};
use support::library::Work;
use support::{Leech, PATIENCE};

const PIECE: usize = 256 << 10;
/// Windows that one worker has one device read at once (`limits::FETCHES_PER_DEVICE_MAX`), and more.
const WINDOWS: usize = 40;

/// A seed with one worker that serves one torrent from a disk and one from a device of the test's.
struct Scene {
    // In this order: the process cannot end while the device holds it.
    device: HeldDevice,
    run: Run,
    warm: Work,
    cold: Work,
    others: Vec<Work>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        Self::start_beside(0)
    }

    /// Beside so many warm torrents more, in a process that cannot have all of them open.
    fn start_beside(more: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warm = Work::new(1, "warm", PIECE, &[("", 3 << 20)], 0);
        let cold = Work::new(2, "cold", PIECE, &[("film", WINDOWS * PIECE)], 0);
        let (torrents, data) = (folder.path().join("torrents"), folder.path().join("data"));
        fs::create_dir(&torrents).unwrap();
        fs::create_dir_all(data.join("cold")).unwrap();
        warm.write_content(&data);
        warm.write_torrent(&torrents);
        cold.write_torrent(&torrents);
        let others: Vec<Work> = (0..more as u64)
            .map(|it| Work::new(10 + it, &format!("other-{it}"), PIECE, &[("", 100_000)], 0))
            .collect();
        for other in &others {
            other.write_content(&data);
            other.write_torrent(&torrents);
        }
        let mount = if more > 0 { HeldDevice::mounted_flushing } else { HeldDevice::mounted };
        let device = mount(&data.join("cold"), "film", cold.content.clone());
        let mut seed = getting::seedring("seed");
        seed.arg("--torrents").arg(&torrents).arg("--data").arg(&data).args(["--tracker-port", "0"]);
        seed.arg("--state-dir").arg(folder.path().join("state"));
        if more > 0 {
            seed = getting::with_descriptors(&seed, 64);
        }
        let mut run = Run::start(&mut seed);
        assert_eq!(run.wait_for("ready")["torrents"], 2 + more, "{:?}", run.heard);
        Self { device, run, warm, cold, others, _folder: folder }
    }

    /// A peer that waits for one block of each window of the device's file, as many as are read at once held back.
    fn hang(&self) -> (Leech, Vec<BlockSpan>) {
        let mut leech = self.cold.join(self.run.address());
        self.device.hold(opcode::READ);
        let blocks: Vec<BlockSpan> = self.cold.blocks().into_iter().filter(|it| it.begin == 0).collect();
        assert_eq!(blocks.len(), WINDOWS);
        leech.ask(&blocks);
        self.device.wait_for_held(1);
        (leech, blocks)
    }

    fn assert_serves_the_warm_one(&self) {
        for _ in 0..3 {
            let mut leech = self.warm.join(self.run.address());
            assert!(self.warm.fetch(&mut leech) == self.warm.content);
        }
    }

    /// SIGINT ends it, although nobody answers. The limit says that it hangs, not how fast it is.
    fn assert_ends(mut self) {
        self.run.signal(Signal::INT);
        let status = self.run.ends_within(PATIENCE);
        let Some(status) = status else { panic!("it hangs: {}", self.where_it_hangs()) };
        assert_eq!(status.code(), Some(0));
        let Self { device, run, .. } = self;
        drop(device);
        let (_, _, said) = run.ended();
        assert!(said.contains("cold") && said.contains("does not answer"), "{said}");
    }

    /// Asks for so many other torrents that the content asked for before is closed.
    fn crowd_out(&self) {
        for other in &self.others {
            let mut leech = other.join(self.run.address());
            assert!(other.fetch(&mut leech) == other.content, "{}", other.name);
        }
    }

    /// SIGINT ends all that the program itself does; the kernel ends the rest when the device is gone.
    fn assert_leaves(mut self) {
        self.run.signal(Signal::INT);
        assert_left(&mut self.run);
        let Self { device, run, .. } = self;
        drop(device);
        assert_eq!(run.ended().0.code(), Some(0));
    }

    fn where_it_hangs(&self) -> String {
        where_it_hangs(&self.run)
    }
}

/// Its main thread is gone, or soon will be, while others may still be held.
fn assert_left(run: &mut Run) {
    let stat = format!("/proc/{}/stat", run.id());
    let has_left = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "));
    let deadline = seedring::clock::now() + PATIENCE;
    while !has_left() && seedring::clock::now() < deadline {
        run.next_of(&[], Duration::from_millis(20));
    }
    assert!(has_left(), "it hangs: {}", where_it_hangs(run));
}

/// What each of a process's threads waits for in the kernel.
fn where_it_hangs(run: &Run) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", run.id())).unwrap();
    let waits = tasks.flatten().map(|task| {
        let read = |what| fs::read_to_string(task.path().join(what)).unwrap_or_default();
        let (name, calls) = (read("comm"), read("stack"));
        let calls: Vec<&str> = calls.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        // The kernel's own threads for this process have a number at the end.
        format!("{} in {}", name.trim().trim_end_matches(|c: char| c.is_ascii_digit()), calls.join(" < "))
    });
    let different: BTreeSet<String> = waits.collect();
    different.into_iter().collect::<Vec<_>>().join("; ")
}

#[test]
fn blocks_of_a_warm_torrent_are_served_while_a_device_holds_those_of_another_back() {
    let scene = Scene::start();
    let (mut leech, blocks) = scene.hang();
    scene.assert_serves_the_warm_one();
    scene.device.answer_all();
    let mut content = Vec::new();
    leech.take(&blocks, &mut content);
    assert!(content == blocks.iter().flat_map(|&block| scene.cold.bytes(block).to_vec()).collect::<Vec<_>>());
    assert!(scene.cold.fetch(&mut leech) == scene.cold.content);
}

#[test]
fn reads_that_are_never_answered_do_not_keep_the_process_from_ending() {
    let scene = Scene::start();
    let _leech = scene.hang();
    scene.assert_serves_the_warm_one();
    scene.assert_ends();
}

#[test]
fn a_file_system_that_has_fallen_silent_does_not_keep_the_process_from_ending() {
    let mut scene = Scene::start();
    let _leech = scene.hang();
    scene.device.fall_silent();
    // The watcher looks at the files every two seconds, and waits from then on.
    for _ in 0..4 {
        assert!(scene.run.next_of(&["status"], Duration::from_secs(30)).is_some());
    }
    scene.assert_serves_the_warm_one();
    scene.assert_ends();
}

/// Whatever a device holds back: the others are served, and the program leaves when it is told to.
#[test]
fn no_kind_of_request_that_a_device_holds_back_delays_another_torrent() {
    let kinds = [
        ("read", opcode::READ),
        ("flush", opcode::FLUSH),
        ("getattr", opcode::GETATTR),
        ("lookup", opcode::LOOKUP),
        ("open", opcode::OPEN),
        ("release", opcode::RELEASE),
    ];
    for (name, kind) in kinds {
        let scene = Scene::start_beside(12);
        // Open, and by now partly in memory.
        let mut leech = scene.cold.join(scene.run.address());
        let blocks: Vec<BlockSpan> = scene.cold.blocks().into_iter().filter(|it| it.begin == 0).collect();
        leech.ask(&blocks[..4]);
        leech.take(&blocks[..4], &mut Vec::new());
        scene.device.hold(kind);
        if kind == opcode::READ {
            leech.ask(&blocks[4..]);
        }
        // Closed, and asked for again.
        scene.crowd_out();
        let mut again = scene.cold.join(scene.run.address());
        again.ask(&blocks[4..8]);
        scene.device.wait_for_held(1);
        for _ in 0..2 {
            scene.crowd_out();
            scene.assert_serves_the_warm_one();
        }
        println!("{name} held");
        scene.assert_leaves();
    }
}

/// A session of two downloads: one into a folder, one into a device that from the start on holds requests of one kind
/// back.
fn download_beside(kind: u32) {
    let folder = tempfile::tempdir().unwrap();
    let works = [("healthy", "file"), ("held", "film")]
        .map(|(name, file)| Work::new(name.len() as u64, name, PIECE, &[(file, 6 * PIECE)], 0));
    let path = |name: &str| folder.path().join(name);
    ["torrents", "data"].into_iter().for_each(|it| fs::create_dir(path(it)).unwrap());
    fs::create_dir_all(path("out/held")).unwrap();
    for work in &works {
        work.write_content(&path("data"));
        work.write_torrent(&path("torrents"));
    }
    let mut seed = getting::seedring("seed");
    seed.arg("--torrents").arg(path("torrents")).arg("--data").arg(path("data"));
    seed.args(["--tracker-port", "0", "--upload-slots", "100", "--state-dir"]).arg(path("state-of-seed"));
    let mut seed = Run::start(&mut seed);
    assert_eq!(seed.wait_for("ready")["torrents"], 2, "{:?}", seed.heard);
    let device = HeldDevice::mounted_flushing(&path("out/held"), "film", vec![0; 6 * PIECE]);
    let [healthy, held] = works.each_ref().map(|work| {
        let metainfo = Metainfo::parse(&work.torrent).unwrap();
        let (root, state_dir) = (path("out"), Some(path("state")));
        let options = DownloadOptions { root, state_dir, ..DownloadOptions::default() };
        Planned::new(metainfo, options).unwrap().open(&|_| {}, &AtomicBool::new(false)).unwrap()
    });
    device.hold(kind);
    let settings = SeedingSettings {
        slots: Slots::Auto,
        torrent_upload_limit: None,
        trackers: Vec::new(),
        replace_trackers: false,
        bind: None,
        once: None,
        until: Until::Asked,
        peers: vec![seed.address()],
        peer_id: None,
        tracker_key: None,
        order: Order::RarestFirst,
        super_seed: false,
        state_dir: Some(path("state")),
    };
    let wanted = works[0].info_hash;
    let session = move || async move {
        let config = EngineConfig {
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            workers: Some(1),
            unpinned: true,
            ..EngineConfig::default()
        };
        let (sender, events) = tokio::sync::mpsc::channel(1000);
        let make_sink = || {
            let sender = sender.clone();
            Box::new(move |event| {
                // Nobody listens at the end.
                let _ = sender.try_send(event);
                Ok(())
            }) as _
        };
        let engine = Engine::start(&config, make_sink).unwrap();
        let mut session = Seeding::start(settings, engine, events, OwnTracker::Never).unwrap();
        let (sender, arrivals) = tokio::sync::mpsc::channel(2);
        for checked in [held, healthy] {
            sender.send(Arrival::Ready(Box::new(checked))).await.unwrap();
        }
        drop(sender);
        let (done, downloaded) = tokio::sync::oneshot::channel();
        let mut done = Some(done);
        let tell = |event| {
            if let SessionEvent::Downloaded { info_hash, .. } = event
                && info_hash == wanted
            {
                done.take().into_iter().for_each(|done| done.send(()).unwrap());
            }
        };
        let downloaded = async { downloaded.await.expect("it is told") };
        assert_eq!(session.run(arrivals, downloaded, tell).await, Ending::Asked);
        session.stop().await
    };
    let (sender, ended) = std::sync::mpsc::channel();
    // Not joined: what hangs stays behind until the device is gone.
    std::thread::spawn(move || sender.send(service::run(session())).unwrap());
    let ended = ended.recv_timeout(PATIENCE * 3);
    drop(device);
    ended.expect("the session downloads and ends while a device hangs").expect("it runs").unwrap();
    let note = Resume::load(&resume_path(&path("state"), wanted)).unwrap();
    assert!(note.verified.is_full(), "what was downloaded beside the device is noted");
    assert!(fs::read(path("out/healthy/file")).unwrap() == works[0].content);
}

/// A seed of one torrent, as a process.
fn seed_of(work: &Work, folder: &Path, state_dir: &Path) -> Run {
    let (torrents, data) = (folder.join("torrents"), folder.join("data"));
    [&torrents, &data].into_iter().for_each(|it| fs::create_dir(it).unwrap());
    work.write_content(&data);
    work.write_torrent(&torrents);
    let mut seed = getting::seedring("seed");
    seed.arg("--torrents").arg(&torrents).arg("--data").arg(&data).args(["--tracker-port", "0"]);
    seed.arg("--state-dir").arg(state_dir);
    let mut run = Run::start(&mut seed);
    assert_eq!(run.wait_for("ready")["torrents"], 1, "{:?}", run.heard);
    run
}

#[test]
fn a_device_that_takes_no_notes_delays_neither_the_torrents_noted_there_nor_the_end() {
    for (name, kind) in [("mkdir", opcode::MKDIR), ("create", opcode::CREATE), ("rename", opcode::RENAME2)] {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().join("mount");
        fs::create_dir(&mount).unwrap();
        let device = HeldDevice::mounted(&mount, "other", Vec::new());
        device.hold(kind);
        let warm = Work::new(1, "warm", PIECE, &[("", 3 << 20)], 0);
        let mut run = seed_of(&warm, folder.path(), &mount.join("state"));
        for _ in 0..3 {
            let mut leech = warm.join(run.address());
            assert!(warm.fetch(&mut leech) == warm.content);
        }
        run.signal(Signal::INT);
        assert_left(&mut run);
        device.wait_for_held(1);
        drop(device);
        assert_eq!(run.ended().0.code(), Some(0));
        println!("{name} held");
    }
}

/// Nothing is written that no note says is ours, so a download begins when its note has been taken.
#[test]
fn a_download_that_a_device_does_not_let_begin_ends_when_it_is_told_to_and_names_it() {
    let (mkdir, create) = (opcode::MKDIR, opcode::CREATE);
    let (notes, content) = (("mount/state", "out"), ("state", "mount"));
    for ((state, out), kind) in [
        (notes, mkdir),
        (notes, create),
        (notes, opcode::RENAME2),
        (content, mkdir),
        (content, create),
        (content, opcode::SETATTR),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().join("mount");
        fs::create_dir(&mount).unwrap();
        let work = Work::new(1, "healthy", PIECE, &[("file", 6 * PIECE)], 0);
        let seed = seed_of(&work, folder.path(), &folder.path().join("state-of-seed"));
        let device = HeldDevice::mounted(&mount, "other", Vec::new());
        device.hold(kind);
        let mut get = get(&work, folder.path(), &seed, &folder.path().join(out), &folder.path().join(state));
        device.wait_for_held(1);
        // The seed is not touched by it.
        let mut leech = work.join(seed.address());
        assert!(work.fetch(&mut leech) == work.content);
        get.signal(Signal::INT);
        assert_left(&mut get);
        drop(device);
        let (status, _, said) = get.ended();
        assert_eq!(status.code(), Some(1), "{kind} of {out}: {said}");
        assert!(said.contains(out) && said.contains("does not answer"), "{kind} of {out}: {said}");
    }
}

/// `seedring get` of what that seed has.
fn get(work: &Work, folder: &Path, seed: &Run, out: &Path, state_dir: &Path) -> Run {
    let mut get = getting::seedring("get");
    get.arg(folder.join("torrents").join(format!("{}.torrent", work.name))).arg("-o").arg(out);
    get.arg("--peer").arg(seed.address().to_string()).arg("--state-dir").arg(state_dir);
    Run::start(&mut get)
}

#[test]
fn a_download_ends_and_is_noted_beside_one_whose_device_takes_no_write() {
    download_beside(opcode::WRITE);
}

#[test]
fn a_download_ends_and_is_noted_beside_one_whose_device_brings_nothing_to_the_disk() {
    download_beside(opcode::FSYNC);
}

#[test]
fn a_download_ends_and_is_noted_beside_one_whose_device_tells_nothing_of_its_files() {
    for kind in [opcode::GETATTR, opcode::LOOKUP] {
        download_beside(kind);
    }
}

#[test]
fn a_download_ends_and_is_noted_beside_one_whose_device_does_not_close() {
    download_beside(opcode::FLUSH);
}

#[test]
fn a_file_that_is_numbered_anew_is_looked_at_again_and_served_on() {
    let mut scene = Scene::start();
    // Before it was ever open, and while it is.
    for _ in 0..2 {
        scene.device.number_anew();
        let mut leech = scene.cold.join(scene.run.address());
        assert!(scene.cold.fetch(&mut leech) == scene.cold.content);
        // The watcher looks at the files meanwhile.
        for _ in 0..4 {
            scene.run.wait_for("status");
        }
    }
    assert!(scene.run.heard.iter().all(|event| event["event"] != "failed"), "{:?}", scene.run.heard);
    scene.run.signal(Signal::INT);
    assert!(scene.run.ends_within(PATIENCE).is_some_and(|status| status.success()));
}

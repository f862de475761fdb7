//! A device that does not answer delays nobody but those who ask for what lies on it, and does not keep the process from
//! ending. The device is a FUSE file system that the test serves itself.

mod getting;
mod support;

use getting::Run;
use rustix::process::Signal;
use seedring::time::Duration;
use seedring::units::BlockSpan;
use std::collections::BTreeSet;
use std::fs;
use support::held_device::HeldDevice;
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
    _folder: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warm = Work::new(1, "warm", PIECE, &[("", 3 << 20)], 0);
        let cold = Work::new(2, "cold", PIECE, &[("film", WINDOWS * PIECE)], 0);
        let (torrents, data) = (folder.path().join("torrents"), folder.path().join("data"));
        fs::create_dir(&torrents).unwrap();
        fs::create_dir_all(data.join("cold")).unwrap();
        warm.write_content(&data);
        warm.write_torrent(&torrents);
        cold.write_torrent(&torrents);
        let device = HeldDevice::mounted(&data.join("cold"), "film", cold.content.clone());
        let mut seed = getting::seedring("seed");
        seed.arg("--torrents").arg(&torrents).arg("--data").arg(&data).args(["--tracker-port", "0"]);
        let mut run = Run::start(seed.arg("--state-dir").arg(folder.path().join("state")));
        assert_eq!(run.wait_for("ready")["torrents"], 2, "{:?}", run.heard);
        Self { device, run, warm, cold, _folder: folder }
    }

    /// A peer that waits for one block of each window of the device's file, as many as are read at once held back.
    fn hang(&self) -> (Leech, Vec<BlockSpan>) {
        let mut leech = self.cold.join(self.run.address());
        self.device.hold_reads();
        let blocks: Vec<BlockSpan> = self.cold.blocks().into_iter().filter(|it| it.begin == 0).collect();
        assert_eq!(blocks.len(), WINDOWS);
        leech.ask(&blocks);
        self.device.wait_for_reads(1);
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

    /// What each of its threads waits for in the kernel.
    fn where_it_hangs(&self) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.run.id())).unwrap();
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
}

#[test]
fn blocks_of_a_warm_torrent_are_served_while_a_device_holds_those_of_another_back() {
    let scene = Scene::start();
    let (mut leech, blocks) = scene.hang();
    scene.assert_serves_the_warm_one();
    scene.device.answer_reads();
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
    // Whoever looks after the files does so every two seconds, and waits from then on.
    for _ in 0..4 {
        assert!(scene.run.next_of(&["status"], Duration::from_secs(30)).is_some());
    }
    scene.assert_serves_the_warm_one();
    scene.assert_ends();
}

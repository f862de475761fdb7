//! A `seedring seed` as a process outlives its torrents: content that vanishes is served again when it is back, folders are
//! followed, SIGHUP reads again, and nothing but being told to ends it.

mod getting;
mod support;

use getting::Run;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use support::held_device::{HeldDevice, opcode};
use support::library::Work;

const PIECE: usize = 16 << 10;

fn work(name: &str, seed: u64) -> Work {
    Work::new(seed, name, PIECE, &[("one", 100_000), ("two", 50_000)], 0)
}

/// A folder of torrents and one of content.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        ["torrents", "data"].iter().for_each(|name| fs::create_dir(place.path(name)).unwrap());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, work: &Work) {
        work.write_content(&self.path("data"));
        work.write_torrent(&self.path("torrents"));
    }

    fn command(&self) -> std::process::Command {
        let mut command = getting::seedring("seed");
        command.arg("--data").arg(self.path("data")).arg("--state-dir").arg(self.path("state"));
        command.args(["--tracker-port", "0"]);
        command
    }

    /// Seeds what the folder holds.
    fn watch(&self) -> Run {
        let mut run = Run::start(self.command().arg("--torrents").arg(self.path("torrents")));
        run.wait_for("ready");
        run
    }
}

fn assert_ends(run: Run) {
    run.signal(Signal::TERM);
    let (status, _, said) = run.ended();
    assert!(status.success(), "{said}");
}

/// How often each of these was told.
fn told(run: &Run, names: &[&str]) -> Vec<usize> {
    let count = |name: &&str| run.heard.iter().filter(|event| event["event"] == **name).count();
    names.iter().map(count).collect()
}

#[test]
fn content_that_vanishes_and_comes_back_is_served_again_and_told_once_each_way() {
    let (place, work) = (Place::new(), work("film", 1));
    place.put(&work);
    let torrent = place.path("torrents/film.torrent");
    let mut run = Run::start(place.command().arg(&torrent));
    run.wait_for("ready");
    let mut staying = work.join(run.address());
    for round in 1..3 {
        fs::rename(place.path("data/film"), place.path("away")).unwrap();
        let failed = run.wait_for("failed");
        assert_eq!(failed["info_hash"], work.info_hash.to_string());
        // It stays away for some looks.
        for _ in 0..3 {
            run.wait_for("status");
        }
        fs::rename(place.path("away"), place.path("data/film")).unwrap();
        let started = run.wait_for("started");
        assert_eq!((&started["back"], &started["pieces"]), (&true.into(), &started["piece_count"]));
        assert_eq!(told(&run, &["failed", "started", "checking"]), [round, round + 1, 1]);
        staying = work.join(run.address());
        assert!(work.fetch(&mut staying) == work.content);
    }
    drop(staying);
    assert_ends(run);
}

#[test]
fn a_single_file_or_one_of_several_that_vanishes_is_waited_for_and_looked_at() {
    let place = Place::new();
    let (single, several) = (Work::new(4, "film.mkv", PIECE, &[("", 200_000)], 0), work("album", 5));
    place.put(&single);
    place.put(&several);
    let mut run = place.watch();
    let mut expected = vec![0, 2, 2];
    for (name, work) in [("film.mkv", &single), ("album/two", &several)] {
        fs::rename(place.path("data").join(name), place.path("away")).unwrap();
        // It is found missing by whoever asks for it, or in its turn.
        let mut peer = work.meet(run.address());
        peer.say(&[seedring::wire::Message::HaveNone]);
        assert_eq!(run.wait_for("failed")["info_hash"], work.info_hash.to_string());
        for _ in 0..6 {
            run.wait_for("status");
        }
        fs::rename(place.path("away"), place.path("data").join(name)).unwrap();
        assert_eq!(run.wait_for("started")["info_hash"], work.info_hash.to_string());
        // A file that was moved is as old as it was, and has been changed, as one is whose time was put back.
        expected.iter_mut().for_each(|count| *count += 1);
        assert_eq!(told(&run, &["failed", "started", "checking"]), expected);
        assert!(work.fetch(&mut work.join(run.address())) == work.content);
    }
    assert_ends(run);
}

#[test]
fn an_empty_folder_is_waited_for_and_followed() {
    let place = Place::new();
    let mut run = Run::start(place.command().arg("--torrents").arg(place.path("torrents")));
    assert_eq!(run.wait_for("ready")["torrents"], 0);
    let (one, two) = (work("one", 1), work("two", 2));
    place.put(&one);
    assert_eq!(run.wait_for("started")["info_hash"], one.info_hash.to_string());
    assert!(one.fetch(&mut one.join(run.address())) == one.content);
    place.put(&two);
    assert_eq!(run.wait_for("started")["info_hash"], two.info_hash.to_string());
    fs::remove_file(place.path("torrents/one.torrent")).unwrap();
    assert_eq!(run.wait_for("removed")["info_hash"], one.info_hash.to_string());
    assert!(two.fetch(&mut two.join(run.address())) == two.content);
    // Another torrent under the name of the one before.
    let three = work("three", 3);
    three.write_content(&place.path("data"));
    fs::write(place.path("torrents/two.torrent"), &three.torrent).unwrap();
    assert_eq!(run.wait_for("replaced")["info_hash"], two.info_hash.to_string());
    assert_eq!(run.wait_for("started")["info_hash"], three.info_hash.to_string());
    while run.wait_for("status")["torrents"] != 1 {}
    fs::remove_file(place.path("torrents/two.torrent")).unwrap();
    run.wait_for("removed");
    while run.wait_for("status")["torrents"] != 0 {}
    assert_ends(run);
}

#[test]
fn a_second_file_of_a_torrent_that_is_served_is_told_and_takes_its_place_when_that_goes() {
    let (place, work) = (Place::new(), work("film", 1));
    place.put(&work);
    let mut run = place.watch();
    fs::copy(place.path("torrents/film.torrent"), place.path("torrents/same.torrent")).unwrap();
    let told_of = run.wait_for("duplicate");
    let path = |name: &str| place.path("torrents").join(name).to_str().unwrap().to_owned();
    assert_eq!(told_of["info_hash"], work.info_hash.to_string());
    assert_eq!(
        (&told_of["torrent"], &told_of["served_from"]),
        (&path("same.torrent").into(), &path("film.torrent").into())
    );
    fs::remove_file(place.path("torrents/film.torrent")).unwrap();
    run.wait_for("replaced");
    assert_eq!(run.wait_for("started")["torrent"], path("same.torrent"));
    assert_eq!(told(&run, &["duplicate", "removed", "failed"]), [1, 0, 0]);
    assert_ends(run);
}

#[test]
fn content_that_comes_after_its_torrent_is_served_when_it_is_whole() {
    let (place, one, late) = (Place::new(), work("one", 1), work("late", 2));
    place.put(&one);
    late.write_torrent(&place.path("torrents"));
    let mut run = place.watch();
    assert_eq!(told(&run, &["started", "warning"]), [1, 1]);
    late.write_content(&place.path("data"));
    run.signal(Signal::HUP);
    assert_eq!(run.wait_for("started")["info_hash"], late.info_hash.to_string());
    assert_eq!(told(&run, &["warning", "reloading"]), [1, 1]);
    assert!(late.fetch(&mut late.join(run.address())) == late.content);
    assert_ends(run);
}

#[test]
fn a_hangup_ends_nothing_and_totals_are_there_after_it() {
    let (place, work) = (Place::new(), work("film", 1));
    place.put(&work);
    let mut run = place.watch();
    assert!(work.fetch(&mut work.join(run.address())) == work.content);
    for _ in 0..3 {
        run.signal(Signal::HUP);
        run.wait_for("reloading");
    }
    assert!(work.fetch(&mut work.join(run.address())) == work.content);
    assert_eq!(told(&run, &["failed", "removed", "started"]), [0, 0, 1]);
    assert_ends(run);
    let resume = seedring::storage::resume_path(&place.path("state"), work.info_hash);
    let resume = seedring::storage::Resume::load(&resume).unwrap();
    assert_eq!(resume.uploaded, 2 * work.content.len() as u64);
}

#[test]
fn totals_outlive_a_time_without_content() {
    let (place, work) = (Place::new(), work("film", 1));
    place.put(&work);
    let mut run = place.watch();
    assert!(work.fetch(&mut work.join(run.address())) == work.content);
    fs::rename(place.path("torrents/film.torrent"), place.path("film.torrent")).unwrap();
    run.wait_for("removed");
    fs::rename(place.path("film.torrent"), place.path("torrents/film.torrent")).unwrap();
    run.wait_for("started");
    assert!(work.fetch(&mut work.join(run.address())) == work.content);
    assert_ends(run);
    let resume = seedring::storage::resume_path(&place.path("state"), work.info_hash);
    let resume = seedring::storage::Resume::load(&resume).unwrap();
    assert_eq!(resume.uploaded, 2 * work.content.len() as u64);
}

#[test]
fn a_folder_that_is_gone_for_a_while_ends_nothing() {
    let (place, work) = (Place::new(), work("film", 1));
    place.put(&work);
    let mut run = place.watch();
    fs::rename(place.path("torrents"), place.path("away")).unwrap();
    let said = run.wait_for("warning")["message"].clone();
    assert!(said.as_str().unwrap().contains("served on"), "{said}");
    assert!(work.fetch(&mut work.join(run.address())) == work.content);
    fs::rename(place.path("away"), place.path("torrents")).unwrap();
    run.signal(Signal::HUP);
    let said = run.wait_for("warning")["message"].clone();
    assert!(said.as_str().unwrap().contains("can be read again"), "{said}");
    assert_eq!(told(&run, &["failed", "removed", "started"]), [0, 0, 1]);
    assert_ends(run);
}

#[test]
fn folders_below_a_folder_of_torrents_are_told_and_several_folders_are_read() {
    let (place, one, two) = (Place::new(), work("one", 1), work("two", 2));
    place.put(&one);
    fs::create_dir(place.path("torrents/more")).unwrap();
    two.write_content(&place.path("data"));
    two.write_torrent(&place.path("torrents/more"));
    let mut run = Run::start(place.command().arg("--torrents").arg(place.path("torrents")));
    let said = run.wait_for("warning")["message"].clone();
    assert!(said.as_str().unwrap().contains("are not looked for; name those folders, too"), "{said}");
    assert_ends(run);
    let mut both = place.command();
    both.arg("--torrents").arg(place.path("torrents")).arg("--torrents").arg(place.path("torrents/more"));
    let mut run = Run::start(&mut both);
    assert_eq!(run.wait_for("ready")["torrents"], 2);
    assert_ends(run);
}

#[test]
fn content_of_which_nothing_is_good_is_not_said_to_be_seeded() {
    let (place, work) = (Place::new(), work("film", 1));
    place.put(&work);
    for (file, len) in [("one", 100_000), ("two", 50_000)] {
        fs::write(place.path("data/film").join(file), vec![1; len]).unwrap();
    }
    // Named by itself there is nothing to do; what a folder holds may be mended.
    let run = Run::start(place.command().arg(place.path("torrents/film.torrent")));
    let (status, heard, said) = run.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(heard.iter().all(|event| event["event"] != "started"));
    let failed = heard.iter().find(|event| event["event"] == "failed").expect("it says so");
    assert!(failed["reason"].as_str().unwrap().contains("none of its 10 pieces is good"), "{failed}");
    let mut run = Run::start(place.command().arg("--torrents").arg(place.path("torrents")));
    assert_eq!(run.wait_for("ready")["torrents"], 0);
    work.write_content(&place.path("data"));
    assert_eq!(run.wait_for("started")["pieces"], 10);
    assert!(work.fetch(&mut work.join(run.address())) == work.content);
    assert_ends(run);
}

/// A torrent of three files of which `two` and `three` are missing, served from a folder.
fn partly_there(place: &Place) -> (Work, Run) {
    let files = [("one", 20 * PIECE), ("two", 5 * PIECE), ("three", 5 * PIECE)];
    let work = Work::new(6, "album", PIECE, &files, 0);
    place.put(&work);
    for name in ["two", "three"] {
        fs::rename(place.path("data/album").join(name), place.path(name)).unwrap();
    }
    let run = Run::start(place.command().arg(place.path("torrents/album.torrent")));
    (work, run)
}

/// The pieces of the next `started`, and the bytes that were read since the last.
fn served_again(run: &mut Run, heard_before: usize) -> (u64, u64) {
    let started = run.wait_for("started");
    assert_eq!(started["back"], true, "{started}");
    let checks = run.heard[heard_before..].iter().filter(|event| event["event"] == "checking");
    (started["pieces"].as_u64().unwrap(), checks.map(|event| event["length"].as_u64().unwrap()).sum())
}

#[test]
fn a_missing_file_that_comes_is_served_too_and_nothing_else_is_read_again() {
    let place = Place::new();
    let (work, mut run) = partly_there(&place);
    run.wait_for("ready");
    let started = run.heard.iter().find(|event| event["event"] == "started").unwrap();
    assert_eq!(started["pieces"], 20);
    let heard = run.heard.len();
    fs::rename(place.path("two"), place.path("data/album/two")).unwrap();
    assert_eq!(served_again(&mut run, heard), (25, 5 * PIECE as u64));
    // A peer learns it as it comes.
    let mut peer = work.meet(run.address());
    let pieces = peer.hear(|message| match message {
        seedring::wire::Message::Bitfield(bits) => {
            Some(bits.iter().map(|byte| byte.count_ones()).sum::<u32>())
        }
        _ => None,
    });
    assert_eq!(pieces, 25);
    let heard = run.heard.len();
    fs::rename(place.path("three"), place.path("data/album/three")).unwrap();
    run.signal(Signal::HUP);
    assert_eq!(served_again(&mut run, heard), (30, 5 * PIECE as u64));
    assert!(work.fetch(&mut work.join(run.address())) == work.content);
    assert_eq!(told(&run, &["failed"]), [0], "it was served all the time");
    assert_ends(run);
    // What was found in this run is known in the next.
    let mut run = Run::start(place.command().arg(place.path("torrents/album.torrent")));
    assert_eq!(run.wait_for("started")["pieces"], 30);
    assert_eq!(run.checked_len(), 0);
    assert_ends(run);
}

#[test]
fn a_file_that_goes_and_comes_back_is_not_kept_from_it_by_others_that_are_missing() {
    let place = Place::new();
    let (work, mut run) = partly_there(&place);
    run.wait_for("ready");
    let heard = run.heard.len();
    fs::rename(place.path("data/album/one"), place.path("away")).unwrap();
    run.signal(Signal::HUP);
    assert_eq!(run.wait_for("failed")["info_hash"], work.info_hash.to_string());
    for _ in 0..3 {
        run.wait_for("status");
    }
    fs::rename(place.path("away"), place.path("data/album/one")).unwrap();
    assert_eq!(served_again(&mut run, heard), (20, 20 * PIECE as u64));
    // Written anew while it is served: two pieces of it are not right any more, and of the others nothing is read.
    fs::write(place.path("data/album/two"), &work.content[20 * PIECE..25 * PIECE]).unwrap();
    let heard = run.heard.len();
    assert_eq!(served_again(&mut run, heard), (25, 5 * PIECE as u64));
    let mut wrong = work.content[20 * PIECE..25 * PIECE].to_vec();
    (wrong[0], wrong[2 * PIECE]) = (!wrong[0], !wrong[2 * PIECE]);
    let heard = run.heard.len();
    fs::write(place.path("data/album/two"), wrong).unwrap();
    run.signal(Signal::HUP);
    run.wait_for("failed");
    assert_eq!(served_again(&mut run, heard), (23, 5 * PIECE as u64));
    assert_ends(run);
}

/// A torrent of one file, `film`, in the folder of its name, which lies on a device of the test's.
fn held(place: &Place, name: &str, seed: u64) -> (HeldDevice, Work) {
    let work = Work::new(seed, name, PIECE, &[("film", 300_000)], 0);
    fs::create_dir_all(place.path("data").join(name)).unwrap();
    work.write_torrent(&place.path("torrents"));
    (HeldDevice::mounted(&place.path("data").join(name), "film", work.content.clone()), work)
}

fn waiting_for(ready: &serde_json::Value) -> Vec<&str> {
    ready["waiting_for"].as_array().unwrap().iter().map(|what| what.as_str().unwrap()).collect()
}

/// It ends, although nobody answers. The limit says that it hangs, not how fast it is. What it said meanwhile.
fn assert_ends_without(mut run: Run, devices: Vec<HeldDevice>) -> String {
    run.signal(Signal::TERM);
    let status = run.ends_within(support::PATIENCE).expect("it does not hang");
    assert!(status.success(), "{status}");
    drop(devices);
    run.ended().2
}

#[test]
fn a_check_whose_disk_hangs_holds_up_no_other_disk_nor_ready_nor_the_end() {
    let place = Place::new();
    let (device, cold) = held(&place, "cold", 1);
    let warm = work("warm", 2);
    place.put(&warm);
    device.hold(opcode::READ);
    let mut run = Run::start(place.command().arg("--torrents").arg(place.path("torrents")));
    // Both have to be checked, and "cold" comes first.
    assert_eq!(run.wait_for("started")["info_hash"], warm.info_hash.to_string());
    let ready = run.wait_for("ready");
    assert_eq!((&ready["torrents"], waiting_for(&ready)), (&1.into(), vec!["cold"]));
    assert!(warm.fetch(&mut warm.join(run.address())) == warm.content);
    // Whatever comes later to a disk that answers is checked as well.
    let late = work("late", 3);
    place.put(&late);
    assert_eq!(run.wait_for("started")["info_hash"], late.info_hash.to_string());
    device.answer_all();
    assert_eq!(run.wait_for("started")["info_hash"], cold.info_hash.to_string());
    run.wait_for("status");
    assert!(cold.fetch(&mut cold.join(run.address())) == cold.content);
    assert_ends(run);
}

#[test]
fn a_check_that_is_never_answered_does_not_keep_the_process_from_ending() {
    let place = Place::new();
    let (device, _cold) = held(&place, "cold", 1);
    place.put(&work("warm", 2));
    device.hold(opcode::READ);
    let mut run = Run::start(place.command().arg("--torrents").arg(place.path("torrents")));
    run.wait_for("started");
    device.wait_for_held(1);
    let said = assert_ends_without(run, vec![device]);
    assert!(said.contains("cold") && said.contains("does not answer"), "{said}");
}

#[test]
fn file_systems_that_are_silent_at_the_start_hold_up_only_what_lies_there() {
    let place = Place::new();
    let (mut devices, mut names) = (Vec::new(), Vec::new());
    for (seed, name) in ["a cold one", "another", "one more", "the last"].into_iter().enumerate() {
        let (device, _) = held(&place, name, seed as u64);
        device.fall_silent();
        devices.push(device);
        names.push(place.path("data").join(name));
    }
    let warm = work("warm", 9);
    place.put(&warm);
    let mut run = Run::start(place.command().arg("--torrents").arg(place.path("torrents")));
    assert_eq!(run.wait_for("started")["info_hash"], warm.info_hash.to_string());
    let ready = run.wait_for("ready");
    let waited: Vec<&Path> = waiting_for(&ready).into_iter().map(Path::new).collect();
    assert_eq!(ready["torrents"], 1);
    assert_eq!(waited, names);
    assert!(warm.fetch(&mut warm.join(run.address())) == warm.content);
    assert_eq!(told(&run, &["warning"]), [names.len()], "each is told once: {:?}", run.heard);
    assert_ends_without(run, devices);
}

#[test]
fn a_folder_of_torrents_that_is_silent_is_told_once_and_others_are_served() {
    let place = Place::new();
    let warm = work("warm", 1);
    place.put(&warm);
    fs::create_dir(place.path("far")).unwrap();
    let device = HeldDevice::mounted(&place.path("far"), "one.torrent", warm.torrent.clone());
    device.fall_silent();
    let mut command = place.command();
    command.arg("--torrents").arg(place.path("far")).arg("--torrents").arg(place.path("torrents"));
    let mut run = Run::start(&mut command);
    assert_eq!(run.wait_for("started")["info_hash"], warm.info_hash.to_string());
    let ready = run.wait_for("ready");
    assert_eq!(waiting_for(&ready), [place.path("far").to_str().unwrap()]);
    while told(&run, &["warning"]) == [0] {
        run.wait_for("status");
    }
    for _ in 0..20 {
        run.wait_for("status");
    }
    assert_eq!(told(&run, &["warning"]), [1], "{:?}", run.heard);
    assert!(warm.fetch(&mut warm.join(run.address())) == warm.content);
    assert_ends_without(run, vec![device]);
}

#[test]
fn a_torrent_that_was_named_and_is_silent_holds_up_none_of_the_others() {
    let place = Place::new();
    let (device, _) = held(&place, "cold", 1);
    device.fall_silent();
    let warm = work("warm", 2);
    place.put(&warm);
    let mut command = place.command();
    command.arg(place.path("torrents/cold.torrent")).arg(place.path("torrents/warm.torrent"));
    let mut run = Run::start(&mut command);
    assert_eq!(run.wait_for("started")["info_hash"], warm.info_hash.to_string());
    let ready = run.wait_for("ready");
    assert_eq!(waiting_for(&ready), [place.path("data/cold").to_str().unwrap()]);
    assert!(warm.fetch(&mut warm.join(run.address())) == warm.content);
    assert_ends_without(run, vec![device]);
}

//! What a download knows when it is started again: after an end in order, after somebody has touched the files, and
//! with a resume file that tells nothing. What a seed knows of content that is not whole.

mod getting;

use getting::{Album, PATIENCE, Run, get, seed};
use rustix::process::Signal;
use seedring::storage::{FileSelection, Resume, resume_path};
use std::fs;
use std::path::PathBuf;

const PIECE: u64 = 64 << 10;

fn album() -> Album {
    Album::new(5, PIECE as usize, &[("one.flac", 2_000_001), ("notes.txt", 70_001), ("two.flac", 1_000_000)])
}

fn resume_file(album: &Album) -> PathBuf {
    resume_path(&album.path("state"), album.metainfo.info_hash())
}

/// Downloads until some pieces are here, and ends it by this signal.
fn stopped(album: &Album, signal: Signal) -> u64 {
    let seed = seed(album, "500KB/s");
    let mut run = Run::start(&mut get(album, Some(seed.address())));
    loop {
        let left = run.wait_for("status")["download"]["left"].as_u64().expect("it is in the middle");
        if left < album.content.len() as u64 {
            break;
        }
    }
    run.signal(signal);
    let (status, _, said) = run.ended();
    if signal == Signal::KILL {
        return u64::from(album.right_pieces(&album.path("out"), &FileSelection::all()).count());
    }
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the same command goes on from here"), "{said}");
    u64::from(Resume::load(&resume_file(album)).unwrap().verified.count())
}

/// Pieces known at the next start, and bytes that were checked for it.
fn started_again(album: &Album) -> (u64, u64) {
    let mut run = Run::start(&mut get(album, None));
    let pieces = run.started()["pieces"].as_u64().unwrap();
    (pieces, run.checked_len())
}

fn complete(album: &Album) {
    let seed = seed(album, "100MB/s");
    let (status, _, said) = Run::start(&mut get(album, Some(seed.address()))).ended();
    assert!(status.success(), "{said}");
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn after_a_signal_nothing_is_checked() {
    let album = album();
    for signal in [Signal::TERM, Signal::INT] {
        let pieces = stopped(&album, signal);
        assert!(Resume::load(&resume_file(&album)).unwrap().is_clean);
        assert_eq!(started_again(&album), (pieces, 0));
        fs::remove_dir_all(album.path("out")).unwrap();
    }
}

#[test]
fn pieces_that_are_on_their_way_to_the_disk_at_a_signal_are_kept() {
    let album = Album::new(6, 1 << 20, &[("one.flac", 60_000_001)]);
    let seed = seed(&album, "20MB/s");
    let mut run = Run::start(&mut get(&album, Some(seed.address())));
    while run.wait_for("status")["download"]["left"].as_u64().expect("it is in the middle") == 60_000_001 {}
    run.signal(Signal::TERM);
    let (_, _, said) = run.ended();
    let right = album.right_pieces(&album.path("out"), &FileSelection::all());
    assert!(right.count() > 0);
    assert_eq!(started_again(&album), (u64::from(right.count()), 0), "{said}");
}

#[test]
fn a_file_that_was_touched_between_runs_is_checked_and_no_other() {
    let album = album();
    let pieces = stopped(&album, Signal::TERM);
    let one = album.path("out/album/one.flac");
    let mut bytes = fs::read(&one).unwrap();
    let right = album.right_pieces(&album.path("out"), &FileSelection::all());
    let in_one = album.layout.pieces_of(seedring::storage::FileIndex(0));
    let victim = right.iter().find(|piece| in_one.contains(&piece.0)).expect("a piece of it is here");
    bytes[victim.0 as usize * PIECE as usize] ^= 1;
    fs::write(&one, bytes).unwrap();
    let (known, checked) = started_again(&album);
    assert_eq!(known, pieces - 1);
    assert!(checked > 0 && checked <= (u64::from(in_one.end) + 1) * PIECE, "{checked}");
    complete(&album);
}

#[test]
fn a_file_that_was_removed_costs_its_pieces_only() {
    for signal in [Signal::TERM, Signal::KILL] {
        let album = album();
        let pieces = stopped(&album, signal);
        let right = album.right_pieces(&album.path("out"), &FileSelection::all());
        let in_two = album.layout.pieces_of(seedring::storage::FileIndex(2));
        let lost = right.iter().filter(|piece| in_two.contains(&piece.0)).count() as u64;
        fs::remove_file(album.path("out/album/two.flac")).unwrap();
        assert_eq!(started_again(&album).0, pieces - lost);
        // The file was made again, and holds nothing.
        assert_eq!(started_again(&album).0, pieces - lost);
        complete(&album);
    }
}

#[test]
fn a_resume_file_that_tells_nothing_costs_a_check_and_is_kept_beside() {
    let album = album();
    let pieces = stopped(&album, Signal::TERM);
    let path = resume_file(&album);
    let good = fs::read(&path).unwrap();
    let mut newer = good.clone();
    newer[8] = 99;
    // What is no record at all comes last: the others take the place of one another, and nothing takes the place of that.
    for bad in [&good[..good.len() / 2], b"", &newer, b"what is this?"] {
        fs::write(&path, bad).unwrap();
        let (known, checked) = started_again(&album);
        assert_eq!(known, pieces, "nothing is lost");
        assert!(checked >= pieces * PIECE - PIECE, "{checked}");
        assert_eq!(fs::read(path.with_extension("resume.bak")).unwrap(), bad);
        assert_eq!(Resume::load(&path).map(|resume| resume.verified.count()), Ok(pieces as u32));
    }
    complete(&album);
}

#[test]
fn a_selection_that_touches_every_piece_is_remembered_as_one() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    let only = |seed| {
        let mut command = get(&album, seed);
        command.args(["--only", "*.flac"]);
        Run::start(&mut command)
    };
    // The file that is left out is hardly longer than a piece, and lies in two.
    let pieces = u64::from(album.layout.piece_count());
    for seed in [Some(seed.address()), None] {
        let mut run = only(seed);
        let known = run.started()["pieces"].as_u64().unwrap();
        assert_eq!((known, run.checked_len()), (if seed.is_some() { 0 } else { pieces }, 0));
        assert!(run.ended().0.success());
        album.assert_downloaded(&album.path("out"), |path| path != "notes.txt");
    }
}

#[test]
fn the_rest_is_fetched_after_some_files_and_nothing_twice_and_nothing_is_left_behind() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    let mut received = 0;
    for only in [Some("two.flac"), Some("*.flac"), None, Some("notes.txt")] {
        let mut command = get(&album, Some(seed.address()));
        only.iter().for_each(|only| _ = command.args(["--only", only]));
        let (status, heard, said) = Run::start(&mut command).ended();
        assert!(status.success(), "{only:?}: {said}");
        let last = heard.iter().rfind(|event| event["event"] == "status").unwrap();
        received += last["engine"]["payload_received"].as_u64().unwrap();
        let names = || fs::read_dir(album.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
        if only.is_none() {
            assert_eq!(names().collect::<Vec<_>>(), ["album"]);
        }
    }
    assert_eq!(received, album.content.len() as u64, "each byte has come once");
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn a_check_that_is_broken_off_loses_nothing() {
    let album = album();
    complete(&album);
    fs::remove_file(resume_file(&album)).unwrap();
    let mut run = Run::start(&mut get(&album, None));
    assert!(run.next_of(&["checking"], PATIENCE).is_some());
    run.signal(Signal::INT);
    let (status, heard, said) = run.ended();
    // The signal may come too late to break it off.
    let has_begun = heard.iter().any(|event| event["event"] == "started");
    assert_eq!(status.code(), Some(i32::from(!has_begun)), "{said}");
    assert!(has_begun || said.contains("stopped before the download began"), "{said}");
    assert_eq!(started_again(&album).0, u64::from(album.layout.piece_count()));
}

#[test]
fn a_file_that_vanishes_under_way_ends_the_download_and_costs_its_pieces_only() {
    let album = album();
    let seed = seed(&album, "300KB/s");
    let mut run = Run::start(&mut get(&album, Some(seed.address())));
    run.wait_for("status");
    fs::remove_file(album.path("out/album/one.flac")).unwrap();
    let failed = run.wait_for("failed");
    assert!(failed["reason"].as_str().unwrap().contains("one.flac has vanished"), "{failed}");
    let (status, _, said) = run.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    let right = album.right_pieces(&album.path("out"), &FileSelection::all());
    assert_eq!(started_again(&album).0, u64::from(right.count()));
    complete(&album);
}

/// Writes over the middle of a piece that is there, in place.
fn spoil(album: &Album, piece: u64) {
    let file = fs::OpenOptions::new().write(true).open(album.path("out/album/one.flac")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"CORRUPT", piece * PIECE + 1000).unwrap();
}

#[test]
fn what_somebody_writes_over_a_verified_piece_is_noticed_at_the_next_start() {
    for (signal, put_back) in [(Signal::KILL, false), (Signal::KILL, true), (Signal::TERM, true)] {
        let album = album();
        stopped(&album, signal);
        let noted = Resume::load(&resume_file(&album)).unwrap().verified;
        let right = album.right_pieces(&album.path("out"), &FileSelection::all());
        let whole = 2_000_001 / PIECE as u32;
        let Some(victim) = right.iter().find(|piece| noted.contains(*piece) && piece.0 < whole) else {
            // Within the first two seconds a kill may come before the first note of a piece.
            assert_eq!(signal, Signal::KILL);
            continue;
        };
        let one = fs::File::options().append(true).open(album.path("out/album/one.flac")).unwrap();
        let before = one.metadata().unwrap().modified().unwrap();
        spoil(&album, u64::from(victim.0));
        if put_back {
            one.set_modified(before).unwrap();
        }
        assert_eq!(started_again(&album).0, u64::from(right.count()) - 1, "{signal:?} {put_back}");
        complete(&album);
    }
}

#[test]
fn a_record_of_one_folder_vouches_for_nothing_in_another() {
    let album = album();
    stopped(&album, Signal::KILL);
    let out = album.path("out/album");
    fs::rename(&out, album.path("elsewhere")).unwrap();
    fs::create_dir(&out).unwrap();
    for (name, len) in [("one.flac", 2_000_001), ("notes.txt", 70_001), ("two.flac", 1_000_000)] {
        fs::write(out.join(name), vec![b'x'; len]).unwrap();
    }
    let (status, _, said) = Run::start(&mut get(&album, None)).ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("one.flac is there already"), "{said}");
    assert!(fs::read(out.join("one.flac")).unwrap().iter().all(|&byte| byte == b'x'));
}

/// Starts a seed of the album's content; its `started` event, and bytes that were checked for it.
fn seeded(album: &Album) -> (Run, serde_json::Value, u64) {
    let mut command = getting::seedring("seed");
    command.arg(album.path("album.torrent")).arg("--data").arg(album.path("seeded"));
    command.args(["--tracker-port", "0"]).arg("--state-dir").arg(album.path("state-of-seed"));
    let mut run = Run::start(&mut command);
    let (started, checked) = (run.started(), run.checked_len());
    (run, started, checked)
}

fn ended_in_order(run: Run) {
    run.signal(Signal::TERM);
    let (status, _, said) = run.ended();
    assert!(status.success(), "{said}");
}

#[test]
fn what_is_right_of_content_is_seeded_and_every_problem_named_at_each_start() {
    let album = album();
    let at = |name: &str| album.path("seeded/album").join(name);
    let notes = fs::read(at("notes.txt")).unwrap();
    fs::remove_file(at("notes.txt")).unwrap();
    let two = fs::read(at("two.flac")).unwrap();
    fs::write(at("two.flac"), &two[..500_000]).unwrap();
    let right = u64::from(album.right_pieces(&album.path("seeded"), &FileSelection::all()).count());
    assert!(right > 30);
    for is_first in [true, false] {
        let (run, started, checked) = seeded(&album);
        assert_eq!((started["pieces"].as_u64(), checked > 0), (Some(right), is_first));
        let problems: Vec<&str> =
            started["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        for says in ["notes.txt is missing", "two.flac has 500000 bytes where the torrent has 1000000"] {
            assert!(problems.iter().any(|problem| problem.contains(says)), "{problems:?}");
        }
        if is_first {
            let mut get = Run::start(&mut get(&album, Some(run.address())));
            let left = |run: &mut Run| run.wait_for("status")["download"]["left"].as_u64();
            let wanted = album.content.len() as u64;
            while left(&mut get).expect("it never has all") > wanted - (right - 1) * PIECE {}
            get.kill();
            let got = album.right_pieces(&album.path("out"), &FileSelection::all());
            assert!(got.count() >= right as u32 - 1, "{} of {right}", got.count());
        }
        ended_in_order(run);
    }
    // What comes back is looked at, and served.
    fs::write(at("notes.txt"), notes).unwrap();
    fs::write(at("two.flac"), two).unwrap();
    let (run, started, checked) = seeded(&album);
    let all = u64::from(album.layout.piece_count());
    assert_eq!((started["pieces"].as_u64(), checked > 0), (Some(all), true));
    assert!(started["problems"].as_array().unwrap().is_empty(), "{started}");
    ended_in_order(run);
}

#[test]
fn content_of_which_nothing_is_right_is_refused_and_not_started() {
    let album = Album::new(11, PIECE as usize, &[("one.flac", 300_000), ("two.flac", 200_000)]);
    for (name, len) in [("one.flac", 300_000), ("two.flac", 200_000)] {
        fs::write(album.path("seeded/album").join(name), vec![b'x'; len]).unwrap();
    }
    let refused = || {
        let mut command = getting::seedring("seed");
        command.arg(album.path("album.torrent")).arg("--data").arg(album.path("seeded"));
        command.args(["--tracker-port", "0"]).arg("--state-dir").arg(album.path("state-of-seed"));
        let (status, heard, said) = Run::start(&mut command).ended();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(heard.iter().all(|event| event["event"] != "started"), "{heard:?}");
        let failed = heard.into_iter().find(|event| event["event"] == "failed").expect("it says why");
        failed["reason"].as_str().unwrap().to_owned()
    };
    let reason = refused();
    assert!(reason.contains("none of its 8 pieces is good") && reason.contains("--data"), "{reason}");
    fs::write(album.path("seeded/album/one.flac"), "x").unwrap();
    fs::remove_file(album.path("seeded/album/two.flac")).unwrap();
    let reason = refused();
    assert!(reason.contains("one.flac has 1 byte where the torrent has 300000"), "{reason}");
}

//! Hundreds of torrents in one process that may have few files open: each is served byte for byte and described to
//! whoever has only its magnet link, and no more of it is open or in memory than peers ask for. And torrents with more files
//! than a process may have open: seeded, downloaded, interrupted and given on.

mod getting;
mod support;

use getting::{Album, Run, get, get_in, seedring, with_descriptors};
use rustix::fs::OFlags;
use rustix::process::Signal;
use seedring::id::PeerId;
use seedring::limits::INFO_HELD_LEN_MAX;
use seedring::rng::Rng;
use seedring::wire::{Handshake, Reserved};
use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::Leech;
use support::library::Work;

const TORRENTS: usize = 300;
/// What the process may have open in all.
const DESCRIPTORS: usize = 96;
/// Of which content may have half. Who looks after the files has a folder and a file for a moment.
const CONTENT_DESCRIPTORS: usize = DESCRIPTORS / 2 + 2;
/// Peers that stay a while after they have got everything.
const STAYING: usize = 8;

/// Torrents with their files in a folder.
struct Library {
    folder: tempfile::TempDir,
    works: Vec<Work>,
}

impl Library {
    fn of(works: Vec<Work>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = Self { folder, works };
        for folder in [library.torrents(), library.data()] {
            fs::create_dir(folder).unwrap();
        }
        for work in &library.works {
            work.write_torrent(&library.torrents());
            work.write_content(&library.data());
        }
        library
    }

    /// Small torrents: single files and folders of two, of less than a block to a few pieces.
    fn of_many() -> Self {
        let works = (0..TORRENTS).map(|number| {
            let name = format!("work-{number:03}");
            let len = 1 + number * 137;
            let seed = number as u64;
            if number % 3 == 0 {
                Work::new(seed, &name, 16 << 10, &[("one", len), ("other", 100)], 0)
            } else {
                Work::new(seed, &name, 16 << 10, &[("", len)], 0)
            }
        });
        Self::of(works.collect())
    }

    fn torrents(&self) -> PathBuf {
        self.folder.path().join("torrents")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn seed_command(&self) -> Command {
        let mut seed = seedring("seed");
        seed.arg("--torrents").arg(self.torrents()).arg("--data").arg(self.data());
        seed.args(["--tracker-port", "0", "--state-dir"]).arg(self.folder.path().join("state"));
        seed
    }

    /// Seeds all of them in a process that may have few descriptors.
    fn seed(&self) -> Run {
        let seed = self.seed_command();
        let mut run = Run::start(&mut with_descriptors(&seed, DESCRIPTORS));
        assert_eq!(run.wait_for("ready")["torrents"], self.works.len(), "{:?}", run.heard.last());
        run
    }
}

/// Descriptors of a process: of files below `data` that are open for reading, of anything below it, and of
/// anything at all.
fn descriptors(process: u32, data: &Path) -> (usize, usize, usize) {
    let (mut open, mut below, mut all) = (0, 0, 0);
    for entry in fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten() {
        all += 1;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !target.starts_with(data) {
            continue;
        }
        below += 1;
        // What is only looked at is not open for reading.
        let about = format!("/proc/{process}/fdinfo/{}", entry.file_name().to_string_lossy());
        let about = fs::read_to_string(about).unwrap_or_default();
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap_or_default();
        open += usize::from(!OFlags::from_bits_retain(flags).contains(OFlags::PATH));
    }
    (open, below, all)
}

#[test]
fn every_torrent_is_served_byte_for_byte_within_few_descriptors() {
    let library = Library::of_many();
    let run = library.seed();
    let data = library.data().canonicalize().unwrap();
    let look = || descriptors(run.id(), &data);
    assert_eq!(look().0, 0, "nobody has asked for anything");
    for seed in [1, 2] {
        let mut order: Vec<&Work> = library.works.iter().collect();
        Rng::from_seed(seed).shuffle(&mut order);
        let (mut staying, mut most_open) = (VecDeque::new(), 0);
        for work in order {
            let mut leech = work.join(run.address());
            assert!(work.fetch(&mut leech) == work.content, "{}", work.name);
            staying.push_back(leech);
            if staying.len() > STAYING {
                staying.pop_front();
            }
            let (open, below, all) = look();
            assert!(
                below <= CONTENT_DESCRIPTORS,
                "{below} descriptors below the content's folder, {open} of files"
            );
            assert!(all < DESCRIPTORS, "{all} descriptors");
            most_open = most_open.max(open);
        }
        assert!(most_open > 1, "content stays open for a while");
    }
    run.signal(Signal::INT);
    let (status, heard, said) = run.ended();
    assert!(status.success(), "{said}");
    let warned = heard.iter().find(|event| ["warning", "failed"].iter().any(|it| event["event"] == *it));
    assert_eq!(warned, None);
}

/// Strangers come in crowds: some say nothing, others introduce themselves and ask for nothing.
#[test]
fn strangers_take_no_descriptor_that_content_needs() {
    for introduce in [false, true] {
        let library = Library::of_many();
        let mut run = library.seed();
        let mut early = library.works[0].join(run.address());
        let mut crowd = Vec::new();
        for number in 0..3 * DESCRIPTORS {
            let Ok(mut stream) = TcpStream::connect(run.address()) else { continue };
            if introduce {
                let mut peer_id = PeerId(*b"-XX0000-000000000000");
                peer_id.0[12..].copy_from_slice(&number.to_be_bytes());
                let info_hash = library.works[number % TORRENTS].info_hash;
                // It may have been refused.
                let _ =
                    stream.write_all(&Handshake { reserved: Reserved::NONE, info_hash, peer_id }.encode());
            }
            crowd.push(stream);
        }
        // Who is here is served, and what it asks for is opened meanwhile.
        assert!(library.works[0].fetch(&mut early) == library.works[0].content);
        // Looked after, too.
        for _ in 0..4 {
            assert!(run.next_of(&["status"], getting::PATIENCE).is_some());
        }
        let (_, _, all) = descriptors(run.id(), &library.data());
        assert!(all < DESCRIPTORS, "{all} descriptors");
        if !introduce {
            // A peer that says nothing gives way to one that does.
            let mut newcomer = library.works[1].join(run.address());
            assert!(library.works[1].fetch(&mut newcomer) == library.works[1].content);
        }
        drop(crowd);
        run.signal(Signal::INT);
        let (status, heard, said) = run.ended();
        assert!(status.success(), "{said}");
        assert_eq!(heard.iter().find(|event| event["event"] == "failed"), None);
    }
}

/// Another program, or a limit below what the machine needs, takes what is there.
#[test]
fn few_descriptors_end_no_torrent() {
    for descriptors in [32, 40, 64] {
        let library = Library::of_many();
        let seed = library.seed_command();
        let mut run = Run::start(&mut with_descriptors(&seed, descriptors));
        assert_eq!(run.wait_for("ready")["torrents"], TORRENTS, "{descriptors}: {:?}", run.heard.last());
        let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(run.address())).collect();
        for work in &library.works[..6] {
            let mut leech = work.join(run.address());
            assert!(work.fetch(&mut leech) == work.content, "{descriptors}: {}", work.name);
        }
        drop(crowd);
        run.signal(Signal::INT);
        let (status, heard, said) = run.ended();
        assert!(status.success(), "{descriptors}: {said}");
        assert_eq!(heard.iter().find(|event| event["event"] == "failed"), None, "{descriptors}");
    }
}

#[test]
fn any_of_them_is_described_to_who_has_only_its_magnet_link() {
    let library = Library::of_many();
    let run = library.seed();
    let mut order: Vec<&Work> = library.works.iter().collect();
    Rng::from_seed(3).shuffle(&mut order);
    for work in order {
        assert!(work.fetch_info(run.address()).as_ref() == Some(&work.info), "{}", work.name);
    }
}

/// Without its torrent file a description can only come out of memory, so what is in memory is seen from outside.
#[test]
fn descriptions_are_in_memory_only_when_asked_for_and_only_few_of_them() {
    const LEN: usize = 1 << 20;
    let works = (0..12).map(|number| {
        let name = format!("work-{number:03}");
        Work::new(number, &name, 16 << 10, &[("", 1000)], LEN)
    });
    let library = Library::of(works.collect());
    let run = library.seed();
    // A file that is gone would be a torrent that is gone; one that says nothing any more is served on.
    let forget = |work: &Work| {
        fs::write(library.torrents().join(format!("{}.torrent", work.name)), "nothing").unwrap();
    };
    let (unasked, asked) = library.works.split_first().expect("there are some");
    forget(unasked);
    assert!(unasked.fetch_info(run.address()).is_none(), "nobody has asked for it");
    for work in asked {
        assert!(work.fetch_info(run.address()).as_ref() == Some(&work.info), "{}", work.name);
    }
    asked.iter().for_each(forget);
    let held: Vec<Vec<u8>> = asked.iter().filter_map(|work| work.fetch_info(run.address())).collect();
    assert!(
        !held.is_empty() && held.iter().map(Vec::len).sum::<usize>() <= INFO_HELD_LEN_MAX,
        "{}",
        held.len()
    );
    // Content is another matter.
    let mut leech = unasked.join(run.address());
    assert!(unasked.fetch(&mut leech) == unasked.content);
}

/// A torrent with more files than may be open, and others beside it.
#[test]
fn a_torrent_of_more_files_than_may_be_open_is_served_byte_for_byte() {
    const FILES: usize = 700;
    let names: Vec<String> = (0..FILES).map(|number| format!("{number:04}")).collect();
    // Large ones among tiny ones, and some of no bytes.
    let len = |number: usize| match number {
        100 => 3 << 20,
        500 => 700_001,
        _ if number.is_multiple_of(11) => 0,
        _ if number < 300 => 20,
        _ => 9_000,
    };
    let files: Vec<(&str, usize)> = names.iter().map(String::as_str).zip((0..FILES).map(len)).collect();
    let many = Work::new(7, "many", 64 << 10, &files, 0);
    let few = Work::new(8, "few", 16 << 10, &[("", 100_000)], 0);
    let library = Library::of(vec![many, few]);
    let run = library.seed();
    let [many, few] = &library.works[..] else { unreachable!("there are two") };
    let mut blocks = many.blocks();
    Rng::from_seed(4).shuffle(&mut blocks);
    let mut leeches: Vec<Leech> = (0..3).map(|_| many.join(run.address())).collect();
    // Each asks all over the torrent, in an order of its own.
    for leech in &mut leeches {
        Rng::from_seed(blocks.len() as u64).shuffle(&mut blocks);
        for some in blocks.chunks(50).take(4) {
            leech.ask(some);
            let mut bytes = Vec::new();
            leech.take(some, &mut bytes);
            assert!(bytes == some.iter().flat_map(|&block| many.bytes(block)).copied().collect::<Vec<u8>>());
            let (_, below, all) = descriptors(run.id(), &library.data());
            assert!(below <= CONTENT_DESCRIPTORS && all < DESCRIPTORS, "{below} of {all}");
        }
    }
    let mut other = few.join(run.address());
    assert!(few.fetch(&mut other) == few.content);
    let mut all = many.join(run.address());
    assert!(many.fetch(&mut all) == many.content);
    // A file that changes is noticed, whichever part it lies in.
    fs::write(library.data().join("many").join(&names[650]), vec![1; 9_001]).unwrap();
    let mut run = run;
    let failed = run.wait_for("failed");
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.contains(&names[650])), "{failed}");
    let mut other = few.join(run.address());
    assert!(few.fetch(&mut other) == few.content);
}

/// An album of so many tiny files in folders of a hundred, some of them empty and few of them larger than a piece.
fn album_of(count: usize, piece_length: usize, len: impl Fn(usize) -> usize) -> Album {
    let paths: Vec<String> = (0..count).map(|number| format!("{:03}/{number:05}", number / 100)).collect();
    let files: Vec<(&str, usize)> = paths.iter().map(String::as_str).zip((0..count).map(len)).collect();
    Album::new_in_memory(5, piece_length, &files)
}

/// Seeds an album in a process that may have so few descriptors.
fn seed_with(album: &Album, descriptors: usize, limit: &str) -> Run {
    let mut command = seedring("seed");
    command.arg(album.path("album.torrent")).arg("--data").arg(album.path("seeded"));
    command.args(["--tracker-port", "0", "--upload-limit", limit, "--state-dir"]);
    let mut run = Run::start(&mut with_descriptors(command.arg(album.path("state-of-seed")), descriptors));
    run.started();
    run
}

/// Descriptors of a process that lead below `folder`, and its mappings of files there.
fn open_below(process: u32, folder: &Path) -> (usize, usize) {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let open = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let folder_name = folder.to_string_lossy();
    let mapped = maps.lines().filter(|line| line.contains(&*folder_name)).count();
    (open.filter(|path| path.starts_with(folder)).count(), mapped)
}

/// Waits until at most so many bytes are lacking; looks meanwhile that few of its files are open.
fn wait_until_left(run: &mut Run, bytes: u64, folder: &Path, files_max: usize) {
    loop {
        let left = run.wait_for("status")["download"]["left"].as_u64();
        let (open, mapped) = open_below(run.id(), folder);
        assert!(open <= files_max && mapped <= files_max, "{open} are open and {mapped} mapped");
        if left.is_some_and(|left| left <= bytes) {
            return;
        }
    }
}

fn ended_well(run: Run) -> Vec<serde_json::Value> {
    let (status, heard, said) = run.ended();
    assert!(status.success(), "{said}");
    heard
}

#[test]
fn thirty_thousand_files_come_and_go_on_after_a_kill_and_an_end_with_few_descriptors() {
    const DESCRIPTORS: usize = 2000;
    let album = album_of(30_000, 16 << 10, |number| if number % 50 == 7 { 0 } else { 40 + number % 23 });
    let total = album.content.len() as u64;
    let out = album.path("out");
    let seed = seed_with(&album, DESCRIPTORS, "300KB/s");
    let start =
        |seed: &Run| Run::start(&mut with_descriptors(&get(&album, Some(seed.address())), DESCRIPTORS));
    let mut run = start(&seed);
    wait_until_left(&mut run, total * 3 / 4, &out, DESCRIPTORS / 2);
    run.signal(Signal::INT);
    let (status, _, said) = run.ended();
    assert!(status.code() == Some(1) && said.contains("goes on from here"), "{said}");
    // After an end in order nothing is looked at.
    let mut run = start(&seed);
    let known = run.started()["pieces"].as_u64().unwrap();
    assert!(known > 0 && run.checked_len() == 0, "{known} pieces, {} checked", run.checked_len());
    wait_until_left(&mut run, total / 2, &out, DESCRIPTORS / 2);
    run.kill();
    drop(seed);
    // After a kill what was written since the last note is.
    let seed = seed_with(&album, DESCRIPTORS, "100MB/s");
    let mut run = start(&seed);
    assert!(run.started()["pieces"].as_u64().unwrap() >= known && run.checked_len() < total * 3 / 4);
    ended_well(run);
    album.assert_downloaded(&out, |_| true);
    // It is remembered as seeding remembers it.
    let again = ended_well(start(&seed));
    assert!(again.iter().all(|event| event["event"] != "checking"), "{again:?}");
}

#[test]
fn what_is_left_of_many_files_is_given_on_while_it_comes_and_to_who_wants_some_thousand_of_them() {
    const DESCRIPTORS: usize = 200;
    let album = album_of(5000, 32 << 10, |number| if number == 2500 { 300_000 } else { 50 + number % 400 });
    let path_of = |number: usize| album.path(&format!("seeded/album/{:03}/{number:05}", number / 100));
    let lost: Vec<(PathBuf, Vec<u8>)> =
        (4500..4800).map(path_of).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    lost.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    let seed = seed_with(&album, DESCRIPTORS, "100MB/s");
    let limited = |command: &Command| Run::start(&mut with_descriptors(command, DESCRIPTORS));
    // The first has from the seed what is left, and the second has it from the first alone.
    let mut first = limited(&get_in(&album, Some(seed.address()), "first"));
    first.started();
    let mut some = get_in(&album, Some(first.address()), "second");
    ended_well(limited(some.args(["--only", "0[0-2]?/*"])));
    album.assert_downloaded(&album.path("second/out"), |path| path < "03");
    assert!(!first.heard.iter().any(|event| event["event"] == "downloaded"));
    let (open, mapped) = open_below(first.id(), &album.path("first"));
    assert!(open <= DESCRIPTORS / 2 && mapped <= DESCRIPTORS / 2, "{open} are open, {mapped} mapped");
    // Nobody else downloads into the same files meanwhile.
    let (status, _, said) = limited(&get_in(&album, None, "first")).ended();
    assert!(status.code() == Some(1) && said.contains("downloaded into, by another process"), "{said}");
    first.signal(Signal::INT);
    first.ended();
    drop(seed);
    // The rest comes beside it, and what lay at the borders goes where it belongs.
    lost.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let seed = seed_with(&album, DESCRIPTORS, "100MB/s");
    for below in ["first", "second"] {
        let mut run = limited(&get_in(&album, Some(seed.address()), below));
        assert!(run.started()["pieces"].as_u64().unwrap() > 10);
        ended_well(run);
        album.assert_downloaded(&album.path(below).join("out"), |_| true);
        let left = fs::read_dir(album.path(below).join("out")).unwrap().count();
        assert_eq!(left, 1, "no parts file");
    }
}

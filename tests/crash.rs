//! A download that is killed at any moment goes on from there: what was verified is kept, nothing is looked at but what
//! may be there, nothing unverified is ever offered to a peer, and no byte of a completed file is wrong.
//!
//! The moments come from a seeded generator; `SEEDRING_CRASH_SEED` repeats a run as far as the scheduler does.

mod getting;

use getting::observer::{Observed, fetch, observe};
use getting::{Album, PATIENCE, Run, get, seed};
use seedring::bitfield::Bitfield;
use seedring::rng::Rng;
use seedring::storage::{FileSelection, Resume, resume_path};
use seedring::time::Duration;
use std::net::SocketAddr;

/// Kills in all downloads together.
const KILLS: u32 = 200;
/// Downloads, which run side by side.
const DOWNLOADS: u32 = 8;
/// Bytes that a life has to give the observer.
const FETCHED_A_LIFE: u64 = 256 << 10;
/// Pieces that may be partly there at a kill and still show no hole: one for each storage thread.
const TORN_PIECES_MAX: u64 = 16;

#[test]
fn two_hundred_kills_lose_nothing_and_no_wrong_byte_is_offered() {
    let chosen = std::env::var("SEEDRING_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let crash_seed: u64 = chosen.unwrap_or_else(|| seedring::clock::random_rng().next_u64());
    eprintln!("SEEDRING_CRASH_SEED={crash_seed}");
    std::thread::scope(|scope| {
        for number in 0..DOWNLOADS {
            let run = move || {
                let mut ordeal = Ordeal::new(crash_seed, number);
                for kill in 0..KILLS / DOWNLOADS {
                    ordeal.live_and_die(kill);
                }
                ordeal.complete();
            };
            let name = format!("download {number} of SEEDRING_CRASH_SEED={crash_seed}");
            std::thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap();
        }
    });
}

/// One download and its lives.
struct Ordeal {
    album: Album,
    seed: Run,
    only: Option<&'static str>,
    selection: FileSelection,
    preallocate: bool,
    rng: Rng,
    /// Pieces that some life has offered.
    offered: Bitfield,
}

impl Ordeal {
    fn new(crash_seed: u64, number: u32) -> Self {
        let mut rng = Rng::from_seed(crash_seed.wrapping_add(u64::from(number)));
        let piece_length = [16 << 10, 32 << 10, 128 << 10][number as usize % 3];
        // Odd lengths, so that pieces lie over the borders of files.
        let large = (4 << 20) + rng.below(1 << 20) as usize;
        let files =
            [("one.flac", large), ("notes/tiny.txt", 7), ("notes/more.txt", 50_000), ("two.flac", 2_000_001)];
        let album = Album::new(rng.next_u64(), piece_length, &files);
        let only = (number % 4 == 3).then_some("*.flac");
        let selection = FileSelection::only(&album.layout, album.metainfo.info_hash(), |file| {
            only.is_none() || !files[file.0 as usize].0.starts_with("notes")
        });
        let seed = seed(&album, "1MB/s");
        let offered = Bitfield::none(album.layout.piece_count());
        Self { album, seed, only, selection, preallocate: number % 4 == 2, rng, offered }
    }

    fn start(&self) -> Run {
        let mut command = get(&self.album, Some(self.seed.address()));
        command.args(["--seed", "--upload-slots", "1000"]);
        if let Some(only) = self.only {
            command.args(["--only", only]);
        }
        if self.preallocate {
            command.arg("--preallocate");
        }
        Run::start(&mut command)
    }

    /// Kills a run at a random moment, be it before it has said anything.
    fn live_and_die(&mut self, life: u32) {
        let before = self.on_disk();
        let mut run = self.start();
        let kind = self.rng.below(20);
        if kind < 4 {
            live_for(Duration::from_micros(self.rng.below(120_000)));
            return run.kill();
        }
        if kind == 4
            && run.next_of(&["checking", "started"], PATIENCE).is_some_and(|told| told["event"] == "checking")
        {
            return run.kill();
        }
        let started = run.heard.iter().find(|event| event["event"] == "started").cloned();
        let started = started.unwrap_or_else(|| run.started());
        self.assert_kept(&before, &run, &started, life);
        // In some lives there is time for a look at what is to be noted.
        let micros = if kind < 7 { 2_000_000 + self.rng.below(500_000) } else { self.rng.below(300_000) };
        let address = run.address();
        let observed = self.observed_until(&address, Duration::from_micros(micros), || run.kill());
        self.note(&observed);
    }

    /// Observes until `end` has been called, after `time`.
    fn observed_until(&self, address: &SocketAddr, time: Duration, end: impl FnOnce()) -> Observed {
        let album = &self.album;
        std::thread::scope(|scope| {
            let observing = scope.spawn(|| observe(*address, album, FETCHED_A_LIFE));
            live_for(time);
            end();
            observing.join().unwrap()
        })
    }

    /// What the disk says: the noted pieces and the right ones.
    fn on_disk(&self) -> (Bitfield, Bitfield) {
        let none = Bitfield::none(self.album.layout.piece_count());
        let path = resume_path(&self.album.path("state"), self.album.metainfo.info_hash());
        let noted = Resume::load(&path).map_or(none, |resume| resume.verified);
        (noted, self.album.right_pieces(&self.album.path("out"), &self.selection))
    }

    fn assert_kept(
        &self,
        (noted, right): &(Bitfield, Bitfield),
        run: &Run,
        started: &serde_json::Value,
        life: u32,
    ) {
        let pieces = started["pieces"].as_u64().unwrap();
        let what = format!("life {life}: {} noted, {} right, {pieces} known", noted.count(), right.count());
        assert!(right.contains_all(noted), "{what}: a wrong piece was noted");
        assert!(
            right.contains_all(&self.offered),
            "{what}: a piece was offered that is not right on the disk"
        );
        assert_eq!(pieces, u64::from(right.count()), "{what}");
        // Files that were written after the last note are looked at as a whole.
        let there = u64::from(right.count()) + TORN_PIECES_MAX;
        let checked = run.checked_len() / u64::from(self.album.layout.piece_length());
        // Reserved space counts as written where anybody has read it, which this test does.
        assert!(checked <= there || self.preallocate, "{what}: {checked} were checked");
    }

    /// Keeps in mind what was offered; whether it is right is looked at before the next life.
    fn note(&mut self, observed: &Observed) {
        assert_eq!(observed.complaint, None);
        observed.offered.iter().for_each(|piece| {
            self.offered.insert(piece);
        });
    }

    /// Lets the last life come to its end.
    fn complete(mut self) {
        let before = self.on_disk();
        let mut run = self.start();
        let started = run.started();
        self.assert_kept(&before, &run, &started, KILLS);
        run.wait_for("downloaded");
        let wanted = self.selection.wanted_pieces(&self.album.layout);
        let len = wanted.iter().map(|piece| u64::from(self.album.layout.piece_len(piece))).sum();
        let observed = fetch(run.address(), &self.album, len);
        assert_eq!((observed.fetched, &observed.offered), (len, &wanted));
        self.note(&observed);
        run.signal(rustix::process::Signal::TERM);
        let (status, heard, said) = run.ended();
        assert!(status.success(), "{said} {heard:?}");
        self.album.assert_downloaded(&self.album.path("out"), |path| {
            self.only.is_none() || !path.starts_with("notes")
        });
        let mut again = self.start();
        let pieces = again.started()["pieces"].as_u64();
        assert_eq!((pieces, again.checked_len()), (Some(u64::from(wanted.count())), 0), "it ended in order");
        assert!(again.next_of(&["downloaded"], PATIENCE).is_some());
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for: the length of a life is at random")]
fn live_for(time: Duration) {
    std::thread::sleep(time);
}

//! Collections through the life of their torrents, on a clock of the tests'.

use super::*;

const GROUP: usize = 0;
const START: Instant = Instant::from_nanos(1_000_000_000_000);

fn hash(number: u8) -> InfoHash {
    InfoHash([number; 20])
}

fn stamp(number: u64) -> Stamp {
    Stamp { len: number, mtime: (number as i64, 0), inode: number }
}

fn found(number: u8) -> Found {
    Found { info_hash: hash(number), trackers: 1, needs_check: false, files: 0 }
}

/// Content that has to be checked, in a state of this number.
fn unchecked(number: u8, state: u64) -> Found {
    Found { needs_check: true, files: state, ..found(number) }
}

fn listing(files: &[(&str, u64)]) -> BTreeMap<PathBuf, Stamp> {
    files.iter().map(|&(path, number)| (path.into(), stamp(number))).collect()
}

/// A collection and the time.
struct Scene {
    collection: Collection,
    now: Instant,
}

impl Scene {
    /// A folder from which these torrents are served.
    fn serving(files: &[(&str, u8)]) -> Self {
        let mut collection = Collection::default();
        for &(path, number) in files {
            collection.add_served(path.into(), GROUP, Some(stamp(u64::from(number))), hash(number), 1);
        }
        Self { collection, now: START }
    }

    fn list(&mut self, files: &[(&str, u64)]) -> Vec<Gone> {
        self.collection.handle_listing(self.now, GROUP, &listing(files))
    }

    fn look(&mut self) -> Option<Look> {
        self.collection.poll_look(self.now)
    }

    /// Waits for the next look and takes it.
    #[track_caller]
    fn next_look(&mut self) -> Look {
        self.now = self.now.max(self.collection.poll_timeout().expect("something is due"));
        self.look().expect("it may begin")
    }

    fn tell(&mut self, look: &Look, found: Found) -> (Verdict, Option<Gone>) {
        self.collection.handle_found(self.now, look, found)
    }
}

fn gone(number: u8, is_replaced: bool) -> Gone {
    Gone { info_hash: hash(number), is_replaced }
}

#[test]
fn files_that_come_are_served_those_that_go_are_not_and_the_others_are_left_alone() {
    let mut scene = Scene::serving(&[("a", 1), ("b", 2)]);
    assert_eq!(scene.list(&[("a", 1), ("b", 2)]), []);
    assert_eq!(scene.look(), None);
    assert_eq!(scene.list(&[("b", 2), ("c", 3)]), [gone(1, false)]);
    let look = scene.next_look();
    assert_eq!(look.path, Path::new("c"));
    assert_eq!(scene.tell(&look, found(3)), (Verdict::Serve, None));
    assert_eq!((scene.look(), scene.collection.poll_timeout()), (None, None));
    // A torrent that was taken out comes back.
    scene.list(&[("a", 1), ("b", 2), ("c", 3)]);
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, found(1)), (Verdict::Serve, None));
}

#[test]
fn a_file_that_changes_changes_what_is_served_only_when_its_torrent_does() {
    let mut scene = Scene::serving(&[("a", 1)]);
    scene.list(&[("a", 7)]);
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, found(1)), (Verdict::Leave, None), "it was only touched");
    scene.list(&[("a", 8)]);
    let look = scene.next_look();
    let other_trackers = Found { trackers: 2, ..found(1) };
    assert_eq!(scene.tell(&look, other_trackers), (Verdict::Serve, Some(gone(1, true))));
    scene.list(&[("a", 9)]);
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, found(2)), (Verdict::Serve, Some(gone(1, true))));
    assert_eq!(scene.list(&[]), [gone(2, false)]);
}

#[test]
fn a_file_that_cannot_be_read_now_ends_nothing_that_is_served() {
    let mut scene = Scene::serving(&[("a", 1)]);
    scene.list(&[("a", 7)]);
    let look = scene.next_look();
    assert!(!scene.collection.handle_not_found(scene.now, &look, "half of a torrent"));
    scene.list(&[("a", 8)]);
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, found(1)), (Verdict::Leave, None));
}

#[test]
fn a_new_file_that_stays_bad_is_told_once_and_one_that_was_half_written_is_not() {
    let mut scene = Scene::serving(&[]);
    scene.list(&[("a", 1)]);
    let look = scene.next_look();
    assert!(!scene.collection.handle_not_found(scene.now, &look, "no torrent"), "it may not be at its end");
    let look = scene.next_look();
    assert!(scene.collection.handle_not_found(scene.now, &look, "no torrent"));
    for _ in 0..5 {
        let look = scene.next_look();
        assert!(!scene.collection.handle_not_found(scene.now, &look, "no torrent"));
    }
    let look = scene.next_look();
    assert!(scene.collection.handle_not_found(scene.now, &look, "its content is not there"));
    // It is written anew, and looked at without waiting for the next try.
    scene.list(&[("a", 2)]);
    let look = scene.look().expect("it is due at once");
    assert_eq!(scene.tell(&look, found(1)), (Verdict::Serve, None));
}

#[test]
fn content_that_vanished_is_looked_for_ever_more_rarely_and_served_when_it_is_back() {
    let mut scene = Scene::serving(&[("a", 1)]);
    scene.collection.handle_lost(scene.now, hash(1));
    let mut last = scene.now;
    for round in 0..20 {
        let look = scene.next_look();
        assert!(look.was_served);
        let waited = scene.now.since(last);
        assert!(waited <= LOOK_RETRY_MAX && (waited >= LOOK_RETRY_MIN), "round {round}: {waited:?}");
        last = scene.now;
        assert!(
            !scene.collection.handle_not_found(scene.now, &look, "it is not there"),
            "the session has told it"
        );
    }
    // The user wants it looked for at once.
    scene.collection.handle_hangup(scene.now);
    let look = scene.look().expect("it is due at once");
    assert_eq!(scene.tell(&look, found(1)), (Verdict::Serve, None));
    scene.collection.handle_lost(scene.now, hash(1));
    assert!(scene.collection.poll_timeout().is_some(), "and so on");
}

#[test]
fn content_that_has_to_be_checked_is_checked_once_it_is_at_rest_and_not_again_until_it_changes() {
    let mut scene = Scene::serving(&[]);
    scene.list(&[("a", 1)]);
    for state in 1..4 {
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, state)), (Verdict::Leave, None), "it is being written");
    }
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, unchecked(1, 3)).0, Verdict::Check);
    scene.collection.handle_refused(scene.now, hash(1), None);
    for _ in 0..5 {
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, 3)).0, Verdict::Leave, "it is what was no use");
    }
    for verdict in [Verdict::Leave, Verdict::Check] {
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, 4)).0, verdict);
    }
}

#[test]
fn of_two_files_of_one_torrent_one_is_served_and_then_the_other() {
    let mut scene = Scene::serving(&[("a", 1)]);
    scene.list(&[("a", 1), ("b", 2)]);
    // Told once, however often it is written anew.
    for (stamp, verdict) in [(2, Verdict::Double), (3, Verdict::Leave)] {
        scene.list(&[("a", 1), ("b", stamp)]);
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, found(1)), (verdict, None));
        assert_eq!(scene.collection.served_from(hash(1)), Some(Path::new("a")));
    }
    assert_eq!(scene.list(&[("b", 3)]), [gone(1, true)]);
    let look = scene.next_look();
    assert_eq!((look.path.as_path(), scene.tell(&look, found(1)).0), (Path::new("b"), Verdict::Serve));
}

#[test]
fn what_is_found_of_a_file_that_has_gone_or_changed_meanwhile_counts_no_more() {
    let mut scene = Scene::serving(&[]);
    scene.list(&[("a", 1), ("b", 2)]);
    let (one, two) = (scene.next_look(), scene.next_look());
    scene.list(&[("b", 3)]);
    assert_eq!(scene.tell(&one, found(1)), (Verdict::Leave, None));
    assert_eq!(scene.tell(&two, found(2)), (Verdict::Leave, None), "it is another one by now");
    let again = scene.next_look();
    assert_eq!((again.path.as_path(), scene.tell(&again, found(4)).0), (Path::new("b"), Verdict::Serve));
}

#[test]
fn looks_that_hang_hold_nobody_but_their_own_group() {
    let mut scene = Scene::serving(&[]);
    let many: Vec<String> = (0..50).map(|number| format!("{number:02}")).collect();
    let files: Vec<(&str, u64)> = many.iter().map(|name| (name.as_str(), 1)).collect();
    scene.list(&files);
    let begun = std::iter::from_fn(|| scene.look()).count();
    assert_eq!(begun, LOOKS_PER_GROUP_MAX);
    scene.collection.handle_listing(scene.now, 1, &listing(&[("other", 1)]));
    assert_eq!(scene.look().map(|look| look.path), Some("other".into()));
    assert_eq!(scene.look(), None);
}

#[test]
fn torrents_that_were_named_stay_whatever_folders_list() {
    let mut scene = Scene::serving(&[("a", 1)]);
    scene.collection.add_served("named".into(), 1, None, hash(9), 1);
    assert_eq!(scene.list(&[]), [gone(1, false)]);
    scene.collection.handle_hangup(scene.now);
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, found(9)), (Verdict::Leave, None));
}

#[test]
fn files_that_come_while_their_torrent_is_served_are_checked_at_rest_and_it_is_served_on_meanwhile() {
    let mut scene = Scene::serving(&[("a", 1)]);
    // Told as often as it is seen, it is one thing to do.
    for _ in 0..3 {
        scene.collection.handle_changed(scene.now, hash(1));
    }
    for state in 1..4 {
        let look = scene.next_look();
        assert!(!look.was_served, "what is not there is not waited for");
        assert_eq!(scene.tell(&look, unchecked(1, state)), (Verdict::Leave, None), "they are being written");
        scene.collection.handle_changed(scene.now, hash(1));
    }
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, unchecked(1, 3)), (Verdict::CheckAnew, None));
    scene.collection.handle_changed(scene.now, hash(1));
    assert_eq!((scene.look(), scene.collection.poll_timeout()), (None, None), "one check at a time");
    scene.collection.handle_renewed(hash(1));
    assert_eq!(scene.collection.poll_timeout(), None);
    // What was seen before it was served anew is no news.
    scene.collection.handle_changed(scene.now, hash(1));
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, unchecked(1, 3)), (Verdict::Leave, None));
    assert_eq!(scene.collection.poll_timeout(), None);
    assert_eq!(scene.list(&[]), [gone(1, false)]);
}

#[test]
fn content_that_changes_again_and_again_is_checked_ever_more_rarely() {
    let mut scene = Scene::serving(&[("a", 1)]);
    let (mut last, mut waits) = (scene.now, Vec::new());
    for state in 0..12 {
        scene.collection.handle_changed(scene.now, hash(1));
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, state)).0, Verdict::Leave);
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, state)).0, Verdict::CheckAnew);
        scene.collection.handle_renewed(hash(1));
        waits.push(scene.now.since(last));
        last = scene.now;
    }
    assert!(waits.is_sorted() && waits[0] == SETTLE_TIME && waits[11] == LOOK_RETRY_MAX, "{waits:?}");
    // Left in peace for a while, it is looked at as one that has never changed.
    scene.now += PEACE_TIME;
    let before = scene.now;
    scene.collection.handle_changed(scene.now, hash(1));
    for verdict in [Verdict::Leave, Verdict::CheckAnew] {
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, 99)).0, verdict);
    }
    assert_eq!(scene.now.since(before), SETTLE_TIME);
}

#[test]
fn a_check_that_leads_to_nothing_leaves_what_is_served_and_is_not_repeated_until_it_changes() {
    let mut scene = Scene::serving(&[("a", 1)]);
    scene.collection.handle_changed(scene.now, hash(1));
    for verdict in [Verdict::Leave, Verdict::CheckAnew] {
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, 5)).0, verdict);
    }
    scene.collection.handle_refused(scene.now, hash(1), Some(5));
    for _ in 0..3 {
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, 5)).0, Verdict::Leave);
    }
    for verdict in [Verdict::Leave, Verdict::CheckAnew] {
        let look = scene.next_look();
        assert_eq!(scene.tell(&look, unchecked(1, 6)).0, verdict);
    }
    assert_eq!(scene.list(&[]), [gone(1, false)], "it was served all the time");
}

#[test]
fn content_that_fails_while_it_is_checked_anew_is_looked_for_as_any_that_has_failed() {
    let mut scene = Scene::serving(&[("a", 1)]);
    scene.collection.handle_changed(scene.now, hash(1));
    for _ in 0..2 {
        let look = scene.next_look();
        scene.tell(&look, unchecked(1, 5));
    }
    scene.collection.handle_lost(scene.now, hash(1));
    let look = scene.next_look();
    assert!(look.was_served);
    assert!(!scene.collection.handle_not_found(scene.now, &look, "it is not there"));
    // What the check has come to comes too late.
    scene.collection.handle_renewed(hash(1));
    let look = scene.next_look();
    assert_eq!(scene.tell(&look, found(1)), (Verdict::Serve, None));
}

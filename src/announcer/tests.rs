//! Tests of `announcer`.

use super::*;
use crate::rng::Rng;
use crate::secret_url::TrackerUrl;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);
const V4: AddressFamily = AddressFamily::V4;
const V6: AddressFamily = AddressFamily::V6;

fn tiers(names: &[&[&str]]) -> Vec<Vec<TrackerUrl>> {
    names.iter().map(|tier| tier.iter().map(|&name| name.into()).collect()).collect()
}

fn only_v4(reach: Reach) -> AnnouncerConfig {
    AnnouncerConfig { reach, families: vec![V4], ..AnnouncerConfig::default() }
}

fn announcer(names: &[&[&str]], config: AnnouncerConfig) -> Announcer {
    Announcer::new(&tiers(names), config, Instant::ZERO, &mut Rng::from_seed(1))
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + SECOND * seconds as u32
}

fn terms(interval: u64) -> Terms {
    Terms { interval: Duration::from_secs(interval), interval_min: None }
}

/// The tracker's name and the event of the next job.
fn next(announcer: &mut Announcer, now: Instant) -> Option<(String, Endpoint, AnnounceEvent)> {
    let job = announcer.poll_announce(now)?;
    Some((announcer.url(job.endpoint.tracker).unwrap().reveal().to_owned(), job.endpoint, job.event))
}

#[test]
fn the_first_announce_is_started_and_waits_for_its_time() {
    let config = only_v4(Reach::FirstWorking);
    let mut announcer = Announcer::new(&tiers(&[&["a"]]), config, at(7), &mut Rng::from_seed(1));
    assert_eq!(announcer.poll_announce(at(6)), None);
    assert_eq!(announcer.poll_timeout(), Some(at(7)));
    let (name, endpoint, event) = next(&mut announcer, at(7)).unwrap();
    assert_eq!((name.as_str(), event), ("a", AnnounceEvent::Started));
    assert_eq!((announcer.poll_announce(at(99)), announcer.poll_timeout()), (None, None));
    announcer.handle_response(at(8), endpoint, terms(1800));
    assert_eq!(announcer.poll_timeout(), Some(at(1808)));
    assert_eq!(next(&mut announcer, at(1808)).unwrap().2, AnnounceEvent::None);
}

#[test]
fn trackers_beside_those_of_the_torrent_are_asked_whatever_these_answer() {
    let mut rng = Rng::from_seed(1);
    let beside = ["x", "y", "b", "x"].map(TrackerUrl::from);
    let own = tiers(&[&["a"], &["b"], &["c"]]);
    let config = only_v4(Reach::FirstWorking);
    let mut announcer = Announcer::beside(&beside, &own, config, at(0), &mut rng);
    let asked: Vec<_> = std::iter::from_fn(|| next(&mut announcer, at(0))).collect();
    let names: Vec<&str> = asked.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["x", "y", "b", "a"], "one that is in both lists is asked once");
    let of = |name: &str| asked.iter().find(|(asked, ..)| asked == name).unwrap().1;
    announcer.handle_response(at(1), of("x"), terms(1800));
    announcer.handle_failure(at(1), of("y"), Failure::Lasting, &mut rng);
    assert_eq!(
        next(&mut announcer, at(1)),
        None,
        "neither an answer nor a failure of theirs moves the torrent's own"
    );
    announcer.handle_failure(at(1), of("a"), Failure::Lasting, &mut rng);
    assert_eq!(next(&mut announcer, at(1)).unwrap().0, "c");
    announcer.handle_response(at(2), of("b"), terms(60));
    assert_eq!(next(&mut announcer, at(62)).unwrap().0, "b");
    announcer.stop();
    assert_eq!(next(&mut announcer, at(63)).unwrap(), ("x".to_owned(), of("x"), AnnounceEvent::Stopped));
    assert_eq!(next(&mut announcer, at(63)), None, "the others have not answered yet");
}

#[test]
fn hostile_42_intervals_are_clamped_between_a_minute_and_two_hours() {
    for (interval, interval_min, seconds) in [
        (0, None, 60),
        (1 << 31, None, 7200),
        (u64::from(u32::MAX), Some(u64::from(u32::MAX)), 7200),
        (300, Some(900), 900),
        (300, Some(0), 300),
        (1800, Some(60), 1800),
    ] {
        let mut announcer = announcer(&[&["a"]], only_v4(Reach::FirstWorking));
        let (_, endpoint, _) = next(&mut announcer, at(0)).unwrap();
        let interval_min = interval_min.map(Duration::from_secs);
        announcer.handle_response(at(0), endpoint, Terms { interval_min, ..terms(interval) });
        assert_eq!(announcer.poll_timeout(), Some(at(seconds)), "{interval} {interval_min:?}");
    }
}

#[test]
fn a_tier_is_left_only_when_all_of_it_failed() {
    let mut announcer = announcer(&[&["a", "b", "c"], &["d"]], only_v4(Reach::FirstWorking));
    let mut rng = Rng::from_seed(2);
    let mut failed = Vec::new();
    for _ in 0..3 {
        let (name, endpoint, _) = next(&mut announcer, at(0)).unwrap();
        assert_eq!(announcer.poll_announce(at(0)), None);
        announcer.handle_failure(at(0), endpoint, Failure::Passing, &mut rng);
        failed.push(name);
    }
    failed.sort();
    assert_eq!(failed, ["a", "b", "c"]);
    let (name, endpoint, _) = next(&mut announcer, at(0)).unwrap();
    assert_eq!(name, "d");
    announcer.handle_response(at(0), endpoint, terms(1800));
    // The first tier is asked again after its patience, and takes over when it works.
    let retry_at = announcer.poll_timeout().unwrap();
    assert!(retry_at >= at(15) && retry_at < at(19), "{retry_at:?}");
    let (name, endpoint, event) = next(&mut announcer, retry_at).unwrap();
    assert!(name != "d" && event == AnnounceEvent::Started);
    announcer.handle_response(retry_at, endpoint, terms(1800));
    assert_eq!(announcer.poll_timeout(), Some(retry_at + SECOND * 1800));
}

#[test]
fn the_tracker_that_worked_moves_to_the_front_of_its_tier() {
    let mut announcer = announcer(&[&["a", "b", "c"]], only_v4(Reach::FirstWorking));
    let mut rng = Rng::from_seed(3);
    let (_, first, _) = next(&mut announcer, at(0)).unwrap();
    announcer.handle_failure(at(0), first, Failure::Passing, &mut rng);
    let (_, second, _) = next(&mut announcer, at(0)).unwrap();
    announcer.handle_response(at(0), second, terms(1800));
    assert_eq!(announcer.poll_timeout(), Some(at(1800)), "the failed one is not tried again meanwhile");
    assert_eq!(next(&mut announcer, at(1800)).unwrap().1, second);
}

#[test]
fn every_tier_is_announced_to_when_asked_for() {
    let mut announcer = announcer(&[&["a", "b"], &["c"], &["d"]], only_v4(Reach::EveryTier));
    let mut names: Vec<_> =
        std::iter::from_fn(|| next(&mut announcer, at(0))).map(|(name, _, _)| name).collect();
    names.sort();
    assert_eq!(names.len(), 3);
    assert_eq!(names[1..], ["c", "d"]);
}

#[test]
fn both_families_are_announced_by_and_fail_apart() {
    let mut announcer = announcer(&[&["a"], &["b"]], AnnouncerConfig::default());
    let (_, one, _) = next(&mut announcer, at(0)).unwrap();
    let (_, two, _) = next(&mut announcer, at(0)).unwrap();
    assert_eq!((one.family, two.family, announcer.poll_announce(at(0))), (V4, V6, None));
    announcer.handle_response(at(0), one, terms(1800));
    announcer.handle_failure(at(0), two, Failure::NoAddress, &mut Rng::from_seed(1));
    let (name, three, _) = next(&mut announcer, at(0)).unwrap();
    assert_eq!((name.as_str(), three.family), ("b", V6));
    announcer.handle_failure(at(0), three, Failure::Lasting, &mut Rng::from_seed(1));
    assert_eq!(announcer.poll_timeout(), Some(at(1800)), "IPv6 waits the longest patience");
}

#[test]
fn patience_doubles_up_to_its_bound_and_a_success_resets_it() {
    let mut announcer = announcer(&[&["a"]], only_v4(Reach::FirstWorking));
    let mut rng = Rng::from_seed(4);
    let mut now = at(0);
    for expected in [15, 30, 60, 120, 240, 480, 960, 1800, 1800, 1800] {
        let (_, endpoint, event) = next(&mut announcer, now).unwrap();
        assert_eq!(event, AnnounceEvent::Started);
        announcer.handle_failure(now, endpoint, Failure::Passing, &mut rng);
        let patience = announcer.poll_timeout().unwrap().since(now);
        assert!(patience >= SECOND * expected && patience <= SECOND * expected * 5 / 4, "{patience:?}");
        now += patience;
    }
    let (_, endpoint, _) = next(&mut announcer, now).unwrap();
    announcer.handle_response(now, endpoint, terms(60));
    now += SECOND * 60;
    let (_, endpoint, _) = next(&mut announcer, now).unwrap();
    announcer.handle_failure(now, endpoint, Failure::Passing, &mut rng);
    assert!(announcer.poll_timeout().unwrap().since(now) < SECOND * 19);
}

#[test]
fn retry_in_is_honoured_and_never_means_never() {
    let mut announcer = announcer(&[&["a"]], only_v4(Reach::FirstWorking));
    let mut rng = Rng::from_seed(4);
    let (_, endpoint, _) = next(&mut announcer, at(0)).unwrap();
    announcer.handle_failure(at(0), endpoint, Failure::RetryIn(SECOND * 600), &mut rng);
    assert_eq!(announcer.poll_timeout(), Some(at(600)));
    let (_, endpoint, _) = next(&mut announcer, at(600)).unwrap();
    announcer.handle_failure(at(600), endpoint, Failure::RetryIn(Duration::MAX), &mut rng);
    assert_eq!(announcer.poll_timeout(), Some(at(600 + 86_400)));
    let (_, endpoint, _) = next(&mut announcer, at(600 + 86_400)).unwrap();
    announcer.handle_failure(at(600 + 86_400), endpoint, Failure::Lasting, &mut rng);
    assert_eq!(announcer.poll_timeout(), None);
}

#[test]
fn completed_goes_at_once_to_who_knows_us_as_a_leech() {
    let mut announcer = announcer(&[&["a"], &["b"]], only_v4(Reach::EveryTier));
    let (_, a, _) = next(&mut announcer, at(0)).unwrap();
    let (_, b, _) = next(&mut announcer, at(0)).unwrap();
    announcer.handle_response(at(0), a, terms(1800));
    announcer.handle_failure(at(0), b, Failure::Passing, &mut Rng::from_seed(1));
    announcer.completed();
    let (_, endpoint, event) = next(&mut announcer, at(1)).unwrap();
    assert_eq!((endpoint, event), (a, AnnounceEvent::Completed));
    announcer.handle_response(at(1), a, terms(1800));
    let (_, endpoint, event) = next(&mut announcer, at(30)).unwrap();
    assert_eq!((endpoint, event), (b, AnnounceEvent::Started), "it is told started with nothing left");
    announcer.handle_response(at(30), b, terms(1800));
    assert_eq!(announcer.poll_timeout(), Some(at(1801)));
}

#[test]
fn who_leaves_when_everything_is_there_says_completed_before_stopped() {
    let mut announcer = announcer(&[&["a"], &["b"]], only_v4(Reach::EveryTier));
    let (_, a, _) = next(&mut announcer, at(0)).unwrap();
    let (_, b, _) = next(&mut announcer, at(0)).unwrap();
    announcer.handle_response(at(0), a, terms(1800));
    announcer.handle_response(at(0), b, terms(1800));
    announcer.completed();
    announcer.stop();
    assert_eq!(next(&mut announcer, at(1)).unwrap().2, AnnounceEvent::Completed);
    assert_eq!(next(&mut announcer, at(1)).unwrap().2, AnnounceEvent::Completed);
    assert_eq!(announcer.poll_announce(at(1)), None, "one after the other");
    announcer.handle_response(at(1), a, terms(1800));
    announcer.handle_failure(at(1), b, Failure::Passing, &mut Rng::from_seed(1));
    for endpoint in [a, b] {
        let job = AnnounceJob { endpoint, event: AnnounceEvent::Stopped };
        assert_eq!(announcer.poll_announce(at(1)), Some(job));
        announcer.handle_response(at(1), endpoint, terms(1800));
    }
    assert!(announcer.is_stopped());
}

#[test]
fn a_partial_seed_says_so_at_once_and_once_where_that_can_be_said() {
    let mut announcer = announcer(&[&["http://a"], &["udp://b"]], only_v4(Reach::EveryTier));
    let (_, a, _) = next(&mut announcer, at(0)).unwrap();
    let (_, b, _) = next(&mut announcer, at(0)).unwrap();
    announcer.handle_response(at(0), a, terms(1800));
    announcer.handle_response(at(0), b, terms(1800));
    announcer.paused();
    let (_, endpoint, event) = next(&mut announcer, at(1)).unwrap();
    assert_eq!((endpoint, event), (a, AnnounceEvent::Paused));
    announcer.handle_failure(at(1), a, Failure::Passing, &mut Rng::from_seed(1));
    let (_, endpoint, event) = next(&mut announcer, at(60)).unwrap();
    assert_eq!((endpoint, event), (a, AnnounceEvent::Paused), "it has not heard");
    announcer.handle_response(at(60), a, terms(1800));
    assert_eq!(announcer.poll_timeout(), Some(at(1800)), "the other tracker is in no hurry");
    assert_eq!(next(&mut announcer, at(1800)).unwrap().1, b);
    assert_eq!(next(&mut announcer, at(1860)).unwrap().2, AnnounceEvent::None, "the caller says the rest");
}

#[test]
fn a_partial_seed_from_the_start_is_told_after_started() {
    let mut announcer = announcer(&[&["http://a"]], only_v4(Reach::FirstWorking));
    announcer.paused();
    let (_, a, event) = next(&mut announcer, at(0)).unwrap();
    assert_eq!(event, AnnounceEvent::Started);
    assert_eq!(announcer.poll_announce(at(1)), None, "one at a time");
    announcer.handle_response(at(1), a, terms(1800));
    assert_eq!(next(&mut announcer, at(1)).unwrap().2, AnnounceEvent::Paused);
}

#[test]
fn a_hurry_waits_for_the_min_interval() {
    let mut announcer = announcer(&[&["a"]], only_v4(Reach::FirstWorking));
    let (_, endpoint, _) = next(&mut announcer, at(0)).unwrap();
    announcer.handle_response(at(0), endpoint, Terms { interval_min: Some(SECOND * 120), ..terms(1800) });
    announcer.hurry(at(10));
    assert_eq!(announcer.poll_timeout(), Some(at(120)));
}

#[test]
fn torrents_that_announced_together_drift_apart() {
    let config = AnnouncerConfig { jitter_percent: 10, ..only_v4(Reach::FirstWorking) };
    let due = |seed| {
        let mut rng = Rng::from_seed(seed);
        let mut announcer = Announcer::new(&tiers(&[&["a"]]), config.clone(), at(0), &mut rng);
        let (_, endpoint, _) = next(&mut announcer, at(0)).unwrap();
        announcer.handle_response(at(0), endpoint, terms(1800));
        announcer.poll_timeout().unwrap()
    };
    let dues: Vec<Instant> = (0..1000).map(due).collect();
    for tenth in 0..10 {
        let (from, to) = (at(1800 + 18 * tenth), at(1818 + 18 * tenth));
        let count = dues.iter().filter(|&&due| from <= due && due < to).count();
        assert!((50..150).contains(&count), "{count} of 1000 fall into the tenth {tenth}");
    }
}

#[test]
fn stopped_goes_once_to_who_knows_us_and_to_nobody_else() {
    let mut announcer = announcer(&[&["a"], &["b"], &["c"]], only_v4(Reach::EveryTier));
    let jobs: Vec<_> = std::iter::from_fn(|| next(&mut announcer, at(0))).map(|(_, job, _)| job).collect();
    announcer.handle_response(at(0), jobs[0], terms(1800));
    announcer.handle_failure(at(0), jobs[1], Failure::Passing, &mut Rng::from_seed(1));
    announcer.stop();
    let (name, stopped, event) = next(&mut announcer, at(1)).unwrap();
    assert_eq!((name.as_str(), event), ("a", AnnounceEvent::Stopped));
    assert_eq!((announcer.poll_announce(at(1)), announcer.is_stopped()), (None, false));
    announcer.handle_failure(at(2), stopped, Failure::Passing, &mut Rng::from_seed(1));
    announcer.handle_response(at(2), jobs[2], terms(1800));
    let (name, stopped, event) = next(&mut announcer, at(2)).unwrap();
    assert_eq!((name.as_str(), event), ("c", AnnounceEvent::Stopped), "its started was still in flight");
    announcer.handle_response(at(3), stopped, terms(1800));
    assert_eq!((announcer.poll_announce(at(9999)), announcer.is_stopped()), (None, true));
}

#[test]
fn the_list_is_bounded_and_repeated_addresses_count_once() {
    let many: Vec<TrackerUrl> = (0..300).map(|number| format!("t{}", number / 2).into()).collect();
    let config = only_v4(Reach::EveryTier);
    let announcer = Announcer::new(&[many], config, Instant::ZERO, &mut Rng::from_seed(1));
    assert!(announcer.url(TrackerIndex(99)).is_some() && announcer.url(TrackerIndex(100)).is_none());
    let nobody = Announcer::new(&[], AnnouncerConfig::default(), Instant::ZERO, &mut Rng::from_seed(1));
    assert_eq!(nobody.poll_timeout(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    WaitForTimeout,
    Respond { which: usize, interval: u64, interval_min: Option<u64> },
    Fail { which: usize, failure: Failure },
    Hurry,
    Completed,
    Paused,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        3 => Just(Failure::Passing),
        1 => (0_u64..100_000).prop_map(|seconds| Failure::RetryIn(Duration::from_secs(seconds))),
        1 => Just(Failure::NoAddress),
        1 => Just(Failure::Lasting),
    ];
    prop_oneof![
        3 => (0_u64..3000).prop_map(Step::Wait),
        6 => Just(Step::WaitForTimeout),
        6 => (any::<usize>(), 0_u64..10_000, proptest::option::of(0_u64..10_000))
            .prop_map(|(which, interval, interval_min)| Step::Respond { which, interval, interval_min }),
        5 => (any::<usize>(), failure).prop_map(|(which, failure)| Step::Fail { which, failure }),
        1 => Just(Step::Hurry),
        1 => Just(Step::Completed),
        1 => Just(Step::Paused),
        1 => Just(Step::Stop),
    ]
}

/// What one tracker saw of us: the naive oracle.
#[derive(Default)]
struct Seen {
    in_flight: Option<AnnounceEvent>,
    knows_us: bool,
    stopped: bool,
    earliest_regular: Instant,
    failing: bool,
}

proptest! {
    #[test]
    fn trackers_never_see_what_the_protocol_forbids(
        sizes in prop::collection::vec(0_usize..4, 0..4),
        every_tier: bool,
        seed: u64,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let names: Vec<Vec<TrackerUrl>> = (0..).zip(&sizes)
            .map(|(tier, &size)| (0..size).map(|member| format!("{tier}.{member}").into()).collect()).collect();
        let reach = if every_tier { Reach::EveryTier } else { Reach::FirstWorking };
        let config = AnnouncerConfig { reach, ..AnnouncerConfig::default() };
        let mut rng = Rng::from_seed(seed);
        let mut announcer = Announcer::new(&names, config, at(5), &mut rng);
        let mut seen: BTreeMap<Endpoint, Seen> = BTreeMap::new();
        let mut now = Instant::ZERO;
        let mut stopping = false;
        for step in steps {
            while let Some(job) = announcer.poll_announce(now) {
                let tracker = seen.entry(job.endpoint).or_default();
                prop_assert!(tracker.in_flight.is_none(), "one in flight per tracker");
                prop_assert!(!tracker.stopped, "nothing after stopped");
                let says_goodbye = matches!(job.event, AnnounceEvent::Stopped | AnnounceEvent::Completed);
                let fits = if stopping { says_goodbye } else { job.event != AnnounceEvent::Stopped };
                prop_assert!(fits, "{:?} while stopping is {stopping}", job.event);
                prop_assert_eq!(tracker.knows_us, job.event != AnnounceEvent::Started);
                if job.event == AnnounceEvent::None {
                    prop_assert!(now >= tracker.earliest_regular, "min interval");
                }
                tracker.stopped = job.event == AnnounceEvent::Stopped;
                tracker.in_flight = Some(job.event);
                let tier = |endpoint: &Endpoint| announcer.url(endpoint.tracker).unwrap().reveal()[..1].to_owned();
                if !stopping && !every_tier {
                    for (number, size) in sizes.iter().enumerate() {
                        if number.to_string() >= tier(&job.endpoint) { break; }
                        let failing = seen.iter().filter(|(endpoint, seen)| {
                            endpoint.family == job.endpoint.family && tier(endpoint) == number.to_string() && seen.failing
                        }).count();
                        prop_assert_eq!(failing, *size, "a tier is left only when all of it failed");
                    }
                }
            }
            if let Some(timeout) = announcer.poll_timeout() {
                prop_assert!(timeout > now, "drained");
                prop_assert_eq!(announcer.clone().poll_announce(timeout - Duration::from_nanos(1)), None);
                prop_assert!(announcer.clone().poll_announce(timeout).is_some(), "no vain wake-up");
            }
            let waiting: Vec<Endpoint> =
                seen.iter().filter(|(_, seen)| seen.in_flight.is_some()).map(|(&endpoint, _)| endpoint).collect();
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::WaitForTimeout => now = announcer.poll_timeout().unwrap_or(now),
                Step::Respond { which, interval, interval_min } if !waiting.is_empty() => {
                    let endpoint = waiting[which % waiting.len()];
                    let interval_min = interval_min.map(Duration::from_secs);
                    announcer.handle_response(now, endpoint, Terms { interval_min, ..terms(interval) });
                    let tracker = seen.get_mut(&endpoint).unwrap();
                    tracker.knows_us = tracker.in_flight.take() != Some(AnnounceEvent::Stopped);
                    tracker.failing = false;
                    let pause = interval_min.map_or(interval, |pause| pause.as_secs());
                    tracker.earliest_regular = now + Duration::from_secs(pause.clamp(60, 7200));
                }
                Step::Fail { which, failure } if !waiting.is_empty() => {
                    let endpoint = waiting[which % waiting.len()];
                    announcer.handle_failure(now, endpoint, failure, &mut rng);
                    let tracker = seen.get_mut(&endpoint).unwrap();
                    tracker.in_flight = None;
                    tracker.failing = true;
                }
                Step::Respond { .. } | Step::Fail { .. } => {}
                Step::Hurry => announcer.hurry(now),
                Step::Completed => announcer.completed(),
                Step::Paused => announcer.paused(),
                Step::Stop => {
                    announcer.stop();
                    stopping = true;
                }
            }
        }
    }
}

//! The table of candidates against floods, and against a plain list.

use super::*;
use crate::time::Duration;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A tracker of the public network.
const TRACKER: Source = Source::Tracker(Scope::Global);

#[test]
fn strangers_cannot_aim_us_at_services_of_our_own_network() {
    let all = [
        ("192.0.2.1:80", true, true),
        ("10.0.0.1:80", false, false),
        ("10.0.0.1:6881", true, false),
        ("127.0.0.1:22", false, false),
        ("127.0.0.1:8080", true, false),
        ("[::1]:443", false, false),
        ("[::ffff:10.0.0.1]:80", false, false),
        ("[64:ff9b::10.0.0.1]:80", false, false),
        ("169.254.169.254:80", false, false),
        ("100.64.0.1:22", false, false),
        ("[fd00::1]:25", false, false),
    ];
    for (text, by_link, by_tracker) in all {
        let known = |source| {
            let mut candidates = Candidates::new(Instant::ZERO);
            candidates.add(source, [address(text)]);
            candidates.known() == 1
        };
        assert_eq!((known(Source::Link), known(TRACKER)), (by_link, by_tracker), "{text}");
        assert!(known(Source::User) && known(Source::Tracker(Scope::Loopback)), "{text}");
        let is_near = Scope::of(address(text).ip()) == Scope::Loopback;
        assert_eq!(known(Source::Tracker(Scope::Lan)), !is_near, "{text}");
    }
    let nobody = ["0.0.0.0:6881", "224.0.0.1:6881", "255.255.255.255:6881", "[ff02::1]:6881", "192.0.2.1:0"];
    for text in nobody {
        let mut candidates = Candidates::new(Instant::ZERO);
        candidates.add(Source::User, [address(text)]);
        assert_eq!(candidates.known(), 0, "{text}");
    }
}

#[test]
fn the_untried_come_first_and_liars_never_again() {
    let mut candidates = Candidates::new(Instant::ZERO);
    let [one, two, three] = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(address);
    candidates.add(TRACKER, [one, two, one]);
    candidates.add(Source::User, [three]);
    let order: Vec<_> = std::iter::from_fn(|| candidates.next(Instant::ZERO)).collect();
    assert_eq!(order, [three, one, two]);
    candidates.handle_end(Instant::ZERO, one, Ended::Liar);
    candidates.handle_end(Instant::ZERO, two, Ended::Idle);
    candidates.handle_end(Instant::ZERO, three, Ended::Unreachable);
    assert_eq!(candidates.next(Instant::ZERO), None);
    let later = Instant::ZERO + MAGNET_REDIAL_INTERVAL;
    assert_eq!(
        [candidates.next(later), candidates.next(later), candidates.next(later)],
        [Some(two), Some(three), None]
    );
    assert_eq!(candidates.into_best_first(), [three, two]);
}

#[test]
fn who_is_never_reached_is_given_up_and_the_list_is_bounded() {
    let mut candidates = Candidates::new(Instant::ZERO);
    candidates.add(Source::User, (0..5_000).map(|port| SocketAddr::from(([192, 0, 2, 1], port))));
    assert_eq!(candidates.known(), MAGNET_CANDIDATES_MAX);
    let mut candidates = Candidates::new(Instant::ZERO);
    candidates.add(Source::User, [address("192.0.2.1:1")]);
    let mut now = Instant::ZERO;
    let mut dials = 0;
    for _ in 0..1_000 {
        now += Duration::from_secs(10);
        if let Some(dialled) = candidates.next(now) {
            dials += 1;
            candidates.handle_end(now, dialled, Ended::Unreachable);
        }
    }
    assert_eq!((dials, candidates.tried()), (MAGNET_DIALS_PER_PEER_MAX, 1));
}

/// Dials until nobody is left to be dialled now.
fn dialled(candidates: &mut Candidates, now: Instant) -> Vec<SocketAddr> {
    std::iter::from_fn(|| candidates.next(now)).collect()
}

/// Everybody hostile answers and is silent, so that it leaves after `stay`; gives the time until `honest` is dialled.
fn time_until_dialled(hostile: &[SocketAddr], honest: SocketAddr, stay: Duration) -> Duration {
    let mut now = Instant::ZERO;
    let mut candidates = Candidates::new(now);
    candidates.add(TRACKER, hostile.iter().copied().chain([honest]));
    loop {
        let talking = dialled(&mut candidates, now);
        if talking.contains(&honest) {
            return now.since(Instant::ZERO);
        }
        assert!(now < Instant::ZERO + Duration::from_secs(3_600), "never dialled");
        now += stay;
        for address in talking {
            candidates.handle_end(now, address, Ended::Idle);
        }
    }
}

#[test]
fn an_honest_peer_is_dialled_at_once_however_many_one_network_has_named_before() {
    let honest = address("192.0.2.1:6881");
    let stay = Duration::from_secs(5);
    for count in [200, 2_000, 5_000_u32] {
        let of_prefix =
            |number: u32| SocketAddr::from(([11, 0, 0, number as u8], (7_000 + number / 256) as u16));
        let one_prefix: Vec<_> = (0..count).map(of_prefix).collect();
        assert_eq!(time_until_dialled(&one_prefix, honest, stay), Duration::ZERO, "{count}");
        let of_address = |number: u32| SocketAddr::from(([10, 0, 0, 1], (7_000 + number) as u16));
        let mut candidates = Candidates::new(Instant::ZERO);
        candidates.add(Source::Tracker(Scope::Lan), (0..count).map(of_address).chain([honest]));
        let talking = dialled(&mut candidates, Instant::ZERO);
        assert!(talking.contains(&honest) && talking.len() == 1 + MAGNET_DIALLED_PER_ADDRESS_MAX);
    }
}

#[test]
fn networks_take_turns_when_there_are_more_than_places() {
    let honest = address("192.0.2.1:6881");
    let stay = Duration::from_secs(5);
    // Each with as many as fit into the table together.
    for (networks, each) in [(50, 1), (50, 40), (200, 10), (1_000, 2)] {
        let of = |number: u32| {
            let [_, _, high, low] = (number / each).to_be_bytes();
            SocketAddr::from(([11, high, low, (number % each) as u8], 7_000))
        };
        let hostile: Vec<_> = (0..networks * each).map(of).collect();
        let turns = networks.div_ceil(MAGNET_DIALLED_MAX as u32);
        let time = time_until_dialled(&hostile, honest, stay);
        assert!(time <= stay.saturating_mul(turns), "{networks} networks: {time:?}");
    }
}

#[test]
fn liars_count_against_their_network() {
    let mut candidates = Candidates::new(Instant::ZERO);
    let liars: Vec<_> = (1..=100).map(|host| SocketAddr::from(([11, 0, 0, host], 1))).collect();
    candidates.add(TRACKER, liars);
    let talking = dialled(&mut candidates, Instant::ZERO);
    assert_eq!(talking.len(), MAGNET_DIALLED_PER_PREFIX_MAX);
    for &liar in &talking {
        candidates.handle_end(Instant::ZERO, liar, Ended::Liar);
    }
    // Three silent ones of another network are not as bad, although they came later.
    let others: Vec<_> = (1..=3).map(|host| SocketAddr::from(([12, 0, 0, host], 1))).collect();
    candidates.add(TRACKER, others.iter().copied());
    for &other in &others {
        assert_eq!(candidates.next(Instant::ZERO), Some(other));
        candidates.handle_end(Instant::ZERO, other, Ended::Idle);
    }
    assert!(candidates.next(Instant::ZERO).is_some_and(|next| !talking.contains(&next)));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(24))]

    /// Addresses come, are dialled and end; a plain list, walked through for each question, says what should be.
    #[test]
    fn the_table_does_what_a_plain_list_would(seed: u64) {
        let mut rng = crate::rng::Rng::from_seed(seed);
        let (mut candidates, mut now) = (Candidates::new(Instant::ZERO), Instant::ZERO);
        let mut talking: Vec<SocketAddr> = Vec::new();
        // Crowded: few networks, and for half of the runs a full table.
        let networks = [3, 40, 3_000][rng.index(3)];
        for _ in 0..12 {
            now += Duration::from_millis(rng.below(20_000));
            for _ in 0..rng.below(500) {
                let [_, _, high, low] = (rng.below(networks) as u32).to_be_bytes();
                let ip = [11, high, low, rng.below(30) as u8];
                let newcomer = SocketAddr::from((ip, 1 + rng.below(20) as u16));
                let source = if rng.below(50) == 0 { Source::User } else { TRACKER };
                let is_full = candidates.all.len() >= MAGNET_CANDIDATES_MAX && rng.below(20) == 0;
                let of_party = candidates.parties.get(&party_of(newcomer)).map_or(0, |common| common.known);
                let shares = (is_full && of_party < CANDIDATES_PER_ADDRESS_MAX).then(|| {
                    let prefix = |one: &SocketAddr| AddressPrefix::of(one.ip());
                    // In order of address, so that a network's are neighbours.
                    let all: Vec<_> = candidates.all.iter().collect();
                    let networks = all.chunk_by(|(one, _), (next, _)| prefix(one) == prefix(next));
                    let may_lose = networks.filter(|network| network.iter().any(|(_, one)| one.is_evictable()));
                    let own = all.iter().filter(|(one, _)| prefix(one) == prefix(&newcomer)).count();
                    (own, may_lose.map(<[_]>::len).max().unwrap_or(0), candidates.all.contains_key(&newcomer))
                });
                candidates.add(source, [newcomer]);
                if let Some((own, most, false)) = shares {
                    let is_in = candidates.all.contains_key(&newcomer);
                    // The one that goes has at least as many neighbours, and a network with few candidates gets in.
                    proptest::prop_assert!(!is_in || own <= most || source == Source::User);
                    proptest::prop_assert!(is_in || own + 1 >= most, "{own} of {most}");
                }
            }
            loop {
                let merits = merits(&candidates, &talking, now);
                let next = candidates.next(now);
                proptest::prop_assert_eq!(next.is_some(), !merits.is_empty());
                let Some(address) = next else { break };
                proptest::prop_assert_eq!(merits.get(&address), merits.values().min());
                talking.push(address);
                proptest::prop_assert!(talking.len() <= MAGNET_DIALLED_MAX);
            }
            while !talking.is_empty() && rng.below(3) > 0 {
                let address = talking.swap_remove(rng.index(talking.len()));
                let ended = [Ended::Unreachable, Ended::Left, Ended::Idle, Ended::Useless, Ended::Liar];
                candidates.handle_end(now, address, ended[rng.index(5)]);
            }
            check(&candidates, &talking)?;
        }
    }
}

/// What comes first about a candidate that is not dialled yet: a wish of the user's, then few of its network.
fn merit(
    candidates: &Candidates,
    talking: &[SocketAddr],
    now: Instant,
    address: SocketAddr,
) -> Option<(bool, usize)> {
    let one = candidates.all.get(&address)?;
    let of = |is_like: &dyn Fn(IpAddr) -> bool| talking.iter().filter(|one| is_like(one.ip())).count();
    let of_prefix = of(&|ip| AddressPrefix::of(ip) == AddressPrefix::of(address.ip()));
    let of_party = of(&|ip| party(ip) == party(address.ip()));
    let has_share = of_prefix < MAGNET_DIALLED_PER_PREFIX_MAX && of_party < MAGNET_DIALLED_PER_ADDRESS_MAX;
    let is_wish = one.of_user && one.dials == 0;
    (one.is_ready(now) && (has_share || one.of_user)).then_some((!is_wish, of_prefix))
}

/// Of all that may be dialled now.
fn merits(
    candidates: &Candidates,
    talking: &[SocketAddr],
    now: Instant,
) -> BTreeMap<SocketAddr, (bool, usize)> {
    if talking.len() >= MAGNET_DIALLED_MAX {
        return BTreeMap::new();
    }
    let merits = candidates.all.keys().map(|&one| (one, merit(candidates, talking, now, one)));
    merits.filter_map(|(one, merit)| Some((one, merit?))).collect()
}

/// That all counts agree with the addresses, and no share is exceeded.
fn check(
    candidates: &Candidates,
    talking: &[SocketAddr],
) -> Result<(), proptest::test_runner::TestCaseError> {
    use proptest::prop_assert_eq;
    proptest::prop_assert!(candidates.all.len() <= MAGNET_CANDIDATES_MAX);
    let is_talking = candidates.all.iter().filter(|(_, one)| one.is_talking).map(|(&address, _)| address);
    let mut sorted = talking.to_vec();
    sorted.sort_unstable();
    prop_assert_eq!(is_talking.collect::<Vec<_>>(), sorted);
    prop_assert_eq!(candidates.talking, talking.len());
    prop_assert_eq!(candidates.tried(), candidates.all.values().filter(|one| one.dials > 0).count());
    let (mut prefixes, mut parties) = (BTreeMap::new(), BTreeMap::new());
    for (address, one) in &candidates.all {
        let count = |common: &mut (usize, usize)| {
            common.0 += 1;
            common.1 += usize::from(one.is_talking);
        };
        count(prefixes.entry(AddressPrefix::of(address.ip())).or_default());
        count(parties.entry(party_of(*address)).or_default());
    }
    let pair = |common: &Common| (common.known, common.talking);
    let kept: BTreeMap<_, _> = candidates.prefixes.iter().map(|(&key, common)| (key, pair(common))).collect();
    prop_assert_eq!(kept, prefixes);
    let kept: BTreeMap<_, _> = candidates.parties.iter().map(|(&key, common)| (key, pair(common))).collect();
    prop_assert_eq!(kept, parties);
    for (address, one) in &candidates.all {
        if !one.of_user {
            let of_user_too =
                talking.iter().filter(|one| candidates.all.get(one).is_some_and(|one| one.of_user));
            let slack = of_user_too.count();
            proptest::prop_assert!(
                candidates.prefixes[&one.prefix].talking <= MAGNET_DIALLED_PER_PREFIX_MAX + slack
            );
            proptest::prop_assert!(
                candidates.parties[&party_of(*address)].talking <= MAGNET_DIALLED_PER_ADDRESS_MAX + slack
            );
        }
    }
    Ok(())
}

//! Whose public key is answered next (MSE): an answer is costly, and a key costs nothing but its bytes.
//!
//! Keys are answered in turns of a tenth of a second, so many in each. Those that come when a turn has none left wait in
//! line, a line for each site (/24, /48). The site that was answered least lately comes first, among equals the one that
//! has waited longest: who has asked for nothing in the last seconds is answered in the next turn, whoever else asks.
//!
//! Deliberately absent: a bound of its own. Who waits is a connection that is half open, and those are bounded.

use crate::id::Site;
use crate::limits::{MSE_ANSWERS_MAX, MSE_ANSWERS_PER_PREFIX_MAX, MSE_ANSWERS_TURN};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// What one answer weighs against a site. The weight halves each second, so an answer is forgotten after five.
const WEIGHT: u32 = 16;
const SECOND: Duration = Duration::from_secs(1);
/// Answers in a turn.
const ANSWERS_PER_TURN: u32 =
    (MSE_ANSWERS_MAX as u128 * MSE_ANSWERS_TURN.as_millis() / SECOND.as_millis()) as u32;

/// The line, of connections named by `K`.
#[derive(Debug)]
pub(super) struct KeyLine<K> {
    /// Answers left in this turn, and its end; none was given in a turn without end.
    left: u32,
    turn_ends: Option<Instant>,
    second_began: Instant,
    /// Answers in this second.
    in_second: BTreeMap<Site, u32>,
    /// What the last seconds' answers still weigh. No more sites than were answered in five seconds.
    weights: BTreeMap<Site, u32>,
    waiting: BTreeMap<Site, Waiting<K>>,
    /// The same sites in the order in which they are answered.
    order: BTreeSet<(u32, u64, Site)>,
    len: usize,
    tickets: u64,
}

#[derive(Debug)]
struct Waiting<K> {
    weight: u32,
    ticket: u64,
    /// Whether it is this machine, where all are one site.
    is_local: bool,
    keys: VecDeque<K>,
}

impl<K: Copy> KeyLine<K> {
    pub fn new() -> Self {
        Self {
            left: ANSWERS_PER_TURN,
            turn_ends: None,
            second_began: Instant::ZERO,
            in_second: BTreeMap::new(),
            weights: BTreeMap::new(),
            waiting: BTreeMap::new(),
            order: BTreeSet::new(),
            len: 0,
            tickets: 0,
        }
    }

    /// Connections in line, with those that have gone since.
    pub fn len(&self) -> usize {
        self.len
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.turn_ends
    }

    /// A key has come from `remote`: whether it is to be answered at once. If not, it is in line as `key`.
    pub fn ask(&mut self, now: Instant, remote: IpAddr, key: K) -> bool {
        self.pass_time(now);
        let (site, is_local) = (Site::of(remote), remote.to_canonical().is_loopback());
        self.turn_ends.get_or_insert(now + MSE_ANSWERS_TURN);
        if self.waiting.is_empty() && self.left > 0 && (is_local || self.has_share(site)) {
            self.count(site);
            return true;
        }
        self.len += 1;
        if let Some(waiting) = self.waiting.get_mut(&site) {
            waiting.keys.push_back(key);
        } else {
            self.enter(site, is_local, VecDeque::from([key]));
        }
        false
    }

    /// A turn is over. Then ask `poll_answer`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pass_time(now);
        if self.turn_ends.is_some_and(|end| end <= now) {
            let is_idle = self.left == ANSWERS_PER_TURN && self.waiting.is_empty();
            self.turn_ends = (!is_idle).then_some(now + MSE_ANSWERS_TURN);
            self.left = ANSWERS_PER_TURN;
        }
    }

    /// The next to be answered in this turn; `None` when it has to wait. `is_there` knows who has gone.
    pub fn poll_answer(&mut self, is_there: impl Fn(K) -> bool) -> Option<K> {
        while self.left > 0 {
            let has_share = |site: &Site| {
                self.has_share(*site) || self.waiting.get(site).is_some_and(|waiting| waiting.is_local)
            };
            let &place = self.order.iter().find(|(_, _, site)| has_share(site))?;
            self.order.remove(&place);
            let site = place.2;
            let Waiting { is_local, mut keys, .. } = self.waiting.remove(&site)?;
            self.len -= keys.len();
            let next = std::iter::from_fn(|| keys.pop_front()).find(|&key| is_there(key));
            if next.is_some() {
                self.count(site);
            }
            self.len += keys.len();
            if !keys.is_empty() {
                self.enter(site, is_local, keys);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// Forgets those that have gone.
    pub fn retain(&mut self, is_there: impl Fn(K) -> bool) {
        self.len = 0;
        self.waiting.retain(|&site, waiting| {
            waiting.keys.retain(|&key| is_there(key));
            self.len += waiting.keys.len();
            if waiting.keys.is_empty() {
                self.order.remove(&(waiting.weight, waiting.ticket, site));
            }
            !waiting.keys.is_empty()
        });
    }

    fn has_share(&self, site: Site) -> bool {
        self.in_second.get(&site).is_none_or(|&answers| answers < MSE_ANSWERS_PER_PREFIX_MAX)
    }

    fn count(&mut self, site: Site) {
        self.left -= 1;
        *self.in_second.entry(site).or_default() += 1;
        *self.weights.entry(site).or_default() += WEIGHT;
    }

    fn enter(&mut self, site: Site, is_local: bool, keys: VecDeque<K>) {
        let weight = self.weights.get(&site).copied().unwrap_or(0);
        let ticket = self.tickets;
        self.tickets += 1;
        self.order.insert((weight, ticket, site));
        self.waiting.insert(site, Waiting { weight, ticket, is_local, keys });
    }

    /// Seconds are over: everybody has a share again, and what was answered weighs less.
    fn pass_time(&mut self, now: Instant) {
        let seconds = now.since(self.second_began).as_secs();
        if seconds == 0 {
            return;
        }
        self.second_began += Duration::from_secs(seconds);
        self.in_second.clear();
        self.weights.retain(|_, weight| {
            *weight = weight.checked_shr(u32::try_from(seconds).unwrap_or(u32::MAX)).unwrap_or(0);
            *weight > 0
        });
        self.order.clear();
        for (&site, waiting) in &mut self.waiting {
            waiting.weight = self.weights.get(&site).copied().unwrap_or(0);
            self.order.insert((waiting.weight, waiting.ticket, site));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(7_000_000_000);

    fn address(network: u32, number: u8) -> IpAddr {
        let [_, _, high, low] = network.to_be_bytes();
        [11, high, low, number].into()
    }

    /// Sites that send so many keys in each hundredth of a second, and one that sends one after three seconds: in how many
    /// milliseconds it is answered, and how many answers there were.
    fn time_beside(sites: u32, keys: u32) -> (u64, u32) {
        let mut line = KeyLine::new();
        let honest = START + Duration::from_secs(3);
        let (mut now, mut sent, mut answers) = (START, 0, 0);
        loop {
            for _ in 0..keys {
                sent += 1;
                answers += u32::from(line.ask(now, address(sent % sites, 1), sent));
            }
            if now == honest && line.ask(now, address(60_000, 1), 0) {
                return (0, answers);
            }
            now += Duration::from_millis(10);
            if line.poll_timeout().is_some_and(|due| due <= now) {
                line.handle_timeout(now);
                while let Some(key) = line.poll_answer(|key| key == 0 || key + 4000 > sent) {
                    answers += 1;
                    if key == 0 {
                        return (now.since(honest).as_nanos() as u64 / 1_000_000, answers);
                    }
                }
            }
        }
    }

    #[test]
    fn who_has_asked_for_nothing_lately_is_answered_in_the_next_turn() {
        for (sites, keys) in [(1, 100), (20, 24), (20, 100), (200, 100), (1000, 100)] {
            let (took, answers) = time_beside(sites, keys);
            assert!(took <= MSE_ANSWERS_TURN.as_millis() as u64, "{took} ms beside {sites} sites");
            assert!(answers <= 32 * ANSWERS_PER_TURN, "{answers}");
        }
    }

    #[test]
    fn a_site_has_its_share_of_a_second_and_this_machine_is_none() {
        for (network, most) in [([203, 0, 113], MSE_ANSWERS_PER_PREFIX_MAX), ([127, 0, 0], MSE_ANSWERS_MAX)] {
            let mut line = KeyLine::new();
            let [a, b, c] = network;
            let mut answers = 0;
            for key in 0..1000u32 {
                answers += u32::from(line.ask(START, [a, b, c, key as u8].into(), key));
            }
            let mut now = START;
            while let Some(due) = line.poll_timeout().filter(|&due| due < START + SECOND) {
                now = due;
                line.handle_timeout(now);
                answers += std::iter::from_fn(|| line.poll_answer(|_| true)).count() as u32;
            }
            assert!(now > START && answers == most, "{answers}");
        }
    }

    #[test]
    fn who_has_gone_takes_no_answer_and_no_room_and_without_keys_there_is_no_timer() {
        let mut line = KeyLine::new();
        for key in 0..5000u32 {
            line.ask(START, address(key % 100, 1), key);
        }
        line.retain(|key| key >= 4900);
        assert_eq!((line.len(), line.order.len()), (100, 100));
        let end = START + MSE_ANSWERS_TURN;
        line.handle_timeout(end);
        assert_eq!(line.poll_answer(|key| key == 4939), Some(4939));
        assert_eq!((line.poll_answer(|_| true), line.len()), (None, 0));
        line.handle_timeout(end + MSE_ANSWERS_TURN);
        line.handle_timeout(end + MSE_ANSWERS_TURN * 2);
        assert_eq!(line.poll_timeout(), None);
    }
}

//! Why a peer is not faster: the time of each connection, attributed to what it waits for.
//!
//! A connection waits for one thing at a time, told from what is known of it ([`Conditions::cause`]). An account adds
//! that time up for any number of connections, in nanoseconds: a change costs a few additions and nothing is done
//! between changes, since a connection that waits since `t` is worth `now - t` whenever somebody asks.
//!
//! Invariant: what an account has told of a cause never shrinks, and with the connections it has been told of, the sum
//! over all causes grows by no more than a second for each of them in a second. Deliberately absent: what the network
//! does once the kernel has taken the bytes; to a seeder that is the peer's pace.

use crate::time::{Duration, Instant};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// A block that is asked for is being read from disk.
    Disk,
    /// The kernel has no room for a message: the peer or the line takes no more.
    Window,
    /// The peer is interested and choked.
    Choke,
    /// An upload limit.
    Limit,
    /// Blocks are asked for and could be sent: the worker has not come to it, or is at it.
    Cpu,
    /// The peer is unchoked and interested, has got what it asked for, and asks for nothing more.
    Asking,
}

/// Number of causes.
pub const CAUSES: usize = 6;

impl Cause {
    /// All of them, in the order of [`WaitTimes`].
    pub const ALL: [Self; CAUSES] =
        [Self::Disk, Self::Window, Self::Choke, Self::Limit, Self::Cpu, Self::Asking];

    /// Its name in machine-readable output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Window => "window",
            Self::Choke => "choke",
            Self::Limit => "limit",
            Self::Cpu => "cpu",
            Self::Asking => "asking",
        }
    }
}

/// What is known of a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// The peer wants blocks.
    pub interested: bool,
    /// We choke it.
    pub choked: bool,
    /// Blocks are asked for that have not been handed to the kernel.
    pub asked: bool,
    /// A message is in the kernel's hands.
    pub sending: bool,
    /// That message has blocks.
    pub sending_blocks: bool,
    /// What it asks for is being read from disk.
    pub fetching: bool,
    /// It waits for an upload limit.
    pub throttled: bool,
}

impl Conditions {
    /// What the connection waits for; `None` when it wants nothing.
    pub fn cause(self) -> Option<Cause> {
        if self.sending_blocks {
            return Some(Cause::Window);
        }
        if self.asked {
            return Some(match self {
                Self { fetching: true, .. } => Cause::Disk,
                Self { throttled: true, .. } => Cause::Limit,
                Self { sending: true, .. } => Cause::Window,
                _ => Cause::Cpu,
            });
        }
        self.interested.then_some(if self.choked { Cause::Choke } else { Cause::Asking })
    }
}

/// Nanoseconds by cause, in the order of [`Cause::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitTimes(pub [u64; CAUSES]);

impl WaitTimes {
    /// Nanoseconds of one cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// What has come since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut new = *self;
        new.0.iter_mut().zip(earlier.0).for_each(|(now, before)| *now = now.saturating_sub(before));
        new
    }

    /// All causes together.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, &time| sum.saturating_add(time))
    }
}

/// Wait times that several threads add to and anybody reads.
#[derive(Debug, Default)]
pub struct SharedWaits([AtomicU64; CAUSES]);

impl SharedWaits {
    /// Adds; causes without time cost nothing.
    pub fn add(&self, new: &WaitTimes) {
        for (sum, &time) in self.0.iter().zip(&new.0).filter(|(_, time)| **time > 0) {
            sum.fetch_add(time, Relaxed);
        }
    }

    /// All of them now.
    pub fn times(&self) -> WaitTimes {
        WaitTimes(std::array::from_fn(|cause| self.0[cause].load(Relaxed)))
    }
}

/// Adds up what connections wait for.
#[derive(Clone, Debug, Default)]
pub struct WaitAccount {
    /// By cause: ends of waits less their beginnings, as a sum that wraps.
    sums: [u64; CAUSES],
    /// Connections that wait now.
    waiting: [u32; CAUSES],
    told: WaitTimes,
}

impl WaitAccount {
    /// A connection waited for `from` and now waits for `to`.
    pub fn change(&mut self, now: Instant, from: Option<Cause>, to: Option<Cause>) {
        if let Some(from) = from {
            let from = from as usize;
            self.sums[from] = self.sums[from].wrapping_add(now.as_nanos());
            self.waiting[from] = self.waiting[from].saturating_sub(1);
        }
        if let Some(to) = to {
            let to = to as usize;
            self.sums[to] = self.sums[to].wrapping_sub(now.as_nanos());
            self.waiting[to] += 1;
        }
    }

    /// What a connection has waited last turns out to have been for something else. `time` of it must not have been
    /// told yet.
    pub fn reassign(&mut self, time: Duration, from: Cause, to: Cause) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sums[from as usize] = self.sums[from as usize].wrapping_sub(nanos);
        self.sums[to as usize] = self.sums[to as usize].wrapping_add(nanos);
    }

    /// All time up to `now`, that of connections which still wait included.
    pub fn times(&self, now: Instant) -> WaitTimes {
        let mut times = WaitTimes(self.sums);
        for (time, &waiting) in times.0.iter_mut().zip(&self.waiting) {
            *time = time.wrapping_add(u64::from(waiting).wrapping_mul(now.as_nanos()));
        }
        times
    }

    /// What has come since this was last asked.
    pub fn take_new(&mut self, now: Instant) -> WaitTimes {
        let times = self.times(now);
        let new = times.since(&self.told);
        self.told = times;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cause_of(number: usize) -> Option<Cause> {
        Cause::ALL.get(number).copied()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Change {
            connection: usize,
            to: usize,
        },
        /// The last wait of this connection was for something else.
        Reassign {
            connection: usize,
            to: usize,
        },
        Tell,
    }

    fn step() -> impl Strategy<Value = (u64, Step)> {
        let change = (0..5usize, 0..=CAUSES).prop_map(|(connection, to)| Step::Change { connection, to });
        let reassign = (0..5usize, 0..CAUSES).prop_map(|(connection, to)| Step::Reassign { connection, to });
        (0..1_000_000u64, prop_oneof![5 => change, 1 => reassign, 1 => Just(Step::Tell)])
    }

    /// The naive way: every nanosecond of every connection is added to its cause.
    #[derive(Default)]
    struct Oracle {
        connections: [(Option<Cause>, u64); 5],
        times: [u64; CAUSES],
    }

    impl Oracle {
        fn pass(&mut self, nanos: u64) {
            for (cause, waited) in &mut self.connections {
                if let Some(cause) = cause {
                    self.times[*cause as usize] += nanos;
                    *waited += nanos;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn an_account_says_what_watching_every_nanosecond_says(
            start in 0..u64::MAX / 2,
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let (mut account, mut oracle) = (WaitAccount::default(), Oracle::default());
            let (mut now, mut told) = (Instant::from_nanos(start), WaitTimes::default());
            for (nanos, step) in steps {
                now += Duration::from_nanos(nanos);
                oracle.pass(nanos);
                match step {
                    Step::Change { connection, to } => {
                        let (from, waited) = &mut oracle.connections[connection];
                        account.change(now, *from, cause_of(to));
                        (*from, *waited) = (cause_of(to), 0);
                    }
                    Step::Reassign { connection, to } => {
                        let (from, waited) = &mut oracle.connections[connection];
                        if let Some(from) = *from {
                            account.reassign(Duration::from_nanos(*waited), from, Cause::ALL[to]);
                            oracle.times[from as usize] -= *waited;
                            oracle.times[to] += *waited;
                            *waited = 0;
                        }
                    }
                    Step::Tell => {
                        let new = account.take_new(now);
                        told.0.iter_mut().zip(new.0).for_each(|(sum, new)| *sum += new);
                        prop_assert_eq!(told.0, oracle.times);
                        // What has been told stays where it is.
                        oracle.connections.iter_mut().for_each(|(_, waited)| *waited = 0);
                    }
                }
                prop_assert_eq!(account.times(now).0, oracle.times);
            }
        }

        #[test]
        fn who_asks_waits_for_something_and_who_wants_nothing_does_not(bits in 0u8..128) {
            let bit = |at: u8| bits & 1 << at != 0;
            let conditions = Conditions {
                interested: bit(0),
                choked: bit(1),
                asked: bit(2),
                sending: bit(3) || bit(4),
                sending_blocks: bit(4),
                fetching: bit(5),
                throttled: bit(6),
            };
            let wants = conditions.interested || conditions.asked || conditions.sending_blocks;
            prop_assert_eq!(conditions.cause().is_some(), wants);
        }
    }

    #[test]
    fn each_cause_has_its_conditions() {
        let base = Conditions { interested: true, ..Conditions::default() };
        let asked = Conditions { asked: true, ..base };
        let sending = Conditions { sending: true, sending_blocks: true, ..base };
        for (conditions, cause) in [
            (Conditions::default(), None),
            (base, Some(Cause::Asking)),
            (Conditions { choked: true, ..base }, Some(Cause::Choke)),
            (asked, Some(Cause::Cpu)),
            (Conditions { fetching: true, ..asked }, Some(Cause::Disk)),
            (Conditions { throttled: true, ..asked }, Some(Cause::Limit)),
            (Conditions { sending: true, ..asked }, Some(Cause::Window)),
            (sending, Some(Cause::Window)),
            // What is read ahead while the peer has no room anyway delays nobody.
            (Conditions { asked: true, fetching: true, ..sending }, Some(Cause::Window)),
            // A few control bytes hold nobody up.
            (Conditions { sending: true, throttled: true, ..asked }, Some(Cause::Limit)),
            (Conditions { sending: true, ..base }, Some(Cause::Asking)),
        ] {
            assert_eq!(conditions.cause(), cause, "{conditions:?}");
        }
    }

    #[test]
    fn causes_stand_where_they_say() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
    }
}

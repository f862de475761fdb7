//! How long a distribution takes at least, by formula.
//!
//! Source: Kurose and Ross, "Computer Networking: A Top-Down Approach", section 2.5: a server gives N copies away by
//! itself, or peers pass on what they have; the second is the fluid bound of Kumar and Ross, "Peer-assisted file
//! distribution: the minimum distribution time" (2006). Rates are in bytes a second; delays, headers and pieces do not
//! exist here.

use crate::time::Duration;
use crate::units::ByteRate;

/// A file, a server and those who want the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fluid {
    /// Bytes of the file.
    pub size: u64,
    /// What the server can send.
    pub server_up: ByteRate,
    /// How many want the file.
    pub peers: u64,
    /// What all of them together can send.
    pub peers_up: ByteRate,
    /// What the slowest of them can receive; `None` for no bound.
    pub slowest_down: Option<ByteRate>,
}

impl Fluid {
    /// Time until all have the file when the server alone sends it: the larger of N·F/us and F/dmin. `None` when it is
    /// never, since nothing is sent or received, or not within the centuries that a duration has.
    pub fn client_server(&self) -> Option<Duration> {
        latest([self.copies(self.peers, self.server_up.0), self.reception()])
    }

    /// Time until all have the file when those who have some of it send, too: the largest of F/us, F/dmin and
    /// N·F/(us + Σu). No scheme is faster. `None` as above.
    pub fn peer_to_peer(&self) -> Option<Duration> {
        let all_up = self.server_up.0.saturating_add(self.peers_up.0);
        latest([
            self.copies(self.peers.min(1), self.server_up.0),
            self.copies(self.peers, all_up),
            self.reception(),
        ])
    }

    fn copies(&self, count: u64, rate: u64) -> Option<Duration> {
        time(u128::from(count) * u128::from(self.size), rate)
    }

    fn reception(&self) -> Option<Duration> {
        let Some(rate) = self.slowest_down.filter(|_| self.peers > 0) else { return Some(Duration::ZERO) };
        time(u128::from(self.size), rate.0)
    }
}

fn latest<const N: usize>(times: [Option<Duration>; N]) -> Option<Duration> {
    times.into_iter().collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn time(bytes: u128, rate: u64) -> Option<Duration> {
    if bytes == 0 {
        return Some(Duration::ZERO);
    }
    let nanos = bytes.checked_mul(1_000_000_000)?.checked_div(u128::from(rate))?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn textbook(peers: u64) -> Fluid {
        // F/u is an hour, us = 10 u.
        Fluid {
            size: 3600,
            server_up: ByteRate(10),
            peers,
            peers_up: ByteRate(peers),
            slowest_down: Some(ByteRate(10)),
        }
    }

    fn hours(time: Option<Duration>) -> f64 {
        time.unwrap().as_secs_f64() / 3600.0
    }

    #[test]
    fn the_textbooks_figure_comes_out() {
        for (peers, alone, together) in
            [(1, 0.1, 0.1), (5, 0.5, 5.0 / 15.0), (30, 3.0, 30.0 / 40.0), (35, 3.5, 35.0 / 45.0)]
        {
            assert!((hours(textbook(peers).client_server()) - alone).abs() < 1e-9);
            assert!((hours(textbook(peers).peer_to_peer()) - together).abs() < 1e-9);
        }
    }

    #[test]
    fn nobody_to_serve_takes_no_time_and_a_dead_line_for_ever() {
        assert_eq!(textbook(0).client_server(), Some(Duration::ZERO));
        assert_eq!(textbook(0).peer_to_peer(), Some(Duration::ZERO));
        assert_eq!(Fluid { server_up: ByteRate(0), ..textbook(3) }.peer_to_peer(), None);
        assert_eq!(Fluid { slowest_down: Some(ByteRate(0)), ..textbook(3) }.client_server(), None);
        assert_eq!(Fluid { size: u64::MAX, peers: u64::MAX, ..textbook(3) }.client_server(), None);
    }

    proptest! {
        #[test]
        fn peers_that_help_never_make_it_slower(
            size in 1_u64..1 << 40, server in 1_u64..1 << 34, peers in 1_u64..100_000, each in 0_u64..1 << 30,
            down in prop::option::of(1_u64..1 << 30),
        ) {
            let fluid = Fluid {
                size,
                server_up: ByteRate(server),
                peers,
                peers_up: ByteRate(peers * each),
                slowest_down: down.map(ByteRate),
            };
            // What is never, or later than time goes, is latest.
            let time = |time: Option<Duration>| time.unwrap_or(Duration::MAX);
            prop_assert!(time(fluid.peer_to_peer()) <= time(fluid.client_server()));
            let more = Fluid { peers: peers + 1, peers_up: ByteRate((peers + 1) * each), ..fluid };
            prop_assert!(time(more.client_server()) >= time(fluid.client_server()));
        }
    }
}

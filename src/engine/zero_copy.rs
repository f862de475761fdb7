//! When a send lets the device read our pages, and when it copies.
//!
//! Zero copy is real only where the device sends from our pages; on loopback and virtual devices the kernel
//! copies at delivery and the whole costs more than a plain send. So `auto` never guesses: loopback copies,
//! every other route is probed with a few zero-copy sends whose notifications say what really happened, and
//! the verdict is remembered per route for ten minutes. ENOMEM (RLIMIT_MEMLOCK counts bytes in flight) and
//! EOPNOTSUPP end zero copy for the connection. Pure: `now` and the kernel's answers are arguments.
//!
//! A route is our own address of the connection: it names the interface the packets leave through.
//! Measurements: ARCHITECTURE.md, data path.

use super::ring::ZeroCopyUse;
use crate::limits::ZERO_COPY_UNNOTIFIED_MAX;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bytes from which a framed send without a copy saves what its pinned pages and its notification cost. Measured on a
/// device that does not copy (ARCHITECTURE.md, data path): nothing to gain at 16 KiB and, with one peer, at 32 KiB;
/// 7 to 20 percent at 64 KiB, 40 percent at 1 MiB.
const ZERO_COPY_LEN_MIN: u64 = 64 * 1024;
const PROBES: u8 = 4;
const PROBES_COPIED_MAX: u8 = 2;
const VERDICT_LIFETIME: Duration = Duration::from_secs(600);
/// Routes remembered; far more than a machine has addresses.
const ROUTES_MAX: usize = 1024;

/// `--zero-copy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopyMode {
    /// By what the kernel reports.
    #[default]
    Auto,
    /// Wherever the kernel takes it.
    Always,
    /// Plain sends only.
    Never,
}

/// What one worker knows of its routes.
#[derive(Debug)]
pub struct ZeroCopyPolicy {
    mode: ZeroCopyMode,
    routes: BTreeMap<IpAddr, Verdict>,
    /// Bytes this worker may have pinned at once, from RLIMIT_MEMLOCK.
    pinned_max: u64,
    pinned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    works: bool,
    until: Instant,
}

/// What is known of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroCopyState {
    stage: Stage,
    unnotified: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Unknown,
    Probing {
        sent: u8,
        told: u8,
        copied: u8,
    },
    Works,
    Copies,
}

impl ZeroCopyState {
    /// Whether the kernel still reads from pages of this connection's sends.
    pub fn has_unnotified(&self) -> bool {
        self.unnotified > 0
    }
}

impl ZeroCopyPolicy {
    /// A policy with room for `pinned_max` bytes in flight.
    pub fn new(mode: ZeroCopyMode, pinned_max: u64) -> Self {
        Self { mode, routes: BTreeMap::new(), pinned_max, pinned: 0 }
    }

    /// Whether a send of `len` bytes that leaves from `local` goes without a copy. When true, the send counts
    /// as in flight until [`handle_released`](Self::handle_released).
    pub fn decide(&mut self, now: Instant, connection: &mut ZeroCopyState, local: IpAddr, len: u64) -> bool {
        let wanted = match self.mode {
            ZeroCopyMode::Never => false,
            ZeroCopyMode::Always => connection.stage != Stage::Copies,
            ZeroCopyMode::Auto => self.wanted_by_evidence(now, connection, local, len),
        };
        let fits =
            connection.unnotified + len <= ZERO_COPY_UNNOTIFIED_MAX && self.pinned + len <= self.pinned_max;
        if !(wanted && fits) {
            return false;
        }
        connection.unnotified += len;
        self.pinned += len;
        if let Stage::Probing { sent, .. } = &mut connection.stage {
            *sent += 1;
        }
        true
    }

    fn wanted_by_evidence(
        &mut self,
        now: Instant,
        connection: &mut ZeroCopyState,
        local: IpAddr,
        len: u64,
    ) -> bool {
        if connection.stage == Stage::Unknown {
            connection.stage = if is_loopback(local) {
                Stage::Copies
            } else {
                match self.routes.get(&local).filter(|verdict| now < verdict.until) {
                    Some(Verdict { works: true, .. }) => Stage::Works,
                    Some(Verdict { works: false, .. }) => Stage::Copies,
                    None => Stage::Probing { sent: 0, told: 0, copied: 0 },
                }
            };
        }
        match connection.stage {
            Stage::Probing { sent, .. } => sent < PROBES && len >= ZERO_COPY_LEN_MIN,
            Stage::Works => len >= ZERO_COPY_LEN_MIN,
            Stage::Unknown | Stage::Copies => false,
        }
    }

    /// A zero-copy send was refused (ENOMEM, EOPNOTSUPP; its notification comes all the same): this connection copies from now on.
    pub fn handle_refused(&mut self, connection: &mut ZeroCopyState) {
        connection.stage = Stage::Copies;
    }

    /// The kernel has let go of a zero-copy send of `len` bytes and says how it went.
    pub fn handle_released(
        &mut self,
        now: Instant,
        connection: &mut ZeroCopyState,
        local: IpAddr,
        len: u64,
        usage: ZeroCopyUse,
    ) {
        connection.unnotified = connection.unnotified.saturating_sub(len);
        self.pinned = self.pinned.saturating_sub(len);
        let Stage::Probing { told, copied, .. } = &mut connection.stage else { return };
        *told += 1;
        *copied += u8::from(usage == ZeroCopyUse::Copied);
        let works = if *copied > PROBES_COPIED_MAX {
            false
        } else if *told >= PROBES {
            true
        } else {
            return;
        };
        connection.stage = if works { Stage::Works } else { Stage::Copies };
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(&local) {
            self.routes.retain(|_, verdict| now < verdict.until);
        }
        if self.routes.len() < ROUTES_MAX {
            self.routes.insert(local, Verdict { works, until: now + VERDICT_LIFETIME });
        }
    }

    /// Bytes the kernel still reads from our pages.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const NIC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const LEN: u64 = 512 * 1024;

    fn auto() -> ZeroCopyPolicy {
        ZeroCopyPolicy::new(ZeroCopyMode::Auto, u64::MAX)
    }

    fn probe(policy: &mut ZeroCopyPolicy, connection: &mut ZeroCopyState, usage: ZeroCopyUse) -> usize {
        let mut sends = 0;
        while sends < 100 && policy.decide(Instant::ZERO, connection, NIC, LEN) {
            policy.handle_released(Instant::ZERO, connection, NIC, LEN, usage);
            sends += 1;
        }
        sends
    }

    #[test]
    fn loopback_always_copies() {
        let mut connection = ZeroCopyState::default();
        assert!(!auto().decide(Instant::ZERO, &mut connection, Ipv4Addr::LOCALHOST.into(), LEN));
    }

    #[test]
    fn a_route_that_copies_is_probed_three_times_and_then_left_alone_by_everybody() {
        let mut policy = auto();
        assert_eq!(probe(&mut policy, &mut ZeroCopyState::default(), ZeroCopyUse::Copied), 3);
        assert_eq!(probe(&mut policy, &mut ZeroCopyState::default(), ZeroCopyUse::Copied), 0);
        let later = Instant::ZERO + VERDICT_LIFETIME;
        assert!(policy.decide(later, &mut ZeroCopyState::default(), NIC, LEN), "the verdict has to expire");
    }

    #[test]
    fn a_route_that_works_is_used_for_large_batches_only() {
        let mut policy = auto();
        let mut connection = ZeroCopyState::default();
        assert_eq!(probe(&mut policy, &mut connection, ZeroCopyUse::Sent), 100);
        assert!(!policy.decide(Instant::ZERO, &mut connection, NIC, ZERO_COPY_LEN_MIN - 1));
    }

    #[test]
    fn a_refused_send_ends_zero_copy_even_when_always_is_asked_for() {
        let mut policy = ZeroCopyPolicy::new(ZeroCopyMode::Always, u64::MAX);
        let mut connection = ZeroCopyState::default();
        assert!(policy.decide(Instant::ZERO, &mut connection, NIC, 1));
        policy.handle_refused(&mut connection);
        assert!(!policy.decide(Instant::ZERO, &mut connection, NIC, 1));
    }

    proptest! {
        #[test]
        fn unnotified_bytes_stay_bounded(lens in prop::collection::vec(1u64..1_100_000, 1..100), pinned_max in 0u64..8_000_000) {
            let mut policy = ZeroCopyPolicy::new(ZeroCopyMode::Always, pinned_max);
            let mut connections = [ZeroCopyState::default(); 3];
            let mut in_flight = vec![];
            for (turn, len) in lens.into_iter().enumerate() {
                let which = turn % 3;
                if policy.decide(Instant::ZERO, &mut connections[which], NIC, len) {
                    in_flight.push((which, len));
                }
                let of = |which| in_flight.iter().filter(|(of, _)| *of == which).map(|(_, len)| len).sum::<u64>();
                prop_assert!((0..3).all(|which| of(which) <= ZERO_COPY_UNNOTIFIED_MAX));
                prop_assert_eq!(policy.pinned(), in_flight.iter().map(|(_, len)| len).sum::<u64>());
                prop_assert!(policy.pinned() <= pinned_max);
                if turn % 5 == 4 && !in_flight.is_empty() {
                    let (which, len) = in_flight.remove(0);
                    policy.handle_released(Instant::ZERO, &mut connections[which], NIC, len, ZeroCopyUse::Sent);
                }
            }
        }
    }
}

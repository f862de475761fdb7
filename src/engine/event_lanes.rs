//! A worker's events that the session has not taken yet.
//!
//! There are two lanes. The first holds what becomes of torrents, one event for each torrent and kind. It loses nothing, and
//! has at most three entries for each torrent. The second holds what peers do. It has a fixed length, and when it is full its
//! oldest event goes. So a crowd of peers cannot push out the event that a download is done.

use super::message::EngineEvent;
use crate::id::InfoHash;
use crate::limits::PEER_EVENTS_UNSENT_MAX;
use std::collections::VecDeque;

/// Events that wait for the session.
#[derive(Debug, Default)]
pub struct EventLanes {
    of_torrents: VecDeque<EngineEvent>,
    of_peers: VecDeque<EngineEvent>,
}

/// What an event that must not be lost is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Failure(InfoHash),
    Satisfaction(InfoHash),
    Storage(InfoHash),
    Accepting,
}

/// `None` for what may be lost.
fn subject(event: &EngineEvent) -> Option<Subject> {
    match *event {
        EngineEvent::TorrentFailed { torrent, .. } => Some(Subject::Failure(torrent)),
        EngineEvent::Satisfied { torrent } => Some(Subject::Satisfaction(torrent)),
        EngineEvent::StorageRefused { torrent, .. } | EngineEvent::StorageRecovered { torrent } => {
            Some(Subject::Storage(torrent))
        }
        EngineEvent::AcceptFailed { .. } => Some(Subject::Accepting),
        EngineEvent::PeerComplete { .. } | EngineEvent::Banned { .. } => None,
    }
}

impl EventLanes {
    /// Keeps an event until [`send`](Self::send).
    pub fn push(&mut self, event: EngineEvent) {
        match subject(&event) {
            Some(about) => {
                // The later word holds.
                self.of_torrents.retain(|earlier| subject(earlier) != Some(about));
                self.of_torrents.push_back(event);
            }
            None => {
                if self.of_peers.len() >= PEER_EVENTS_UNSENT_MAX {
                    self.of_peers.pop_front();
                }
                self.of_peers.push_back(event);
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.of_torrents.is_empty() && self.of_peers.is_empty()
    }

    /// Hands over what `sink` takes.
    pub fn send(&mut self, sink: impl Fn(EngineEvent) -> Result<(), EngineEvent>) {
        for lane in [&mut self.of_torrents, &mut self.of_peers] {
            while let Some(event) = lane.pop_front() {
                if let Err(event) = sink(event) {
                    lane.push_front(event);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use std::cell::RefCell;
    use std::net::{IpAddr, Ipv4Addr};

    fn torrent(number: u8) -> InfoHash {
        InfoHash([number; 20])
    }

    fn flood(lanes: &mut EventLanes) {
        for number in 0..PEER_EVENTS_UNSENT_MAX as u32 + 10 {
            let mut peer_id = PeerId([0; 20]);
            peer_id.0[..4].copy_from_slice(&number.to_be_bytes());
            lanes.push(EngineEvent::PeerComplete { torrent: torrent(9), peer_id });
            let ip = IpAddr::V4(Ipv4Addr::from(number));
            lanes.push(EngineEvent::Banned { torrent: torrent(9), ip });
        }
    }

    fn heard(lanes: &mut EventLanes) -> Vec<EngineEvent> {
        let heard = RefCell::new(Vec::new());
        lanes.send(|event| {
            heard.borrow_mut().push(event);
            Ok(())
        });
        assert!(lanes.is_empty());
        heard.into_inner()
    }

    #[test]
    fn no_flood_of_events_about_peers_pushes_out_what_becomes_of_torrents() {
        let mut lanes = EventLanes::default();
        let reason = || "the disk is full".to_owned();
        let matters = [
            EngineEvent::Satisfied { torrent: torrent(1) },
            EngineEvent::TorrentFailed { torrent: torrent(2), reason: reason() },
            EngineEvent::StorageRefused { torrent: torrent(3), reason: reason() },
            EngineEvent::AcceptFailed { reason: reason() },
        ];
        for event in &matters {
            flood(&mut lanes);
            lanes.push(event.clone());
            flood(&mut lanes);
        }
        let heard = heard(&mut lanes);
        assert_eq!((&heard[..4], heard.len()), (&matters[..], 4 + PEER_EVENTS_UNSENT_MAX));
    }

    #[test]
    fn what_changes_to_and_fro_while_nobody_listens_is_told_as_it_is_in_the_end() {
        let mut lanes = EventLanes::default();
        for _ in 0..1000 {
            for number in 0..3 {
                let reason = "read-only".to_owned();
                lanes.push(EngineEvent::StorageRefused { torrent: torrent(number), reason });
                lanes.push(EngineEvent::StorageRecovered { torrent: torrent(number) });
                lanes.push(EngineEvent::Satisfied { torrent: torrent(number) });
            }
        }
        let expected = (0..3).flat_map(|number| {
            let torrent = torrent(number);
            [EngineEvent::StorageRecovered { torrent }, EngineEvent::Satisfied { torrent }]
        });
        assert_eq!(heard(&mut lanes), expected.collect::<Vec<_>>());
    }

    #[test]
    fn what_the_session_does_not_take_stays_in_order() {
        let mut lanes = EventLanes::default();
        lanes.push(EngineEvent::Satisfied { torrent: torrent(1) });
        lanes.push(EngineEvent::Satisfied { torrent: torrent(2) });
        lanes.send(Err);
        lanes.push(EngineEvent::Satisfied { torrent: torrent(3) });
        let expected = [1, 2, 3].map(|number| EngineEvent::Satisfied { torrent: torrent(number) });
        assert_eq!(heard(&mut lanes), expected);
    }
}

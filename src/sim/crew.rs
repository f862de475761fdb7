//! The production workers that a rig begins with, on simulated rings.

use super::ring::{Faults, SimRing};
use super::store::SimStore;
use crate::engine::listener::{Port, listen};
use crate::engine::mailbox::{Address, mailbox};
use crate::engine::message::{EngineEvent, SharedTorrent, ToWorker};
use crate::engine::prefix_table::PrefixTable;
use crate::engine::statistics::WorkerStatistics;
use crate::engine::worker::{Worker, WorkerParts};
use crate::engine::zero_copy::{ZeroCopyMode, ZeroCopyPolicy};
use crate::limits::CONNECTIONS_PER_WORKER_MAX;
use crate::pipeline::{RateGate, burst_for};
use crate::rng::Rng;
use crate::units::ByteRate;
use crate::wire::Encryption;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// Connections of one address prefix that all workers of a rig admit together.
pub const PREFIX_CONNECTIONS_MAX: u32 = 300;

/// In what rigs differ.
pub struct Terms<'a> {
    pub seed: u64,
    pub faults: Faults,
    /// Messages that each worker's mailbox holds; there are as many workers.
    pub mailbox_lens: &'a [usize],
    pub zero_copy: ZeroCopyMode,
    pub upload_limit: Option<ByteRate>,
    pub download_limit: Option<ByteRate>,
    pub encryption: Encryption,
}

pub struct Crew {
    pub workers: Vec<Worker<SimRing, SimStore>>,
    pub addresses: Vec<Address<ToWorker<SimStore>>>,
    pub statistics: Arc<[WorkerStatistics]>,
    pub events: Receiver<EngineEvent>,
}

impl Crew {
    /// Workers that have been told of `torrent`, the last of them first, and have not come to their turn yet.
    pub fn gather(terms: Terms<'_>, torrent: &Arc<SharedTorrent<SimStore>>) -> Self {
        let mailboxes: Vec<_> = terms.mailbox_lens.iter().map(|&len| mailbox(len).unwrap()).collect();
        let addresses: Vec<_> = mailboxes.iter().map(|(_, address)| address.clone()).collect();
        let statistics: Arc<[_]> = mailboxes.iter().map(|_| WorkerStatistics::default()).collect();
        let prefixes = Arc::new(PrefixTable::new(PREFIX_CONNECTIONS_MAX));
        let gate = Arc::new(RateGate::new(terms.upload_limit, burst_for(terms.upload_limit)));
        let limit = terms.download_limit;
        let download_gate = Arc::new(RateGate::new(limit, burst_for(limit)));
        let (sender, events) = channel();
        let workers = mailboxes.into_iter().enumerate().map(|(index, (mailbox, _))| {
            let sender = sender.clone();
            Worker::new(WorkerParts {
                open_files_max: 8,
                connections_max: match terms.faults.connections_max {
                    0 => CONNECTIONS_PER_WORKER_MAX,
                    some => some,
                },
                index: index as u16,
                ring: SimRing::new(terms.seed + index as u64 * 1000, terms.faults),
                listeners: listen(Some(Ipv4Addr::LOCALHOST.into()), Port::default(), 1)
                    .unwrap()
                    .sockets
                    .remove(0),
                port: 6881,
                bind: None,
                mailbox,
                workers: addresses.clone(),
                events: Box::new(move |event| sender.send(event).map_err(|unsent| unsent.0)),
                statistics: Arc::clone(&statistics),
                gate: Arc::clone(&gate),
                download_gate: Arc::clone(&download_gate),
                prefixes: Arc::clone(&prefixes),
                zero_copy: ZeroCopyPolicy::new(terms.zero_copy, 8 << 20),
                encryption: terms.encryption,
                tcp_info: false,
                secret: || [5; 20],
                rng: Rng::from_seed(terms.seed ^ 1),
            })
        });
        let workers = workers.collect();
        for address in addresses.iter().rev() {
            address.post(ToWorker::Add(Arc::clone(torrent))).unwrap();
        }
        Self { workers, addresses, statistics, events }
    }
}

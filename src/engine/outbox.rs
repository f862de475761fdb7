//! Messages from one worker to another whose mailbox is full.
//!
//! Nothing is lost here, and no stranger decides how long it grows:
//!
//! - decisions about a connection are merged. Each connection has one entry: the state of choke and interest, and the blocks
//!   that the peer owes, whose number the picker bounds;
//! - each torrent has one entry for all its new pieces. The reader finds out itself which pieces are new;
//! - facts of a connection are bounded by their sender. It does not read from the connection while a message waits here
//!   (`worker/mail.rs`);
//! - the end of a connection and a dial are one message each.

use super::mailbox::Address;
use super::message::{Order, SharedTorrent, ToWorker};
use super::store::BlockStore;
use crate::id::ConnId;
use crate::limits::ORDERS_WAITING_MAX;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Messages for one worker, in order.
pub struct Outbox<S: BlockStore> {
    line: VecDeque<Waiting<S>>,
    orders: BTreeMap<ConnId, Vec<Order>>,
    /// Where those torrents lie that peers are to hear of anew.
    catching_up: BTreeSet<usize>,
}

enum Waiting<S: BlockStore> {
    Message(ToWorker<S>),
    Orders(ConnId),
    CatchUp(Arc<SharedTorrent<S>>),
}

impl<S: BlockStore> Default for Outbox<S> {
    fn default() -> Self {
        Self { line: VecDeque::new(), orders: BTreeMap::new(), catching_up: BTreeSet::new() }
    }
}

impl<S: BlockStore> Outbox<S> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Keeps a message until [`post`](Self::post), behind those that wait.
    pub fn keep(&mut self, message: ToWorker<S>) {
        match message {
            ToWorker::Order { conn, order } => {
                let line = &mut self.line;
                let orders = self.orders.entry(conn).or_insert_with(|| {
                    line.push_back(Waiting::Orders(conn));
                    Vec::new()
                });
                merge(orders, order);
            }
            ToWorker::Have(torrent, _) => {
                if self.catching_up.insert(Arc::as_ptr(&torrent).addr()) {
                    self.line.push_back(Waiting::CatchUp(torrent));
                }
            }
            other => self.line.push_back(Waiting::Message(other)),
        }
    }

    /// Posts as much as there is room for.
    pub fn post(&mut self, address: &Address<ToWorker<S>>) {
        while let Some(waiting) = self.line.pop_front() {
            let message = match waiting {
                Waiting::Message(message) => message,
                Waiting::Orders(conn) => {
                    let orders = self.orders.remove(&conn).unwrap_or_default();
                    ToWorker::Orders { conn, orders }
                }
                Waiting::CatchUp(torrent) => {
                    self.catching_up.remove(&Arc::as_ptr(&torrent).addr());
                    ToWorker::CatchUp(torrent)
                }
            };
            if let Err(message) = address.post(message) {
                return self.take_back(message);
            }
        }
    }

    fn take_back(&mut self, message: ToWorker<S>) {
        self.line.push_front(match message {
            ToWorker::Orders { conn, orders } => {
                self.orders.insert(conn, orders);
                Waiting::Orders(conn)
            }
            ToWorker::CatchUp(torrent) => {
                self.catching_up.insert(Arc::as_ptr(&torrent).addr());
                Waiting::CatchUp(torrent)
            }
            other => Waiting::Message(other),
        });
    }
}

/// Adds an order to those of the same connection, so that they lead to what all of them in a row would lead to.
fn merge(orders: &mut Vec<Order>, order: Order) {
    let is_end = |order: &Order| matches!(order, Order::Close | Order::CloseFlooder);
    if orders.first().is_some_and(is_end) {
        return;
    }
    match order {
        Order::Close | Order::CloseFlooder => orders.clear(),
        // Only the last word counts.
        Order::Choke(_) => orders.retain(|earlier| !matches!(earlier, Order::Choke(_))),
        Order::Interest(interested) => {
            // A loss of interest voids the wish, so it is not left out before an interest.
            let mut places = (0..orders.len()).filter(|&at| matches!(orders[at], Order::Interest(_)));
            let (first, second) = (places.next(), places.next());
            let last = second.or(first);
            if last.is_some_and(|at| matches!(orders[at], Order::Interest(last) if last == interested)) {
                return;
            }
            if let Some(second) = second {
                orders.remove(second);
                return;
            }
        }
        // What is left out here is told with the next one or never; nobody waits for it.
        Order::Exchange(_) if orders.iter().any(|earlier| matches!(earlier, Order::Exchange(_))) => return,
        Order::Exchange(_) | Order::Ask(_) | Order::Cancel(_) | Order::Reveal(_) => {}
    }
    if orders.len() >= ORDERS_WAITING_MAX {
        // Hopelessly behind: what it owes is free again when it has gone.
        orders.clear();
        return orders.push(Order::Close);
    }
    orders.push(order);
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::mailbox;
    use super::super::message::TorrentCounts;
    use super::super::supply::{ContentSource, LoadedInfo, Opened, Supply};
    use super::*;
    use crate::bitfield::Bitfield;
    use crate::choker::{Role, Slots};
    use crate::id::{InfoHash, PeerId};
    use crate::peer::TorrentFacts;
    use crate::pipeline::RateGate;
    use crate::storage::Content;
    use crate::torrent::TorrentParameters;
    use crate::units::{BlockSpan, PieceIndex};

    #[derive(Debug)]
    struct NoContent;

    impl ContentSource<Content> for NoContent {
        fn part_of(&self, _: crate::units::BlockSpan) -> u32 {
            0
        }

        fn file_count(&self, _: u32) -> usize {
            0
        }

        fn open(self: Arc<Self>, _: u32, _: Opened<Content>) {}

        fn load_info(self: Arc<Self>, _: LoadedInfo) {}

        fn fault(&self) -> Option<String> {
            None
        }
    }

    fn torrent() -> Arc<SharedTorrent<Content>> {
        let facts = TorrentFacts {
            info_hash: InfoHash([1; 20]),
            piece_length: 16_384,
            total_len: 16_384,
            have: Bitfield::none(1).into(),
            info: None,
            satisfied: false.into(),
            private: false,
            hides_stock: false.into(),
        };
        let (role, slots) = (Role::Leeching, Slots::Auto);
        Arc::new(SharedTorrent {
            facts: Arc::new(facts),
            content: Supply::OnDemand(Arc::new(NoContent)),
            home: 0,
            parameters: TorrentParameters { role, slots, piece_len: 16_384, total_len: 16_384 },
            download: None,
            peer_id: PeerId([1; 20]),
            gate: RateGate::new(None, 0),
            counts: TorrentCounts::default(),
        })
    }

    fn conn(slot: u32) -> ConnId {
        ConnId { worker: 1, slot, generation: 1 }
    }

    fn span(number: u32) -> BlockSpan {
        BlockSpan { piece: PieceIndex(number), begin: 0, len: 1 }
    }

    fn order(conn: ConnId, order: Order) -> ToWorker<Content> {
        ToWorker::Order { conn, order }
    }

    fn all(outbox: &mut Outbox<Content>) -> Vec<String> {
        let (mailbox, address) = mailbox(100_000).unwrap();
        outbox.post(&address);
        assert!(outbox.is_empty() && outbox.orders.is_empty() && outbox.catching_up.is_empty());
        std::iter::from_fn(|| mailbox.read()).map(|message| format!("{message:?}")).collect()
    }

    #[test]
    fn however_often_the_home_changes_its_mind_each_connection_has_one_entry() {
        let (mut outbox, torrent) = (Outbox::default(), torrent());
        for round in 0..10_000 {
            for slot in 0..3 {
                outbox.keep(order(conn(slot), Order::Choke(round % 2 == 0)));
                outbox.keep(order(conn(slot), Order::Interest(round % 2 == 1)));
                outbox.keep(order(conn(slot), Order::Exchange(vec![0; 100])));
            }
            outbox.keep(ToWorker::Have(Arc::clone(&torrent), PieceIndex(round)));
        }
        assert_eq!(outbox.len(), 4);
        assert!(outbox.orders.values().all(|orders| orders.len() <= 4));
        let said = all(&mut outbox);
        assert!(said[0].contains("Choke(false)") && !said[0].contains("Choke(true)"), "{}", said[0]);
        assert!(said[0].contains("Interest(false), ") && said[0].contains("Interest(true)"), "{}", said[0]);
        assert!(said[3].starts_with("CatchUp"), "{}", said[3]);
    }

    #[test]
    fn the_last_word_about_interest_holds_and_a_loss_of_it_is_not_left_out() {
        for words in 1..200_u32 {
            let told: Vec<bool> =
                (0..32 - words.leading_zeros()).map(|bit| words & (1 << bit) != 0).collect();
            let mut orders = Vec::new();
            told.iter().for_each(|&interested| merge(&mut orders, Order::Interest(interested)));
            let kept: Vec<bool> = orders.iter().map(|order| matches!(order, Order::Interest(true))).collect();
            assert_eq!(kept.last(), told.last(), "{told:?}");
            assert!(kept.len() <= 2 && kept.windows(2).all(|pair| pair[0] != pair[1]), "{kept:?}");
            assert!(kept.contains(&false) || told[0], "{told:?}: {kept:?}");
        }
    }

    #[test]
    fn blocks_are_asked_and_cancelled_in_order_and_an_end_ends_it_all() {
        let mut outbox = Outbox::<Content>::default();
        for number in 0..3 {
            outbox.keep(order(conn(1), Order::Cancel(span(number))));
            outbox.keep(order(conn(1), Order::Ask(Vec::new())));
        }
        let kinds: Vec<bool> =
            outbox.orders[&conn(1)].iter().map(|order| matches!(order, Order::Cancel(_))).collect();
        assert_eq!(kinds, [true, false, true, false, true, false]);
        outbox.keep(order(conn(1), Order::Close));
        outbox.keep(order(conn(1), Order::Choke(false)));
        assert!(matches!(outbox.orders[&conn(1)][..], [Order::Close]));
    }

    #[test]
    fn a_connection_that_is_hopelessly_behind_is_closed() {
        let mut outbox = Outbox::<Content>::default();
        (0..ORDERS_WAITING_MAX as u32 + 100)
            .for_each(|number| outbox.keep(order(conn(1), Order::Cancel(span(number)))));
        assert!(matches!(outbox.orders[&conn(1)][..], [Order::Close]));
    }

    #[test]
    fn what_finds_no_room_comes_back_to_its_place() {
        let mut outbox = Outbox::<Content>::default();
        outbox.keep(order(conn(1), Order::Choke(true)));
        let torrent = torrent();
        outbox.keep(ToWorker::Have(Arc::clone(&torrent), PieceIndex(1)));
        outbox.keep(ToWorker::Satisfied(Arc::clone(&torrent)));
        let (mailbox, address) = mailbox(1).unwrap();
        outbox.post(&address);
        outbox.keep(order(conn(1), Order::Choke(false)));
        outbox.keep(ToWorker::Have(torrent, PieceIndex(2)));
        assert_eq!(outbox.len(), 3);
        let mut said = Vec::new();
        while let Some(message) = mailbox.read() {
            said.push(format!("{message:?}"));
            outbox.post(&address);
        }
        let starts: Vec<&str> =
            said.iter().map(|text| text.split(['{', '(']).next().unwrap().trim()).collect();
        assert_eq!(starts, ["Orders", "CatchUp", "Satisfied", "Orders"]);
    }
}

//! Memory of events to come is asked for before it is their turn, a pointer further the nearer they are.
//!
//! Each event is about another peer: with a thousand of them most time would be spent on waiting for memory otherwise.

use super::node::{Connection, Node, Seat};
use super::terms::PeerNumber;
use super::{Event, Swarm};
use crate::prefetch::{Distance, prefetch};

impl Swarm {
    /// To be called before each event.
    pub(super) fn foresee(&self) {
        match self.events.ahead(12) {
            Some(Event::Packet(seat, packet)) => {
                prefetch(Some(&**packet));
                prefetch(self.node(seat.node));
            }
            Some(&Event::Uplink(number)) => prefetch(self.node(number)),
            _ => {}
        }
        match self.events.ahead(8) {
            Some(Event::Packet(seat, _)) => prefetch(self.place(seat)),
            Some(&Event::Uplink(number)) => prefetch(self.node(number).and_then(|node| node.ready.front())),
            _ => {}
        }
        match self.events.ahead(6) {
            Some(Event::Packet(seat, _)) => {
                prefetch(self.place(seat).and_then(Option::as_deref));
                self.prefetch_torrent(seat, Distance::Far);
            }
            Some(&Event::Uplink(number)) => prefetch(self.served_next(number)),
            _ => {}
        }
        match self.events.ahead(4) {
            Some(Event::Packet(seat, _)) => {
                if let Some(Some(connection)) = self.place(seat) {
                    connection.machine.prefetch_input(Distance::Far);
                }
                self.prefetch_torrent(seat, Distance::Near);
            }
            Some(&Event::Uplink(number)) => prefetch(self.served_next(number).and_then(Option::as_deref)),
            _ => {}
        }
        match self.events.ahead(2) {
            Some(Event::Packet(seat, _)) => {
                if let Some(Some(connection)) = self.place(seat) {
                    connection.machine.prefetch_input(Distance::Near);
                }
            }
            Some(&Event::Uplink(number)) => {
                if let Some(Some(connection)) = self.served_next(number) {
                    connection.machine.prefetch_output();
                    prefetch(connection.line.front());
                    prefetch(connection.line.back());
                }
            }
            _ => {}
        }
    }

    fn node(&self, number: PeerNumber) -> Option<&Node> {
        self.nodes.get(number.0 as usize)
    }

    fn place(&self, seat: &Seat) -> Option<&Option<Box<Connection>>> {
        self.node(seat.node)?.connections.get(seat.slot as usize)
    }

    fn served_next(&self, number: PeerNumber) -> Option<&Option<Box<Connection>>> {
        let node = self.node(number)?;
        node.connections.get(*node.ready.front()? as usize)
    }

    fn prefetch_torrent(&self, seat: &Seat, distance: Distance) {
        if let Some(node) = self.node(seat.node) {
            node.machine.prefetch(seat.conn(), distance);
        }
    }
}

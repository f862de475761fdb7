//! Super-seeding at the connections (BEP 16): what the home has to hear of pieces sent, and the end of it all.

use super::super::message::Fact;
use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::Worker;
use crate::id::InfoHash;

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Tells the home when all of the piece shown to this peer last has been sent.
    pub(super) fn tell_served(&mut self, key: Key) {
        if let Some(home) = self.home_behind(key, None) {
            return self.wait_for_home(key, home, None, &[]);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(piece) = connection.machine.take_served() {
            self.tell_home(key, Fact::Served(piece));
        }
    }

    /// The peers have every piece together: each of them hears of all.
    pub(super) fn reveal_all(&mut self, torrent: InfoHash) {
        let Some(members) = self.members.get(&torrent) else { return };
        for key in members.iter().copied().collect::<Vec<_>>() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.machine.reveal_all();
                self.schedule(key);
            }
        }
    }
}

//! One connection of a fetch, from dialling to its end.

use super::Shared;
use super::stay::Stay;
use super::transport::Transport;
use crate::clock;
use crate::id::ConnId;
use crate::limits::{KEEP_ALIVE_INTERVAL, MAGNET_USELESS_MAX, MAGNET_WRITE_TIMEOUT};
use crate::metadata::{MetadataPeer, Outcome, PeerWord};
use crate::time::Instant;
use crate::wire::HANDSHAKE_LEN;
use std::net::SocketAddr;
use std::rc::Rc;

/// Bytes received at once: a piece and the dictionary before it.
const RECEIVED_LEN: usize = 20 * 1024;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// No connection, or no handshake on it.
    Unreachable,
    /// The peer went away.
    Left,
    /// The peer gave nothing for as long as it had.
    Idle,
    /// The peer breaks the protocol, is of another torrent, or is ourselves.
    Useless,
    /// The peer alone gave a wrong info dictionary.
    Liar,
}

/// Dials `address` and takes from it what it gives; one that does not introduce itself is dialled as often as the policy
/// of encryption has ways to. `serial` is the connection's name, never used twice in a fetch.
pub(super) async fn talk(shared: Rc<Shared>, address: SocketAddr, serial: u32) -> Ended {
    let dialled_at = clock::now();
    for (generation, policy) in (0..).zip(shared.encryption.tries()) {
        let stay = Stay::new(dialled_at, clock::now());
        let connecting = Transport::connect(address, shared.bind);
        let Some(Ok(mut transport)) = unless_outstayed(&shared, stay, connecting).await else { break };
        let mut talk = Talk::new(&shared, ConnId { worker: 0, slot: serial, generation }, dialled_at);
        if let Some(offered) = policy.offers() {
            let Ok(handshake) = <[u8; HANDSHAKE_LEN]>::try_from(talk.peer.poll_output()) else { break };
            let encrypting = transport.encrypt(shared.identity.info_hash, offered, &handshake);
            match unless_outstayed(&shared, talk.stay, encrypting).await {
                Some(Ok(encrypted)) => transport = encrypted,
                _ => continue,
            }
        }
        match talk.run(transport).await {
            Ended::Unreachable => {}
            ended => return ended,
        }
    }
    Ended::Unreachable
}

/// What `step` comes to; `None` when it takes longer than the connection may stay.
async fn unless_outstayed<T>(shared: &Shared, stay: Stay, step: impl Future<Output = T>) -> Option<T> {
    let mut step = std::pin::pin!(step);
    let mut turns = shared.turns.subscribe();
    loop {
        let (now, until) = (clock::now(), stay.until(shared.others_wait.get()));
        if now >= until {
            return None;
        }
        tokio::select! {
            outcome = &mut step => return Some(outcome),
            _ = turns.changed() => {}
            () = tokio::time::sleep(until.since(now)) => {}
        }
    }
}

struct Talk {
    shared: Rc<Shared>,
    conn: ConnId,
    peer: MetadataPeer,
    stay: Stay,
    sent_at: Instant,
    useless: u32,
    is_counted: bool,
}

impl Drop for Talk {
    fn drop(&mut self) {
        if self.is_counted {
            self.shared.connected.set(self.shared.connected.get() - 1);
        }
        self.shared.assembly.borrow_mut().handle_left(self.conn);
        self.shared.note_change();
    }
}

impl Talk {
    fn new(shared: &Rc<Shared>, conn: ConnId, dialled_at: Instant) -> Self {
        let now = clock::now();
        Self {
            shared: Rc::clone(shared),
            conn,
            peer: MetadataPeer::outgoing(shared.identity.info_hash, shared.identity.peer_id),
            stay: Stay::new(dialled_at, now),
            sent_at: now,
            useless: 0,
            is_counted: false,
        }
    }

    async fn run(&mut self, mut transport: Transport) -> Ended {
        let mut turns = self.shared.turns.subscribe();
        let mut buffer = vec![0; RECEIVED_LEN];
        loop {
            let now = clock::now();
            if let Some(ended) = self.timed_out(now) {
                return ended;
            }
            self.ask(now);
            let output = self.peer.poll_output();
            if !output.is_empty() {
                self.sent_at = now;
                let sent = tokio::time::timeout(MAGNET_WRITE_TIMEOUT, transport.send(&output)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return self.gone();
                }
            }
            let wake = self.next_turn().since(clock::now());
            tokio::select! {
                received = transport.receive(&mut buffer) => match received {
                    Ok(len) if len > 0 => {
                        if let Some(ended) = self.handle_bytes(buffer.get(..len).unwrap_or_default()) {
                            return ended;
                        }
                    }
                    _ => return self.gone(),
                },
                _ = turns.changed() => {}
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    fn gone(&self) -> Ended {
        if self.peer.is_strange() { Ended::Unreachable } else { Ended::Left }
    }

    fn timed_out(&mut self, now: Instant) -> Option<Ended> {
        let is_over = now >= self.stay.until(self.shared.others_wait.get());
        if self.peer.is_strange() {
            return is_over.then_some(Ended::Unreachable);
        }
        if now >= self.sent_at + KEEP_ALIVE_INTERVAL {
            self.peer.keep_alive();
        }
        is_over.then_some(Ended::Idle)
    }

    /// When there may be something to do although nobody said anything.
    fn next_turn(&self) -> Instant {
        let until = self.stay.until(self.shared.others_wait.get());
        let own = if self.peer.is_strange() { until } else { until.min(self.sent_at + KEEP_ALIVE_INTERVAL) };
        // What is overdue in the assembly has been looked at in this turn; nothing comes of looking again at once.
        let due = self.shared.assembly.borrow().poll_timeout().filter(|&due| due > clock::now());
        due.map_or(own, |due| own.min(due))
    }

    fn ask(&mut self, now: Instant) {
        if let Some(piece) = self.shared.assembly.borrow_mut().pick(now, self.conn) {
            self.peer.request(piece);
            self.stay.asked(now);
        }
    }

    fn handle_bytes(&mut self, mut input: &[u8]) -> Option<Ended> {
        loop {
            match self.peer.handle_bytes(&mut input) {
                Ok(Some(word)) => {
                    if let Some(ended) = self.handle_word(word) {
                        return Some(ended);
                    }
                }
                Ok(None) => return None,
                Err(_) => return Some(Ended::Useless),
            }
        }
    }

    fn handle_word(&mut self, word: PeerWord) -> Option<Ended> {
        let now = clock::now();
        match word {
            PeerWord::Introduced => {
                self.is_counted = true;
                self.stay.introduced(now);
                self.shared.connected.set(self.shared.connected.get() + 1);
                self.shared.note_change();
            }
            PeerWord::Has(len) => {
                if !self.shared.assembly.borrow_mut().handle_peer(self.conn, len) {
                    return Some(Ended::Idle);
                }
                self.stay.told(now);
                self.shared.note_change();
            }
            PeerWord::HasNot => {
                self.shared.assembly.borrow_mut().handle_left(self.conn);
                self.shared.note_change();
            }
            PeerWord::Reject(piece) => {
                self.stay.rejected();
                self.shared.assembly.borrow_mut().handle_reject(now, self.conn, piece);
                self.shared.note_change();
            }
            PeerWord::Data { piece, total_len, bytes } => {
                let outcome =
                    self.shared.assembly.borrow_mut().handle_data(self.conn, piece, total_len, &bytes);
                return self.handle_outcome(now, outcome);
            }
        }
        None
    }

    fn handle_outcome(&mut self, now: Instant, outcome: Outcome) -> Option<Ended> {
        match outcome {
            Outcome::Kept => {
                self.stay.gave(now);
                self.shared.note_progress();
            }
            Outcome::Useless => {
                self.useless += 1;
                if self.useless > MAGNET_USELESS_MAX {
                    return Some(Ended::Useless);
                }
            }
            Outcome::Complete(bytes) => {
                self.shared.found.replace(Some(bytes));
                self.shared.note_progress();
            }
            Outcome::Wrong { convicted, .. } => {
                self.shared.note_change();
                if convicted == Some(self.conn) {
                    return Some(Ended::Liar);
                }
            }
        }
        None
    }
}

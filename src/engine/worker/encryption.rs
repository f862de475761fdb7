//! Encryption of a connection: what stands between its socket and its machine, and a second try in plaintext.
//!
//! A connection has an [`MseStream`] only while it may be or is encrypted. Plaintext payload, also behind an encrypted
//! handshake, goes straight from the mapping as ever. RC4 needs the bytes in memory of ours: received ones are
//! decrypted in the copy that is made of them anyway, blocks to be sent are read into the send slot and encrypted
//! there, a quarter of a mebibyte at a time.

use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::connection::Connection;
use super::key_line::KeyLine;
use super::mail::Backlog;
use super::{TimerOwner, Worker};
use crate::id::InfoHash;
use crate::peer::{PeerError, PeerEvent};
use crate::wire::{Answering, Encryption, MseStream, SkeyHash};
use std::collections::BTreeMap;

/// What a worker has for encrypted connections.
#[derive(Debug)]
pub(super) struct EncryptionState {
    pub policy: Encryption,
    /// Where secrets come from.
    pub secret: fn() -> [u8; 20],
    /// The torrents that a peer may ask for.
    skeys: BTreeMap<SkeyHash, InfoHash>,
    /// Connections whose keys wait for their turn.
    line: KeyLine<Key>,
    /// The one whose turn it is.
    answered: Option<Key>,
    /// A timer is set for the end of the turn.
    timed: bool,
}

impl EncryptionState {
    pub fn new(policy: Encryption, secret: fn() -> [u8; 20]) -> Self {
        Self { policy, secret, skeys: BTreeMap::new(), line: KeyLine::new(), answered: None, timed: false }
    }

    pub fn add(&mut self, info_hash: InfoHash) {
        if self.policy != Encryption::Off {
            self.skeys.insert(SkeyHash::of(&info_hash), info_hash);
        }
    }

    pub fn remove(&mut self, info_hash: InfoHash) {
        self.skeys.remove(&SkeyHash::of(&info_hash));
    }
}

impl Connection {
    /// The peer wire may be spoken: there is no encrypted handshake to be finished first.
    pub fn may_speak(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| stream.is_open())
    }

    /// An encrypted handshake has something to say.
    pub fn has_handshake_output(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.has_output())
    }

    /// What is sent has to be encrypted.
    pub fn encrypts(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.encrypts())
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Makes the peer wire of received bytes, and hands it to the machine. `event` is what the bytes before these have
    /// led to.
    pub(super) fn handle_raw_bytes(
        &mut self,
        key: Key,
        event: Result<Option<PeerEvent>, PeerError>,
        bytes: &mut [u8],
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(backlog) = connection.backlog.as_mut().filter(|backlog| backlog.raw) {
            return backlog.bytes.extend_from_slice(bytes);
        }
        let Some(stream) = &mut connection.stream else { return self.handle_bytes(key, event, bytes) };
        let remote = connection.ends.remote.ip();
        if stream.answers_key(bytes) && self.encryption.answered.take() != Some(key) {
            let is_answered = self.encryption.line.ask(self.now, remote, key);
            self.time_answers();
            if !is_answered {
                return self.wait_for_answer(key, bytes);
            }
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(stream) = &mut connection.stream else { return };
        let encryption = &self.encryption;
        let mut answering =
            Answering { secret: encryption.secret, pads: &mut self.rng, skeys: &encryption.skeys };
        let received = match stream.receive(bytes, &mut answering) {
            Ok(received) => received,
            Err(error) => return self.close_at_fault(key, &error),
        };
        if stream.transparent() {
            connection.stream = None;
        }
        if !received.first.is_empty() {
            self.handle_bytes(key, Ok(None), &received.first);
        }
        self.handle_bytes(key, event, &bytes[received.start..]);
    }

    /// More keys have come than are answered at once: this one waits for its turn.
    fn wait_for_answer(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let backlog = Backlog { bytes: bytes.to_vec(), raw: true, ..Backlog::default() };
        connection.backlog = Some(Box::new(backlog));
        self.stop_receiving(key);
        let connections = &self.connections;
        let line = &mut self.encryption.line;
        if line.len() > 2 * connections.len() {
            // Most of them have gone meanwhile.
            line.retain(|key| connections.get(key).is_some_and(|it| it.closing.is_none()));
        }
    }

    fn time_answers(&mut self) {
        if let Some(due) = self.encryption.line.poll_timeout().filter(|_| !self.encryption.timed) {
            self.encryption.timed = true;
            self.timers.set(due, TimerOwner::Keys);
        }
    }

    /// A turn of answers is over: those who wait are answered, as many as may be.
    pub(super) fn answer_keys(&mut self) {
        self.encryption.timed = false;
        self.encryption.line.handle_timeout(self.now);
        loop {
            let connections = &self.connections;
            let is_there = |key| connections.get(key).is_some_and(|it| it.closing.is_none());
            let Some(key) = self.encryption.line.poll_answer(is_there) else { break };
            self.encryption.answered = Some(key);
            self.resume(key);
            self.encryption.answered = None;
        }
        self.time_answers();
    }

    /// Encrypts what is about to be sent, when that was agreed on.
    pub(super) fn encrypt(&mut self, key: Key, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(stream) = &mut connection.stream else { return };
        stream.encrypt(bytes);
        if stream.transparent() {
            connection.stream = None;
        }
    }

    /// The stream of a connection that a peer has opened; `None` when only plaintext is spoken.
    pub(super) fn incoming_stream(&self) -> Option<Box<MseStream>> {
        let policy = self.encryption.policy;
        (policy != Encryption::Off).then(|| Box::new(MseStream::incoming(policy)))
    }

    /// Begins an encrypted handshake on a connection that we open, when the policy wants one.
    pub(super) fn encrypt_outgoing(&mut self, key: Key, info_hash: InfoHash, policy: Encryption) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(offered) = policy.offers() else { return };
        let mut handshake = Vec::new();
        connection.machine.poll_control(&mut handshake);
        // Who opens a connection introduces itself first, and says no more until the peer has.
        if let Some(handshake) = handshake.first_chunk() {
            let secret = (self.encryption.secret)();
            let stream = MseStream::outgoing(secret, &mut self.rng, info_hash, offered, handshake);
            connection.stream = Some(Box::new(stream));
        }
    }
}

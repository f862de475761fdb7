//! How the incoming side learns which torrent is meant: the peer sends `HASH('req2', SKEY)` behind a mask that follows
//! from the shared secret, and we look it up among ours.

use crate::id::InfoHash;
use std::collections::BTreeMap;

/// `HASH('req2', SKEY)`: the name that an info-hash has in an encrypted handshake, equal in every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SkeyHash(pub [u8; 20]);

impl SkeyHash {
    /// The name of `info_hash`.
    pub fn of(info_hash: &InfoHash) -> Self {
        Self(hash(b"req2", &[&info_hash.0]))
    }
}

/// The torrents that a peer may ask for.
pub trait SkeyLookup {
    /// The torrent of that name; `None` when it is not here.
    fn info_hash(&self, name: &SkeyHash) -> Option<InfoHash>;
}

impl SkeyLookup for BTreeMap<SkeyHash, InfoHash> {
    fn info_hash(&self, name: &SkeyHash) -> Option<InfoHash> {
        self.get(name).copied()
    }
}

/// SHA-1 of a label and of what belongs to it, as MSE has all its hashes.
pub(super) fn hash(label: &[u8; 4], parts: &[&[u8]]) -> [u8; 20] {
    let mut sha1 = sha1_smol::Sha1::from(label);
    for part in parts {
        sha1.update(part);
    }
    sha1.digest().bytes()
}

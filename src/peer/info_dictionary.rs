//! A torrent's raw info dictionary, for peers that ask for it (BEP 9). It need not be in memory: of ten thousand torrents
//! hardly one is asked for it. Whoever needs its bytes and does not find them has them brought here, and may take them
//! away again; what is here is known to be right.

use std::sync::{Arc, PoisonError, RwLock};

/// The info dictionary of one torrent.
#[derive(Debug)]
pub struct InfoDictionary {
    len: u32,
    held: RwLock<Option<Arc<[u8]>>>,
}

impl InfoDictionary {
    /// One of `len` bytes that are not here.
    pub fn absent(len: u32) -> Self {
        Self { len, held: RwLock::new(None) }
    }

    /// Its bytes, here or not.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has no bytes at all, which no torrent's has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, when they are here.
    pub fn bytes(&self) -> Option<Arc<[u8]>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the bytes are here.
    pub fn is_held(&self) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes the bytes, whose hash the caller has compared with the torrent's; none of another length.
    pub fn hold(&self, bytes: Arc<[u8]>) {
        if bytes.len() == self.len as usize {
            *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        }
    }

    /// Lets the bytes go.
    pub fn release(&self) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl From<&[u8]> for InfoDictionary {
    fn from(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { len, held: RwLock::new(Some(bytes.into())) }
    }
}

impl From<Vec<u8>> for InfoDictionary {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

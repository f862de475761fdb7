//! A slab with generations: a key that outlives its value finds nothing, never the slot's next tenant.
//!
//! It grows by chunks and never moves what it holds: ten thousand connections are some megabytes, whose copy would hold
//! up a worker for milliseconds and leave the old memory with the allocator.

/// Slots of a chunk, a power of two.
const CHUNK_LEN: usize = 64;

/// Names one value for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Index of the slot.
    pub slot: u32,
    /// How many tenants the slot had before.
    pub generation: u32,
}

/// Values in reused slots.
#[derive(Debug)]
pub struct Slab<T> {
    /// Each with room for [`CHUNK_LEN`]; all but the last are full.
    chunks: Vec<Vec<Entry<T>>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// Puts the value that `make` builds from its own key.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| self.add_slot());
        let entry = &mut self.chunks[slot as usize / CHUNK_LEN][slot as usize % CHUNK_LEN];
        let key = Key { slot, generation: entry.generation };
        entry.value = Some(make(key));
        self.len += 1;
        key
    }

    fn add_slot(&mut self) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        let full = (self.chunks.len() - 1) * CHUNK_LEN;
        let chunk = self.chunks.last_mut().expect("one has just been made if there was none");
        chunk.push(Entry { generation: 0, value: None });
        (full + chunk.len() - 1) as u32
    }

    fn entry(&self, key: Key) -> Option<&Entry<T>> {
        let entry = self.chunks.get(key.slot as usize / CHUNK_LEN)?.get(key.slot as usize % CHUNK_LEN)?;
        (entry.generation == key.generation).then_some(entry)
    }

    fn entry_mut(&mut self, key: Key) -> Option<&mut Entry<T>> {
        let entry =
            self.chunks.get_mut(key.slot as usize / CHUNK_LEN)?.get_mut(key.slot as usize % CHUNK_LEN)?;
        (entry.generation == key.generation).then_some(entry)
    }

    /// Takes the value out; its key is dead from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entry_mut(key)?;
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.slot);
        self.len -= 1;
        Some(value)
    }

    /// The value, unless it is gone.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.entry(key)?.value.as_ref()
    }

    /// The value, unless it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entry_mut(key)?.value.as_mut()
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All keys, in the order of slots.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.chunks
            .iter()
            .flatten()
            .enumerate()
            .filter(|(_, entry)| entry.value.is_some())
            .map(|(slot, entry)| Key { slot: slot as u32, generation: entry.generation })
    }

    /// All values, in the order of slots, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().filter_map(|entry| entry.value.as_mut())
    }

    /// All values, in the order of slots.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().filter_map(|entry| entry.value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_dead_key_does_not_find_the_next_tenant() {
        let mut slab = Slab::default();
        let first = slab.insert_with(|_| "first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert_with(|_| "second");
        assert_eq!(first.slot, second.slot);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
    }

    /// Steps of one case; Miri takes a thousand times as long.
    const STEPS_MAX: usize = if cfg!(miri) { 40 } else { 300 };

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((prop::bool::weighted(0.8), any::<usize>()), 0..STEPS_MAX)) {
            let mut slab = Slab::default();
            let mut oracle = BTreeMap::new();
            let mut issued = Vec::new();
            for (insert, number) in steps {
                if insert || issued.is_empty() {
                    let key = slab.insert_with(|_| number);
                    prop_assert_eq!(oracle.insert(key, number), None);
                    issued.push(key);
                } else {
                    let key = issued[number % issued.len()];
                    prop_assert_eq!(slab.remove(key), oracle.remove(&key));
                }
                prop_assert_eq!(slab.len(), oracle.len());
                prop_assert!(issued.iter().all(|key| slab.get(*key) == oracle.get(key)));
                prop_assert!(slab.keys().all(|key| oracle.contains_key(&key)));
            }
        }
    }
}

//! The generator that policies draw from. It is always an argument, so a run is a function of its seed.

/// A small, fast, seeded generator. Not for secrets: those come from `clock::random_bytes`.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// The generator for `seed`; equal seeds give equal sequences.
    pub fn from_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number below `bound`, uniformly; zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.u64(..bound) }
    }

    /// An index into something of length `len`, uniformly; zero when `len` is zero.
    pub fn index(&mut self, len: usize) -> usize {
        // The same on every machine, whatever a pointer's width.
        self.below(len as u64) as usize
    }

    /// Shuffles `items` uniformly.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in 1..items.len() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences() {
        let (mut one, mut two) = (Rng::from_seed(7), Rng::from_seed(7));
        assert!((0..100).all(|_| one.next_u64() == two.next_u64()));
    }

    #[test]
    fn bounds_of_zero_and_one_give_zero() {
        let mut rng = Rng::from_seed(1);
        assert_eq!((rng.below(0), rng.below(1), rng.index(0), rng.index(1)), (0, 0, 0, 0));
    }
}

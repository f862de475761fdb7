//! Memory that will be wanted soon is asked for early, so that a thousand peers' worth of it need not lie in the caches.
//!
//! A hint and nothing else: whether it is given changes no result.
#![expect(unsafe_code, reason = "the processor's hint takes a pointer")]

/// Bytes of a cache's line.
const LINE_LEN: usize = 64;

/// How far ahead of its use memory is asked for that hangs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// What can be reached at once.
    Far,
    /// What is reached through that.
    Near,
}

/// Asks for all lines of a value, if there is one.
pub fn prefetch<T>(value: Option<&T>) {
    let Some(value) = value else { return };
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let begin = std::ptr::from_ref(value).cast::<i8>();
        let before = begin.addr() % LINE_LEN;
        for offset in (0..before + size_of::<T>()).step_by(LINE_LEN) {
            let line = begin.wrapping_sub(before).wrapping_add(offset);
            // SAFETY: a prefetch changes nothing that a program sees and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, LINE_LEN);
}

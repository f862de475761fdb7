//! The doorbell of a mailbox: an eventfd that is rung once for any number of messages.
//!
//! A sender puts its message down first and rings afterwards. The reader silences the bell first and looks for messages
//! afterwards. So no message lies there unheard: either the reader finds it, or the bell has been rung again.

#[cfg(not(loom))]
use rustix::event::{EventfdFlags, eventfd};
#[cfg(not(loom))]
use std::io;
#[cfg(not(loom))]
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// A bell that many may ring and one listens to.
#[derive(Debug)]
pub struct Doorbell {
    #[cfg(not(loom))]
    file: OwnedFd,
    /// The eventfd's counter; the kernel orders more than this does.
    #[cfg(loom)]
    counter: AtomicU64,
    rung: AtomicBool,
}

impl Doorbell {
    /// Rings, unless it has been rung since it was last silenced. Call it after the message is in its place.
    pub fn ring(&self) {
        // AcqRel pairs with the swap in `quiet`: either the reader sees the message after it cleared the flag, or we see
        // the cleared flag and ring again.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.add_one();
        }
    }

    /// Silences it. Call it before reading messages, never after, or one could lie there unheard.
    pub fn quiet(&self) {
        self.reset();
        self.rung.swap(false, Ordering::AcqRel);
    }
}

#[cfg(not(loom))]
impl Doorbell {
    /// A silent bell.
    pub fn new() -> io::Result<Self> {
        let file = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { file, rung: AtomicBool::new(false) })
    }

    /// The descriptor that becomes readable when somebody rings.
    pub fn file(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn add_one(&self) {
        // The counter cannot overflow: it is rung only while `rung` was false.
        let _ = rustix::io::write(&self.file, &1_u64.to_ne_bytes());
    }

    fn reset(&self) {
        let _ = rustix::io::read(&self.file, &mut [0; 8]);
    }
}

#[cfg(loom)]
impl Doorbell {
    fn new() -> Self {
        Self { counter: AtomicU64::new(0), rung: AtomicBool::new(false) }
    }

    fn add_one(&self) {
        self.counter.fetch_add(1, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.counter.swap(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// How often it was rung since it was last looked at.
    fn count(bell: &Doorbell) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(&bell.file, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn rings_once_until_it_is_silenced() {
        let bell = Doorbell::new().unwrap();
        bell.ring();
        bell.ring();
        assert_eq!(count(&bell), 1);
        bell.ring();
        assert_eq!(count(&bell), 0);
        bell.quiet();
        bell.ring();
        assert_eq!(count(&bell), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// A place for messages that orders nothing by itself: what is seen there was ordered by the bell.
    #[derive(Default)]
    struct House {
        posted: [AtomicBool; 2],
    }

    fn post(house: &House, bell: &Doorbell, place: usize) {
        house.posted[place].store(true, Ordering::Relaxed);
        bell.ring();
    }

    /// Silences the bell and takes what lies there.
    fn read(house: &House, bell: &Doorbell) -> [bool; 2] {
        bell.quiet();
        [0, 1].map(|place| house.posted[place].load(Ordering::Relaxed))
    }

    #[test]
    fn loom_what_is_posted_is_read_or_the_bell_rings_on() {
        loom::model(|| {
            let (house, bell) = (Arc::new(House::default()), Arc::new(Doorbell::new()));
            let posters: Vec<_> = (0..2)
                .map(|place| {
                    let (house, bell) = (house.clone(), bell.clone());
                    loom::thread::spawn(move || post(&house, &bell, place))
                })
                .collect();
            let seen = read(&house, &bell);
            posters.into_iter().for_each(|poster| poster.join().expect("who posts does not panic"));
            let rings = bell.counter.load(Ordering::Relaxed) > 0;
            assert!(seen == [true; 2] || rings, "a message lies there and the bell is silent");
        });
    }

    #[test]
    fn loom_a_reader_that_is_woken_finds_everything_posted_before() {
        loom::model(|| {
            let (house, bell) = (Arc::new(House::default()), Arc::new(Doorbell::new()));
            let poster = {
                let (house, bell) = (house.clone(), bell.clone());
                loom::thread::spawn(move || {
                    post(&house, &bell, 0);
                    post(&house, &bell, 1);
                })
            };
            // The reader wakes twice for whatever reason, then sleeps until the bell rings.
            let _ = read(&house, &bell);
            let mut seen = read(&house, &bell);
            poster.join().expect("who posts does not panic");
            if bell.counter.load(Ordering::Relaxed) > 0 {
                seen = read(&house, &bell);
            }
            assert_eq!(seen, [true; 2]);
        });
    }
}

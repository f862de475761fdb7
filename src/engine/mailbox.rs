//! A worker's mailbox: a bounded lock-free queue and a doorbell the ring listens to.
//!
//! Any thread may post; one worker reads. A full mailbox refuses, the sender keeps the message and tries
//! again in its next turn, so nothing is lost and nothing grows without bound. The doorbell is an eventfd,
//! because a thread without a ring of its own must be able to ring it too; it is rung once for as many
//! messages as arrive before the worker wakes.

use super::doorbell::Doorbell;
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// The reading end.
#[derive(Debug)]
pub struct Mailbox<T> {
    shared: Arc<Shared<T>>,
}

/// The posting end.
#[derive(Debug)]
pub struct Address<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<T> {
    queue: ArrayQueue<T>,
    /// Answers to what the reader itself has asked, whose number it bounds.
    answers: SegQueue<T>,
    doorbell: Doorbell,
}

/// A mailbox with room for `capacity` messages, and its address.
pub fn mailbox<T>(capacity: usize) -> io::Result<(Mailbox<T>, Address<T>)> {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity),
        answers: SegQueue::new(),
        doorbell: Doorbell::new()?,
    });
    Ok((Mailbox { shared: Arc::clone(&shared) }, Address { shared }))
}

impl<T> Address<T> {
    /// Posts a message and rings; gives the message back when the mailbox is full.
    pub fn post(&self, message: T) -> Result<(), T> {
        let result = self.shared.queue.push(message);
        self.shared.doorbell.ring();
        result
    }

    /// Posts the answer to something that the reader has asked for, and rings. It always finds room: the reader asks no
    /// more than it can take.
    pub fn answer(&self, message: T) {
        self.shared.answers.push(message);
        self.shared.doorbell.ring();
    }
}

impl<T> Mailbox<T> {
    /// The descriptor that becomes readable when somebody rings.
    pub fn doorbell(&self) -> RawFd {
        self.shared.doorbell.file()
    }

    /// Silences the doorbell. Call it before reading, never after, or a message could lie there unheard.
    pub fn quiet(&self) {
        self.shared.doorbell.quiet();
    }

    /// The oldest answer, or else the oldest message.
    pub fn read(&self) -> Option<T> {
        self.shared.answers.pop().or_else(|| self.shared.queue.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let (mailbox, address) = mailbox(1).unwrap();
        assert_eq!(address.post(1), Ok(()));
        assert_eq!(address.post(2), Err(2));
        assert_eq!((mailbox.read(), mailbox.read()), (Some(1), None));
        assert_eq!(address.post(3), Ok(()));
    }

    #[test]
    fn an_answer_finds_room_in_a_full_mailbox() {
        let (mailbox, address) = mailbox(1).unwrap();
        assert_eq!(address.post(1), Ok(()));
        address.answer(2);
        assert_eq!((mailbox.read(), mailbox.read(), mailbox.read()), (Some(2), Some(1), None));
    }

    #[test]
    fn every_message_posted_by_many_threads_is_read_once() {
        let (mailbox, address) = mailbox::<u32>(4).unwrap();
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let address = address.clone();
                scope.spawn(move || {
                    for number in 0..1000 {
                        let mut message = thread * 1000 + number;
                        while let Err(back) = address.post(message) {
                            message = back;
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while seen.len() < 4000 {
                match mailbox.read() {
                    Some(message) => seen.push(message),
                    None => std::thread::yield_now(),
                }
            }
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..4000).collect::<Vec<_>>());
    }
}

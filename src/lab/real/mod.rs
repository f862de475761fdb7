//! The same question asked of this machine: real processes, sockets and files instead of simulated ones.
//!
//! `swarm` starts a seed of this program and N peers, each a process with limits, folders and a loopback address of its
//! own, in a prefix of its own, since prefixes share slots. `baseline` is the client-server answer: an HTTP server whose
//! connections share the same limit. Every copy is compared with the original, byte for byte. `ground` is the folder
//! that all of it happens in, which goes away with its owner unless that is killed; `participant` a process that ends
//! with its owner; `clients` how each program is told what to do, and `control` how Transmission is asked.
//!
//! Deliberately absent: delays and loss. Lines are limits that the programs keep themselves, as their users set them.

pub mod baseline;
mod clients;
mod control;
mod ground;
mod participant;
pub mod swarm;

pub use clients::Client;
pub use ground::{Ground, room_for};

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Peers of a real run at most: each is a process, and each has an address of its own.
pub const PEERS_MAX: u32 = 64;

/// Why there is no real run; said before or instead of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RealError {
    /// The copies do not fit.
    #[error("the copies need {needed} and {} has {free} left; name another folder with --real-storage", .folder.display())]
    NoRoom {
        /// Where they were to go.
        folder: PathBuf,
        /// What they take.
        needed: crate::units::ByteSize,
        /// What there is.
        free: crate::units::ByteSize,
    },
    /// The folder for the copies, or a file in it, cannot be used.
    #[error("cannot use {}: {reason}; name another folder with --real-storage", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A program is not there.
    #[error("{client} cannot take part: {why}")]
    Missing {
        /// Its name.
        client: &'static str,
        /// What is missing and what to do.
        why: String,
    },
    /// A program does not start.
    #[error("cannot start {program}: {reason}")]
    Start {
        /// Which.
        program: String,
        /// What the system says.
        reason: io::Error,
    },
    /// The seed does not come up.
    #[error("the seed does not start: {0}")]
    Seed(String),
    /// No server can listen on loopback.
    #[error("the HTTP server does not start: {0}")]
    Server(io::Error),
    /// There is no network namespace.
    #[error(
        "Transmission connects to no loopback address, so it needs a network namespace, which there is not: \
         {0}; mend that, or leave it out"
    )]
    Namespace(String),
}

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everybody has everything, and every copy is right.
    Complete,
    /// The user has had enough.
    Stopped,
    /// Time is up.
    Late,
    /// Something went wrong, in words.
    Failed(String),
}

/// The network that the participants' addresses lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Loopback, as it is everywhere.
    Loopback,
    /// A namespace whose loopback device has further addresses; see [`Net::commands`].
    Namespace,
}

impl Net {
    /// The address of a participant: 0 is the seed.
    pub fn address(self, number: u32) -> Ipv4Addr {
        let third = u8::try_from(number + 1).unwrap_or(u8::MAX);
        match self {
            Self::Loopback => Ipv4Addr::new(127, 45, third, 1),
            Self::Namespace => Ipv4Addr::new(10, 45, third, 1),
        }
    }

    /// What a shell has to do in a new namespace before `peers` and a seed can meet there.
    pub fn commands(self, peers: u32) -> String {
        let mut commands = "ip link set lo up".to_owned();
        for number in 0..=peers {
            commands += &format!(" && ip addr add {}/32 dev lo", self.address(number));
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_participant_has_a_prefix_of_its_own() {
        for net in [Net::Loopback, Net::Namespace] {
            let mut prefixes: Vec<[u8; 3]> = (0..=PEERS_MAX)
                .map(|number| {
                    let [a, b, c, _] = net.address(number).octets();
                    [a, b, c]
                })
                .collect();
            prefixes.dedup();
            assert_eq!(prefixes.len(), PEERS_MAX as usize + 1);
        }
        assert!(Net::Namespace.commands(2).ends_with("ip addr add 10.45.3.1/32 dev lo"));
    }
}

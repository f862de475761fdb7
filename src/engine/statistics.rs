//! What a worker counts: one writer, any reader, a cache line apart from its neighbours.
//!
//! One declaration gives a figure its storage, its place in the snapshot and what readers are told about it.

use super::histogram::{Histogram, HistogramSnapshot};
use crate::attribution::{Cause, WaitTimes};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What kind of number a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureUnit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Nanoseconds,
}

/// One figure of [`StatisticsSnapshot`], described.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name there.
    pub name: &'static str,
    /// How it moves.
    pub kind: FigureKind,
    /// What it is counted in.
    pub unit: FigureUnit,
    /// What it says, in a sentence; may open with a space.
    pub help: &'static str,
    /// Takes it out of a snapshot.
    pub read: fn(&StatisticsSnapshot) -> u64,
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident of $unit:ident,)*) => {
        /// Counters and gauges of one worker. Counters only grow.
        #[derive(Debug, Default)]
        pub struct WorkerStatistics(CachePadded<Counters>, CachePadded<WorkerHistograms>);

        #[derive(Debug, Default)]
        struct Counters {
            $($name: AtomicU64,)*
        }

        /// The counters at one moment, of one worker or added up.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct StatisticsSnapshot {
            $($(#[doc = $help])+ pub $name: u64,)*
        }

        impl WorkerStatistics {
            /// All counters now, each by itself: they are not one instant's.
            pub fn snapshot(&self) -> StatisticsSnapshot {
                StatisticsSnapshot { $($name: self.0.$name.load(Relaxed),)* }
            }

            $(
                $(#[doc = $help])+
                pub(super) fn $name(&self) -> Counter<'_> {
                    Counter(&self.0.$name)
                }
            )*
        }

        /// Every figure of a worker, in the order of the declaration.
        pub const FIGURES: &[Figure] = &[$(Figure {
            name: stringify!($name),
            kind: FigureKind::$kind,
            unit: FigureUnit::$unit,
            help: concat!($($help),+),
            read: |snapshot| snapshot.$name,
        },)*];

        impl std::ops::AddAssign for StatisticsSnapshot {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Connections open, handshaking ones included.
    connections: Gauge of Count,
    /// Connections that have not finished their handshake.
    half_open: Gauge of Count,
    /// Connections accepted so far.
    accepted: Counter of Count,
    /// Connections refused at a bound.
    refused: Counter of Count,
    /// Connections that ended because the peer broke the protocol.
    peer_faults: Counter of Count,
    /// Bytes of blocks sent.
    payload_sent: Counter of Bytes,
    /// Bytes sent, headers and control messages included.
    bytes_sent: Counter of Bytes,
    /// Blocks sent.
    blocks_sent: Counter of Count,
    /// Bytes of blocks received that were asked for.
    payload_received: Counter of Bytes,
    /// Bytes of blocks received that somebody else had brought already, or that nobody had asked for.
    payload_wasted: Counter of Bytes,
    /// Sends that have completed.
    sends: Counter of Count,
    /// Bytes of sends that asked for zero copy.
    zero_copy_bytes: Counter of Bytes,
    /// Zero-copy sends.
    zero_copy_sends: Counter of Count,
    /// Zero-copy sends that the kernel copied all the same.
    zero_copy_copied: Counter of Count,
    /// Bytes of zero-copy sends that the kernel copied all the same.
    zero_copy_copied_bytes: Counter of Bytes,
    /// Zero-copy sends that the kernel refused.
    zero_copy_refused: Counter of Count,
    /// Ranges that had to be read from disk before a send.
    cold_fetches: Counter of Count,
    /// Bytes that had to be read from disk before a send.
    cold_bytes: Counter of Bytes,
    /// Sends that waited for a rate limit.
    throttled: Counter of Count,
    /// Processor time.
    busy_nanos: Counter of Nanoseconds,
    /// Page faults of this worker that waited for a disk; stays zero while sends touch resident pages only.
    major_faults: Counter of Count,
    /// Time that connections waited for a disk, added up over connections.
    waited_disk_nanos: Counter of Nanoseconds,
    /// Time that connections waited because the peer or its line took no more, added up over connections.
    waited_window_nanos: Counter of Nanoseconds,
    /// Time that interested peers were choked, added up over connections.
    waited_choke_nanos: Counter of Nanoseconds,
    /// Time that connections waited for an upload limit, added up over connections.
    waited_limit_nanos: Counter of Nanoseconds,
    /// Time that connections waited for this worker's turn and work, added up over connections.
    waited_cpu_nanos: Counter of Nanoseconds,
    /// Time that interested and unchoked peers asked for nothing more, added up over connections.
    waited_asking_nanos: Counter of Nanoseconds,
    /// Time that the kernel had something of a connection to send, added up over connections; zero unless asked for.
    tcp_busy_nanos: Counter of Nanoseconds,
    /// Time that the kernel had something to send and the peer's window was full, added up over connections.
    tcp_peer_window_nanos: Counter of Nanoseconds,
    /// Time that the kernel had something to send and our send buffer was full, added up over connections.
    tcp_send_buffer_nanos: Counter of Nanoseconds,
}

macro_rules! histograms {
    ($($(#[doc = $help:literal])+ $name:ident of $unit:ident,)*) => {
        /// How often which value, of one worker.
        #[derive(Debug, Default)]
        struct WorkerHistograms {
            $($name: Histogram,)*
        }

        /// The histograms at one moment, of one worker or added up.
        #[derive(Clone, Debug, Default)]
        pub struct HistogramsSnapshot {
            $($(#[doc = $help])+ pub $name: HistogramSnapshot,)*
        }

        impl WorkerStatistics {
            /// All histograms now.
            pub fn histograms(&self) -> HistogramsSnapshot {
                HistogramsSnapshot { $($name: self.1.$name.snapshot(),)* }
            }

            $(
                $(#[doc = $help])+
                pub(super) fn $name(&self) -> &Histogram {
                    &self.1.$name
                }
            )*
        }

        /// Every histogram of a worker, in the order of the declaration.
        pub const HISTOGRAMS: &[HistogramFigure] = &[$(HistogramFigure {
            name: stringify!($name),
            unit: FigureUnit::$unit,
            help: concat!($($help),+),
            read: |snapshot| &snapshot.$name,
        },)*];

        impl std::ops::AddAssign<&Self> for HistogramsSnapshot {
            fn add_assign(&mut self, other: &Self) {
                $(self.$name += &other.$name;)*
            }
        }
    };
}

/// One histogram of [`HistogramsSnapshot`], described.
#[derive(Clone, Copy, Debug)]
pub struct HistogramFigure {
    /// Its name there.
    pub name: &'static str,
    /// What its values are counted in.
    pub unit: FigureUnit,
    /// What it says, in a sentence; may open with a space.
    pub help: &'static str,
    /// Takes it out of a snapshot.
    pub read: fn(&HistogramsSnapshot) -> &HistogramSnapshot,
}

histograms! {
    /// Time from a request to the moment at which the kernel had all of its block; one request of a connection at a time.
    request_nanos of Nanoseconds,
    /// Time of one turn of the worker between two entries into the kernel.
    turn_nanos of Nanoseconds,
    /// Time of an entry into the kernel that handed something over and did not have to wait.
    entry_nanos of Nanoseconds,
    /// Bytes of blocks handed over with one send.
    send_batch_bytes of Bytes,
    /// Time until blocks that were not in memory were there.
    cold_fetch_nanos of Nanoseconds,
}

impl WorkerStatistics {
    /// Adds to what connections have waited for.
    pub(super) fn add_waited(&self, new: &WaitTimes) {
        self.waited_disk_nanos().add(new.of(Cause::Disk));
        self.waited_window_nanos().add(new.of(Cause::Window));
        self.waited_choke_nanos().add(new.of(Cause::Choke));
        self.waited_limit_nanos().add(new.of(Cause::Limit));
        self.waited_cpu_nanos().add(new.of(Cause::Cpu));
        self.waited_asking_nanos().add(new.of(Cause::Asking));
    }
}

impl StatisticsSnapshot {
    /// What connections have waited for.
    pub fn waited(&self) -> WaitTimes {
        WaitTimes(Cause::ALL.map(|cause| match cause {
            Cause::Disk => self.waited_disk_nanos,
            Cause::Window => self.waited_window_nanos,
            Cause::Choke => self.waited_choke_nanos,
            Cause::Limit => self.waited_limit_nanos,
            Cause::Cpu => self.waited_cpu_nanos,
            Cause::Asking => self.waited_asking_nanos,
        }))
    }
}

/// One counter, for its one writer.
pub(super) struct Counter<'a>(&'a AtomicU64);

impl Counter<'_> {
    /// Adds. A load and a store suffice for a single writer, and cost no locked instruction.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Subtracts, for gauges.
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// The value its writer has given it.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Sets.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_described_in_the_order_of_the_snapshot() {
        let snapshot = StatisticsSnapshot { connections: 1, busy_nanos: 2, ..StatisticsSnapshot::default() };
        let serde_json::Value::Object(fields) = serde_json::to_value(snapshot).expect("plain numbers") else {
            panic!("a snapshot is an object");
        };
        assert_eq!(FIGURES.len(), fields.len());
        for figure in FIGURES {
            assert_eq!(fields[figure.name], (figure.read)(&snapshot), "{}", figure.name);
            assert!(figure.help.ends_with('.') && !figure.help.contains('\n'), "{figure:?}");
        }
        assert_eq!((FIGURES[0].name, FIGURES[0].kind), ("connections", FigureKind::Gauge));
    }

    #[test]
    fn snapshots_add_up() {
        let (one, two) = (WorkerStatistics::default(), WorkerStatistics::default());
        one.sends().add(2);
        two.sends().add(3);
        two.connections().add(5);
        two.connections().subtract(1);
        let mut sum = one.snapshot();
        sum += two.snapshot();
        assert_eq!((sum.sends, sum.connections, sum.accepted), (5, 4, 0));
    }
}

//! The line: packets leave a peer one after the other, its connections in turn, and arrive later at another.

use super::node::{GOOD, Node, Packet, Seat, SimBlock, WINDOW_LEN};
use super::terms::{Departure, Manner, PeerNumber};
use super::{Event, Swarm, delay_between, hostile};
use crate::time::{Duration, Instant};

/// Time that `len` bytes take at `rate` bytes a second.
fn time_of(len: u64, rate: u64) -> Duration {
    let rate = rate.max(1);
    // A packet is short enough for sixty-four bits, whose division takes a fraction of the time.
    Duration::from_nanos(match len.checked_mul(1_000_000_000) {
        Some(product) => product / rate,
        None => u64::try_from(u128::from(len) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
    })
}

impl Node {
    /// Puts a connection in line for the uplink when it has something to say.
    pub fn schedule(&mut self, slot: u32) {
        let manner = self.terms.manner;
        let is_hostile = manner.hostility().is_some() && self.is_hostile_on(slot);
        let Some(connection) = self.connections.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        if connection.scheduled || connection.other.is_none() || connection.in_flight >= WINDOW_LEN {
            return;
        }
        let machine = &connection.machine;
        let has_output = if manner == Manner::Staller { machine.has_control() } else { machine.has_output() };
        if has_output || is_hostile {
            connection.scheduled = true;
            self.ready.push_back(slot);
        }
    }

    /// Time until a packet has left that takes so long: a limit with a burst lets it go before it is paid for.
    fn pay(&mut self, now: Instant, took: Duration) -> Duration {
        self.paid_until = self.paid_until.max(now) + took;
        (self.paid_until - self.terms.burst).since(now)
    }

    /// When a packet has arrived that reaches the downlink at `there_at` and takes so long.
    fn receive(&mut self, there_at: Instant, took: Duration) -> Instant {
        self.received_until = self.received_until.max(there_at) + took;
        (self.received_until - self.terms.burst).max(there_at)
    }

    /// Takes the next packet of a connection.
    fn pack(&mut self, slot: u32, wrong: u32) -> Option<(Seat, Packet)> {
        let manner = self.terms.manner;
        let chance = self.rng.below(1000);
        let connection = self.connections.get_mut(slot as usize)?.as_mut()?;
        connection.scheduled = false;
        let other = connection.other?;
        let mut control = Vec::new();
        connection.machine.poll_control(&mut control);
        let span = if manner == Manner::Staller { None } else { connection.machine.poll_block() };
        let mut block = span.map(|span| {
            let is_wrong = matches!(manner, Manner::Liar(share) if chance < u64::from(share));
            SimBlock { span, content: if is_wrong { wrong } else { GOOD } }
        });
        connection.blocks_sent += u32::from(block.is_some());
        if manner == Manner::Garbler && connection.blocks_sent > 3 {
            // The length of a message that nobody takes.
            control.extend_from_slice(&[0xff; 8]);
        }
        if let Some(hostility) = manner.hostility()
            && connection.machine.is_open()
            && connection.malice < hostile::PACKETS_MAX
        {
            connection.malice += 1;
            let uttered = hostile::utter(hostility, &self.facts, &mut self.rng, &mut control);
            block = block.or(uttered.map(|span| SimBlock { span, content: wrong }));
        }
        let packet = Packet { control, block };
        (packet.len() > 0).then_some((other, packet))
    }
}

impl Swarm {
    /// Starts the uplink if it has nothing to do and somebody waits.
    pub(super) fn start_uplink(&mut self, number: PeerNumber) {
        if self.nodes[number.0 as usize].uplink_busy {
            return;
        }
        self.handle_uplink(number);
    }

    pub(super) fn handle_uplink(&mut self, number: PeerNumber) {
        let node = &mut self.nodes[number.0 as usize];
        node.uplink_busy = false;
        if self.now < node.trouble.stalled_until {
            node.uplink_busy = true;
            return self.events.put(node.trouble.stalled_until, Event::Uplink(number));
        }
        while let Some(slot) = node.ready.pop_front() {
            let wrong = self.wrong_blocks + 2;
            let Some((to, packet)) = node.pack(slot, wrong) else { continue };
            self.wrong_blocks += u32::from(packet.block.is_some_and(|block| block.content == wrong));
            let len = packet.len();
            let took = time_of(len, node.terms.up.0);
            node.leeching.send(took, packet.block.map_or(0, |block| u64::from(block.span.len)));
            let took = node.pay(self.now, took);
            node.uplink_busy = true;
            self.events.put(self.now + took, Event::Uplink(number));
            let from = node.seat(slot);
            if let Some(connection) = node.connection(from.slot, from.generation) {
                connection.in_flight += len;
                if let Some(block) = packet.block {
                    connection.sample.uploaded += u64::from(block.span.len);
                }
            }
            if let Some(block) = packet.block {
                node.given += u64::from(block.span.len);
            }
            node.schedule(slot);
            if let Some(block) = packet.block {
                self.enter(number, to.node, u64::from(block.span.len));
            }
            self.tell_served(from);
            self.carry(from, to, packet, took);
            self.part(from);
            self.leave_after_copies(number);
            return;
        }
    }

    /// Takes a packet to the other end.
    pub(super) fn carry(&mut self, from: Seat, to: Seat, packet: Packet, took: Duration) {
        if let Some(checks) = &mut self.checks {
            checks.sent(self.now, from, to, &packet, &self.nodes[from.node.0 as usize]);
        }
        let payload = packet.block.map_or(0, |block| u64::from(block.span.len));
        self.balance.sent += payload;
        let delay = delay_between(&self.nodes, from.node, to.node);
        let receiver = &mut self.nodes[to.node.0 as usize];
        let there_at = self.now + took + delay;
        let arrives_at = match receiver.terms.down {
            Some(rate) => receiver.receive(there_at, time_of(packet.len(), rate.0)),
            // What was sent first arrives first, all the same.
            None => there_at,
        };
        receiver.downlink_free_at = receiver.downlink_free_at.max(arrives_at);
        // Who has died knows nothing of its connections when it is back, and says so.
        if !self.faults.is_empty() && receiver.online && receiver.connection(to.slot, to.generation).is_none()
        {
            self.events.put(arrives_at, Event::Gone(from));
        }
        self.balance.in_flight += payload;
        self.events.put(arrives_at, Event::Packet(to, Box::new(packet)));
    }

    pub(super) fn handle_packet(&mut self, seat: Seat, packet: &Packet) {
        let (payload, len) = (packet.block.map_or(0, |block| u64::from(block.span.len)), packet.len());
        self.balance.in_flight -= payload;
        let node = &mut self.nodes[seat.node.0 as usize];
        let connection = node.connection(seat.slot, seat.generation);
        let Some(connection) = connection.filter(|connection| connection.other.is_some()) else {
            // Its end was closed meanwhile, or the line is broken; its sender will hear of it.
            self.balance.lost += payload;
            return;
        };
        self.balance.received += payload;
        let other = connection.other;
        self.note(u64::from(seat.node.0) << 32 | len);
        // Its sender may send more, if it had to wait.
        if let Some(other) = other {
            let sender = &mut self.nodes[other.node.0 as usize];
            if let Some(connection) = sender.connection(other.slot, other.generation) {
                let waited = connection.in_flight >= WINDOW_LEN;
                connection.in_flight = connection.in_flight.saturating_sub(len);
                if waited {
                    sender.schedule(other.slot);
                    self.start_uplink(other.node);
                }
            }
        }
        self.hear(seat, packet);
        self.start_uplink(seat.node);
    }

    fn leave_after_copies(&mut self, number: PeerNumber) {
        let node = &self.nodes[number.0 as usize];
        if let Departure::AfterCopies(thousandths) = node.terms.departs
            && u128::from(node.given) * 1000 >= u128::from(self.shape.total_len) * u128::from(thousandths)
            && node.online
        {
            let stay = node.stay;
            self.events.put(self.now, Event::Leave(number, stay));
        }
    }
}

//! The line: packets leave a peer one after the other, its connections in turn, and arrive later at another.

use super::node::{GOOD, Node, Packet, Seat, SimBlock, WINDOW_LEN};
use super::terms::{Departure, Manner, PeerNumber};
use super::{Event, Swarm, delay_between, hostile};
use crate::time::{Duration, Instant};
use smallvec::SmallVec;

/// Both ends of a connection.
struct Ends {
    from: Seat,
    to: Seat,
}

/// Time that `len` bytes take at `rate` bytes a second.
fn time_of(len: u64, rate: u64) -> Duration {
    // A packet has far fewer than the 18 GB from which on this is too short.
    Duration::from_nanos(len.saturating_mul(1_000_000_000) / rate.max(1))
}

impl Node {
    /// Puts a connection in line for the uplink when it has something to say.
    pub fn schedule(&mut self, slot: u32) {
        if self.scheduled.contains(slot) {
            return;
        }
        let is_hostile = self.terms.manner.hostility().is_some() && self.is_hostile_on(slot);
        let Some(connection) = self.connections.get(slot as usize).and_then(Option::as_deref) else {
            return;
        };
        if connection.other.is_none() || connection.in_flight >= WINDOW_LEN {
            return self.idle.remove(slot);
        }
        let gained = self.gained.len();
        let has_output = match self.terms.manner {
            Manner::Staller | Manner::Deserter => connection.has_control(gained),
            _ => connection.has_output(gained),
        };
        if has_output || is_hostile {
            self.idle.remove(slot);
            self.scheduled.insert(slot);
            self.ready.push_back(slot);
        } else {
            self.idle.insert(slot);
        }
    }

    /// There is something to be told to everybody: those that had nothing to say get in line. The others hear of it
    /// when it is their turn, so that nobody's memory is touched twice.
    pub fn schedule_idle(&mut self) {
        let mut from = 0;
        while let Some(slot) = self.idle.take_from(from) {
            self.scheduled.insert(slot);
            self.ready.push_back(slot);
            from = slot + 1;
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
    fn pack(&mut self, slot: u32, wrong: u32, control: &mut Vec<u8>) -> Option<(Ends, Packet)> {
        let manner = self.terms.manner;
        self.scheduled.remove(slot);
        let chance = self.rng.below(1000);
        let connection = self.connections.get_mut(slot as usize)?.as_mut()?;
        let from = Seat { node: self.number, slot, generation: connection.generation };
        let ends = Ends { from, to: connection.other? };
        if let Some(news) = self.gained.get(connection.told..) {
            if manner != Manner::Mute {
                connection.machine.handle_haves_ours(news);
            }
            connection.told = self.gained.len();
        }
        control.clear();
        connection.machine.poll_control(control);
        let stalls = matches!(manner, Manner::Staller | Manner::Deserter);
        let span = if stalls { None } else { connection.machine.poll_block() };
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
            let uttered = match &mut self.script {
                Some(script) => script.say(&self.facts, control),
                None => hostile::utter(hostility, &self.facts, &mut self.rng, control),
            };
            block = block.or(uttered.map(|span| SimBlock { span, content: wrong }));
        }
        let packet = Packet { control: SmallVec::from_slice(control), block };
        if packet.len() == 0 {
            self.idle.insert(slot);
            return None;
        }
        Some((ends, packet))
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
            let Some((Ends { from, to }, packet)) = node.pack(slot, wrong, &mut self.control) else {
                continue;
            };
            self.wrong_blocks += u32::from(packet.block.is_some_and(|block| block.content == wrong));
            let len = packet.len();
            let took = time_of(len, node.terms.up.0);
            node.leeching.send(took, packet.block.map_or(0, |block| u64::from(block.span.len)));
            let took = node.pay(self.now, took);
            node.uplink_busy = true;
            self.events.put(self.now + took, Event::Uplink(number));
            if let Some(block) = packet.block {
                if let Some(connection) = node.connection(from.slot, from.generation) {
                    connection.sample.uploaded += u64::from(block.span.len);
                    connection.sample.follow_requests(self.now, connection.machine.queued_blocks() > 0);
                }
                node.given += u64::from(block.span.len);
                self.enter(number, to.node, u64::from(block.span.len));
            }
            self.tell_served(from);
            let arrives_at = self.carry(from, to, packet, took);
            self.fill_window(from, arrives_at, len);
            self.part(from);
            self.leave_after_copies(number);
            return;
        }
    }

    /// A connection has so many bytes more on their way. When that is all that it may have, it waits for the next to
    /// arrive.
    fn fill_window(&mut self, seat: Seat, arrives_at: Instant, len: u64) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        connection.machine.handle_sent(now);
        connection.settle_line(now);
        connection.in_flight += len;
        connection.line.push_back((arrives_at, len));
        if connection.in_flight >= WINDOW_LEN
            && let Some(&(next_at, _)) = connection.line.front()
        {
            self.events.put(next_at, Event::Window(seat));
        }
        node.schedule(seat.slot);
    }

    pub(super) fn handle_window(&mut self, seat: Seat) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        connection.settle_line(now);
        match connection.line.front() {
            Some(&(next_at, _)) if connection.in_flight >= WINDOW_LEN => {
                self.events.put(next_at, Event::Window(seat));
            }
            _ => {
                node.schedule(seat.slot);
                self.start_uplink(seat.node);
            }
        }
    }

    /// Takes a packet to the other end; when it arrives.
    pub(super) fn carry(&mut self, from: Seat, to: Seat, packet: Packet, took: Duration) -> Instant {
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
        let packet = match self.spare.pop() {
            Some(mut spare) => {
                *spare = packet;
                spare
            }
            None => Box::new(packet),
        };
        self.events.put(arrives_at, Event::Packet(to, packet));
        arrives_at
    }

    pub(super) fn handle_packet(&mut self, seat: Seat, packet: &Packet) {
        let (payload, len) = (packet.block.map_or(0, |block| u64::from(block.span.len)), packet.len());
        self.balance.in_flight -= payload;
        let node = &mut self.nodes[seat.node.0 as usize];
        let connection = node.connection(seat.slot, seat.generation);
        if connection.is_none_or(|connection| connection.other.is_none()) {
            // Its end was closed meanwhile, or the line is broken; its sender will hear of it.
            self.balance.lost += payload;
            return;
        }
        self.balance.received += payload;
        self.note(u64::from(seat.node.0) << 32 | len);
        if let Some(SimBlock { span, content }) = packet.block {
            self.note(u64::from(span.piece.0) << 32 | u64::from(span.begin));
            self.note(u64::from(seat.slot) << 32 | u64::from(content));
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

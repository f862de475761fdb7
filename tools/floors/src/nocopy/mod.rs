//! A device that really sends without copying, emulated: the far end of a veth pair, with peers behind it that
//! take all that a seeder sends and look at none of it.
//!
//! On loopback and veth the kernel copies every zero-copy send where the packet enters the receive path. Here a program at
//! the far end's ingress notes its length and drops it before that (bpf.rs), and this process, which has no
//! address and no TCP of the kernel's, acknowledges it with frames of its own. The seeder sees connections whose
//! device has sent from its pages. Deliberately absent: what a real device adds (mapping for DMA, its driver), loss,
//! and any look at the bytes; whether they are right is `seedring bench --verify`'s to say.
//!
//! The seeder's end needs an address and a route to the peers', and no ARP, as nobody would answer:
//! `ip link add near type veth peer name far; ip addr add 10.46.0.1/24 dev near; ip link set near arp off up;
//! ip link set far up`.

mod bpf;
mod device;
mod peer;
mod segment;

use bpf::Flows;
use device::Device;
use peer::{Peer, Walk};
use seedring::clock;
use seedring::id::PeerId;
use seedring::metainfo::Metainfo;
use seedring::time::Duration;
use seedring::wire::{self, Decoder, DecoderLimits, Handshake, Message, Reserved};
use segment::Ends;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Errors end the run with a sentence; nothing here is worth handling.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Our ports, from this one on: any will do, as no other program has this address.
const FIRST_PORT: u16 = 20_000;
/// Longest time until every peer is unchoked.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without a byte from the seeder.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two rounds of acknowledgements. A network card holds its interrupts back as long, and without it
/// every packet would interrupt the seeder's core on its own.
const ROUND: Duration = Duration::from_nanos(50_000);
/// Bytes of the largest frame that the near end hands over.
const FRAME_LEN_MAX: usize = 128 * 1024;

/// The peers behind the device, and what they ask for.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The seeder, on an address that is reached through the near end.
    pub seeder: SocketAddrV4,
    /// The seeder's end of the veth pair.
    pub near: String,
    /// The other end.
    pub far: String,
    /// The peers' address, routed to the near end.
    pub address: Ipv4Addr,
    /// Peers.
    pub connections: u16,
    /// Blocks that each asks for in advance, half of them together.
    pub depth: u32,
    /// The run ends after this time,
    pub duration: Duration,
    /// or after so many bytes.
    pub bytes: u64,
}

/// What came through the device.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Bytes from the seeder.
    pub bytes: u64,
    /// Time they took.
    pub duration: Duration,
    /// Packets they came in.
    pub packets: u64,
    /// Acknowledgements that were nothing else.
    pub acknowledgements: u64,
    /// Bytes of the peer that got least.
    pub bytes_of_the_least: u64,
}

/// Takes blocks; calls `serving` when all peers are unchoked.
pub fn drain(sink: &Sink, metainfo: &Metainfo, serving: impl FnOnce()) -> Outcome<Drained> {
    let device = Device::open(&sink.far)?;
    let flows = Flows::attach(device.index, FIRST_PORT, sink.connections)?;
    let mut peers = peers(sink, metainfo, device.address_of(&sink.near)?)?;
    open(&device, &mut peers)?;
    serving();
    let outcome = take(sink, &device, &flows, &mut peers);
    let mut frame = Vec::new();
    for peer in &peers {
        peer.abort(&mut frame);
        device.send(&frame)?;
    }
    Ok(Drained {
        bytes: peers.iter().map(|peer| peer.received).sum(),
        duration: outcome?,
        packets: flows.packets(),
        acknowledgements: peers.iter().map(|peer| peer.acknowledgements).sum(),
        bytes_of_the_least: peers.iter().map(|peer| peer.received).min().unwrap_or(0),
    })
}

fn peers(sink: &Sink, metainfo: &Metainfo, their_device: [u8; 6]) -> Outcome<Vec<Peer>> {
    let info = metainfo.info();
    let peer = |flow: u16| {
        let mut peer_id = *b"-FL0100-000000000000";
        peer_id[8..13].copy_from_slice(format!("{flow:05}").as_bytes());
        let handshake =
            Handshake { reserved: Reserved::NONE, info_hash: metainfo.info_hash(), peer_id: PeerId(peer_id) };
        let mut opening = handshake.encode().to_vec();
        wire::encode(&Message::Interested, &mut opening);
        let ours = SocketAddrV4::new(sink.address, FIRST_PORT + flow);
        let ends = Ends { our_device: [2, 0, 0, 0, 0, 2], their_device, ours, theirs: sink.seeder };
        let decoder = Decoder::new(DecoderLimits::for_pieces(info.piece_count()));
        let walk = Walk::new(info, u32::from(flow), u32::from(sink.connections))?;
        Ok(Peer::new(ends, opening, decoder, walk))
    };
    (0..sink.connections).map(peer).collect()
}

/// Connects all peers and waits until each is unchoked.
fn open(device: &Device, peers: &mut [Peer]) -> Outcome<()> {
    let (mut frame, mut buffer) = (Vec::new(), vec![0; FRAME_LEN_MAX]);
    for peer in &mut *peers {
        peer.connect(&mut frame);
        device.send(&frame)?;
    }
    let deadline = clock::now() + START_TIMEOUT;
    while let waiting = peers.iter().filter(|peer| !peer.unchoked).count()
        && waiting > 0
    {
        if clock::now() > deadline {
            return Err(format!(
                "the seeder has not unchoked {waiting} of {} peers: does it listen, and has it as many slots?",
                peers.len()
            )
            .into());
        }
        let Some(received) = device.receive(&mut buffer)? else { continue };
        let Some(segment) = segment::decode(received) else { continue };
        let flow = usize::from(segment.port.wrapping_sub(FIRST_PORT));
        let Some(peer) = peers.get_mut(flow) else { continue };
        peer.handle(&segment, &mut frame)?;
        if !frame.is_empty() {
            device.send(&frame)?;
        }
    }
    Ok(())
}

/// Asks and acknowledges until the end; the time it took.
fn take(sink: &Sink, device: &Device, flows: &Flows, peers: &mut [Peer]) -> Outcome<Duration> {
    let depth = u64::from(sink.depth.max(1));
    // Asked for together, so that the seeder finds enough for one large send.
    let lump = depth.div_ceil(2);
    let mut frame = Vec::new();
    for (flow, peer) in (0..).zip(&mut *peers) {
        flows.start_dropping(flow, peer.expected());
    }
    let started = clock::now();
    let end = started + sink.duration;
    let (mut now, mut last_progress) = (started, started);
    while now < end && peers.iter().map(|peer| peer.received).sum::<u64>() < sink.bytes {
        for (flow, peer) in (0..).zip(&mut *peers) {
            let progress = peer.handle_progress(flows.next(flow));
            let mut room = peer.room(depth);
            if room >= lump {
                while room > 0 {
                    room -= peer.request(room, &mut frame);
                    device.send(&frame)?;
                }
            } else if progress {
                peer.acknowledge(&mut frame);
                device.send(&frame)?;
            }
            if progress {
                last_progress = now;
            }
        }
        let round_end = now + ROUND;
        while now < round_end {
            now = clock::now();
        }
        if now.since(last_progress) > STALL_TIMEOUT {
            return Err("the seeder has stopped sending: what does it say?".into());
        }
    }
    Ok(now.since(started))
}

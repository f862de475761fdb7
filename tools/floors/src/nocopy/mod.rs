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

use crate::{NocopySink, Outcome, pin};
use bpf::Flows;
use device::Device;
use peer::{Peer, Walk};
use seedring::clock;
use seedring::metainfo::Metainfo;
use seedring::time::Duration;
use seedring::wire::{self, Decoder, DecoderLimits, Handshake, Message, Reserved};
use segment::Ends;
use std::net::SocketAddrV4;

/// Our ports, from this one on: any will do, as no other program has this address.
const FIRST_PORT: u16 = 20_000;
/// Longest time until every peer is unchoked.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without a byte from the seeder.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the largest frame that the near end hands over.
const FRAME_LEN_MAX: usize = 128 * 1024;

/// Takes blocks for the time asked for; prints a line of JSON when all peers are served, and one at the end.
pub fn run(sink: &NocopySink) -> Outcome<()> {
    pin(sink.pin)?;
    let metainfo = Metainfo::parse(&std::fs::read(&sink.torrent)?)?;
    let device = Device::open(&sink.far)?;
    let flows = Flows::attach(device.index, FIRST_PORT, sink.connections)?;
    let mut peers = peers(sink, &metainfo, device.address_of(&sink.near)?)?;
    open(&device, &mut peers)?;
    println!("{}", serde_json::json!({ "event": "serving", "connections": peers.len() }));
    let outcome = drain(sink, &device, &flows, &mut peers);
    let mut frame = Vec::new();
    for peer in &peers {
        peer.abort(&mut frame);
        device.send(&frame)?;
    }
    let nanos = outcome?;
    let received: u64 = peers.iter().map(|peer| peer.received).sum();
    let acknowledgements: u64 = peers.iter().map(|peer| peer.acknowledgements).sum();
    let least = peers.iter().map(|peer| peer.received).min();
    println!(
        "{}",
        serde_json::json!({
            "event": "done",
            "bytes": received,
            "nanos": nanos,
            "packets": flows.packets(),
            "acknowledgements": acknowledgements,
            "bytes_of_the_least": least,
        })
    );
    Ok(())
}

fn peers(sink: &NocopySink, metainfo: &Metainfo, their_device: [u8; 6]) -> Outcome<Vec<Peer>> {
    let info = metainfo.info();
    let peer = |flow: u16| {
        let mut peer_id = *b"-FL0100-000000000000";
        peer_id[8..13].copy_from_slice(format!("{flow:05}").as_bytes());
        let handshake = Handshake {
            reserved: Reserved::NONE,
            info_hash: metainfo.info_hash(),
            peer_id: seedring::id::PeerId(peer_id),
        };
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

/// Asks and acknowledges until the time is over; the nanoseconds it took.
fn drain(sink: &NocopySink, device: &Device, flows: &Flows, peers: &mut [Peer]) -> Outcome<u128> {
    let depth = u64::from(sink.depth.max(1));
    // Asked for together, so that the seeder finds enough for one large send.
    let lump = depth.div_ceil(2);
    let mut frame = Vec::new();
    for (flow, peer) in (0..).zip(&mut *peers) {
        flows.start_dropping(flow, peer.expected());
    }
    let started = clock::now();
    let end = started + Duration::from_secs(sink.seconds);
    let (mut now, mut last_progress) = (started, started);
    while now < end {
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
        now = clock::now();
        if now.since(last_progress) > STALL_TIMEOUT {
            return Err("the seeder has stopped sending: what does it say?".into());
        }
    }
    Ok(now.since(started).as_nanos())
}

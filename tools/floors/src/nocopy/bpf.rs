//! The device's receiving end: a program in the kernel that notes how far each flow has come and drops the payload
//! before the receive path would copy it.
//!
//! Zero-copy pages are copied where a packet enters the local receive path (`skb_orphan_frags_rx`), and the hook that
//! this program is attached to (TCX ingress, Linux 6.6) comes before that. What it drops is released like what
//! a real device has sent. It lets everything pass until a flow's `dropping` is set, so that the handshake
//! can be read. The instructions are written down here one by one, so no compiler for them is needed.
//! Source: bpf(2), and the instruction set in RFC 9669.
#![expect(unsafe_code, reason = "bpf(2) has no safe form, and its map is shared with the kernel")]

use super::Outcome;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
/// Bytes of the kernel's explanation why it refuses the program.
const LOG_LEN: usize = 64 * 1024;

/// What kernel and program share of one flow.
#[repr(C)]
struct Flow {
    /// Not zero: payload is noted and dropped.
    dropping: AtomicU32,
    /// The sequence number after the last byte that came.
    next: AtomicU32,
    /// Packets dropped, of any size up to what the sender's offload makes of them.
    packets: AtomicU32,
    unused: u32,
}
const FLOW_LEN: u32 = size_of::<Flow>() as u32;

/// The flows to the ports from the first one on, at one device. Dropping it detaches the program.
pub struct Flows {
    view: memmap2::MmapRaw,
    count: u16,
    _map: OwnedFd,
    _link: OwnedFd,
}

impl Flows {
    /// Attaches the program to the device of this index.
    pub fn attach(device: u32, first_port: u16, count: u16) -> Outcome<Self> {
        let refused = |what: &'static str| {
            move |error: std::io::Error| {
                format!("the kernel refuses the {what} (needs root and Linux 6.6 with BPF): {error}")
            }
        };
        let flows = u32::from(count.max(1));
        let map = [BPF_MAP_TYPE_ARRAY, size_of::<u32>() as u32, FLOW_LEN, flows, BPF_F_MMAPABLE];
        let map = create(BPF_MAP_CREATE, &map).map_err(refused("map"))?;
        let program = load(&program(map.as_raw_fd(), first_port))?;
        let link = [program.as_raw_fd() as u32, device, BPF_TCX_INGRESS, 0];
        let link = create(BPF_LINK_CREATE, &link).map_err(refused("program at the device"))?;
        let view = memmap2::MmapOptions::new().len((flows * FLOW_LEN) as usize).map_raw(map.as_raw_fd())?;
        Ok(Self { view, count, _map: map, _link: link })
    }

    fn flow(&self, flow: u16) -> &Flow {
        assert!(flow < self.count, "flow {flow} of {}", self.count);
        // SAFETY: the map has `count` values of `FLOW_LEN` bytes one behind the other, the mapping begins at
        // a page and lives as long as `self`, and every shared field is atomic.
        unsafe { &*self.view.as_ptr().cast::<Flow>().add(usize::from(flow)) }
    }

    /// From now on the flow's payload is dropped; everything before `next` has come.
    pub fn start_dropping(&self, flow: u16, next: u32) {
        let flow = self.flow(flow);
        flow.next.store(next, Relaxed);
        flow.dropping.store(1, Relaxed);
    }

    /// The sequence number after the last byte that came.
    pub fn next(&self, flow: u16) -> u32 {
        self.flow(flow).next.load(Relaxed)
    }

    /// Packets dropped of all flows.
    pub fn packets(&self) -> u64 {
        (0..self.count).map(|flow| u64::from(self.flow(flow).packets.load(Relaxed))).sum()
    }
}

/// bpf(2) with attributes of 32 bits each; what is made is named by a descriptor.
fn create(command: libc::c_long, fields: &[u32]) -> std::io::Result<OwnedFd> {
    let mut attributes = [0_u32; 32];
    attributes[..fields.len()].copy_from_slice(fields);
    // SAFETY: the attributes live until the call returns, and their length is told.
    let made =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
    let made = RawFd::try_from(made).ok().filter(|made| *made >= 0);
    // SAFETY: the kernel has just made this descriptor for us.
    made.map(|made| unsafe { OwnedFd::from_raw_fd(made) }).ok_or_else(std::io::Error::last_os_error)
}

fn load(instructions: &[u64]) -> Outcome<OwnedFd> {
    let mut log = vec![0_u8; LOG_LEN];
    let halves = |address: usize| [address as u32, (address as u64 >> 32) as u32];
    let [code_low, code_high] = halves(instructions.as_ptr() as usize);
    let [license_low, license_high] = halves(c"Dual MIT/GPL".as_ptr() as usize);
    let [log_low, log_high] = halves(log.as_mut_ptr() as usize);
    let count = instructions.len() as u32;
    let fields = [
        BPF_PROG_TYPE_SCHED_CLS,
        count,
        code_low,
        code_high,
        license_low,
        license_high,
        1,
        LOG_LEN as u32,
        log_low,
        log_high,
    ];
    create(BPF_PROG_LOAD, &fields).map_err(|error| {
        let log = String::from_utf8_lossy(&log);
        let log = log.trim_end_matches('\0');
        format!("the kernel refuses the program (needs root): {error}\n{log}").into()
    })
}

/// One instruction: operation, destination and source register, jump or memory offset, constant.
const fn instruction(operation: u8, destination: u8, source: u8, offset: i16, constant: i32) -> u64 {
    (operation as u64)
        | (destination as u64) << 8
        | (source as u64) << 12
        | (offset as u16 as u64) << 16
        | (constant as u32 as u64) << 32
}

/// The program for IPv4 without options, TCP, and the ports from `first_port` on.
fn program(map: RawFd, first_port: u16) -> Vec<u64> {
    use instruction as op;
    const LOAD8: u8 = 0x71;
    const LOAD16: u8 = 0x69;
    const LOAD32: u8 = 0x61;
    const STORE32: u8 = 0x63;
    const MOVE: u8 = 0xbf;
    const MOVE32: u8 = 0xbc;
    const ADD: u8 = 0x07;
    const TO_BIG_ENDIAN: u8 = 0xdc;
    const JUMP_GREATER: u8 = 0x2d;
    const JUMP_NOT: u8 = 0x55;
    const PASS: i16 = i16::MAX;
    let mut code = vec![
        op(MOVE, 6, 1, 0, 0),    // r6 = packet
        op(LOAD32, 2, 6, 76, 0), // r2 = first byte
        op(LOAD32, 3, 6, 80, 0), // r3 = end of what is linear: headers of Ethernet, IP, TCP at least
        op(MOVE, 4, 2, 0, 0),
        op(ADD, 4, 0, 0, 54),
        op(JUMP_GREATER, 4, 3, PASS, 0),
        op(LOAD16, 5, 2, 12, 0), // IPv4
        op(JUMP_NOT, 5, 0, PASS, 0x0008),
        op(LOAD8, 5, 2, 14, 0), // of twenty bytes
        op(JUMP_NOT, 5, 0, PASS, 0x45),
        op(LOAD8, 5, 2, 23, 0), // TCP
        op(JUMP_NOT, 5, 0, PASS, 6),
        op(LOAD8, 5, 2, 47, 0), // no SYN, FIN or RST
        op(0x57, 5, 0, 0, 0b111),
        op(JUMP_NOT, 5, 0, PASS, 0),
        op(LOAD32, 7, 2, 38, 0), // r7 = sequence number
        op(TO_BIG_ENDIAN, 7, 0, 0, 32),
        op(LOAD32, 8, 6, 0, 0), // r8 = bytes of payload
        op(LOAD8, 5, 2, 46, 0),
        op(0x77, 5, 0, 0, 4),
        op(0x67, 5, 0, 0, 2),
        op(0x1f, 8, 5, 0, 0),
        op(ADD, 8, 0, 0, -34),
        op(LOAD16, 5, 2, 36, 0), // key = port - first port
        op(TO_BIG_ENDIAN, 5, 0, 0, 16),
        op(ADD, 5, 0, 0, -i32::from(first_port)),
        op(STORE32, 10, 5, -4, 0),
        op(0x18, 1, 1, 0, map), // r0 = the flow
        op(0, 0, 0, 0, 0),
        op(MOVE, 2, 10, 0, 0),
        op(ADD, 2, 0, 0, -4),
        op(0x85, 0, 0, 0, 1),
        op(0x15, 0, 0, PASS, 0),
        op(LOAD32, 1, 0, 0, 0), // dropping?
        op(0x15, 1, 0, PASS, 0),
        op(0x0c, 7, 8, 0, 0),   // w7 = the next sequence number
        op(LOAD32, 2, 0, 4, 0), // beyond the one noted, by modular comparison?
        op(MOVE32, 3, 7, 0, 0),
        op(0x1c, 3, 2, 0, 0),
        op(0xd6, 3, 0, 1, 0),
        op(STORE32, 0, 7, 4, 0),
        op(LOAD32, 1, 0, 8, 0), // one packet more
        op(ADD, 1, 0, 0, 1),
        op(STORE32, 0, 1, 8, 0),
        op(0xb7, 0, 0, 0, 2), // drop
        op(0x95, 0, 0, 0, 0),
    ];
    let pass = code.len();
    code.extend([op(0xb7, 0, 0, 0, 0), op(0x95, 0, 0, 0, 0)]);
    for (index, instruction) in code.iter_mut().enumerate() {
        if (*instruction >> 16) as i16 == PASS {
            let offset = (pass - index - 1) as u64;
            *instruction = *instruction & !0xffff_0000 | offset << 16;
        }
    }
    code
}

//! Datagrams in batches: up to [`Batch::new`]'s number are received with one recvmmsg(2), and what they are answered
//! with leaves through one sendmmsg(2), each answer to where its datagram came from, and from the address that it was
//! sent to where the socket tells that ([`tell_destinations`]): a machine has many addresses, and clients and routers
//! drop what comes from another than they asked.
//!
//! A system call for each datagram is a fifth of what a small one costs; the rest is the kernel's way through the
//! network stack, which no batch makes shorter. Nothing waits here: sockets are expected not to block, and an answer for
//! which there is no room is dropped, as the network may drop it too. Deliberately absent: coalescing (UDP_GRO,
//! UDP_SEGMENT), since a tracker's datagrams all come from elsewhere.
#![expect(unsafe_code, reason = "recvmmsg(2) and sendmmsg(2) take addresses and have no safe wrapper")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Datagrams received together, and the answers to them. All memory is taken at the beginning.
pub struct Batch {
    /// Room for the datagrams, `stride` bytes each.
    room: Box<[u8]>,
    /// Bytes of the longest datagram that is read whole.
    len_max: usize,
    /// An odd number of cache lines, so that the beginnings of all datagrams do not fall into the same few sets.
    stride: usize,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    lens: Vec<usize>,
    answers: Vec<u8>,
    /// Where each answer ends, and to whose datagram it belongs.
    ends: Vec<(usize, usize)>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

/// Where a datagram came from, as the kernel writes it: a sockaddr_in or a sockaddr_in6.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
struct Name {
    bytes: [u8; NAME_LEN],
    len: libc::socklen_t,
}

/// A control message about the address that a datagram was sent to, as the kernel writes and reads it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_LEN],
    len: usize,
}

/// Bytes of a control message with an in6_pktinfo, which is longer than an in_pktinfo.
const CONTROL_LEN: usize = 40;
// SAFETY: CMSG_SPACE is arithmetic.
const _: () =
    assert!(CONTROL_LEN == unsafe { libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32) } as usize);
const _: () = assert!(align_of::<libc::cmsghdr>() <= 8);

const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();
const _: () = assert!(NAME_LEN == 28 && align_of::<libc::sockaddr_in6>() == 4);

impl Batch {
    /// Room for `datagrams` of at most `len_max` bytes each; longer ones are cut off there.
    pub fn new(datagrams: usize, len_max: usize) -> Self {
        let stride = 64 * (len_max.div_ceil(64) | 1);
        // SAFETY: all of these are plain integers and addresses, for which zero is a value.
        let (vector, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            room: vec![0; datagrams * stride].into(),
            len_max,
            stride,
            names: vec![Name { bytes: [0; NAME_LEN], len: 0 }; datagrams].into(),
            controls: vec![Control { bytes: [0; CONTROL_LEN], len: 0 }; datagrams].into(),
            lens: Vec::with_capacity(datagrams),
            answers: Vec::with_capacity(datagrams * len_max / 4),
            ends: Vec::with_capacity(datagrams),
            vectors: vec![vector; datagrams].into(),
            headers: vec![header; datagrams].into(),
        }
    }

    /// Replaces the batch by what `socket` holds, without waiting. Returns the number of datagrams, at least one.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; others as the system gives them, the batch then being empty.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.lens.clear();
        let entries =
            self.vectors.iter_mut().zip(&mut self.headers).zip(&mut self.names).zip(&mut self.controls);
        for (room, (((vector, header), name), control)) in
            self.room.chunks_exact_mut(self.stride).zip(entries)
        {
            *vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: self.len_max };
            header.msg_hdr.msg_name = ptr::from_mut(&mut name.bytes).cast();
            header.msg_hdr.msg_namelen = NAME_LEN as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = ptr::from_mut(&mut control.bytes).cast();
            header.msg_hdr.msg_controllen = CONTROL_LEN;
        }
        // SAFETY: each header names one name, one control buffer and one vector, each vector `len_max` bytes of `room`; all
        // of them are borrowed by this function alone and outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let entries = self.headers.iter().zip(&mut self.names).zip(&mut self.controls);
        for ((header, name), control) in entries.take(received) {
            self.lens.push((header.msg_len as usize).min(self.len_max));
            name.len = header.msg_hdr.msg_namelen.min(NAME_LEN as libc::socklen_t);
            control.len = header.msg_hdr.msg_controllen.min(CONTROL_LEN);
            control.turn_round();
        }
        Ok(received)
    }

    /// The datagrams with their sources. One whose source is no IP address is left out.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let rooms = self.room.chunks_exact(self.stride);
        rooms
            .zip(&self.lens)
            .zip(&self.names)
            .filter_map(|((room, &len), name)| Some((room.get(..len)?, name.address()?)))
    }

    /// Lets `answer` append the answer to each datagram, and sends those that are not empty. Returns how many the system
    /// took.
    pub fn answer_each(
        &mut self,
        socket: impl AsFd,
        mut answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>),
    ) -> usize {
        self.answers.clear();
        self.ends.clear();
        for (place, (room, &len)) in self.room.chunks_exact(self.stride).zip(&self.lens).enumerate() {
            let Some((datagram, source)) = room.get(..len).zip(self.names[place].address()) else { continue };
            let before = self.answers.len();
            answer(datagram, source, &mut self.answers);
            if self.answers.len() > before {
                self.ends.push((self.answers.len(), place));
            }
        }
        self.send(socket)
    }

    fn send(&mut self, socket: impl AsFd) -> usize {
        let mut begin = 0;
        let entries = self.vectors.iter_mut().zip(&mut self.headers);
        for (&(end, place), (vector, header)) in self.ends.iter().zip(entries) {
            let answer = &self.answers[begin..end];
            begin = end;
            *vector = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() };
            let (name, control) = (&self.names[place], &self.controls[place]);
            header.msg_hdr.msg_control = if control.len == 0 {
                ptr::null_mut()
            } else {
                ptr::from_ref(&control.bytes).cast_mut().cast()
            };
            header.msg_hdr.msg_controllen = control.len;
            header.msg_hdr.msg_name = ptr::from_ref(&name.bytes).cast_mut().cast();
            header.msg_hdr.msg_namelen = name.len;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let (mut sent, mut next) = (0, 0);
        while let Some(rest @ [_, ..]) = self.headers.get_mut(next..self.ends.len()) {
            // SAFETY: each header names one name, at most one control message and one vector, each vector one answer; all of
            // them are borrowed by this function alone, outlive the call, and are only read.
            let taken = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(taken) {
                Ok(taken) => {
                    sent += taken;
                    next += taken.max(1);
                }
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => break,
                // This one cannot be sent, to a network without a route for instance; the others may be.
                Err(_) => next += 1,
            }
        }
        sent
    }
}

/// Has the kernel tell for each datagram to which of this machine's addresses it was sent, so that a [`Batch`] answers from
/// that one. For sockets that are bound to all addresses; others have no choice.
///
/// # Errors
/// As the system gives them.
pub fn tell_destinations(socket: impl AsFd, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the option takes one int, which outlives the call and is only read.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Control {
    /// Makes of what the kernel told what it is to be told: to send from that address, over whichever interface leads
    /// there, except that a link-local address means something on its own interface only. Anything unexpected is
    /// forgotten, and the kernel then chooses.
    fn turn_round(&mut self) {
        const LEN_LEN: usize = size_of::<usize>();
        const HEADER_LEN: usize = LEN_LEN + 8;
        let told = std::mem::take(&mut self.len);
        let b = &mut self.bytes;
        let number = |at: usize| libc::c_int::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let mut len = [0; LEN_LEN];
        len.copy_from_slice(&b[..LEN_LEN]);
        let (len, level, kind) = (usize::from_ne_bytes(len), number(LEN_LEN), number(LEN_LEN + 4));
        match (level, kind) {
            // ipi_ifindex, ipi_spec_dst (the local address), ipi_addr (what stood in the datagram).
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if told >= len && len == HEADER_LEN + 12 => {
                b[HEADER_LEN..HEADER_LEN + 4].fill(0);
            }
            // ipi6_addr, ipi6_ifindex.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if told >= len && len == HEADER_LEN + 20 => {
                let is_link_local = b[HEADER_LEN] == 0xfe && b[HEADER_LEN + 1] & 0xc0 == 0x80;
                let is_multicast = b[HEADER_LEN] == 0xff;
                if is_multicast {
                    return;
                }
                if !is_link_local {
                    b[HEADER_LEN + 16..HEADER_LEN + 20].fill(0);
                }
            }
            _ => return,
        }
        self.len = told;
    }
}

impl Name {
    /// `None` when it is no IP address.
    fn address(&self) -> Option<SocketAddr> {
        let b = &self.bytes;
        let port = u16::from_be_bytes([b[2], b[3]]);
        match libc::c_int::from(u16::from_ne_bytes([b[0], b[1]])) {
            libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::new(b[4], b[5], b[6], b[7]), port).into()),
            libc::AF_INET6 => {
                let ip: [u8; 16] = b[8..24].try_into().ok()?;
                let scope = u32::from_ne_bytes(b[24..28].try_into().ok()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn bound(ip: &str) -> UdpSocket {
        UdpSocket::bind((ip, 0)).expect("loopback has free ports")
    }

    fn answers_come_back_to_who_asked(ip: &str) {
        let server = bound(ip);
        let clients = [bound(ip), bound(ip), bound(ip)];
        let mut batch = Batch::new(8, 32);
        assert_eq!(batch.receive(&server).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        for (number, client) in (0..).zip(&clients) {
            client.connect(server.local_addr().unwrap()).unwrap();
            client.send(&[number; 40][..10 + 15 * usize::from(number)]).unwrap();
        }
        assert_eq!(batch.receive(&server).unwrap(), 3);
        let lens: Vec<_> = batch.datagrams().map(|(datagram, source)| (datagram.len(), source)).collect();
        let sources = clients.each_ref().map(|client| client.local_addr().unwrap());
        assert_eq!(lens, [(10, sources[0]), (25, sources[1]), (32, sources[2])]);
        // The second is not answered.
        let answered = batch.answer_each(&server, |datagram, source, out| {
            assert_eq!(source, sources[usize::from(datagram[0])]);
            if datagram[0] != 1 {
                out.extend_from_slice(&datagram[..1 + usize::from(datagram[0])]);
            }
        });
        assert_eq!(answered, 2);
        let mut answer = [0; 64];
        assert_eq!(clients[0].recv(&mut answer).map(|len| answer[..len].to_vec()).unwrap(), [0]);
        assert_eq!(clients[2].recv(&mut answer).map(|len| answer[..len].to_vec()).unwrap(), [2; 3]);
    }

    #[test]
    fn answers_come_back_over_ipv4() {
        answers_come_back_to_who_asked("127.0.0.1");
    }

    #[test]
    fn answers_come_back_over_ipv6() {
        if UdpSocket::bind("[::1]:0").is_ok() {
            answers_come_back_to_who_asked("::1");
        }
    }

    /// Asks a socket that is bound to all addresses at `asked`, from a client that hears that address only.
    fn is_answered_from(everywhere: &str, asked: &str) {
        let (server, client) = (bound(everywhere), bound(asked));
        tell_destinations(&server, everywhere.contains(':')).unwrap();
        let (ip, port) = (asked.parse::<std::net::IpAddr>().unwrap(), server.local_addr().unwrap().port());
        let mut batch = Batch::new(4, 32);
        for _ in 0..2 {
            client.send_to(b"x", (ip, port)).unwrap();
            assert_eq!(batch.receive(&server).unwrap(), 1);
            assert_eq!(batch.answer_each(&server, |_, _, out| out.push(7)), 1);
            let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, (ip, port).into());
        }
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        is_answered_from("0.0.0.0", "127.0.0.1");
        // From 127.0.0.3 a datagram to 127.0.0.2 would be answered from 127.0.0.1 or .3 if the kernel chose.
        let (server, client) = (bound("0.0.0.0"), bound("127.0.0.3"));
        tell_destinations(&server, false).unwrap();
        client.connect(("127.0.0.2", server.local_addr().unwrap().port())).unwrap();
        let mut batch = Batch::new(4, 32);
        client.send(b"x").unwrap();
        assert_eq!(batch.receive(&server).unwrap(), 1);
        assert_eq!(batch.answer_each(&server, |_, _, out| out.push(7)), 1);
        // A connected socket hears nobody else.
        assert_eq!(client.recv(&mut [0; 8]).unwrap(), 1);
        if UdpSocket::bind("[::1]:0").is_ok() {
            is_answered_from("::", "::1");
        }
    }

    #[test]
    fn control_messages_that_nobody_expects_are_forgotten() {
        let mut control = Control { bytes: [0xee; CONTROL_LEN], len: CONTROL_LEN };
        control.turn_round();
        assert_eq!(control.len, 0);
        let mut control = Control { bytes: [0; CONTROL_LEN], len: 0 };
        control.turn_round();
        assert_eq!(control.len, 0);
    }

    #[test]
    fn an_answer_that_cannot_be_sent_does_not_hold_up_the_others() {
        let (server, one, two) = (bound("127.0.0.1"), bound("127.0.0.1"), bound("127.0.0.1"));
        for client in [&one, &two] {
            client.send_to(b"x", server.local_addr().unwrap()).unwrap();
        }
        let mut batch = Batch::new(4, 16);
        assert_eq!(batch.receive(&server).unwrap(), 2);
        let mut first = true;
        // No datagram holds so much.
        let answered = batch.answer_each(&server, |_, _, out| {
            out.resize(out.len() + if first { 70_000 } else { 5 }, 7);
            first = false;
        });
        assert_eq!(answered, 1);
        assert_eq!(two.recv(&mut [0; 64]).unwrap(), 5);
    }
}

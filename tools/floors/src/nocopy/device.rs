//! A socket that sends and receives whole frames at one device (packet(7)).
//!
//! It is bound to IPv4 alone: a socket for all protocols would be handed its copy before any program at the device's
//! ingress can drop the packet, and that copy is the very one that must not be made.
#![expect(unsafe_code, reason = "packet sockets' addresses and the query for a device's have no safe form")]

use super::Outcome;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};

/// A device and the socket at it.
pub struct Device {
    socket: OwnedFd,
    /// The kernel's number for it.
    pub index: u32,
}

impl Device {
    /// Opens the device of this name.
    pub fn open(name: &str) -> Outcome<Self> {
        let protocol = (libc::ETH_P_IP as u16).to_be();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Bound below: until then it receives nothing.
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
            .map_err(|error| format!("cannot open a packet socket (needs root): {error}"))?;
        let index = netdevice::name_to_index(&socket, name)
            .map_err(|error| format!("no device is called {name:?}: {error}"))?;
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = i32::try_from(index)?;
        // SAFETY: the address lives until the call returns, and its length is told.
        let bound = unsafe {
            let len = size_of_val(&address) as libc::socklen_t;
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len)
        };
        if bound != 0 {
            return Err(format!("cannot bind to {name}: {}", std::io::Error::last_os_error()).into());
        }
        Ok(Self { socket, index })
    }

    /// The Ethernet address of a device by its name.
    pub fn address_of(&self, name: &str) -> Outcome<[u8; 6]> {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(format!("{name:?} is too long for a device's name").into());
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        // SAFETY: this query reads the name, which ends in a zero, and writes within the structure.
        let found = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
        if found != 0 {
            return Err(format!("no device is called {name:?}: {}", std::io::Error::last_os_error()).into());
        }
        // SAFETY: the query has filled this member.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(std::array::from_fn(|at| data[at] as u8))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Outcome<()> {
        loop {
            match rustix::net::send(&self.socket, frame, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR | Errno::AGAIN | Errno::NOBUFS) => {}
                Err(error) => return Err(format!("cannot send a frame: {error}").into()),
            }
        }
    }

    /// Receives one frame; `None` when none is there.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Outcome<Option<&'a [u8]>> {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((len, _)) => Ok(Some(&buffer[..len])),
            Err(Errno::INTR | Errno::AGAIN) => Ok(None),
            Err(error) => Err(format!("cannot receive frames: {error}").into()),
        }
    }
}

//! The UDP socket of a shard: non-blocking, large buffers, many datagrams per system call where the system can.
//!
//! A datagram that the kernel does not take at once is dropped and counted: voice that waits is worth nothing, and so
//! no queue grows here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use mio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams handed to the kernel in one call.
pub(super) const BATCH_LEN_MAX: usize = 64;
/// Largest datagram read; WebRTC stays below 1,500 bytes.
pub(super) const DATAGRAM_BYTES_MAX: usize = 2_000;
/// Kernel buffers asked for: a second of two full rooms. The system may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

pub(super) struct UdpPort {
    pub(super) socket: UdpSocket,
    is_v6: bool,
    batch: Vec<(SocketAddr, Range<usize>)>,
    /// The bytes of the batch, one datagram after the other: no allocation for each.
    bytes: Vec<u8>,
    /// Datagrams that the kernel would not take.
    pub(super) dropped: u64,
}

impl UdpPort {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Less than asked for is no reason not to start.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into());
        let batch = Vec::with_capacity(BATCH_LEN_MAX);
        let bytes = Vec::with_capacity(BATCH_LEN_MAX * DATAGRAM_BYTES_MAX);
        Ok(Self { socket, is_v6: address.is_ipv6(), batch, bytes, dropped: 0 })
    }

    /// The next datagram, or `None` when there is none now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        match self.socket.recv_from(buffer) {
            Ok((length, source)) => Ok(Some((length, SocketAddr::new(source.ip().to_canonical(), source.port())))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // A port unreachable message for something sent before; says nothing about the next datagram.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Ok(Some((0, SocketAddr::from(([0; 4], 0)))))
            }
            Err(error) => Err(error),
        }
    }

    /// Send with the next flush, or at once when the batch is full.
    pub(super) fn queue(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.write(to, |bytes| {
            bytes.extend_from_slice(datagram);
            true
        });
    }

    /// Like [`Self::queue`], for a datagram that `write` appends to the bytes it gets; it says whether it is to be sent.
    pub(super) fn write(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let begin = self.bytes.len();
        if !write(&mut self.bytes) {
            self.bytes.truncate(begin);
            return false;
        }
        let to = match to.ip() {
            IpAddr::V4(v4) if self.is_v6 => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        self.batch.push((to, begin..self.bytes.len()));
        if self.batch.len() >= BATCH_LEN_MAX {
            self.flush();
        }
        true
    }

    pub(super) fn flush(&mut self) {
        let mut rest = self.batch.as_slice();
        while !rest.is_empty() {
            match send_some(&self.socket, rest, &self.bytes) {
                Ok(sent) => rest = &rest[sent.max(1).min(rest.len())..],
                // Full: the rest is too late already.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The first one cannot be sent (no route, say); the others may.
                Err(_) => {
                    self.dropped += 1;
                    rest = &rest[1..];
                }
            }
        }
        self.dropped += rest.len() as u64;
        self.batch.clear();
        self.bytes.clear();
    }
}

/// Send as many as the kernel takes in one call; at least one, or an error about the first.
#[cfg(target_os = "linux")]
fn send_some(socket: &UdpSocket, batch: &[(SocketAddr, Range<usize>)], bytes: &[u8]) -> io::Result<usize> {
    use std::io::IoSlice;

    use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

    let batch = &batch[..batch.len().min(BATCH_LEN_MAX)];
    let addresses: Vec<SocketAddrAny> = batch.iter().map(|(to, _)| (*to).into()).collect();
    let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|(_, range)| [IoSlice::new(&bytes[range.clone()])]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        batch.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = addresses
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((address, slice), control)| MMsgHdr::new_with_addr(address, slice, control))
        .collect();
    Ok(sendmmsg(socket, &mut messages, SendFlags::DONTWAIT)?)
}

#[cfg(not(target_os = "linux"))]
fn send_some(socket: &UdpSocket, batch: &[(SocketAddr, Range<usize>)], bytes: &[u8]) -> io::Result<usize> {
    let Some((to, range)) = batch.first() else { return Ok(0) };
    socket.send_to(&bytes[range.clone()], *to).map(|_| 1)
}

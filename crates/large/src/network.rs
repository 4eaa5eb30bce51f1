//! smoltcp: a TCP connection of a program with itself, over a device that gives back what it gets.

use alloc::vec;

use rt0::time::Instant as Clock;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Loopback, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

const PORT: u16 = 1234;
const SENT: &[u8] = b"from one end to the other";

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; 1024]);
    Socket::new(buffer(), buffer())
}

/// What one end sends, the other one receives.
pub fn a_connection_carries_data() -> bool {
    let start = Clock::now();
    let now = || Instant::from_micros(start.elapsed().as_micros() as i64);
    let mut device = Loopback::new(Medium::Ip);
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, now());
    let address = IpAddress::v4(127, 0, 0, 1);
    interface.update_ip_addrs(|addresses| addresses.extend([IpCidr::new(address, 8)]));
    let mut sockets = SocketSet::new(vec![]);
    let (server, client) = (sockets.add(socket()), sockets.add(socket()));
    if sockets.get_mut::<Socket>(server).listen(PORT).is_err() {
        return false;
    }
    if sockets.get_mut::<Socket>(client).connect(interface.context(), (address, PORT), 65_000).is_err() {
        return false;
    }
    let mut sent = false;
    // Some packets are enough; each round moves those that are under way.
    for _ in 0..1000 {
        interface.poll(now(), &mut device, &mut sockets);
        let client = sockets.get_mut::<Socket>(client);
        if client.can_send() && !sent {
            sent = client.send_slice(SENT) == Ok(SENT.len());
        }
        let server = sockets.get_mut::<Socket>(server);
        if server.can_recv() {
            return server.recv(|bytes| (bytes.len(), bytes == SENT)) == Ok(true);
        }
        rt0::thread::yield_now();
    }
    false
}

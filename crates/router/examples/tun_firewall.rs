//! A masquerading firewall between two TUN interfaces: lan0 (10.1.0.0/24) and wan0 (192.0.2.0/24). It needs root.
//!
//! cargo run -p keepstate-router --example tun_firewall
//!
//! It makes the interfaces; move each into a network namespace and talk through it:
//!     ip netns add client; ip link set lan0 netns client
//!     ip -n client addr add 10.1.0.2/24 dev lan0; ip -n client link set lan0 up; ip -n client route add default via 10.1.0.1
//!     ip netns add server; ip link set wan0 netns server
//!     ip -n server addr add 192.0.2.2/24 dev wan0; ip -n server link set wan0 up
//!     ip netns exec client ping -c 3 192.0.2.2
#![allow(unsafe_code, clippy::indexing_slicing, reason = "an ioctl makes a TUN interface; an example is to be short")]

use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_router::{Egress, FibTable, Interface, Route, Router};
use keepstate_rules::{NoIncludes, compile, parse_with};
use rustix::event::{PollFd, PollFlags, poll};
use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant as Clock;

const RULES: &str = "
table ip filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname lan0 ct state new accept
    }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat; oifname wan0 masquerade; }
}";

fn main() -> Result<(), Box<dyn Error>> {
    let (ruleset, sources) = parse_with("firewall.nft", RULES, &NoIncludes, &[])?;
    let lan = Interface::new(1, "lan0", 1500).with_address([10, 1, 0, 1].into(), 24);
    let wan = Interface::new(2, "wan0", 1500).with_address([192, 0, 2, 1].into(), 24);
    let default = Route::new([0; 4].into(), 0, wan.index).via([192, 0, 2, 2].into());
    let fib = FibTable::new(vec![lan, wan], vec![default]);
    let key = std::fs::read("/proc/sys/kernel/random/uuid")?;
    let secret = Secret(*key.first_chunk().ok_or("no randomness")?);
    let engine = Engine::new(Sysctls::default(), secret);
    let mut router = Router::new(engine, compile(&ruleset, &sources)?, fib, (u64::from(key[20]), u64::from(key[30])));

    // A clock that nobody sets: timeouts go by it.
    let started = Clock::now();
    let now = || u64::try_from(started.elapsed().as_nanos()).map(Instant);
    let mut tuns = [tun("lan0")?, tun("wan0")?];
    let mut buffer = vec![0; 65_536];
    loop {
        router.poll(now()?);
        let idle = match router.next_wake(now()?) {
            Some(due) => Some(due.since(now()?).try_into()?),
            None => None,
        };
        poll(&mut tuns.each_ref().map(|tun| PollFd::new(tun, PollFlags::IN)), idle.as_ref())?;
        for (tun, iif) in tuns.iter_mut().zip(1..) {
            while let Some(length) = ready(tun.read(&mut buffer))? {
                if let Err(reason) = router.handle(&buffer[..length], iif, now()?) {
                    println!("dropped a packet of {length} bytes: {reason}");
                }
            }
        }
        while let Some(out) = router.poll_output() {
            if let Egress::Forward { oif, packet, .. } = out {
                ready(tuns[oif as usize - 1].write(&packet))?;
            }
        }
        while let Some(line) = router.poll_log() {
            println!("{line}");
        }
    }
}

/// Makes a TUN interface.
fn tun(name: &str) -> std::io::Result<File> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(libc::IFF_TUN | libc::IFF_NO_PI).to_le_bytes()[..2]);
    // SAFETY: the request is as long as an ifreq and outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    if made == 0 { Ok(file) } else { Err(std::io::Error::last_os_error()) }
}

/// `None` if the interface has no packet, no room, or is down.
fn ready(done: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match done {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EIO) => Ok(None),
        Err(error) => Err(error),
    }
}

//! The guest's network card: the address is set by hand, since there is no program here that would, and what comes to
//! the port for echoes goes back. The kernel answers pings by itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::talk::{GUEST, PORT, PREFIX};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netdevice, recv, send, socket};

use crate::settings;

const MODULE: &str = "/modules/xen-netfront.ko";
const CARD: &str = "eth0";
/// Between two looks for the card.
const STEP: Duration = Duration::from_millis(50);
/// Looks before it is given up: a minute.
const LOOKS_MAX: u32 = 1200;

/// linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h, linux/if.h.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;

/// Begins to answer.
pub fn start() {
    thread::spawn(|| {
        if let Err(error) = serve() {
            println!("WRONG network: {error:#}");
        }
    });
}

fn serve() -> Result<()> {
    settings::load(MODULE)?;
    let index = card()?;
    ask(RTM_NEWADDR, &address(index)).context("address")?;
    ask(RTM_NEWLINK, &up(index)).context("link")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("port")?;
    println!("GUEST answers at {GUEST}");
    for stream in listener.incoming().flatten() {
        // A connection of before a restore never ends here; it costs a thread.
        thread::spawn(move || echo(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 512];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(bytes.get(..length).unwrap_or_default()).is_err() {
            return;
        }
    }
}

/// The card's number, once there is one.
fn card() -> Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).context("socket")?;
    for _ in 0..LOOKS_MAX {
        if let Ok(index) = netdevice::name_to_index(&any, CARD) {
            return Ok(index);
        }
        thread::sleep(STEP);
    }
    bail!("there is no {CARD}")
}

/// struct ifaddrmsg and two attributes.
fn address(index: u32) -> Vec<u8> {
    let mut body = vec![AF_INET, PREFIX, 0, 0];
    body.extend(index.to_le_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend([8_u16, kind].iter().flat_map(|half| half.to_le_bytes()));
        body.extend(GUEST.octets());
    }
    body
}

/// struct ifinfomsg: family, type, index, flags, and which of them to change.
fn up(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend([index, IFF_UP, IFF_UP].iter().flat_map(|word| word.to_le_bytes()));
    body
}

/// One request to the kernel, and its answer.
fn ask(kind: u16, body: &[u8]) -> Result<()> {
    let kernel = socket(AddressFamily::NETLINK, SocketType::RAW, None).context("netlink")?;
    let length = u32::try_from(16 + body.len())?;
    let mut message = length.to_le_bytes().to_vec();
    message.extend([kind, NLM_F_REQUEST | NLM_F_ACK].iter().flat_map(|half| half.to_le_bytes()));
    message.extend([0; 8]);
    message.extend_from_slice(body);
    send(&kernel, &message, SendFlags::empty()).context("send")?;
    let mut answer = [0_u8; 256];
    let (length, _) = recv(&kernel, &mut answer[..], RecvFlags::empty()).context("answer")?;
    let answer = answer.get(..length).unwrap_or_default();
    let half = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(-1, i32::from_le_bytes);
    ensure!(half == NLMSG_ERROR && error == 0, "the kernel answers with {half}, {error}");
    Ok(())
}

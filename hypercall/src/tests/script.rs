//! A scripted Xen 4.17 and the domctls of one domain.

use zerocopy::FromBytes;

use crate::abi::domctl as raw;
use crate::abi::xen::{HYPERVISOR_DOMCTL, HYPERVISOR_XEN_VERSION};
use crate::transport::fake::{Call, Fake, Memory};
use crate::{DomHandle, DomId, Domctl};

pub const DOMAIN: DomId = DomId::new(7);
pub const HANDLE: DomHandle = DomHandle::new(*b"sixteen bytes---");

/// A Xen 4.17.
pub fn domctl(fake: &Fake) -> Domctl<&Fake> {
    fake.expect(|call, _| {
        assert_eq!((call.number, call.args.as_slice()), (HYPERVISOR_XEN_VERSION, &[0, 0][..]));
        0x0004_0011
    });
    Domctl::probe(fake).unwrap()
}

/// The frame of a domctl as it lies in the caller's memory.
pub fn frame(call: &Call, memory: &mut Memory) -> raw::Domctl {
    assert_eq!((call.number, call.args.len()), (HYPERVISOR_DOMCTL, 1));
    memory.read(call.args[0])
}

/// The operation's own structure in a frame.
pub fn payload<P: FromBytes>(frame: &raw::Domctl) -> P {
    use zerocopy::IntoBytes;
    P::read_from_prefix(frame.payload.as_bytes()).unwrap().0
}

/// Where the operation's own structure lies in the caller's memory.
pub fn payload_at(call: &Call) -> u64 {
    call.args[0] + 16
}

/// Expects a domctl `cmd` on [`DOMAIN`]; `answer` gets its structure, changes it and returns Xen's value.
pub fn expect<P>(fake: &Fake, cmd: u32, answer: impl FnOnce(&mut P, &mut Memory) -> i64 + 'static)
where
    P: FromBytes + zerocopy::IntoBytes + zerocopy::Immutable + 'static,
{
    fake.expect(move |call, memory| {
        let frame = frame(call, memory);
        assert_eq!((frame.cmd, frame.interface_version, frame.domain), (cmd, 0x15, 7));
        let mut structure = payload::<P>(&frame);
        let value = answer(&mut structure, memory);
        memory.write(payload_at(call), &structure);
        value
    });
}

/// Expects getdomaininfo and answers for [`DOMAIN`] with [`HANDLE`] and these flags.
pub fn expect_info(fake: &Fake, flags: u32) {
    expect::<raw::GetDomainInfo>(fake, raw::GETDOMAININFO, move |info, _| {
        info.domain = DOMAIN.raw();
        info.handle = HANDLE.raw();
        info.flags = flags;
        0
    });
}

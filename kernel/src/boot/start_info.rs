//! start_info: what the domain builder tells a PV kernel (xen/include/public/xen.h, struct start_info).
//!
//! The page is copied once and parsed from the copy. A magic or a layout that does not make sense is an error with a
//! name, since a kernel that guesses here writes over its own page tables.

use xen_hypercall::abi::start_info::{MAX_GUEST_CMDLINE, SIF_INITDOMAIN, StartInfo as Raw};
use xen_hypercall::{EvtchnPort, Mfn};

use super::VIRT_BASE;

/// Most memory that the 1:1 map has room for: it must end below the second L4 slot, where the window lives.
const MAX_PAGES: u64 = (1 << 27) - (VIRT_BASE >> 12);

/// Why a start_info is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartInfoError {
    /// The magic is not "xen-3.0-x86_64": not a 64-bit PV domain builder.
    Magic,
    /// More or fewer pages than this kernel can use.
    Pages(u64),
    /// A table or page lies outside the domain's memory, or is not page-aligned.
    Outside(&'static str, u64),
}

/// The checked copy. Addresses are virtual and inside the 1:1 map.
#[derive(Debug, Clone)]
pub struct StartInfo {
    /// Pages of the domain, all populated.
    pub nr_pages: u64,
    /// Frame of the shared_info page.
    pub shared_info: Mfn,
    /// Whether the domain is dom0 (a boot without a toolstack): no xenstore, no console ring.
    pub initial_domain: bool,
    /// Frame of the xenstore ring.
    pub store: Mfn,
    /// Event channel of the xenstore ring.
    pub store_port: EvtchnPort,
    /// Frame of the console ring.
    pub console: Mfn,
    /// Event channel of the console ring.
    pub console_port: EvtchnPort,
    /// The L4 that Xen runs us on.
    pub page_table: u64,
    /// pfn -> mfn list, `nr_pages` entries.
    pub mfn_list: u64,
    command_line: [u8; MAX_GUEST_CMDLINE],
}

impl StartInfo {
    /// Reads the page that rsi pointed at when the kernel was entered.
    ///
    /// # Safety
    /// `page` is the address of a mapped start_info page that nobody writes meanwhile.
    pub unsafe fn read(page: *const u8) -> Result<Self, StartInfoError> {
        // SAFETY: the caller promises a mapped page that is larger than the structure; its fields are plain integers.
        let raw = unsafe { page.cast::<Raw>().read_unaligned() };
        Self::parse(&raw)
    }

    fn parse(raw: &Raw) -> Result<Self, StartInfoError> {
        if !raw.magic.starts_with(b"xen-3.0-x86_64\0") {
            return Err(StartInfoError::Magic);
        }
        if !(1024..=MAX_PAGES).contains(&raw.nr_pages) {
            return Err(StartInfoError::Pages(raw.nr_pages));
        }
        let info = Self {
            nr_pages: raw.nr_pages,
            shared_info: Mfn::new(raw.shared_info >> 12),
            initial_domain: raw.flags & SIF_INITDOMAIN != 0,
            store: Mfn::new(raw.store_mfn),
            store_port: EvtchnPort::new(raw.store_evtchn),
            console: Mfn::new(raw.console_mfn),
            console_port: EvtchnPort::new(raw.console_evtchn),
            page_table: raw.pt_base,
            mfn_list: raw.mfn_list,
            command_line: raw.cmd_line,
        };
        info.check("page tables", info.page_table, 4096)?;
        info.check("p2m list", info.mfn_list, info.nr_pages * 8)?;
        Ok(info)
    }

    /// Whether `[address, address + bytes)` is page-aligned and inside the 1:1 map.
    fn check(&self, what: &'static str, address: u64, bytes: u64) -> Result<(), StartInfoError> {
        let end = VIRT_BASE + self.nr_pages * 4096;
        let fits = address >= VIRT_BASE && address < end && bytes <= end - address;
        if fits && address.is_multiple_of(4096) { Ok(()) } else { Err(StartInfoError::Outside(what, address)) }
    }

    /// The command line up to its NUL; bytes that are not UTF-8 make it `None`.
    pub fn command_line(&self) -> Option<&str> {
        let end = self.command_line.iter().position(|&byte| byte == 0)?;
        core::str::from_utf8(&self.command_line[..end]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Raw {
        let mut raw = Raw {
            magic: [0; 32],
            nr_pages: 16384,
            shared_info: 0x1234_5000,
            flags: 0,
            pad0: 0,
            store_mfn: 0x777,
            store_evtchn: 1,
            pad1: 0,
            console_mfn: 0x778,
            console_evtchn: 2,
            pad2: 0,
            pt_base: VIRT_BASE + 0x40_0000,
            nr_pt_frames: 8,
            mfn_list: VIRT_BASE + 0x20_0000,
            mod_start: 0,
            mod_len: 0,
            cmd_line: [0; MAX_GUEST_CMDLINE],
            first_p2m_pfn: 0,
            nr_p2m_frames: 0,
        };
        raw.magic[..15].copy_from_slice(b"xen-3.0-x86_64\0");
        raw.cmd_line[..11].copy_from_slice(b"loglevel=3\0");
        raw
    }

    #[test]
    fn takes_what_the_builder_says() {
        let info = StartInfo::parse(&golden()).unwrap();
        assert_eq!((info.nr_pages, info.shared_info), (16384, Mfn::new(0x12345)));
        assert_eq!((info.store, info.store_port), (Mfn::new(0x777), EvtchnPort::new(1)));
        assert_eq!((info.console, info.console_port), (Mfn::new(0x778), EvtchnPort::new(2)));
        assert!(!info.initial_domain);
        assert_eq!(info.command_line(), Some("loglevel=3"));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let refused = |raw: Raw| StartInfo::parse(&raw).unwrap_err();
        assert_eq!(refused(Raw { magic: [0; 32], ..golden() }), StartInfoError::Magic);
        for nr_pages in [0, 1023, MAX_PAGES + 1, u64::MAX] {
            assert_eq!(refused(Raw { nr_pages, ..golden() }), StartInfoError::Pages(nr_pages));
        }
        let end = VIRT_BASE + 16384 * 4096;
        for pt_base in [0, VIRT_BASE - 4096, VIRT_BASE + 1, end, u64::MAX - 4095] {
            assert_eq!(refused(Raw { pt_base, ..golden() }), StartInfoError::Outside("page tables", pt_base));
        }
        let mfn_list = end - 16384 * 8 + 4096;
        assert_eq!(refused(Raw { mfn_list, ..golden() }), StartInfoError::Outside("p2m list", mfn_list));
    }

    #[test]
    fn command_line_without_end_or_not_utf8_is_none() {
        let mut raw = golden();
        raw.cmd_line[0] = 0xff;
        assert_eq!(StartInfo::parse(&raw).unwrap().command_line(), None);
        raw.cmd_line.fill(b'a');
        assert_eq!(StartInfo::parse(&raw).unwrap().command_line(), None);
    }
}

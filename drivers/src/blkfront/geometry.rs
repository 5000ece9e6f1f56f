//! The numbers that a backend publishes about its device: parsed and checked once, before any arithmetic uses them.

use core::fmt;
use xen_hypercall::abi::io::blkif as abi;

/// Bytes of a sector in all counts of the protocol.
const SECTOR_LEN: u64 = abi::SECTOR_LEN as u64;
/// The largest physical sector that makes sense: 1 MiB, the alignment of everything that we place.
const PHYSICAL_MAX: u32 = 1 << 20;

/// A number that is missing or makes no sense; the name is that of the backend's node. The operator looks at the
/// backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeometryError(pub &'static str);

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backend's node `{}` is missing or makes no sense", self.0)
    }
}

/// What the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in units of 512 bytes.
    pub sectors: u64,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector_len: u32,
    /// Bytes of a physical sector.
    pub physical_sector_len: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether the backend has a volatile cache to flush. Without it, a completed write is durable.
    pub flush: bool,
}

/// The nodes' texts; `None` = no such node.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawGeometry<'a> {
    /// `sectors`
    pub sectors: Option<&'a str>,
    /// `sector-size`
    pub sector_size: Option<&'a str>,
    /// `physical-sector-size`
    pub physical_sector_size: Option<&'a str>,
    /// `info`
    pub info: Option<&'a str>,
    /// `feature-flush-cache`
    pub feature_flush_cache: Option<&'a str>,
}

impl Geometry {
    /// Checks everything.
    pub fn parse(raw: RawGeometry<'_>) -> Result<Self, GeometryError> {
        let sectors = number::<u64>(raw.sectors, "sectors", None)?;
        let sector_len = number::<u32>(raw.sector_size, "sector-size", None)?;
        let physical_sector_len = number(raw.physical_sector_size, "physical-sector-size", Some(sector_len))?;
        let info = number::<u32>(raw.info, "info", None)?;
        let flush = flag(raw.feature_flush_cache, "feature-flush-cache")?;
        if sector_len != 512 && sector_len != 4096 {
            return Err(GeometryError("sector-size"));
        }
        if !physical_sector_len.is_power_of_two() || !(sector_len..=PHYSICAL_MAX).contains(&physical_sector_len) {
            return Err(GeometryError("physical-sector-size"));
        }
        // The byte size must exist, and be whole sectors of the device.
        let whole = sectors.checked_mul(SECTOR_LEN).is_some_and(|len| len > 0 && len % u64::from(sector_len) == 0);
        if !whole {
            return Err(GeometryError("sectors"));
        }
        if info & abi::VDISK_CDROM != 0 {
            return Err(GeometryError("info"));
        }
        Ok(Self { sectors, sector_len, physical_sector_len, read_only: info & abi::VDISK_READONLY != 0, flush })
    }

    /// Whole blocks of 4096 bytes.
    pub fn blocks(&self) -> u64 {
        self.sectors / (super::BLOCK_LEN as u64 / SECTOR_LEN)
    }
}

/// A decimal number without sign.
pub fn number<T: core::str::FromStr>(
    text: Option<&str>,
    name: &'static str,
    default: Option<T>,
) -> Result<T, GeometryError> {
    let Some(text) = text else { return default.ok_or(GeometryError(name)) };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(GeometryError(name));
    }
    text.parse().map_err(|_| GeometryError(name))
}

/// `0` or `1`; a missing node is 0.
pub fn flag(text: Option<&str>, name: &'static str) -> Result<bool, GeometryError> {
    match text {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(GeometryError(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: RawGeometry<'_> = RawGeometry {
        sectors: Some("2048"),
        sector_size: Some("512"),
        physical_sector_size: Some("4096"),
        info: Some("0"),
        feature_flush_cache: Some("1"),
    };

    #[test]
    fn a_sound_device_is_described() {
        let geometry = Geometry::parse(GOOD).unwrap();
        assert_eq!((geometry.blocks(), geometry.read_only, geometry.flush), (256, false, true));
        let bare = RawGeometry { physical_sector_size: None, feature_flush_cache: None, info: Some("4"), ..GOOD };
        let geometry = Geometry::parse(bare).unwrap();
        assert_eq!((geometry.physical_sector_len, geometry.read_only, geometry.flush), (512, true, false));
        let odd_tail = RawGeometry { sectors: Some("2055"), ..GOOD };
        assert_eq!(Geometry::parse(odd_tail).unwrap().blocks(), 256);
    }

    #[test]
    fn lies_about_numbers_are_refused_by_name() {
        let refused = |raw, name| assert_eq!(Geometry::parse(raw), Err(GeometryError(name)), "{raw:?}");
        for sectors in ["0", "", "-8", "+8", "8 ", "0x10", "18446744073709551616", "36028797018963968"] {
            refused(RawGeometry { sectors: Some(sectors), ..GOOD }, "sectors");
        }
        refused(RawGeometry { sectors: None, ..GOOD }, "sectors");
        for size in ["0", "1", "511", "520", "1024", "8192", "4294967808", "x"] {
            refused(RawGeometry { sector_size: Some(size), ..GOOD }, "sector-size");
        }
        for size in ["0", "256", "768", "2097152"] {
            refused(RawGeometry { physical_sector_size: Some(size), ..GOOD }, "physical-sector-size");
        }
        let native = RawGeometry { sector_size: Some("4096"), ..GOOD };
        refused(RawGeometry { sectors: Some("2047"), ..native }, "sectors");
        refused(RawGeometry { physical_sector_size: Some("512"), ..native }, "physical-sector-size");
        for info in ["1", "5", "-", ""] {
            refused(RawGeometry { info: Some(info), ..GOOD }, "info");
        }
        for flush in ["2", "yes", ""] {
            refused(RawGeometry { feature_flush_cache: Some(flush), ..GOOD }, "feature-flush-cache");
        }
    }
}

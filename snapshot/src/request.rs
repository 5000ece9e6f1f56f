//! The request node: what dom0 asks of the stub, as typed values and as xenstore text.
//!
//! A value that exists is legal in itself; whether the guest, the store and the moment allow it is the session's
//! affair. Used by the stub (parse) and by dom0 (write); a round trip is exact.

use core::fmt;
use core::str::FromStr;

use xen_hypercall::types::{DomHandle, DomId, EvtchnPort};

use crate::fields::{Fields, ParseError, hex};
use crate::names::{Name, SnapshotName, Token};
use crate::policy::Busy;
use crate::store::Compression;

/// Version of the protocol of docs/protocol/xenstore.md.
pub const PROTOCOL: u32 = 1;

/// Most slices of configuration JSON.
pub const CONFIG_CHUNKS_MAX: u16 = 64;

/// Most bytes in one slice.
pub const CONFIG_CHUNK_BYTES: usize = 1000;

/// Longest pause that may be asked for, one hour.
pub const PAUSE_MS_MAX: u32 = 3_600_000;

/// Largest factor of mode `improved`, in thousandths.
pub const H_MILLI_MAX: u32 = 1_000_000;

/// The target pause, if nothing else is said: QEMU's limit for migration (migration/options.c, downtime-limit).
pub const TARGET_PAUSE_MS: u32 = 300;

/// How a snapshot is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Suspend first, copy everything, resume.
    Save,
    /// Copy in rounds while the guest runs, then suspend for the rest: Live Save, table 2 of the paper.
    Live,
    /// `live` with the adaptive number of rounds of table 3: Improved Live Save.
    Improved,
    /// The rounds of Xen's own migration: five, and nothing is left out.
    Xen,
    /// Copy until what is left fits memory; the guest waits for memory only, never for the disk.
    Staged,
}

impl Mode {
    /// Every mode, with its word in requests and listings.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Save, "save"),
        (Self::Live, "live"),
        (Self::Improved, "improved"),
        (Self::Xen, "xen"),
        (Self::Staged, "staged"),
    ];

    /// The word in requests and listings.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(mode, _)| *mode == self).map_or("", |(_, word)| word)
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|(_, word)| *word == text).map(|(mode, _)| mode).ok_or(())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What a snapshot takes from an older one of its guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// Nothing.
    #[default]
    Full,
    /// The pages that are equal to those of the guest's newest snapshot: all are read, the others are written.
    Diff,
    /// All that did not change since the snapshot below, since which the guest is tracked; and it stays tracked.
    Incremental,
}

impl Kind {
    /// Every kind, with its word in requests.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Full, "full"), (Self::Diff, "diff"), (Self::Incremental, "incremental")];

    /// The word in requests.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

/// Take a snapshot of one guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Take {
    /// Names the session.
    pub token: Token,
    /// The guest.
    pub domid: DomId,
    /// Its handle; the stub refuses when it is another.
    pub handle: DomHandle,
    /// What the snapshot will be called.
    pub name: SnapshotName,
    /// How to take it.
    pub mode: Mode,
    /// Seconds since 1970 UTC, by dom0's clock.
    pub created_unix: u64,
    /// Unbound port in dom0's table that the stub binds and notifies once.
    pub release_port: EvtchnPort,
    /// The pause after which the keeper resumes anyway, milliseconds; `None` (0 as text) is no limit.
    pub max_pause_ms: Option<u32>,
    /// Let round 1 skip pages that are dirty again already, as Xen 4.5.1 did.
    pub round1_skip: bool,
    /// Mode `improved`: a round is high when more than this many thousandths of the pages sent became dirty; 0 when no
    /// fewer became dirty than in the round before.
    pub h_milli: u32,
    /// Mode `staged`: the predicted pause that is good enough, milliseconds; never 0, never above `max_pause_ms`.
    pub target_pause_ms: u32,
    /// Mode `staged`: memory for the last set, KiB; `None` (0 as text) is all that the stub can spare.
    pub staging_kib: Option<u32>,
    /// Mode `staged`: what to do with a guest whose dirty set does not fit.
    pub on_busy: Busy,
    /// Number of `config/<i>` nodes, 0 to [`CONFIG_CHUNKS_MAX`].
    pub config_chunks: u16,
    /// How the store keeps its pages.
    pub compression: Compression,
    /// What it takes from an older one.
    pub kind: Kind,
    /// The snapshot of the guest that an incremental one must lie on; `None`: whichever it can, or a full one.
    pub parent: Option<Name>,
    /// An incremental one may be of a PV guest, whose page tables are all read in the pause then.
    pub pv_tracking: bool,
}

/// Remove a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remove {
    /// Names the session.
    pub token: Token,
    /// Which snapshot.
    pub name: SnapshotName,
}

/// End the tracking of a guest that stays tracked between its snapshots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disarm {
    /// Names the session.
    pub token: Token,
    /// The guest.
    pub domid: DomId,
    /// Its handle.
    pub handle: DomHandle,
}

/// What dom0 can ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// `op=take`.
    Take(Take),
    /// `op=rm`.
    Remove(Remove),
    /// `op=disarm`.
    Disarm(Disarm),
}

const TAKE_KEYS: &[&str] = &[
    "protocol",
    "token",
    "op",
    "domid",
    "handle",
    "guest",
    "name",
    "mode",
    "created",
    "release-port",
    "max-pause-ms",
    "round1-skip",
    "h-milli",
    "target-pause-ms",
    "staging-kib",
    "on-busy",
    "config-chunks",
    "compress",
    "kind",
    "parent",
    "pv-tracking",
];
const DISARM_KEYS: &[&str] = &["protocol", "token", "op", "domid", "handle"];
const REMOVE_KEYS: &[&str] = &["protocol", "token", "op", "guest", "name"];

impl Request {
    /// Reads the node's value. The version is judged first, then the operation, then its keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(bytes, TAKE_KEYS)?;
        fields.check_version()?;
        match fields.required("op")? {
            "take" => Take::from_fields(&fields).map(Self::Take),
            "rm" => Remove::from_fields(&Fields::parse(bytes, REMOVE_KEYS)?).map(Self::Remove),
            "disarm" => Disarm::from_fields(&Fields::parse(bytes, DISARM_KEYS)?).map(Self::Disarm),
            _ => Err(ParseError::bad("op")),
        }
    }

    /// The token of a request that may be malformed otherwise, so that its refusal can be addressed.
    pub fn token_of(bytes: &[u8]) -> Option<Token> {
        let mut lines = bytes.get(..bytes.len().min(crate::fields::NODE_MAX))?.split(|byte| *byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(b"token="))?;
        core::str::from_utf8(value).ok()?.parse().ok()
    }

    /// The session that this request opens.
    pub fn token(&self) -> Token {
        match self {
            Self::Take(take) => take.token,
            Self::Remove(remove) => remove.token,
            Self::Disarm(disarm) => disarm.token,
        }
    }
}

fn snapshot_name(fields: &Fields<'_>) -> Result<SnapshotName, ParseError> {
    Ok(SnapshotName { guest: fields.typed("guest")?, name: fields.typed("name")? })
}

impl Take {
    fn from_fields(fields: &Fields<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            token: fields.typed("token")?,
            domid: guest_domid(fields)?,
            handle: handle(fields)?,
            name: snapshot_name(fields)?,
            mode: fields.typed("mode")?,
            created_unix: fields.number("created")?,
            release_port: release_port(fields)?,
            max_pause_ms: max_pause_ms(fields)?,
            round1_skip: fields.flag("round1-skip")?,
            h_milli: bounded(fields, "h-milli", H_MILLI_MAX)?,
            target_pause_ms: target_pause_ms(fields)?,
            staging_kib: Some(fields.number("staging-kib")?).filter(|&kib: &u32| kib > 0),
            on_busy: fields.typed("on-busy")?,
            config_chunks: bounded(fields, "config-chunks", CONFIG_CHUNKS_MAX)?,
            compression: compression(fields)?,
            kind: kind(fields)?,
            parent: parent(fields)?,
            pv_tracking: pv_tracking(fields)?,
        })
    }
}

impl Disarm {
    fn from_fields(fields: &Fields<'_>) -> Result<Self, ParseError> {
        Ok(Self { token: fields.typed("token")?, domid: guest_domid(fields)?, handle: handle(fields)? })
    }
}

impl fmt::Display for Disarm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, domid, handle } = self;
        write!(out, "protocol={PROTOCOL}\ntoken={token}\nop=disarm\ndomid={domid}\nhandle={handle}\n")
    }
}

impl Remove {
    fn from_fields(fields: &Fields<'_>) -> Result<Self, ParseError> {
        Ok(Self { token: fields.typed("token")?, name: snapshot_name(fields)? })
    }
}

/// Dom0 is no guest: the stub may not touch it, and the request is a mistake.
fn guest_domid(fields: &Fields<'_>) -> Result<DomId, ParseError> {
    let domid = DomId::new(fields.number("domid")?);
    if domid == DomId::DOM0 || !domid.is_ordinary() {
        return Err(ParseError::bad("domid"));
    }
    Ok(domid)
}

fn handle(fields: &Fields<'_>) -> Result<DomHandle, ParseError> {
    parse_uuid(fields.required("handle")?).ok_or_else(|| ParseError::bad("handle"))
}

/// Absent or empty is the default.
fn compression(fields: &Fields<'_>) -> Result<Compression, ParseError> {
    match fields.optional("compress").filter(|word| !word.is_empty()) {
        Some(word) => word.parse().map_err(|()| ParseError::bad("compress")),
        None => Ok(Compression::default()),
    }
}

/// Absent or empty is the default.
fn kind(fields: &Fields<'_>) -> Result<Kind, ParseError> {
    let word = fields.optional("kind").filter(|word| !word.is_empty()).unwrap_or("full");
    let found = Kind::ALL.into_iter().find(|(_, known)| *known == word);
    found.map(|(kind, _)| kind).ok_or_else(|| ParseError::bad("kind"))
}

/// A parent is for an incremental one alone.
fn parent(fields: &Fields<'_>) -> Result<Option<Name>, ParseError> {
    let Some(name) = fields.optional("parent").filter(|name| !name.is_empty()) else { return Ok(None) };
    let wanted = kind(fields)? == Kind::Incremental;
    name.parse().ok().filter(|_| wanted).map(Some).ok_or_else(|| ParseError::bad("parent"))
}

/// Likewise.
fn pv_tracking(fields: &Fields<'_>) -> Result<bool, ParseError> {
    if fields.optional("pv-tracking").is_none_or(str::is_empty) {
        return Ok(false);
    }
    let given = fields.flag("pv-tracking")?;
    if given && kind(fields)? != Kind::Incremental { Err(ParseError::bad("pv-tracking")) } else { Ok(given) }
}

/// A lower-case uuid, 8-4-4-4-12.
pub fn parse_uuid(text: &str) -> Option<DomHandle> {
    let dashes = [8, 13, 18, 23];
    if text.len() != 36 || !text.is_ascii() || dashes.iter().any(|&at| text.as_bytes()[at] != b'-') {
        return None;
    }
    let mut digits = heapless::String::<32>::new();
    for (_, digit) in text.chars().enumerate().filter(|(at, _)| !dashes.contains(at)) {
        digits.push(digit).ok()?;
    }
    hex(&digits).map(DomHandle::new)
}

fn release_port(fields: &Fields<'_>) -> Result<EvtchnPort, ParseError> {
    let port: u32 = fields.number("release-port")?;
    if port == 0 { Err(ParseError::bad("release-port")) } else { Ok(EvtchnPort::new(port)) }
}

fn max_pause_ms(fields: &Fields<'_>) -> Result<Option<u32>, ParseError> {
    let pause: u32 = fields.number("max-pause-ms")?;
    if pause > PAUSE_MS_MAX {
        return Err(ParseError::bad("max-pause-ms"));
    }
    Ok(Some(pause).filter(|&pause| pause > 0))
}

/// A target above the limit would be a limit that nobody keeps.
fn target_pause_ms(fields: &Fields<'_>) -> Result<u32, ParseError> {
    let target: u32 = fields.number("target-pause-ms")?;
    let limit = max_pause_ms(fields)?.unwrap_or(PAUSE_MS_MAX);
    if target == 0 || target > limit { Err(ParseError::bad("target-pause-ms")) } else { Ok(target) }
}

fn bounded<N: TryFrom<u64> + PartialOrd>(fields: &Fields<'_>, key: &str, max: N) -> Result<N, ParseError> {
    let value = fields.number(key)?;
    if value > max { Err(ParseError::bad(key)) } else { Ok(value) }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Take(take) => take.fmt(out),
            Self::Remove(remove) => remove.fmt(out),
            Self::Disarm(disarm) => disarm.fmt(out),
        }
    }
}

impl fmt::Display for Take {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "protocol={PROTOCOL}\ntoken={}\nop=take\ndomid={}\n", self.token, self.domid)?;
        write!(
            out,
            "handle={}\nguest={}\nname={}\nmode={}\n",
            self.handle, self.name.guest, self.name.name, self.mode
        )?;
        write!(out, "created={}\nrelease-port={}\n", self.created_unix, self.release_port)?;
        writeln!(out, "max-pause-ms={}", self.max_pause_ms.unwrap_or(0))?;
        write!(out, "round1-skip={}\nh-milli={}\n", u8::from(self.round1_skip), self.h_milli)?;
        writeln!(out, "target-pause-ms={}", self.target_pause_ms)?;
        write!(out, "staging-kib={}\non-busy={}\n", self.staging_kib.unwrap_or(0), self.on_busy.as_str())?;
        writeln!(out, "config-chunks={}", self.config_chunks)?;
        write!(out, "compress={}\nkind={}\nparent=", self.compression, self.kind.as_str())?;
        self.parent.iter().try_for_each(|parent| write!(out, "{parent}"))?;
        // Left out where it says nothing: a stub of an older version knows no such key.
        if self.pv_tracking { out.write_str("\npv-tracking=1\n") } else { out.write_str("\n") }
    }
}

impl fmt::Display for Remove {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "protocol={PROTOCOL}\ntoken={}\nop=rm\n", self.token)?;
        write!(out, "guest={}\nname={}\n", self.name.guest, self.name.name)
    }
}

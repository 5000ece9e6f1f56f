//! The line to dom0: the nodes below `data/livesave/` and `control/shutdown`, over the stub's one xenstore connection.
//!
//! Everything that is read is a peer's text: parsed by `snapshot`, answered with a refusal or dropped with a line in
//! the log (docs/protocol/xenstore.md says which). During a session the line serves xenstore on its own: a second
//! request is refused, a word with a foreign token dropped, a wish for shutdown made a cancel and kept for the end.

use alloc::format;
use alloc::vec::Vec;

use snapshot::fault::Fault;
use snapshot::fields::Line as Text;
use snapshot::mailbox::{Heard, Mailbox, Node};
use snapshot::names::Token;
use snapshot::ports::{Clock, Control, ControlLost, Message};
use snapshot::request::Request;
use snapshot::status::Status;
use xen_drivers::blkfront::ConnectError;
use xen_drivers::platform::Platform;
use xen_drivers::xenstore::ring::RingWire;
use xen_drivers::xenstore::{Client, Event, Nodes, XsError};
use xen_hypercall::EvtchnPort;

use super::beat::Beat;
use super::vigil::Vigil;
use crate::platform::Xen;
use crate::{debug, error, info, warn};

/// The stub's xenstore client.
pub type Store = Client<RingWire<Xen>>;

const REQUEST: &str = "data/livesave/request";
const REFUSED: &str = "data/livesave/refused";
const STATUS: &str = "data/livesave/status";
const CANCEL: &str = "data/livesave/cancel";
const VERDICT: &str = "data/livesave/verdict";
const ACKED: &str = "data/livesave/acked";
const SHUTDOWN: &str = "control/shutdown";
const DEVICES: &str = "device/vbd";
/// What is watched. The disk's backend is watched too, by its driver.
const WATCHED: [&str; 6] = [REQUEST, CANCEL, VERDICT, ACKED, SHUTDOWN, DEVICES];

/// How the domain is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// `poweroff` or `halt`.
    PowerOff,
    /// `reboot`.
    Reboot,
}

/// Why the idle stub wakes up.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake {
    /// A request's text.
    Request(Vec<u8>),
    /// The domain is to end.
    Stop(Stop),
    /// The store's disk is closing, gone, or does not take the heartbeat: why.
    DiskLost(Text),
    /// The toolstack may have attached or detached a disk.
    Devices,
    /// Guests that stayed tracked are so no more.
    Disarmed,
    /// The time has come.
    Time,
}

/// The running session, as far as the line is concerned.
struct Session {
    release: EvtchnPort,
    mail: Mailbox,
}

/// The line.
pub struct Line {
    store: Store,
    session: Option<Session>,
    /// The request node changed since it was last read.
    requested: bool,
    stop: Option<Stop>,
    beat: Option<Beat>,
    disk_lost: Option<Text>,
    devices_changed: bool,
    vigil: Vigil,
}

impl Line {
    /// A line over a fresh connection; nothing is watched yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            session: None,
            requested: false,
            stop: None,
            beat: None,
            disk_lost: None,
            devices_changed: false,
            vigil: Vigil::default(),
        }
    }

    /// The client, for what is not the protocol's business: devices.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The guests that stay tracked. They are looked at whenever the heartbeat is.
    pub fn vigil(&mut self) -> &mut Vigil {
        &mut self.vigil
    }

    /// Watches everything that dom0 may write. Each watch fires once at once, so nothing that came earlier is missed.
    pub fn listen(&mut self) -> Result<(), XsError> {
        WATCHED.iter().try_for_each(|path| self.store.watch(path, path))
    }

    /// Sleeps until there is something to do, or until the time given.
    pub fn wait_idle(&mut self, until_ns: u64) -> Result<Wake, XsError> {
        loop {
            if let Some(wake) = self.wake()? {
                return Ok(wake);
            }
            if Xen.now_ns() >= until_ns {
                return Ok(Wake::Time);
            }
            let beat_ns = self.beat.as_ref().map_or(u64::MAX, Beat::next_ns).min(self.vigil.next_ns());
            if let Some(event) = self.store.next_event(until_ns.min(beat_ns))? {
                self.heard(&event)?;
            }
            self.beat(Beat::tick_and_look);
            self.vigil.look_at_bits();
        }
    }

    /// What has come, the most urgent first: a request must not be given to a store that is lost.
    fn wake(&mut self) -> Result<Option<Wake>, XsError> {
        if let Some(stop) = self.stop {
            return Ok(Some(Wake::Stop(stop)));
        }
        if let Some(why) = self.disk_lost.take() {
            return Ok(Some(Wake::DiskLost(why)));
        }
        if core::mem::take(&mut self.devices_changed) {
            return Ok(Some(Wake::Devices));
        }
        if core::mem::take(&mut self.requested) {
            return Ok(self.find(REQUEST)?.map(Wake::Request));
        }
        Ok(self.vigil.changed().then_some(Wake::Disarmed))
    }

    /// Takes the request node away: it is taken up or refused.
    pub fn request_done(&mut self) -> Result<(), XsError> {
        self.store.rm(REQUEST)
    }

    /// Answers a request that is not taken up while no session runs.
    pub fn refuse(&mut self, token: Token, fault: Fault, reason: impl core::fmt::Display) -> Result<(), XsError> {
        warn!("refused ({}): {reason}", fault.word());
        self.store.write(STATUS, format!("{}", Status::refused(token, fault, reason)))
    }

    /// Writes the status of something that is no session.
    pub fn report(&mut self, status: &Status) -> Result<(), XsError> {
        self.store.write(STATUS, format!("{status}"))
    }

    /// A session begins: from now on words with its token are messages. A cancel may lie there already.
    pub fn begin(&mut self, token: Token, release: EvtchnPort) -> Result<(), XsError> {
        self.session = Some(Session { release, mail: Mailbox::new(token) });
        self.hear(CANCEL, Node::Cancel)
    }

    /// The session is over; what comes now is an answer to nothing.
    pub fn end(&mut self) {
        self.session = None;
    }

    /// The heartbeat to be kept up, or None to let go of the disk; the former one comes back. What was known of the
    /// former disk is forgotten.
    pub fn set_beat(&mut self, beat: Option<Beat>) -> Option<Beat> {
        self.disk_lost = None;
        core::mem::replace(&mut self.beat, beat)
    }

    fn beat<E: core::fmt::Display>(&mut self, tick: fn(&mut Beat) -> Result<(), E>) {
        self.vigil.look();
        if let Some(Err(error)) = self.beat.as_mut().map(tick) {
            warn!("heartbeat: {error}");
            self.disk_lost.get_or_insert(Text::of(error));
        }
    }

    /// Looks at the backend of the store's disk. What it finds ends the session: nothing can be written any more.
    fn look_at_disk(&mut self) -> Result<(), XsError> {
        let Some(beat) = &self.beat else { return Ok(()) };
        match beat.disk().look(&mut self.store) {
            Ok(()) => Ok(()),
            Err(ConnectError::Xenstore(error)) => Err(error),
            Err(error) => {
                warn!("the store's disk: {error}");
                let first = self.disk_lost.is_none();
                self.disk_lost = Some(Text::of(error));
                if let Some(session) = self.session.as_mut().filter(|_| first) {
                    // If there is no room, the next write fails by itself.
                    _ = session.mail.put(Message::StoreLost);
                }
                Ok(())
            }
        }
    }

    /// Why the store's disk cannot be used any more, if that was noticed.
    pub fn disk_lost(&mut self) -> Option<Text> {
        self.disk_lost.take()
    }

    /// Whether dom0 wants the domain to end.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    fn find(&mut self, path: &str) -> Result<Option<Vec<u8>>, XsError> {
        match self.store.read(path) {
            Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn heard(&mut self, event: &Event) -> Result<(), XsError> {
        match event {
            Event::Fired { token, .. } => self.look_at(token),
            Event::Rescan => {
                WATCHED.iter().try_for_each(|path| self.look_at(path))?;
                self.look_at_disk()
            }
        }
    }

    fn look_at(&mut self, path: &str) -> Result<(), XsError> {
        match path {
            REQUEST if self.session.is_some() => self.refuse_second(),
            REQUEST => {
                self.requested = true;
                Ok(())
            }
            CANCEL => self.hear(CANCEL, Node::Cancel),
            VERDICT => self.hear(VERDICT, Node::Verdict),
            ACKED => self.hear(ACKED, Node::Acked),
            SHUTDOWN => self.hear_shutdown(),
            DEVICES => {
                self.devices_changed = true;
                Ok(())
            }
            token if self.beat.as_ref().is_some_and(|beat| beat.disk().is_watched_by(token)) => self.look_at_disk(),
            other => {
                debug!("a watch that is not ours: {other:?}");
                Ok(())
            }
        }
    }

    /// A request during a session: refused as busy, in a node of its own. The running session's own node is gone.
    fn refuse_second(&mut self) -> Result<(), XsError> {
        let Some(text) = self.find(REQUEST)? else { return Ok(()) };
        let token = Request::token_of(&text).unwrap_or(Token([0; 16]));
        warn!("a second request is refused: {token}");
        self.store.write(REFUSED, format!("{}", Status::refused(token, Fault::Busy, "a session runs already")))?;
        self.request_done()
    }

    /// Passes a word on, if it is for the running session.
    fn hear(&mut self, path: &str, node: Node) -> Result<(), XsError> {
        let Some(text) = self.find(path)? else { return Ok(()) };
        match self.session.as_mut().map(|session| session.mail.hear(node, &text)) {
            Some(Heard::Kept) => {}
            Some(Heard::Full) => warn!("too many words at once, one is dropped"),
            Some(Heard::Malformed(error)) => warn!("{path}: a malformed word is dropped: {error}"),
            Some(Heard::Foreign(token)) => info!("a word for {token} is dropped: no such session"),
            None => info!("{path}: a word is dropped: no session"),
        }
        Ok(())
    }

    fn hear_shutdown(&mut self) -> Result<(), XsError> {
        let Some(text) = self.find(SHUTDOWN)? else { return Ok(()) };
        let stop = match text.as_slice() {
            b"poweroff" | b"halt" => Stop::PowerOff,
            b"reboot" => Stop::Reboot,
            other => {
                warn!("control/shutdown: {:?} is not for this domain", core::str::from_utf8(other).unwrap_or("?"));
                return Ok(());
            }
        };
        info!("asked to stop: {stop:?}");
        // The empty value is the acknowledgement (docs/misc/xenstore-paths.pandoc, control/shutdown).
        self.store.write(SHUTDOWN, "")?;
        self.stop = Some(stop);
        if let Some(session) = &mut self.session {
            _ = session.mail.put(Message::Cancel);
        }
        Ok(())
    }

    /// Takes in what has come, without waiting.
    fn attend(&mut self, until_ns: u64) -> Result<(), ControlLost> {
        let lost = |error: XsError| {
            error!("xenstore: {error}");
            ControlLost
        };
        self.beat(Beat::tick);
        if let Some(event) = self.store.next_event(until_ns).map_err(lost)? {
            self.heard(&event).map_err(lost)?;
        }
        Ok(())
    }

    fn message_waits(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.mail.is_empty())
    }
}

impl Clock for Line {
    fn now_ns(&mut self) -> u64 {
        Xen.now_ns()
    }

    fn stolen_ns(&mut self) -> u64 {
        // Without an answer nothing was taken: what is measured counts as it is.
        xen_hypercall::vcpu::stolen_ns(&crate::hv::xen(), 0).unwrap_or(0)
    }

    fn blocked_ns(&mut self) -> u64 {
        xen_hypercall::vcpu::blocked_ns(&crate::hv::xen(), 0).unwrap_or(0)
    }
}

impl Control for Line {
    fn publish(&mut self, status: &Status) -> Result<(), ControlLost> {
        debug!("{:?} {:?}", status.state, status.counters);
        self.report(status).map_err(|error| {
            error!("xenstore: {error}");
            ControlLost
        })
    }

    fn poll(&mut self) -> Result<Option<Message>, ControlLost> {
        if !self.message_waits() {
            self.attend(0)?;
        }
        Ok(self.session.as_mut().and_then(|session| session.mail.take()))
    }

    fn wait(&mut self, until_ns: u64) -> Result<(), ControlLost> {
        if self.message_waits() { Ok(()) } else { self.attend(until_ns) }
    }

    fn release(&mut self) -> Result<(), ControlLost> {
        let session = self.session.as_ref().ok_or(ControlLost)?;
        Xen.notify(session.release);
        Ok(())
    }
}

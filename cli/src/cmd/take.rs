//! `livesave take`: checks the guest, starts the keeper, asks the stub, shows how it goes, and judges how it went.
//!
//! From the moment the keeper is ready the guest is its affair: whatever fails here, dropping the link is enough.

use super::choices::{busy, max_pause_ms, millis, mode, target_ms};
use super::follow::{await_hook, follow};
use super::progress::Progress;
use super::{choices, faults, preflight, recover, status, trace};
use crate::args::{self, Place};
use crate::config::Config;
use crate::domain::{self, Found};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::files;
use crate::host::tree::{self, XenStore};
use crate::host::xen::{self, Xen};
use crate::keeper::link::{self, Link};
use crate::keeper::words::{Ending, Job};
use crate::marks::{self, Deed};
use crate::stub::{self, Stub};
use crate::{policy, queue, show};
use serde_json::json;
use snapshot::names::{SnapshotName, Token};
use snapshot::request::{self, CONFIG_CHUNK_BYTES, CONFIG_CHUNKS_MAX, Request};
use snapshot::status::{State, Status};
use snapshot::store::Compression;
use snapshot::trace::Trace;
use std::time::{SystemTime, UNIX_EPOCH};
use xen_drivers::xenstore::Nodes;
use xen_hypercall::types::EvtchnPort;

/// Takes a snapshot.
pub fn run(take: &args::Take, place: &Place) -> Outcome {
    let done = taken(take, place);
    recover::end_guards();
    if done.as_ref().is_ok_and(|guard| *guard) && !Xen::open()?.taking().is_ok_and(|taking| taking == Some(true)) {
        eprintln!("livesave: the guest is not guarded: saves and migrations are not kept off, see `livesave doctor`");
    }
    done.map(drop)
}

/// True if the guest is to be guarded from here on.
fn taken(take: &args::Take, place: &Place) -> Outcome<bool> {
    choices::refuse_strays(take)?;
    let mut store = tree::connect()?;
    let xen = Xen::open()?;
    let target = target_ms(take)?;
    let mut progress = Progress::new();
    // What is wrong with the names is said before anybody waits.
    let asked = domain::resolve_guest(&mut store, &take.domain)?;
    if asked.domid == stub::find(&mut store, place)?.domid {
        return Err(Exit::Usage.fail("the stub cannot take itself").hint("name a guest"));
    }
    snapshot_name(take, &asked.name, now())?;
    let limit = (!take.no_wait).then_some(take.wait);
    let (_ticket, stub) = queue::turn(&mut store, place, &asked.name, limit, |words| progress.say(words))?;
    // It may have rebooted meanwhile.
    let found = domain::resolve_guest(&mut store, &take.domain)?;
    let created = now();
    let name = snapshot_name(take, &found.name, created)?;
    let guest = preflight::check(&xen, &mut store, &found)?;
    recover_leftovers(&guest.info.handle.to_string(), &found.name)?;
    let (take, followed) = &policy::follow(take, &guest.info.handle.to_string())?;
    if let Some(policy) = followed {
        eprintln!("livesave: by the policy of '{}': {}", found.name, policy.options());
    }
    let (take, why) = &choices::for_guest(take, !guest.info.is_hvm(), preflight::tracks_pv)?;
    why.iter().for_each(|why| eprintln!("livesave: '{}' is {why}", found.name));
    let chunks = chunks(&guest.config)?;
    let token = Token(files::random()?);
    let mut job = job(take, &xen, &stub, &found, guest.info.handle.to_string(), &name, token)?;
    job.disks = writable(&guest.config)?;
    marks::refuse_others(&job, &mut store, &xen)?;
    let (mut link, port) = Link::start(&job)?;
    if take.incremental {
        marks::note(&job, &stub.domain.name, take.guard)?;
    }
    let asked = request::Take {
        token,
        domid: found.domid,
        handle: guest.info.handle,
        name: name.clone(),
        mode: mode(take.mode),
        created_unix: created,
        release_port: EvtchnPort::new(port),
        max_pause_ms: job.max_pause_ms.and_then(|ms| u32::try_from(ms).ok()),
        round1_skip: take.round1_skip,
        h_milli: choices::h_milli(take),
        target_pause_ms: target,
        staging_kib: take.staging,
        on_busy: busy(take),
        config_chunks: u16::try_from(chunks.len()).unwrap_or(u16::MAX),
        compression: compression(take.compress),
        kind: choices::kind(take),
        parent: choices::parent(take, &found.name)?,
        pv_tracking: take.pv_tracking,
    };
    say_start(&progress, &name, take.mode, &job);
    let base = stub::base(&stub.domain);
    send(&mut store, &base, &chunks, &Request::Take(asked))?;
    let ended = follow(&mut store, &base, token, &mut link, &mut progress);
    progress.end();
    let (status, ending) = ended.map_err(|failure| after_the_keeper(failure, &job.handle, &found.name))?;
    await_hook(&link, &job, &ending);
    judge(&status, &ending, &found.name)?;
    stub::remember(&mut store, &stub.domain);
    report(&name, take, followed.is_some(), &status, &ending, place)?;
    Ok(take.guard)
}

/// What an earlier take left is set right before the guest is touched again: nobody has to be called at night because
/// a keeper was killed, or a stub stood still and could not be waited for.
fn recover_leftovers(handle: &str, guest: &str) -> Outcome {
    if status::keepers()?.iter().any(|(record, lives)| !lives && record.job.handle == handle) {
        if !recover::at_once(handle) {
            let failure = Exit::Stuck.fail(format_args!("an earlier take of '{guest}' left something behind"));
            return Err(failure.hint("`livesave recover` says what"));
        }
        eprintln!("what an earlier take of '{guest}' left was recovered");
    }
    for (whose, of, deed) in marks::settle_all()? {
        match deed {
            Deed::Nothing => {}
            Deed::Done(what) => eprintln!("livesave: '{of}': {what}"),
            Deed::Left(why) if whose == handle => {
                let failure = Exit::LogDirtyOn.fail(format_args!("'{guest}' may be tracked still: {why}"));
                return Err(failure.hint("`livesave recover`, or `livesave disarm`, when that has ended"));
            }
            Deed::Left(why) => eprintln!("livesave: '{of}': {why}; see `livesave doctor`"),
        }
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const fn compression(compress: args::Compress) -> Compression {
    match compress {
        args::Compress::Lz4 => Compression::Lz4,
        args::Compress::None => Compression::None,
    }
}

/// `GUEST@NAME` from what was given: nothing, NAME, or all of it.
fn snapshot_name(take: &args::Take, guest: &str, created: u64) -> Outcome<SnapshotName> {
    let bad = |what: String, error: snapshot::names::NameError| Exit::Usage.fail(format_args!("{what}: {error}"));
    let full = match &take.name {
        None => format!("{guest}@{}", show::stamp(created)),
        Some(name) if name.contains('@') => name.clone(),
        Some(name) => format!("{guest}@{name}"),
    };
    let name: SnapshotName = full.parse().map_err(|error| bad(format!("'{full}' is no name"), error))?;
    if name.guest.as_str() != guest {
        let what = format!("'{full}' names the guest '{}', the domain is '{guest}'", name.guest);
        return Err(Exit::Usage.fail(what).hint("give --name without GUEST@"));
    }
    Ok(name)
}

/// The configuration in slices that fit a node, cut between characters.
fn chunks(config: &Config) -> Outcome<Vec<String>> {
    let text = config.to_json();
    let mut rest = text.as_str();
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let most = CONFIG_CHUNK_BYTES.min(rest.len());
        // A character has at most 4 bytes, so a boundary is near.
        let end = (0..=most).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(most);
        let (chunk, tail) = rest.split_at(end);
        chunks.push(chunk.to_owned());
        rest = tail;
    }
    if chunks.len() > usize::from(CONFIG_CHUNKS_MAX) {
        let what = format!("the guest's configuration has {} bytes, more than can be kept", text.len());
        return Err(Exit::BadConfig.fail(what));
    }
    Ok(chunks)
}

fn job(
    take: &args::Take,
    xen: &Xen,
    stub: &Stub,
    found: &Found,
    handle: String,
    name: &SnapshotName,
    token: Token,
) -> Outcome<Job> {
    let info = xen.info(stub.domain.domid, None).map_err(|error| xen::trouble("getdomaininfo", error))?;
    let info = info.ok_or_else(|| Exit::NoStub.fail("the stub has gone"))?;
    let max_pause_ms = max_pause_ms(take);
    Ok(Job {
        token: token.to_string(),
        guest: found.name.clone(),
        name: name.name.to_string(),
        domid: found.domid.raw(),
        handle,
        stub_domid: stub.domain.domid.raw(),
        stub_handle: info.handle.to_string(),
        max_pause_ms,
        throttle: take.on_busy == Some(args::OnBusy::Throttle),
        hook: take.hook.clone(),
        hook_timeout_ms: millis(take.hook_timeout),
        disks: Vec::new(),
    })
}

/// The guest's writable disks, `VDEV=PATH`: what a hook has to keep.
fn writable(config: &Config) -> Outcome<Vec<String>> {
    let disks = config.disks()?.into_iter().filter(|disk| disk.writable);
    Ok(disks.map(|disk| format!("{}={}", disk.vdev, disk.path)).collect())
}

fn say_start(progress: &Progress, name: &SnapshotName, mode: args::Mode, job: &Job) {
    let pause = job.max_pause_ms.map_or_else(|| "no limit".to_owned(), |ms| show::time(ms * 1000));
    progress.say(&format!("taking {name}, mode {}, longest pause: {pause}", choices::mode(mode)));
}

fn send(store: &mut XenStore, base: &str, chunks: &[String], request: &Request) -> Outcome {
    let mut write = || {
        store.watch(base, "livesave")?;
        store.rm(&format!("{base}/config"))?;
        for (n, chunk) in chunks.iter().enumerate() {
            store.write(&format!("{base}/config/{n}"), chunk)?;
        }
        store.write(&format!("{base}/request"), request.to_string())
    };
    write().map_err(|error| tree::trouble("the request", error))
}

/// A keeper that was killed leaves the guest to us: do at once what `livesave recover` would do.
fn after_the_keeper(failure: Failure, handle: &str, guest: &str) -> Failure {
    if failure.exit != Exit::Stuck || !recover::at_once(handle) {
        return failure;
    }
    Exit::KeeperLost
        .fail(format_args!("the keeper was killed; '{guest}' was recovered and runs"))
        .hint("see /run/livesave/keeper.log, and the kernel's log for an OOM kill")
}

/// The keeper's word on the guest comes first; where the stub was the cause, the stub knows it better.
fn judge(status: &Option<Status>, ending: &Ending, guest: &str) -> Outcome {
    use snapshot::keeper::Reason;
    let ours = link::judge(ending, guest);
    let theirs =
        status.as_ref().filter(|status| status.state.is_final()).and_then(|status| faults::judge(status, "the take"));
    let stub_knows = matches!(ending.cause(), Some(Reason::StubGaveUp | Reason::NotCaptured));
    match (ours, theirs) {
        (Some(_), Some(theirs)) if !ending.stuck && stub_knows => Err(theirs),
        (Some(ours), _) => Err(ours),
        (None, Some(theirs)) => Err(theirs),
        (None, None) if status.as_ref().is_some_and(|status| status.state == State::Sealed) => Ok(()),
        (None, None) => Err(Exit::StubDied
            .fail("the guest runs, but the stub does not say that the snapshot is sealed")
            .hint("`livesave status`, and `livesave ls` shows whether it exists")),
    }
}

fn report(
    name: &SnapshotName,
    take: &args::Take,
    by_policy: bool,
    status: &Option<Status>,
    ending: &Ending,
    place: &Place,
) -> Outcome {
    let c = status.as_ref().map(|status| status.counters).unwrap_or_default();
    let parts = [ending.freeze_us, ending.capture_us, ending.resume_us].map(|part| part.unwrap_or(0));
    let total: u64 = parts.iter().sum();
    let mode = choices::mode(take.mode);
    let about = status.as_ref().map(|status| (status.base.clone(), status.why_full.clone()));
    let (base, why_full) = about.unwrap_or_default();
    if !why_full.is_empty() {
        eprintln!("a full snapshot: {why_full}");
    }
    if place.json {
        let trace = trace_of(&name.to_string(), place);
        return show::print_json(&json!({
            "snapshot": name.to_string(), "mode": mode.as_str(), "rounds": c.round, "memory_pages": c.memory,
            "pages": c.pages, "zero_pages": c.zero, "skipped_pages": c.skipped, "bytes": c.bytes,
            "written_bytes": c.written, "shared_pages": c.shared, "base": base.as_str(), "why_full": why_full.as_str(),
            "cleans": c.cleans, "peeks": c.peeks, "requests": c.requests, "notifications": c.notifications,
            "elapsed_us": c.elapsed_us, "throttle": c.throttle,
            "pause": {
                "total_us": total, "freeze_us": parts[0], "capture_us": parts[1], "resume_us": parts[2],
                "stub_us": c.pause_us, "pages": c.pause_pages, "calls": c.pause_calls,
                "predicted_us": c.predicted_us, "renewed_us": c.renewed_us, "staged": c.staged, "staging": c.staging,
                "packed": c.packed,
            },
            "hook_us": ending.hook_us, "kind": choices::kind(take).as_str(), "by_policy": by_policy,
            "settings": choices::settings(take)?,
            "trace": trace::to_json(trace.as_ref()),
        }));
    }
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let shared = (!base.is_empty()).then(|| row("shared with", format!("{base}: {} pages", c.shared)));
    show::print(&show::table(
        &["snapshot", &name.to_string()],
        [
            row("mode", mode.to_string()),
            row("rounds", c.round.to_string()),
            row("pages sent", format!("{} ({} zero, {} skipped) of {}", c.pages, c.zero, c.skipped, c.memory)),
            row("bytes", show::size(c.bytes)),
            row("disk requests", format!("{}, {} events for them", c.requests, c.notifications)),
            row("total time", show::time(c.elapsed_us)),
            row("pause", show::time(total)),
            row("  guest freezes", show::time(parts[0])),
            row("  capture", format!("{} ({} pages)", show::time(parts[1]), c.pause_pages)),
            row("  resume", show::time(parts[2])),
            row("  hook, beside the copy", ending.hook_us.map_or_else(|| "-".to_owned(), show::time)),
            row("  predicted capture", if c.staging > 0 { show::time(c.predicted_us) } else { "-".to_owned() }),
        ]
        .into_iter()
        .chain(shared),
    ))
}

/// The snapshot is sealed: whatever goes wrong in reading its trace back is no failure of the take.
fn trace_of(name: &str, place: &Place) -> Option<Trace> {
    let read = trace::of_new(name, place);
    let why = match read {
        Ok(Ok(trace)) => return Some(trace),
        Ok(Err(why)) => why,
        Err(failure) => failure.to_string(),
    };
    eprintln!("no trace: {why}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::take;

    #[test]
    fn names_are_completed_and_checked() {
        let name = |line: &str| snapshot_name(&take(line), "web01", 1_795_359_600).map(|name| name.to_string());
        assert_eq!(name("livesave take web01").unwrap(), "web01@20261122T150000Z");
        assert_eq!(name("livesave take web01 --name nightly").unwrap(), "web01@nightly");
        assert_eq!(name("livesave take web01 --name web01@nightly").unwrap(), "web01@nightly");
        for bad in ["db@nightly", "a@b@c", "a/b", "-x", "web01@"] {
            assert_eq!(name(&format!("livesave take web01 --name={bad}")).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn a_configuration_is_cut_between_characters_and_bounded() {
        let text = format!("{{\"c_info\":{{\"name\":\"{}\"}}}}", "\u{e4}".repeat(3000));
        let config = Config::from_json(text.as_bytes()).unwrap();
        let parts = chunks(&config).unwrap();
        assert!(parts.iter().all(|part| part.len() <= CONFIG_CHUNK_BYTES));
        assert_eq!(parts.concat(), config.to_json());
        let long = format!("{{\"c_info\":{{\"name\":\"{}\"}}}}", "x".repeat(70_000));
        assert_eq!(chunks(&Config::from_json(long.as_bytes()).unwrap()).unwrap_err().exit, Exit::BadConfig);
    }

    #[test]
    fn only_a_sealed_take_that_was_resumed_is_a_success() {
        let ended = |state| Some(Status::new(Token([0; 16]), state));
        let fine = Ending::default();
        assert!(judge(&ended(State::Sealed), &fine, "g").is_ok());
        assert!(judge(&ended(State::Flushing), &fine, "g").is_err());
        assert!(judge(&None, &fine, "g").is_err());
        let void = Ending { reason: Some("pause-spent".to_owned()), ..Ending::default() };
        assert_eq!(judge(&ended(State::Void), &void, "g").unwrap_err().exit, Exit::PauseSpent);
        let refused = Some(Status::refused(Token([0; 16]), snapshot::fault::Fault::NameUsed, "in use"));
        let gave_up = Ending { reason: Some("stub-gave-up".to_owned()), ..Ending::default() };
        assert_eq!(judge(&refused, &gave_up, "g").unwrap_err().exit, Exit::NameUsed);
    }
}

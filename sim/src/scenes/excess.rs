//! Takes that ask for more than a snapshot may have. Each is refused; what is sealed can be read.

use snapshot::store::layout::{GFN_LIMIT, PARTS_MAX};
use snapshot::store::{AttachmentKind, NewSnapshot, SealInfo, Store, StoreError, Taking};
use xen_hypercall::types::Gfn;

use super::stock::{is_whole, said};
use crate::content::{Run, flatten, page, run};
use crate::disk::Disk;
use crate::history::{History, ROOMY, fill, new, with};
use crate::judge::Verdict;

/// What is done to a take before it is sealed.
type More = fn(&mut Taking<'_, Disk>) -> Result<(), StoreError>;

fn nothing(_: &mut Taking<'_, Disk>) -> Result<(), StoreError> {
    Ok(())
}

/// A take of these runs, with something more.
fn take(store: &mut Store<Disk>, new: &NewSnapshot<'_>, runs: &[Run], more: More) -> Result<(), StoreError> {
    let mut taking = store.begin(new)?;
    fill(&mut taking, runs)?;
    more(&mut taking)?;
    taking.seal(&SealInfo::default()).map(drop)
}

/// It is refused, or it is a snapshot like any other.
fn refused(what: &str, new: &NewSnapshot<'_>, more: More) -> Verdict {
    refused_with(what, new, &[run(0, 5, 2)], more)
}

fn refused_with(what: &str, new: &NewSnapshot<'_>, runs: &[Run], more: More) -> Verdict {
    let mut history = History::with(ROOMY, &[("old@1", vec![run(0, 9, 1)])]);
    let mut store = history.open().map_err(said)?;
    if take(&mut store, new, runs, more).is_ok() {
        history.possible = vec![with(&history.possible[0], new.name, flatten(runs))];
        is_whole(&history).map_err(|error| format!("{what} is sealed: {error}"))?;
        return Err(format!("{what} is sealed"));
    }
    // A name that is taken, a gfn that is too high: the take was at fault, not the store.
    history.take(&mut store, "next@1", &[run(0, 5, 3)]).map_err(|error| format!("after {what}: {error}"))?;
    is_whole(&history).map_err(|error| format!("after {what}: {error}"))
}

/// A name twice; a description that is too long.
pub fn names() -> Verdict {
    refused("a name that is taken", &new("old@1"), nothing)?;
    let long = "x".repeat(5000);
    refused("a long description", &NewSnapshot { why_full: &long, ..new("new@1") }, nothing)
}

/// A gfn beyond the limit, announced and handed in.
pub fn gfns() -> Verdict {
    let beyond = Gfn::new(GFN_LIMIT);
    refused("a guest beyond the limit", &NewSnapshot { max_gfn: beyond, ..new("new@1") }, nothing)?;
    // In a run of its own: a merge with another one would refuse it too.
    refused_with("a page beyond the limit", &new("new@1"), &[], |taking| {
        taking.run_begin()?;
        taking.page(Gfn::new(GFN_LIMIT), &page(5))?;
        taking.run_end()
    })
}

/// A kind of attachment twice; more attachments than a root may name.
pub fn parts() -> Verdict {
    refused("a second configuration", &new("new@1"), |taking| taking.attach(AttachmentKind::CONFIG_JSON, b"[]"))?;
    refused("a crowd of attachments", &new("new@1"), |taking| {
        (0..PARTS_MAX as u32).try_for_each(|kind| taking.attach(AttachmentKind(100 + kind), b"x"))
    })
}

//! `livesave store accept`: the operator says that the store as it is now is the right one, although it is older than
//! it was, or another than was on its device before.

use crate::args::Place;
use crate::exit::Outcome;
use crate::host::device::lasting_name;
use crate::seen::{self, Sight};
use crate::{catalog, show};
use serde_json::json;

/// Accepts.
pub fn run(place: &Place) -> Outcome {
    let path = catalog::path(place)?;
    let sight = Sight::of(&catalog::open_at(&path)?.info(), lasting_name(&path));
    seen::accept(&sight)?;
    let Sight { id, generation, .. } = &sight;
    if place.json {
        return show::print_json(&json!({ "accepted": id, "generation": generation, "device": sight.device }));
    }
    show::print(&format!("the store {id} at generation {generation} is expected on {} from now on", path.display()))
}

//! The engine of a take: executes what the session's machine says, on the ports.

mod armed;
mod capture;
mod desk;
mod engine;
mod habits;
mod look;
mod meter;
mod outlook;
mod prepare;
mod recorder;
mod records;
mod settle;
mod stage;
mod store;
mod track;
mod untold;

pub use armed::{After, Armed, Before};
pub use desk::Hold;
pub use engine::{Engine, Options, Target};
pub use habits::Habits;
pub use recorder::{Attachment, Ground, NewTake, Recorder};
pub use records::Records;
pub use store::StoreRecorder;

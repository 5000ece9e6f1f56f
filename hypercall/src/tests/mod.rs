//! What the typed calls put into Xen's hands, byte for byte, and what they make of its answers.

mod calls;
mod domctls;
mod flask;
mod resume;
mod script;

//! xenstored, as far as a take uses it: a few nodes, one answer after the other, and times in which none comes.

use std::collections::BTreeMap;

/// A node: those below the stub's base, and the guest's `control/shutdown`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Node {
    Status,
    Verdict,
    Cancel,
    Acked,
    Control,
}

/// The words of `control/shutdown`.
pub const SUSPEND: &str = "suspend";

/// The store.
#[derive(Default)]
pub struct Tree {
    nodes: BTreeMap<Node, String>,
    /// It answers nobody until then.
    pub stalled_until_ns: u64,
    /// It is dead until then: connections are refused.
    pub down_until_ns: u64,
    /// It did not answer at some time of the take.
    pub troubled: bool,
}

impl Tree {
    /// What stands there; a node that was never written is empty.
    pub fn read(&self, node: Node) -> &str {
        self.nodes.get(&node).map_or("", String::as_str)
    }

    pub fn write(&mut self, node: Node, text: &str) {
        self.nodes.insert(node, text.to_owned());
    }

    pub fn is_down(&self, now_ns: u64) -> bool {
        now_ns < self.down_until_ns
    }

    pub fn answers(&self, now_ns: u64) -> bool {
        now_ns >= self.stalled_until_ns && !self.is_down(now_ns)
    }

    /// When it will answer again.
    pub fn back_ns(&self) -> u64 {
        self.stalled_until_ns.max(self.down_until_ns)
    }
}

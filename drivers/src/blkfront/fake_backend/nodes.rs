//! The fake backend's side of the handshake: its nodes, its states, what it maps and lets go.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a fake fails the test that misuses it")]

use super::ring::BackRing;
use super::{BACK, Backend, FRONT, VDEV};
use crate::types::{EvtchnPort, GrantRef};
use crate::xenstore::{Perm, Rights};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

impl Backend {
    pub(super) fn front(&self, name: &str) -> String {
        format!("/local/domain/{FRONT}/device/vbd/{VDEV}/{name}")
    }

    fn back(&self, name: &str) -> String {
        format!("/local/domain/{BACK}/backend/vbd/{FRONT}/{VDEV}/{name}")
    }

    pub(super) fn make_nodes(&self) {
        let back = self.back("").trim_end_matches('/').to_string();
        self.store.set(&back, "");
        self.store.chmod(&back, &[Perm::new(Rights::None, BACK), Perm::new(Rights::Read, FRONT)]);
        let front = self.front("").trim_end_matches('/').to_string();
        self.store.set(&front, "");
        self.store.chmod(&front, &[Perm::new(Rights::None, FRONT), Perm::new(Rights::Read, BACK)]);
        self.store.set(&self.front("backend"), &back);
        self.store.set(&self.front("backend-id"), &format!("{BACK}"));
        self.store.set(&self.front("state"), "1");
    }

    pub(super) fn announce(&mut self, state: Option<&str>) {
        match state {
            Some(state) => {
                self.state = state.to_string();
                self.store.set(&self.back("state"), state);
            }
            None => {
                self.state = "gone".to_string();
                self.store.remove(self.back("").trim_end_matches('/'));
            }
        }
    }

    pub(super) fn handshake(&mut self, front: &str) -> bool {
        match (self.state.as_str(), front) {
            ("", _) => {
                self.publish_features();
                let first = self.config.first_state;
                self.announce(Some(first));
            }
            // A device that was left open by a former life becomes new when the frontend starts over.
            ("5" | "6", "1") if self.ring.is_none() => self.announce(Some("2")),
            ("2", "3") => {
                self.connect();
                let connected = self.config.connected_state;
                self.announce(Some(connected));
            }
            ("2" | "4", "5") => self.announce(Some("5")),
            ("5", "6") => {
                self.let_go();
                self.announce(Some("6"));
            }
            _ => return false,
        }
        true
    }

    fn publish_features(&self) {
        for (name, value) in
            [("feature-max-indirect-segments", self.config.indirect), ("max-ring-page-order", self.config.ring_order)]
        {
            value.into_iter().for_each(|value| self.store.set(&self.back(name), value));
        }
    }

    fn connect(&mut self) {
        let number = |name: &str| self.store.get(&self.front(name)).map(|text| text.parse::<u32>().unwrap());
        assert_eq!(self.store.get(&self.front("protocol")).as_deref(), Some("x86_64-abi"));
        let grefs = match number("ring-page-order") {
            None => vec![number("ring-ref").unwrap()],
            Some(order) => (0..1 << order).map(|i| number(&format!("ring-ref{i}")).unwrap()).collect(),
        };
        let offered: u32 = self.config.ring_order.map_or(0, |text| text.parse().unwrap());
        assert!(grefs.len().ilog2() <= offered, "a larger ring than offered");
        self.port = number("event-channel").map(EvtchnPort::new);
        let pages = grefs.iter().map(|gref| self.platform.map(BACK, GrantRef::new(*gref), true).unwrap()).collect();
        self.ring = Some(BackRing::new(pages, grefs));
        let sectors = self.config.sectors_text.map_or_else(|| self.config.sectors.to_string(), ToString::to_string);
        self.store.set(&self.back("sectors"), &sectors);
        self.store.set(&self.back("sector-size"), self.config.sector_size);
        self.store.set(&self.back("info"), self.config.info);
        for (name, value) in
            [("physical-sector-size", self.config.physical_sector_size), ("feature-flush-cache", self.config.flush)]
        {
            value.into_iter().for_each(|value| self.store.set(&self.back(name), value));
        }
    }

    pub(super) fn let_go(&mut self) {
        self.queue.clear();
        if self.hold_grants {
            return;
        }
        for gref in self.ring.take().into_iter().flat_map(|ring| ring.grefs) {
            self.platform.unmap(GrantRef::new(gref));
        }
        for gref in core::mem::take(&mut self.mapped).into_keys() {
            self.platform.unmap(GrantRef::new(gref));
        }
    }
}

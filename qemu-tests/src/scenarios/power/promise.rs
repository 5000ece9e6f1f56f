//! What a store must list after a power cut, and what it may.

use std::collections::{BTreeMap, BTreeSet};

use crate::counter::Count;
use crate::scenarios::instant::Instant;

/// The names that must be there, those that may be, and where each snapshot's guest stood.
#[derive(Debug, Default)]
pub struct Promise {
    must: BTreeSet<String>,
    may: BTreeSet<String>,
    stood: BTreeMap<String, Instant>,
}

impl Promise {
    /// A take that began when the guest stood at `from`: it may be there from now on, whatever its command says.
    pub fn begins(&mut self, name: &str, from: Count) {
        self.may.insert(name.to_owned());
        let most = Count { ticks: u64::MAX, steps: u64::MAX };
        self.stood.insert(name.to_owned(), Instant { least: from, most });
    }

    /// Its command ended with success, when the guest stood at `at` or was beyond its pause.
    pub fn sealed(&mut self, name: &str, at: Option<Count>) {
        self.may.remove(name);
        self.must.insert(name.to_owned());
        if let Some((instant, at)) = self.stood.get_mut(name).zip(at) {
            instant.most = at;
        }
    }

    /// Something removes these: they may be gone from now on.
    pub fn going(&mut self, keep: &str) {
        let going: Vec<String> = self.must.iter().filter(|name| *name != keep).cloned().collect();
        for name in going {
            self.must.remove(&name);
            self.may.insert(name);
        }
    }

    /// The removal ended with success: nothing else is there.
    pub fn only(&mut self, keep: &str) {
        self.must.retain(|name| name == keep);
        self.may.clear();
    }

    /// What is listed, against what was promised; from now on exactly that must be there. What is wrong, if it is.
    pub fn judge(&mut self, listed: &[String]) -> Result<Judged, String> {
        let found: BTreeSet<String> = listed.iter().cloned().collect();
        let lost: Vec<_> = self.must.difference(&found).collect();
        let strange: Vec<_> =
            found.iter().filter(|name| !self.must.contains(*name) && !self.may.contains(*name)).collect();
        if !lost.is_empty() || !strange.is_empty() || found.len() != listed.len() {
            return Err(format!("lost {lost:?}, not promised {strange:?}; listed {listed:?}, promised {self:?}"));
        }
        let unsaid = found.intersection(&self.may).cloned().collect();
        let missing = self.may.difference(&found).cloned().collect();
        self.stood.retain(|name, _| found.contains(name));
        self.must = found;
        self.may.clear();
        Ok(Judged { unsaid, missing })
    }

    /// Where the guest of a snapshot stood.
    pub fn stood(&self, name: &str) -> Option<Instant> {
        self.stood.get(name).copied()
    }

    /// How many must be there.
    pub fn len(&self) -> usize {
        self.must.len()
    }
}

/// Of what was open at the cut: there, and not there.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    /// There although nobody was told so.
    pub unsaid: Vec<String>,
    /// Not there.
    pub missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Count = Count { ticks: 5, steps: 50 };

    fn names(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    fn promise() -> Promise {
        let mut promise = Promise::default();
        for name in ["one", "two"] {
            promise.begins(name, AT);
            promise.sealed(name, Some(AT));
        }
        promise.begins("three", AT);
        promise
    }

    #[test]
    fn what_was_sealed_must_be_there_and_what_was_under_way_may() {
        let is = |unsaid: &str, missing: &str| Ok(Judged { unsaid: names(unsaid), missing: names(missing) });
        assert_eq!(promise().judge(&names("one two three")), is("three", ""));
        assert_eq!(promise().judge(&names("two one")), is("", "three"));
        for wrong in ["", "one three", "two three", "one two four", "one two two", "one two three four"] {
            assert!(promise().judge(&names(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_found_must_stay_and_what_was_not_found_must_not_come_back() {
        let mut promise = promise();
        promise.judge(&names("one two three")).unwrap();
        assert!(promise.judge(&names("one two")).is_err());
        promise.begins("four", AT);
        promise.judge(&names("one two three")).unwrap();
        assert!(promise.judge(&names("one two three four")).is_err());
        assert_eq!((promise.len(), promise.stood("four")), (3, None));
    }

    #[test]
    fn a_removal_may_have_come_anywhere_and_is_done_when_it_says_so() {
        for listed in ["two", "one two", "two three", "one two three"] {
            let mut promise = promise();
            promise.going("two");
            assert!(promise.judge(&names(listed)).is_ok(), "{listed}");
        }
        let mut promise = promise();
        promise.going("two");
        assert!(promise.judge(&names("one three")).is_err());
        promise = self::promise();
        promise.going("two");
        promise.only("two");
        assert!(promise.judge(&names("one two")).is_err());
        assert!(promise.judge(&names("two")).is_ok());
    }

    #[test]
    fn a_snapshot_lies_between_its_begin_and_its_end() {
        let mut promise = promise();
        let later = Count { ticks: 6, steps: 60 };
        assert!(promise.stood("two").unwrap().is_of(AT).is_ok());
        assert!(promise.stood("two").unwrap().is_of(later).is_err());
        assert!(promise.stood("three").unwrap().is_of(later).is_ok(), "nobody knows its end");
        promise.sealed("three", None);
        assert!(promise.stood("three").unwrap().is_of(later).is_ok());
    }
}

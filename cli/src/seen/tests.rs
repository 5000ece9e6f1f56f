//! The memory of stores: what is doubted, what an acceptance does, and a file that is not as it should be.

use super::*;

fn sight(id: &str, generation: u64, device: &str) -> Sight {
    Sight { id: id.to_owned(), generation, device: Some(device.to_owned()) }
}

/// A directory of its own that does not exist yet.
fn dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("livesave-seen-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

#[test]
fn a_store_that_only_goes_forward_is_never_doubted() {
    let dir = dir("forward");
    for generation in [1, 1, 2, 9] {
        assert_eq!(judge(&dir, &sight("a", generation, "/dev/x")), Ok(None));
    }
    assert_eq!(judge(&dir, &sight("a", 9, "/dev/y")), Ok(None), "it may move");
    assert_eq!(judge(&dir, &sight("b", 1, "/dev/z")), Ok(None), "another store on another device");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_older_generation_is_doubted_until_it_is_accepted() {
    let dir = dir("back");
    judge(&dir, &sight("a", 9, "/dev/x")).unwrap();
    for device in ["/dev/x", "/dev/x", "/dev/other"] {
        assert_eq!(judge(&dir, &sight("a", 5, device)), Ok(Some(Doubt::WentBack { seen: 9 })), "{device}");
    }
    accept_in(&dir, &sight("a", 5, "/dev/x")).unwrap();
    assert_eq!(judge(&dir, &sight("a", 5, "/dev/x")), Ok(None));
    assert_eq!(judge(&dir, &sight("a", 4, "/dev/x")), Ok(Some(Doubt::WentBack { seen: 5 })));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn another_store_on_the_same_device_is_doubted_until_it_is_accepted() {
    let dir = dir("swap");
    judge(&dir, &sight("a", 3, "/dev/x")).unwrap();
    let swapped = Ok(Some(Doubt::Swapped { was: "a".to_owned() }));
    assert_eq!(judge(&dir, &sight("b", 7, "/dev/x")), swapped);
    judge(&dir, &sight("b", 7, "/dev/y")).unwrap();
    assert_eq!(judge(&dir, &sight("b", 7, "/dev/x")), swapped, "also one that is known from elsewhere");
    accept_in(&dir, &sight("b", 7, "/dev/x")).unwrap();
    assert_eq!(judge(&dir, &sight("b", 7, "/dev/x")), Ok(None));
    assert_eq!(judge(&dir, &sight("a", 3, "/dev/x")), Ok(Some(Doubt::Swapped { was: "b".to_owned() })));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_accepted_copy_is_followed_beside_its_original() {
    let dir = dir("copy");
    judge(&dir, &sight("a", 9, "/dev/x")).unwrap();
    accept_in(&dir, &sight("a", 5, "/backup.img")).unwrap();
    assert_eq!(judge(&dir, &sight("a", 5, "/backup.img")), Ok(None));
    assert_eq!(judge(&dir, &sight("a", 8, "/dev/x")), Ok(Some(Doubt::WentBack { seen: 9 })), "the home is as before");
    assert_eq!(judge(&dir, &sight("a", 4, "/backup.img")), Ok(Some(Doubt::WentBack { seen: 5 })));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_device_that_dom0_does_not_know_is_judged_by_the_generation_alone() {
    let dir = dir("unknown");
    let unknown = |id: &str, generation| Sight { id: id.to_owned(), generation, device: None };
    assert_eq!(judge(&dir, &unknown("a", 4)), Ok(None));
    assert_eq!(judge(&dir, &unknown("b", 1)), Ok(None));
    assert_eq!(judge(&dir, &unknown("a", 3)), Ok(Some(Doubt::WentBack { seen: 4 })));
    accept_in(&dir, &unknown("a", 3)).unwrap();
    assert_eq!(judge(&dir, &unknown("a", 3)), Ok(None));
    assert_eq!(judge(&dir, &unknown("b", 0)), Ok(Some(Doubt::WentBack { seen: 1 })), "others are as before");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_memory_is_bounded_and_forgets_the_oldest() {
    let mut memory = Memory::default();
    for n in 0..200 {
        memory.note(&sight(&format!("{n}"), 1, &format!("/dev/{n}")), n);
    }
    assert_eq!(memory.stores.len(), STORES_MAX);
    assert_eq!(memory.stores.iter().map(|seen| seen.seen_unix).min(), Some(200 - STORES_MAX as u64));
    let bytes = serde_json::to_vec_pretty(&memory).unwrap();
    assert!((bytes.len() as u64) < FILE_MAX);
    assert_eq!(Memory::parse(&bytes), Ok(memory));
}

#[test]
fn a_damaged_file_is_said_kept_and_replaced_by_an_acceptance_alone() {
    let dir = dir("damaged");
    judge(&dir, &sight("a", 9, "/dev/x")).unwrap();
    let path = dir.join("stores.json");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(judge(&dir, &sight("a", 5, "/dev/x")).unwrap_err().contains("is damaged"), "{length}");
        assert_eq!(fs::read(&path).unwrap(), &whole[..length], "it is left as it is");
    }
    fs::write(&path, br#"{"version":2,"stores":[]}"#).unwrap();
    assert!(judge(&dir, &sight("a", 5, "/dev/x")).is_err());
    accept_in(&dir, &sight("a", 5, "/dev/x")).unwrap();
    assert_eq!(judge(&dir, &sight("a", 4, "/dev/x")), Ok(Some(Doubt::WentBack { seen: 5 })));
    assert!(dir.join("stores.damaged").exists());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn each_doubt_has_its_exit_status_and_a_way_out() {
    let seen = sight("a", 5, "/dev/x");
    let back = failure(&seen, &Doubt::WentBack { seen: 9 });
    assert_eq!(back.exit, Exit::StoreWentBack);
    assert!(back.what.contains("generation 5") && back.what.contains('9'), "{}", back.what);
    let swapped = failure(&seen, &Doubt::Swapped { was: "b".to_owned() });
    assert_eq!(swapped.exit, Exit::StoreSwapped);
    for failure in [back, swapped] {
        assert!(failure.hint.unwrap().contains("livesave store accept"));
    }
}

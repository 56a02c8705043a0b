use std::path::Path;

use super::super::{NewFile, StoreFs};
use super::{Machine, Process};

/// What is left of `/a` after a crash, over many seeds: how often it was absent, whole, and anything else.
fn survivors(act: impl Fn(&Process)) -> [usize; 3] {
    let mut counts = [0; 3];
    for seed in 0..200 {
        let machine = Machine::new(seed);
        act(&machine.process());
        machine.restart();
        let place = match machine.process().read(Path::new("/a")) {
            Err(_) => 0,
            Ok(bytes) if bytes == [7; 300] => 1,
            Ok(_) => 2,
        };
        counts[place] += 1;
    }
    counts
}

fn write(process: &Process, path: &str) -> Box<dyn NewFile> {
    let mut file = process.create_new(Path::new(path)).expect("a new name");
    assert_eq!(file.write(&[7; 300]).expect("there is space"), 300);
    file
}

#[test]
fn a_crash_takes_what_was_not_synced_and_nothing_else() {
    let [absent, whole, torn] = survivors(|process| drop(write(process, "/a")));
    assert!(absent > 0 && whole > 0 && torn > 0, "{absent} {whole} {torn}");
    let [absent, whole, torn] = survivors(|process| write(process, "/a").sync().expect("syncs"));
    assert!(absent > 0 && whole > 0 && torn == 0, "{absent} {whole} {torn}");
    let [absent, whole, torn] = survivors(|process| {
        drop(write(process, "/a"));
        process.sync_dir(Path::new("/")).expect("syncs");
    });
    assert!(absent == 0 && whole > 0 && torn > 0, "{absent} {whole} {torn}");
    let both = |process: &Process| {
        write(process, "/a").sync().expect("syncs");
        process.sync_dir(Path::new("/")).expect("syncs");
    };
    assert_eq!(survivors(both), [0, 200, 0]);
}

#[test]
fn a_name_whose_sync_failed_may_vanish_until_it_is_made_again() {
    let doubtful = |process: &Process| {
        write(process, "/b").sync().expect("syncs");
        process.link(Path::new("/b"), Path::new("/a")).expect("links");
        process.lose_names(Path::new("/"));
        process.sync_dir(Path::new("/")).expect("syncs");
    };
    assert!(survivors(doubtful)[0] > 0);
    let again = |process: &Process| {
        doubtful(process);
        write(process, "/c").sync().expect("syncs");
        process.rename(Path::new("/c"), Path::new("/a")).expect("renames");
        process.sync_dir(Path::new("/")).expect("syncs");
    };
    assert_eq!(survivors(again), [0, 200, 0]);
}

#[test]
fn what_is_in_a_folder_whose_name_vanished_is_gone() {
    let mut gone = 0;
    for seed in 0..50 {
        let machine = Machine::new(seed);
        let process = machine.process();
        process.create_dir(Path::new("/f")).expect("new");
        write(&process, "/f/a").sync().expect("syncs");
        process.sync_dir(Path::new("/f")).expect("syncs");
        machine.restart();
        gone += usize::from(machine.files().is_empty());
    }
    assert!((1..50).contains(&gone), "{gone}");
}

#[test]
fn the_same_seed_gives_the_same_survivors() {
    let left = |seed| {
        let machine = Machine::new(seed);
        ["/a", "/b", "/c", "/d"].iter().for_each(|path| drop(write(&machine.process(), path)));
        machine.restart();
        machine.files()
    };
    assert_eq!(left(3), left(3));
    assert!((0..10).any(|seed| left(seed) != left(3)));
}

use super::*;
use crate::store::fs::faulty::{Fault, Faulty};
use crate::store::fs::{RealFs, files_below};
use crate::store::part::folder_of;
use crate::store::row::Value;
use crate::store::testing::{cell, ids, place_of, plan, row, store_of};
use crate::store::{ChunkResult, Coverage, SideTable, WeightTensor, encode_weights};
use polars::prelude::df;
use std::fs;
use std::sync::Arc;

fn publish(store: &Store, chunk: u64, indices: std::ops::Range<u64>) {
    let rows = indices.map(row).collect();
    store.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
}

/// A store of three chunks of two cells, with the paths of its parts by chunk.
fn filled() -> (tempfile::TempDir, Store, Vec<PathBuf>) {
    let (folder, store) = store_of(&plan(6, 2));
    for chunk in 0..3 {
        publish(&store, chunk, chunk * 2..chunk * 2 + 2);
    }
    let mut parts = store.scan().expect("sound").parts;
    parts.sort_by_key(|path| path.file_name().map(|name| name.to_os_string()));
    (folder, store, parts)
}

#[test]
fn what_was_published_is_done() {
    let (_folder, store, parts) = filled();
    let scan = store.scan().expect("sound");
    assert_eq!(scan.done(), ids(6));
    assert!(scan.is_done(&cell(5)) && !scan.is_done(&cell(6)));
    assert_eq!((parts.len(), scan.quarantined.len(), scan.unknown.len(), scan.incomplete), (3, 0, 0, 0));
}

/// One bit of one byte at a time, of every file that the store has written: rows, a side table, weights, plan, hint at the plan,
/// what was collected, its manifest, a state of a training.
#[test]
fn every_single_changed_byte_of_a_run_is_found() {
    let plan = plan(2, 2);
    let (folder, store) = store_of(&plan);
    let frame = df!["cell" => [row(0).cell.to_string()], "norm" => [1.0]].expect("two columns");
    let side = vec![SideTable { side: Side::Features, frame }];
    let tensor = WeightTensor { cell: cell(0), name: "sae.decoder", shape: vec![2], values: &[1.0, 2.0] };
    let weights = Some(encode_weights(&[tensor]).expect("encodes"));
    store.publish(&ChunkResult { chunk: 0, rows: vec![row(0), row(1)], side, weights }).expect("publishes");
    store.write_checkpoint(&cell(1), b"state").expect("written");
    let rows = store.rows(&plan, &ids(2)).expect("rows");
    let whole = Coverage::whole(&plan, store.part_names().expect("listed"));
    store.collect(&plan, &rows, &whole, false).expect("collects");
    assert!(store.verify().expect("readable").quarantined.is_empty());
    let (mut files, mut flips) = (vec![folder.path().to_path_buf()], 0);
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
            continue;
        }
        if path.extension().is_some_and(|end| end == "yaml") {
            // The user's own text, twice; what follows from it is in the plan.
            continue;
        }
        let bytes = fs::read(&path).expect("readable");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, &changed).expect("writable");
            let found = store.verify().expect("readable").quarantined;
            assert!(found.iter().any(|damage| damage.path == path), "byte {at} of {}", path.display());
            flips += 1;
        }
        fs::write(&path, &bytes).expect("writable");
    }
    assert!(flips > 5000, "{flips}");
    assert!(store.verify().expect("readable").quarantined.is_empty());
}

#[test]
fn a_flipped_byte_sends_the_part_to_quarantine_and_its_cells_back() {
    let (folder, store, parts) = filled();
    let mut bytes = fs::read(&parts[1]).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&parts[1], bytes).expect("writable");
    assert_eq!(store.verify().expect("reports").quarantined[0].moved_to, None);
    let scan = store.scan().expect("the rest is sound");
    assert_eq!(scan.done(), [cell(0), cell(1), cell(4), cell(5)]);
    assert_eq!(scan.quarantined.len(), 1);
    assert!(!parts[1].exists());
    assert!(scan.quarantined[0].moved_to.as_ref().is_some_and(|path| path.starts_with(folder.path()) && path.exists()));
    publish(&store, 1, 2..4);
    assert_eq!(store.scan().expect("sound").done(), ids(6), "computed again, it is there again");
}

#[test]
fn truncated_empty_and_renamed_parts_go_to_quarantine() {
    let (_folder, store, parts) = filled();
    let bytes = fs::read(&parts[0]).expect("readable");
    fs::write(&parts[0], &bytes[..bytes.len() - 1]).expect("writable");
    fs::write(&parts[1], b"").expect("writable");
    // The third takes the name that it would have as chunk 9.
    let name = parts[2].file_name().expect("a name").to_string_lossy().replace("c00000002", "c00000009");
    let folder = store.dir().join(PARTS).join(folder_of(9));
    fs::create_dir_all(&folder).expect("a folder");
    fs::rename(&parts[2], folder.join(name)).expect("renames");
    let scan = store.scan().expect("nothing sound, no error");
    assert_eq!((scan.done().len(), scan.quarantined.len()), (0, 3));
    assert!(scan.quarantined.iter().any(|damage| damage.reason.contains("holds chunk 2, not the 9")));
}

#[test]
fn a_part_in_the_wrong_folder_or_under_the_wrong_hash_goes_to_quarantine() {
    let (_folder, store, parts) = filled();
    let wrong = if folder_of(0) == "00" { "01" } else { "00" };
    let wrong = store.dir().join(PARTS).join(wrong);
    fs::create_dir_all(&wrong).expect("a folder");
    fs::rename(&parts[0], wrong.join(parts[0].file_name().expect("a name"))).expect("renames");
    let other = parts[1].to_string_lossy().replace("00001-", "00001-0").replace(".parquet", "");
    fs::rename(&parts[1], format!("{}.parquet", &other[..other.len() - 1])).expect("renames");
    let scan = store.scan().expect("the rest is sound");
    assert_eq!((scan.done().len(), scan.quarantined.len()), (2, 2));
}

#[test]
fn leftovers_are_ignored_and_removed_when_their_writer_is_gone() {
    let (_folder, store, parts) = filled();
    let folder = parts[0].parent().expect("a folder");
    let mut child = std::process::Command::new("true").spawn().expect("`true` runs");
    child.wait().expect("`true` ends");
    // This process's own name, with the number of one that is gone.
    let own = store.writer().replace(&format!("-{}-", std::process::id()), &format!("-{}-", child.id()));
    let dead = folder.join(format!("{TEMPORARY}{own}-0"));
    let elsewhere = folder.join(format!("{TEMPORARY}elsewhere.{own}-0"));
    let foreign = folder.join("notes.txt");
    for path in [&dead, &elsewhere, &foreign] {
        fs::write(path, b"half a part").expect("writable");
    }
    let scan = store.scan().expect("sound");
    assert_eq!((scan.done().len(), scan.temporary.len()), (6, 2));
    assert_eq!(scan.unknown, std::slice::from_ref(&foreign));
    assert_eq!(store.remove_stale(&scan), 1);
    assert!(!dead.exists() && elsewhere.exists() && foreign.exists());
}

#[test]
fn a_part_that_cannot_be_read_is_set_aside_and_its_cells_are_computed_again() {
    for errno in [Errno::IO, Errno::ACCESS] {
        let (folder, store, parts) = filled();
        let scan = unreadable(folder.path(), &parts[1], errno).scan().expect("the rest is sound");
        assert_eq!((scan.done().len(), scan.quarantined.len()), (4, 1), "{errno}");
        assert!(scan.quarantined[0].reason.contains("cannot be read") && !parts[1].exists());
        publish(&store, 1, 2..4);
        assert_eq!(store.scan().expect("sound").done(), ids(6));
    }
}

#[test]
fn too_many_open_files_say_nothing_of_a_part() {
    let (folder, store, parts) = filled();
    let error = unreadable(folder.path(), &parts[1], Errno::MFILE).scan().expect_err("not read");
    assert!(error.exit_code() == 5 && parts[1].exists(), "{error}");
    assert_eq!(store.scan().expect("sound").done(), ids(6));
}

/// The same store where one file cannot be read.
fn unreadable(folder: &Path, file: &Path, errno: Errno) -> Store {
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let files = Faulty::new(Arc::new(RealFs), Fault::Unreadable(Box::leak(name.into_boxed_str()), errno));
    Store::create_or_open_on(Arc::new(files), folder, b"name: test\n", &plan(6, 2)).expect("opens")
}

#[test]
fn a_part_that_cannot_be_read_is_no_reason_to_let_another_result_in() {
    let (folder, _store, parts) = filled();
    let disk = unreadable(folder.path(), &parts[1], Errno::IO);
    let mut rows = vec![row(2), row(3)];
    rows[0].scores[0] = Value::Float(-1.0);
    let error = disk.publish(&ChunkResult { chunk: 1, rows, ..Default::default() }).expect_err("not compared");
    assert_eq!(error.exit_code(), 5);
    assert_eq!(files_below(&RealFs, &folder.path().join(PARTS)).expect("listed").len(), 3);
}

#[test]
fn rows_without_their_side_table_are_not_done() {
    let (_folder, store) = store_of(&plan(2, 2));
    let frame = df!["cell" => [cell(0).to_string()], "feature" => [0i64]].expect("two columns");
    let side = vec![SideTable { side: Side::Features, frame }];
    let result = ChunkResult { chunk: 0, rows: vec![row(0), row(1)], side, weights: Some(vec![1, 2, 3]) };
    store.publish(&result).expect("publishes");
    assert_eq!(store.scan().expect("sound").done().len(), 2);
    for folder in ["features", WEIGHTS] {
        let files = files_below(&RealFs, &store.dir().join(folder)).expect("listed");
        fs::remove_file(&files[0]).expect("removable");
        let scan = store.scan().expect("sound");
        assert_eq!((scan.done().len(), scan.incomplete), (0, 2), "{folder}");
        store.publish(&result).expect("publishes again");
        assert_eq!(store.scan().expect("sound").done().len(), 2, "{folder}");
    }
}

#[test]
fn rows_that_lack_a_score_of_the_edited_plan_are_not_done() {
    let (folder, store, _parts) = filled();
    let mut edited = plan(6, 2);
    edited.scores.push(Column::new("l0", Kind::Float));
    let again = Store::create_or_open(folder.path(), b"name: test\n", &edited).expect("opens");
    let scan = again.scan().expect("sound");
    assert_eq!((scan.done().len(), scan.incomplete), (0, 6));
    let mut rows: Vec<_> = (0..2).map(row).collect();
    rows.iter_mut().for_each(|row| row.scores.push(Value::Float(2.0)));
    again.publish(&ChunkResult { chunk: 0, rows, ..Default::default() }).expect("the shared scores agree");
    assert_eq!(again.scan().expect("sound").done(), [cell(0), cell(1)]);
    assert_eq!(store.scan().expect("sound").done().len(), 6, "the old plan still has all of its own");
}

/// Copies a part of another store into this one.
fn copy_in(store: &Store, part: &Path, other: &Store) {
    let target = store.dir().join(part.strip_prefix(other.dir()).expect("below"));
    fs::create_dir_all(target.parent().expect("a folder of parts")).expect("a folder");
    fs::copy(part, target).expect("copies");
}

/// A store in which two parts of chunk 0 contradict each other, and the path of a third, of chunk 1.
fn contradicting() -> (tempfile::TempDir, Store) {
    let (folder, store) = store_of(&plan(4, 2));
    let (_other_folder, other) = store_of(&plan(4, 2));
    (0..2).for_each(|chunk| publish(&store, chunk, chunk * 2..chunk * 2 + 2));
    let mut rows = vec![row(0), row(1)];
    rows[0].scores[0] = Value::Float(-0.0);
    other.publish(&ChunkResult { chunk: 0, rows, ..Default::default() }).expect("publishes");
    copy_in(&store, &other.scan().expect("sound").parts[0], &other);
    (folder, store)
}

#[test]
fn two_different_results_on_disk_are_both_set_aside_once_and_their_cells_are_computed_again() {
    let (folder, store) = contradicting();
    assert!(store.rows(&plan(4, 2), &ids(4)).is_err());
    let looked = store.verify().expect("readable");
    assert_eq!((looked.done(), looked.conflicts.len(), looked.contradictions), (&[cell(2), cell(3)][..], 1, 0));
    let scan = store.scan().expect("readable");
    assert!(scan.conflicts[0].cell == cell(0) && scan.conflicts[0].what == "loss");
    assert_eq!(scan.refuse_conflicts(&ids(4)).expect_err("of this plan").exit_code(), 6);
    assert!(scan.refuse_conflicts(&[cell(2), cell(3)]).is_ok(), "other plans are not held up");
    assert_eq!((scan.done(), scan.contradictions), (&[cell(2), cell(3)][..], 2));
    let kept: Vec<PathBuf> =
        fs::read_dir(folder.path().join(CONFLICTS)).expect("made").flatten().map(|entry| entry.path()).collect();
    assert_eq!(kept.len(), 3, "both, and what is known of them: {kept:?}");
    let record = kept.iter().find(|path| path.extension().is_some_and(|end| end == "json")).expect("a record");
    let record = fs::read_to_string(record).expect("readable");
    assert!(record.contains(&cell(0).to_string()) && record.contains("\"loss\"") && record.contains("-0.0"));
    publish(&store, 0, 0..2);
    let again = store.scan().expect("sound");
    assert_eq!((again.done(), again.conflicts.len(), again.contradictions), (&ids(4)[..], 0, 2));
}

#[test]
fn three_parts_of_which_the_middle_one_lacks_what_the_others_differ_in_are_a_conflict() {
    let mut edited = plan(2, 2);
    edited.scores.push(Column::new("l0", Kind::Float));
    let (folder, old) = store_of(&plan(2, 2));
    let part_with = |l0: f64| {
        let (elsewhere, store) = store_of(&edited);
        let mut rows = vec![row(0), row(1)];
        rows.iter_mut().for_each(|row| row.scores.push(Value::Float(l0)));
        store.publish(&ChunkResult { chunk: 0, rows, ..Default::default() }).expect("publishes");
        copy_in(&old, &store.scan().expect("sound").parts[0], &store);
        drop(elsewhere);
    };
    part_with(1.0);
    publish(&old, 0, 0..2);
    // Of several such parts one has a hash that puts the one without the score between two that differ.
    (2..6).for_each(|l0| part_with(f64::from(l0)));
    let again = Store::create_or_open(folder.path(), b"name: test\n", &edited).expect("opens");
    assert!(again.rows(&edited, &ids(2)).is_err());
    let scan = again.scan().expect("readable");
    assert_eq!((scan.conflicts.len(), scan.contradictions, scan.incomplete), (2 * 10, 5, 2));
}

#[test]
fn parts_of_another_schema_are_damage() {
    let (_folder, store, _parts) = filled();
    let mut frames = vec![
        df!["cell" => [cell(0).to_string()], "loss" => [1.0]].expect("two columns"),
        df!["cell" => [7i64], "plan_index" => [0i64]].expect("two columns"),
    ];
    let mut whole = super::super::part::frame("test", &plan(1, 1).schema(), &[row(0)]).expect("rows fit");
    whole.with_column(polars::prelude::Column::new("seed".into(), ["one"])).expect("replaced");
    frames.push(whole);
    for frame in frames {
        let bytes = super::super::part::encode(1, &frame).expect("encodes");
        let name = PartName::of(1, true, &bytes);
        let path = place_of(&store, &name);
        fs::write(&path, &bytes).expect("writable");
        let found = store.verify().expect("readable").quarantined;
        assert!(found.len() == 1 && found[0].reason.contains("column"), "{found:?}");
        let scan = store.scan().expect("readable");
        assert_eq!((scan.quarantined.len(), scan.done().len()), (1, 6));
    }
}

#[test]
fn unfinished_files_beside_the_rows_are_counted_too() {
    let (folder, store, _parts) = filled();
    for name in ["", "prov", "collected", "conflicts", "checkpoints"] {
        fs::create_dir_all(folder.path().join(name)).expect("made");
        fs::write(folder.path().join(name).join(format!("{TEMPORARY}elsewhere-1-2-3-4")), b"half").expect("writable");
    }
    assert_eq!(store.scan().expect("sound").temporary.len(), 5);
    assert_eq!(store.verify().expect("sound").temporary.len(), 5);
}

#[test]
fn a_folder_that_cannot_be_listed_is_set_aside_with_what_it_holds() {
    for (errno, is_moved) in [(Errno::IO, true), (Errno::ACCESS, true), (Errno::MFILE, false)] {
        let (folder, store, parts) = filled();
        let closed = parts[1].parent().expect("a folder").to_path_buf();
        let held = fs::read_dir(&closed).expect("listed").count();
        let end = Box::leak(closed.to_string_lossy().into_owned().into_boxed_str());
        let files = Arc::new(Faulty::new(Arc::new(RealFs), Fault::Unlistable(end, errno)));
        let scan = Store::create_or_open_on(files, folder.path(), b"name: test\n", &plan(6, 2)).expect("opens").scan();
        if !is_moved {
            assert_eq!(scan.expect_err("the machine's fault").exit_code(), 5);
            continue;
        }
        let scan = scan.expect("the rest is sound");
        assert_eq!((scan.done().len(), scan.quarantined.len()), (6 - 2 * held, 1));
        let moved = scan.quarantined[0].moved_to.clone().expect("moved");
        assert_eq!(fs::read_dir(moved).expect("listed").count(), held);
        (0..3).for_each(|chunk| publish(&store, chunk, chunk * 2..chunk * 2 + 2));
        assert_eq!(store.scan().expect("sound").done(), ids(6));
    }
}

//! Compacting a finished run: killed at each of its changes, the power cut at each, an error at each of its calls.

use super::every_call::faults;
use super::*;

/// A finished run of five parts.
static FINISHED: LazyLock<Machine> = LazyLock::new(|| {
    let machine = Machine::new(0);
    let process = machine.process();
    let store = Store::create_or_open_on(Arc::new(process.clone()), Path::new(DIR), SPEC, &the_plan()).expect("made");
    for (chunk, cells) in [(0, &[0, 1][..]), (1, &[2]), (1, &[3]), (2, &[4]), (2, &[4, 5])] {
        store.publish(&result(chunk, cells)).expect("published");
    }
    process.end();
    machine
});

fn every_cell() -> Ledger {
    Arc::new(Mutex::new(ids(CELLS).into_iter().collect()))
}

fn compact(files: Arc<dyn StoreFs>, kind: Build) -> Result<usize, StoreError> {
    let mut store = Store::open_on(files, Path::new(DIR))?;
    store.disk.removes_first = kind == Build::RemovingFirst;
    store.compact(ROWS).map(|done| done.after)
}

/// What must be true after compacting that may have been interrupted: nothing is lost, and the same command does the rest.
fn holds(machine: &Machine) -> Result<(), String> {
    check(machine, &every_cell(), &BTreeSet::new())?;
    let after = compact(Arc::new(machine.process()), Build::Sound).map_err(|error| format!("again: {error}"))?;
    if after != 1 {
        return Err(format!("{after} parts after compacting"));
    }
    check(machine, &every_cell(), &BTreeSet::new()).map_err(|why| format!("compacted: {why}"))?;
    check_end(machine, Build::Sound, &every_cell())
}

/// Kills the process at a change, or cuts the power there; whether it had ended by then.
fn interrupted(kind: Build, change: u64, seed: u64) -> Result<bool, String> {
    let machine = FINISHED.copy(seed, Oddities { no_links: seed % 5 == 4, ..Default::default() });
    let process = machine.process();
    let is_cut = !seed.is_multiple_of(3);
    if is_cut {
        machine.cut_at(change);
    } else {
        machine.kill_at(&process, change);
    }
    let outcome = compact(files_of(&process, kind, Fault::Never), kind);
    process.end();
    if is_cut {
        machine.restart();
    } else {
        machine.calm();
    }
    holds(&machine).map_err(|why| format!("change {change}: {why}"))?;
    Ok(outcome.is_ok())
}

/// Every change, for each of a few seeds until one fails.
fn interrupted_anywhere(kind: Build, seeds: u64) -> Vec<String> {
    on_all_cores(seeds, |seed, _| {
        for change in 1..200 {
            if interrupted(kind, change, seed)? {
                break;
            }
        }
        Ok(())
    })
}

#[test]
fn killed_or_without_power_at_any_change_compacting_loses_nothing_and_the_same_command_does_the_rest() {
    let failures =
        interrupted_anywhere(Build::Sound, if std::env::var_os("TEGUM_HISTORIES").is_some() { 50 } else { 6 });
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn an_error_at_any_call_of_compacting_is_recovered_from() {
    let recording = Faulty::recording(Arc::new(FINISHED.copy(0, Oddities::default()).process()));
    assert_eq!(compact(Arc::new(recording.clone()), Build::Sound).expect("nothing happens"), 1);
    let faults = faults(recording.calls().len());
    let failures = on_all_cores(faults.len() as u64, |number, _| {
        let (machine, fault) = (FINISHED.copy(number, Oddities::default()), faults[number as usize]);
        let process = machine.process();
        match compact(files_of(&process, Build::Sound, fault), Build::Sound) {
            Err(error) if error.exit_code() != 5 => return Err(format!("{fault:?}: {error}")),
            _ => {}
        }
        if number % 2 == 0 {
            machine.restart();
        }
        process.end();
        holds(&machine).map_err(|why| format!("{fault:?}: {why}"))
    });
    assert!(failures.is_empty(), "{} of {}: {:#?}", failures.len(), faults.len(), &failures[..failures.len().min(5)]);
}

/// The order of things is there for a reason.
#[test]
fn parts_that_are_removed_before_the_new_one_is_on_disk_are_missed() {
    for kind in [Build::RemovingFirst, Build::Without(Rule::SyncFiles), Build::Without(Rule::SyncDirs)] {
        let failures = interrupted_anywhere(kind, 6);
        let lost = ["was published and is not there", "not what its name says"];
        assert!(failures.iter().any(|why| lost.iter().any(|kind| why.contains(kind))), "{kind:?}: {failures:#?}");
    }
}

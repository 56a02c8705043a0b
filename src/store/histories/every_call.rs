//! One short history, with an error at each of its calls in turn.

use super::*;

/// A directory in which one chunk is published, one is rotten, and a process died while it published the third.
fn begun() -> Machine {
    let machine = Machine::new(0);
    let process = machine.process();
    let store = Store::create_or_open_on(Arc::new(process.clone()), Path::new(DIR), SPEC, &the_plan()).expect("made");
    store.publish(&result(0, &[0, 1])).expect("published");
    store.publish(&result(1, &[2, 3])).expect("published");
    machine.kill_at(&process, 12);
    store.publish(&result(2, &[4, 5])).expect_err("it was killed");
    process.end();
    let is_rows = |path: &Path| path.starts_with(Path::new(DIR).join("parts"));
    let path = machine.files().into_iter().map(|(path, _)| path).find(|path| is_rows(path)).expect("two parts");
    machine.rot(&path);
    machine
}

/// Kind and path of every call of one undisturbed run.
fn calls(machine: &Machine) -> Vec<String> {
    let machine = machine.copy(0, Oddities::default());
    let recording = Faulty::recording(Arc::new(machine.process()));
    command(Arc::new(recording.clone()), Build::Sound, &mut None, &Ledger::default()).expect("nothing happens");
    recording.calls()
}

/// Each of so many calls fails: once, from there on, and after it took effect. Which error it is goes round, so that each kind of call
/// meets all of them; with `TEGUM_HISTORIES` each call does. All of them take minutes: without it every third is tried.
pub(super) fn faults(calls: usize) -> Vec<Fault> {
    let several = if std::env::var_os("TEGUM_HISTORIES").is_some() { ERRORS.len() as u64 } else { 2 };
    let mut faults = Vec::new();
    for number in 0..calls as u64 {
        let errno = |shift: u64| ERRORS[((number + shift) % ERRORS.len() as u64) as usize];
        faults.extend((0..several).map(|shift| Fault::Once(number, errno(shift))));
        faults.push(Fault::From(number, errno(2)));
        faults.push(Fault::LostReply(number, if number % 2 == 0 { Errno::EXIST } else { errno(3) }));
    }
    // Four faults a call: the stride must not meet the same one of them each time.
    faults.into_iter().enumerate().filter(|(at, _)| several > 2 || at % 3 == 1).map(|(_, fault)| fault).collect()
}

/// Either the run recovers, or it ends with exit code 5; and then the same command does the rest, also after a power cut.
fn recovers(machine: &Machine, number: u64, fault: Fault) -> Result<(), String> {
    let said = |why: String| format!("{fault:?}: {why}");
    let machine = machine.copy(number, Oddities::default());
    let ledger = Ledger::default();
    let process = machine.process();
    match command(files_of(&process, Build::Sound, fault), Build::Sound, &mut None, &ledger) {
        Err(error) if error.exit_code() != 5 => return Err(said(error.to_string())),
        _ => process.end(),
    }
    if number.is_multiple_of(2) {
        machine.restart();
        let rotten = machine.files().into_iter().map(|(path, _)| path).collect();
        check(&machine, &ledger, &rotten).map_err(said)?;
    }
    check_end(&machine, Build::Sound, &ledger).map_err(said)
}

fn every_call(machine: &Machine) {
    let calls = calls(machine);
    let faults = faults(calls.len());
    let failures = on_all_cores(faults.len() as u64, |number, _| recovers(machine, number, faults[number as usize]));
    let shown = &failures[..failures.len().min(5)];
    let first: Vec<_> =
        (0..).zip(&calls).filter(|(at, _)| shown.iter().any(|why| why.contains(&format!("({at},")))).collect();
    assert!(failures.is_empty(), "{} of {} faults: {shown:#?} {first:#?}", failures.len(), faults.len());
}

#[test]
fn an_error_at_any_call_of_a_new_run_is_recovered_from() {
    every_call(&Machine::new(0));
}

#[test]
fn an_error_at_any_call_of_a_run_that_goes_on_is_recovered_from() {
    every_call(&begun());
}

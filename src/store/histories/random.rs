//! Histories that are drawn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;

use super::*;

/// What happens while writers are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incident {
    Nothing,
    Kill,
    PowerCut,
    Fault,
}

/// What a history is drawn from.
struct History<'a> {
    machine: Machine,
    seed: u64,
    build: Build,
    draws: Draws,
    ledger: Ledger,
    rotten: BTreeSet<PathBuf>,
    /// Cells of chunks that had a rotten file: a writer that is killed while it sets such a file aside, in the moment in
    /// which another one replaces it, takes the sound one along, and the cells are computed again.
    doubtful: BTreeSet<CellId>,
    lane: &'a Lane,
}

impl History<'_> {
    fn draw(&mut self, below: u64) -> u64 {
        u64::from(self.draws.below(below as u32))
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.draw(count) == 0
    }

    /// Some writers at once, and one incident.
    fn epoch(&mut self, number: u64) -> Result<(), String> {
        let incident = [Incident::Nothing, Incident::Kill, Incident::PowerCut, Incident::Fault][self.draw(4) as usize];
        let processes: Vec<Process> = (0..1 + self.draw(3)).map(|_| self.machine.process()).collect();
        let fault = self.fault(incident);
        self.machine.play(&processes);
        // Most calls of a run stand at its beginning.
        let changes = if self.one_in(2) { self.draw(40) } else { self.draw(150) } + 1;
        match incident {
            Incident::Kill => self.machine.kill_at(&processes[0], changes),
            Incident::PowerCut => self.machine.cut_at(changes),
            _ => {}
        }
        for (writer, (process, outcome)) in self.run(number, &processes, fault).into_iter().enumerate() {
            let was_disturbed = process || (writer == 0 && incident == Incident::Fault);
            match outcome {
                Err(error) if !was_disturbed || !matches!(error.exit_code(), 5) => {
                    return Err(format!("epoch {number}, writer {writer}, {incident:?}: {error}"));
                }
                _ => {}
            }
        }
        if self.machine.is_powered() && !self.one_in(3) {
            self.machine.calm();
        } else {
            self.machine.restart();
        }
        self.ledger.lock().expect("no writer panicked").retain(|cell| !self.doubtful.contains(cell));
        check(&self.machine, &self.ledger, &self.rotten).map_err(|why| format!("epoch {number}, {incident:?}: {why}"))
    }

    fn fault(&mut self, incident: Incident) -> Fault {
        if incident != Incident::Fault {
            return if self.one_in(8) { Fault::Short(100) } else { Fault::Never };
        }
        let errno = ERRORS[self.draw(ERRORS.len() as u64) as usize];
        // A run makes some 170 calls, more where much is there already or parts are merged.
        let call = if self.one_in(2) { self.draw(80) } else { self.draw(300) };
        match self.draw(4) {
            0 => Fault::From(call, errno),
            1 => Fault::LostReply(call, if self.one_in(2) { Errno::EXIST } else { errno }),
            _ => Fault::Once(call, errno),
        }
    }

    /// Runs the writers to their ends: whether each was killed, and what it said.
    fn run(&mut self, epoch: u64, processes: &[Process], fault: Fault) -> Vec<(bool, Result<usize, StoreError>)> {
        let (sender, receiver) = channel();
        for (writer, process) in processes.iter().enumerate() {
            let fault = if writer == 0 { fault } else { Fault::Never };
            let files = files_of(process, self.build, fault);
            let (sender, process, ledger) = (sender.clone(), process.clone(), self.ledger.clone());
            let build = self.build;
            let mut draws = Some(Draws::new(self.seed, Stream::Bootstrap, (epoch + 1) << 8 | writer as u64));
            self.lane.pools[writer + 1].spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| command(files, build, &mut draws, &ledger)));
                let was_killed = process.is_killed();
                process.end();
                let panicked = |_| Err(StoreError::WrongShape { reason: "it panicked".into() });
                let _ = sender.send((writer, was_killed, outcome.unwrap_or_else(panicked)));
            });
        }
        drop(sender);
        let mut outcomes: Vec<_> = receiver.into_iter().collect();
        outcomes.sort_by_key(|(writer, _, _)| *writer);
        outcomes.into_iter().map(|(_, was_killed, outcome)| (was_killed, outcome)).collect()
    }

    /// One bit of a published table flips.
    fn rot(&mut self) {
        let mut files = self.machine.files();
        files.retain(|(path, _)| {
            path.extension().is_some_and(|end| end == "parquet") && !path.to_string_lossy().contains("quarantine")
        });
        if files.is_empty() {
            return;
        }
        let path = files.swap_remove(self.draw(files.len() as u64) as usize).0;
        self.machine.rot(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = PartName::parse(&name, "parquet").expect("a table of the store");
        let of_chunk = name.chunk * CHUNK..(name.chunk + 1) * CHUNK;
        self.doubtful.extend(if name.extent == Extent::Merged { 0..CELLS } else { of_chunk }.map(cell));
        self.rotten.insert(path);
    }
}

fn history(seed: u64, build: Build, lane: &Lane) -> Result<(), String> {
    let mut draws = Draws::new(seed, Stream::Bootstrap, 0);
    let oddities = Oddities {
        late: if draws.below(4) == 0 { u64::from(draws.below(200)) } else { 0 },
        silly_renames: draws.below(4) == 0,
        no_links: draws.below(6) == 0,
        fast_clock: draws.below(6) == 0,
        wild_clock: draws.below(6) == 0,
    };
    let machine =
        if draws.below(2) == 0 { Machine::new(0).copy(seed, oddities) } else { EMPTY_RUN.copy(seed, oddities) };
    let (ledger, rotten, doubtful) = (Ledger::default(), BTreeSet::new(), BTreeSet::new());
    let mut history = History { machine, seed, build, draws, ledger, rotten, doubtful, lane };
    let epochs = 1 + history.draw(3);
    for number in 0..epochs {
        history.epoch(number)?;
        if history.one_in(6) {
            history.rot();
        }
    }
    history.ledger.lock().expect("no writer panicked").clear();
    check_end(&history.machine, build, &history.ledger)
}

/// How many histories are tried; `TEGUM_HISTORIES` sets another number for a longer search.
fn count() -> u64 {
    std::env::var("TEGUM_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

#[test]
fn whatever_is_killed_cut_or_fails_the_same_command_ends_in_the_rows_of_an_undisturbed_run() {
    let failures = on_all_cores(count(), |seed, lane| history(seed, Build::Sound, lane));
    assert!(failures.is_empty(), "{} histories failed: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
}

#[test]
fn a_history_is_the_same_whenever_it_is_drawn() {
    let left = |seed| {
        let lane = Lane::new();
        let machine = EMPTY_RUN.copy(seed, Oddities::default());
        let (ledger, draws) = (Ledger::default(), Draws::new(seed, Stream::Bootstrap, 0));
        let (rotten, doubtful) = (BTreeSet::new(), BTreeSet::new());
        let mut history = History { machine, seed, build: Build::Sound, draws, ledger, rotten, doubtful, lane: &lane };
        (0..2).for_each(|number| history.epoch(number).expect("a sound history"));
        history.machine.files()
    };
    (0..8).for_each(|seed| assert_eq!(left(seed), left(seed), "seed {seed}"));
}

/// Files of one run, as a machine whose clock is right and one whose clock jumps come to them.
#[test]
fn a_clock_that_is_wrong_or_jumps_changes_no_file() {
    let left = |wild_clock: bool, seed: u64| {
        let machine = EMPTY_RUN.copy(seed, Oddities { wild_clock, ..Default::default() });
        for _ in 0..2 {
            let process = machine.process();
            let mut draws = Some(Draws::new(seed, Stream::Bootstrap, 7));
            command(Arc::new(process.clone()), Build::Sound, &mut draws, &Ledger::default()).expect("nothing happens");
            process.end();
        }
        machine.files()
    };
    for seed in 0..12 {
        assert_eq!(left(true, seed), left(false, seed), "seed {seed}");
    }
}

/// Each rule is there for a reason: without it a hundred histories find something lost, torn or believed.
#[test]
fn a_store_that_breaks_a_rule_fails() {
    let cases = [
        (Build::Without(Rule::SyncFiles), "not what its name says"),
        (Build::Without(Rule::SyncDirs), "was published and is not there"),
        (Build::Without(Rule::WriteAside), "/c0000000"),
        (Build::BelievingNames, "at the end: "),
    ];
    for (build, expected) in cases {
        let failures = on_all_cores(120, |seed, lane| history(seed, build, lane));
        let of_that_kind = failures.iter().filter(|why| why.contains(expected)).count();
        assert!(of_that_kind > 0, "{build:?}: {failures:#?}");
    }
}

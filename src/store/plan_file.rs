//! The plan on disk: what the experiment was resolved to, immutable and named by its content.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::aside::Aside;
use super::error::StoreError;
use super::fs::{list_if_there, operating_system};
use super::part::FORMAT;
use super::publish::is_of_the_file;
use super::row::{Column, Schema};
use super::scan::Damage;

/// Which plan the folder's spec was resolved to last; a hint that may be deleted where there is one plan.
const CURRENT: &str = "current-plan";
/// The user's YAML file as it is now.
const SPEC: &str = "spec.yaml";

/// The YAML file that a plan was resolved from. Others may resolve to the same plan: they differ in words alone, and any of them
/// will do.
fn spec_of(plan: &str) -> String {
    format!("spec-{plan}.yaml")
}

/// What a plan file says of itself in any format; the first one, which has no number, says nothing.
#[derive(Deserialize)]
struct Head {
    format: Option<u64>,
    /// The version of the program that wrote it.
    tegum: Option<String>,
}

/// What a run directory must know about its plan to be read and continued by others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    pub experiment: String,
    /// The spec with every default filled in.
    pub canonical: serde_json::Value,
    pub axes: Vec<Column>,
    pub scores: Vec<Column>,
    /// How many cells there are; their order is the plan's.
    pub cells: u64,
    /// First plan index and number of cells of each chunk.
    pub chunks: Vec<(u64, u64)>,
    pub algo_versions: BTreeMap<String, String>,
    /// Arithmetic profile, for example `cpu-f32-v1`.
    pub profile: String,
    /// What is kept beside the rows, such as `features`, `trace=100` or `weights=all`: rows that were published without it are
    /// computed again. Sorted.
    #[serde(default)]
    pub kept: Vec<String>,
}

impl PlanRecord {
    /// The columns that rows of this plan have.
    pub fn schema(&self) -> Schema {
        Schema { axes: self.axes.clone(), scores: self.scores.clone() }
    }

    /// The bytes of the plan file: JSON with sorted keys and a newline, so that equal plans have equal bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let json = serde_json::to_value(self).expect("a plan has text keys and finite numbers only");
        let mut bytes = sorted(json).to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    /// First 32 hexadecimal digits of BLAKE3 over [`PlanRecord::bytes`].
    pub fn hash(&self) -> String {
        short_hash(&self.bytes())
    }
}

/// First 32 hexadecimal digits of BLAKE3: what every immutable file of the store carries in its name.
pub(super) fn short_hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_string()
}

/// The hash in the name of a plan file.
pub(super) fn plan_hash(name: &str) -> Option<&str> {
    let hash = name.strip_prefix("plan-")?.strip_suffix(".json")?;
    let is_hash = hash.len() == 32 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hash.then_some(hash)
}

fn parse(hash: &str, path: &Path, bytes: &[u8]) -> Result<PlanRecord, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { path: path.to_path_buf(), reason };
    if short_hash(bytes) != hash {
        return Err(damaged("its bytes do not hash to its name".into()));
    }
    if let Ok(Head { format: Some(format), tegum: writer }) = serde_json::from_slice(bytes)
        && format > FORMAT
    {
        return Err(StoreError::Newer { path: path.to_path_buf(), format, writer });
    }
    serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))
}

/// Another process moved it since it was listed.
fn is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// The same value with the keys of every object in order.
fn sorted(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let entries: BTreeMap<String, Value> = map.into_iter().map(|(key, inner)| (key, sorted(inner))).collect();
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// What a directory was run with before, if it is there at all.
#[derive(Debug)]
pub struct Past {
    /// Hash and experiment of each sound plan, in the order of the hashes.
    plans: Vec<(String, String)>,
    /// Hash of each other one, and what is wrong with its file.
    damaged: Vec<(String, Damage)>,
}

impl Past {
    /// # Errors
    /// An unreadable directory, or a plan of a later format.
    pub fn of(dir: &Path) -> Result<Past, StoreError> {
        let store = Store::on(operating_system(), dir);
        let (mut plans, mut damaged) = (Vec::new(), Vec::new());
        for hash in store.plan_hashes()? {
            match store.examine_plan(&hash)? {
                Some(Ok(plan)) => plans.push((hash, plan.experiment)),
                Some(Err(damage)) => damaged.push((hash, damage)),
                None => {}
            }
        }
        Ok(Past { plans, damaged })
    }

    /// The experiment whose run it is, if that is not `experiment`.
    pub fn other_experiment(&self, experiment: &str) -> Option<&str> {
        let is_own = self.plans.iter().any(|(_, name)| name == experiment);
        self.plans.first().filter(|_| !is_own).map(|(_, name)| name.as_str())
    }

    /// A damaged plan, where no sound one says whose run it is.
    pub fn of_nobody(&self) -> Option<&Damage> {
        self.damaged.first().filter(|_| self.plans.is_empty()).map(|(_, damage)| damage)
    }

    /// Fails if a plan is damaged.
    ///
    /// # Errors
    /// The first of them.
    pub fn refuse_damaged(&self) -> Result<(), StoreError> {
        match self.damaged.first() {
            Some((_, Damage { path, reason, .. })) => {
                Err(StoreError::Damaged { path: path.clone(), reason: reason.clone() })
            }
            None => Ok(()),
        }
    }

    /// Whether it was run with the plan of that hash; none where it was run with no plan at all.
    pub fn has(&self, hash: &str) -> Option<bool> {
        let mut hashes = self.hashes().peekable();
        hashes.peek()?;
        Some(hashes.any(|known| known == hash))
    }

    /// Whether it was run with other plans than the one of that hash.
    pub fn has_others(&self, hash: &str) -> bool {
        self.hashes().any(|known| known != hash)
    }

    fn hashes(&self) -> impl Iterator<Item = &str> {
        let damaged = self.damaged.iter().map(|(hash, _)| hash.as_str());
        self.plans.iter().map(|(hash, _)| hash.as_str()).chain(damaged)
    }
}

impl Store {
    /// Every plan of the directory with its hash, in the order of the hashes.
    ///
    /// # Errors
    /// A plan file that does not hash to its name is damage.
    pub fn plans(&self) -> Result<Vec<(String, PlanRecord)>, StoreError> {
        let mut plans = Vec::new();
        for hash in self.plan_hashes()? {
            match self.read_plan(&hash) {
                Err(error) if is_gone(&error) => {}
                plan => plans.push((hash, plan?)),
            }
        }
        Ok(plans)
    }

    /// Hashes of all plan files by their names, in order.
    pub(super) fn plan_hashes(&self) -> Result<Vec<String>, StoreError> {
        let entries = list_if_there(&*self.disk.files, &self.dir).map_err(StoreError::io("list", &self.dir))?;
        let names = entries.iter().filter(|entry| !entry.is_dir).map(|entry| &entry.name);
        Ok(names.filter_map(|name| plan_hash(name)).map(str::to_owned).collect())
    }

    /// A plan, or what is wrong with its file; none where that is gone since it was listed.
    fn examine_plan(&self, hash: &str) -> Result<Option<Result<PlanRecord, Damage>>, StoreError> {
        let damage = |path, reason| Ok(Some(Err(Damage { path, reason, moved_to: None })));
        match self.read_plan(hash) {
            Ok(plan) => Ok(Some(Ok(plan))),
            Err(error) if is_gone(&error) => Ok(None),
            Err(StoreError::Damaged { path, reason }) => damage(path, reason),
            Err(StoreError::Io { path, source, .. }) if is_of_the_file(&source) => {
                damage(path, format!("it cannot be read: {source}"))
            }
            Err(other) => Err(other),
        }
    }

    /// Moves the plans that were found damaged to `quarantine/`: what they said is lost, the rows are not. The plan that the store was
    /// opened with has been written anew by then. What was damaged and is no more.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn settle_plans(&self, past: &Past) -> Result<Vec<Damage>, StoreError> {
        let mut settled = Vec::new();
        for (hash, damage) in &past.damaged {
            let path = &damage.path;
            if !matches!(self.examine_plan(hash)?, Some(Err(_))) {
                settled.push(damage.clone());
                continue;
            }
            let is_sound = |bytes: &[u8]| !matches!(parse(hash, path, bytes), Err(StoreError::Damaged { .. }));
            if let Aside::Moved(to) = self.disk.set_aside(path, is_sound).map_err(StoreError::io("move", path))? {
                tracing::warn!("{}: {}; moved to quarantine", path.display(), damage.reason);
                settled.push(Damage { moved_to: Some(to), ..damage.clone() });
            }
        }
        Ok(settled)
    }

    /// Plans that are not what their names say, and a hint at the current one that names none.
    pub(super) fn damaged_plans(&self) -> Result<Vec<Damage>, StoreError> {
        let hashes = self.plan_hashes()?;
        let mut damaged = vec![];
        for hash in &hashes {
            damaged.extend(self.examine_plan(hash)?.and_then(Result::err));
        }
        let path = self.dir.join(CURRENT);
        if let Ok(named) = self.disk.files.read(&path)
            && !hashes.iter().any(|hash| format!("{hash}\n").as_bytes() == named)
        {
            damaged.push(Damage { path, reason: "it names no plan of this directory".into(), moved_to: None });
        }
        Ok(damaged)
    }

    /// The plan of that hash.
    ///
    /// # Errors
    /// Absent, unreadable or not hashing to its name.
    pub fn read_plan(&self, hash: &str) -> Result<PlanRecord, StoreError> {
        let path = self.plan_path(hash);
        let bytes = self.disk.files.read(&path).map_err(StoreError::io("read", &path))?;
        parse(hash, &path, &bytes)
    }

    /// The file of a plan, as it is.
    ///
    /// # Errors
    /// As [`Store::read_plan`].
    pub(super) fn plan_bytes(&self, hash: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.plan_path(hash);
        let bytes = self.disk.files.read(&path).map_err(StoreError::io("read", &path))?;
        parse(hash, &path, &bytes).map(|_| bytes)
    }

    /// The plan that the directory's spec was last resolved to: the only one, or the one that `current-plan` names.
    ///
    /// # Errors
    /// No plan at all, or several and no word on which.
    pub fn current_plan(&self) -> Result<PlanRecord, StoreError> {
        self.current().map(|(_, plan)| plan)
    }

    fn current(&self) -> Result<(String, PlanRecord), StoreError> {
        let mut plans = self.plans()?;
        if let Ok(hash) = self.disk.files.read(&self.dir.join(CURRENT)) {
            let hash = String::from_utf8_lossy(&hash).trim().to_string();
            if let Some(at) = plans.iter().position(|(known, _)| *known == hash) {
                return Ok(plans.swap_remove(at));
            }
        }
        match plans.len() {
            0 => Err(StoreError::NotAStore { path: self.dir.clone() }),
            1 => Ok(plans.remove(0)),
            count => Err(StoreError::WhichPlan { path: self.dir.clone(), count }),
        }
    }

    /// The bytes of the YAML file that the current plan was resolved from.
    ///
    /// # Errors
    /// Absent or unreadable.
    pub fn spec(&self) -> Result<Vec<u8>, StoreError> {
        let (hash, _) = self.current()?;
        match self.disk.files.read(&self.dir.join(spec_of(&hash))) {
            // As runs were written before each plan had its own.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let path = self.dir.join(SPEC);
                self.disk.files.read(&path).map_err(StoreError::io("read", &path))
            }
            other => other.map_err(StoreError::io("read", &self.dir.join(spec_of(&hash)))),
        }
    }

    pub(super) fn plan_path(&self, hash: &str) -> PathBuf {
        self.dir.join(format!("plan-{hash}.json"))
    }

    /// Publishes the plan with the spec it was resolved from and makes it the current one, in one step: before `current-plan` is
    /// replaced a reader sees the plan before with its own spec. `spec.yaml`, for people, comes last.
    pub(super) fn write_plan(&self, plan: &PlanRecord, spec: &[u8]) -> Result<(), StoreError> {
        let bytes = plan.bytes();
        let hash = short_hash(&bytes);
        self.replace_if_other(spec_of(&hash), spec)?;
        self.disk.publish(&self.plan_path(&hash), &bytes)?;
        self.replace_if_other(CURRENT, format!("{hash}\n").as_bytes())?;
        self.replace_if_other(SPEC, spec)
    }

    /// Writes a small file of the run directory unless it already holds these bytes.
    pub(super) fn replace_if_other(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        if self.disk.files.read(&path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        self.disk.replace(&path, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::StoreFs;
    use crate::store::fs::crashing::{Machine, Oddities};
    use crate::store::testing::{plan, store_of};
    use serde_json::json;

    #[test]
    fn equal_plans_have_equal_bytes_whatever_the_order_of_keys() {
        let mut one = plan(4, 2);
        let mut other = one.clone();
        one.canonical = json!({"a": {"x": 1, "y": [{"p": 1, "q": 2}]}, "b": 2});
        other.canonical = json!({"b": 2, "a": {"y": [{"q": 2, "p": 1}], "x": 1}});
        assert_eq!(one.bytes(), other.bytes());
        other.cells = 5;
        assert_ne!(one.hash(), other.hash());
    }

    #[test]
    fn what_a_directory_was_run_with_is_known() {
        let (folder, _store) = store_of(&plan(4, 2));
        let (own, edited) = (plan(4, 2), plan(6, 2));
        let past = Past::of(folder.path()).expect("readable");
        assert_eq!((past.other_experiment(&own.experiment), past.other_experiment("b")), (None, Some("test")));
        assert_eq!((past.has(&own.hash()), past.has(&edited.hash())), (Some(true), Some(false)));
        assert_eq!((past.has_others(&own.hash()), past.has_others(&edited.hash())), (false, true));
        assert!(past.refuse_damaged().is_ok());
        let none = Past::of(&folder.path().join("absent")).expect("nothing there");
        assert_eq!((none.other_experiment("b"), none.has(&own.hash()), none.has_others("")), (None, None, false));
    }

    /// Changes a byte of a file.
    fn spoil(path: &Path) {
        let mut bytes = std::fs::read(path).expect("readable");
        bytes[7] ^= 1;
        std::fs::write(path, bytes).expect("writable");
    }

    #[test]
    fn damaged_plans_are_set_aside_and_the_run_s_own_is_written_anew() {
        let (own, older) = (plan(4, 2), plan(6, 2));
        let (folder, store) = store_of(&older);
        Store::create_or_open(folder.path(), b"name: test\n", &own).expect("opens");
        let strange = b"{\"cells\":4}\n";
        let paths = [own.hash(), older.hash(), short_hash(strange)].map(|hash| store.plan_path(&hash));
        paths[..2].iter().for_each(|path| spoil(path));
        // What its name says, and no plan.
        std::fs::write(&paths[2], strange).expect("writable");
        let past = Past::of(folder.path()).expect("readable");
        assert_eq!((past.has(&own.hash()), past.has_others(&own.hash())), (Some(true), true));
        assert!(past.other_experiment("b").is_none() && past.refuse_damaged().is_err());
        assert!(past.of_nobody().is_some() && past.has(&plan(8, 2).hash()) == Some(false));
        let again = Store::create_or_open(folder.path(), b"name: test\n", &own).expect("opens");
        assert_eq!(again.settle_plans(&past).expect("movable").len(), 3);
        assert_eq!(again.plans().expect("sound"), [(own.hash(), own)]);
        let kept = |path: &PathBuf| folder.path().join("quarantine").join(path.file_name().expect("a name"));
        assert!(paths.iter().all(|path| kept(path).exists()));
        // Who looked before that moves nothing.
        again.settle_plans(&past).expect("sound or gone");
        assert_eq!(again.plans().expect("sound").len(), 1);
        assert!(Past::of(folder.path()).expect("readable").refuse_damaged().is_ok());
    }

    #[test]
    fn a_plan_that_cannot_be_read_is_damaged_and_one_that_is_gone_is_none() {
        let (folder, store) = store_of(&plan(4, 2));
        let path = store.plan_path(&plan(4, 2).hash());
        std::fs::remove_file(&path).expect("there");
        assert!(store.examine_plan(&plan(4, 2).hash()).expect("no fault of the machine").is_none());
        std::fs::create_dir(&path).expect("free");
        let found = store.examine_plan(&plan(4, 2).hash()).expect("no fault of the machine").expect("something");
        assert!(found.expect_err("a folder").reason.contains("cannot be read"));
        assert!(Past::of(folder.path()).expect("readable").has("").is_none(), "folders are no plans");
    }

    #[test]
    fn only_names_with_a_hash_are_plans() {
        let (folder, store) = store_of(&plan(4, 2));
        for name in ["plan-notes.json", "plan-.json", "plan-00010203FAFBFCFDFEFF101112131415.json", "plan-x"] {
            std::fs::write(folder.path().join(name), b"mine").expect("writable");
        }
        assert_eq!(store.plans().expect("readable").len(), 1);
        let past = Past::of(folder.path()).expect("readable");
        assert!(past.refuse_damaged().is_ok() && !past.has_others(&plan(4, 2).hash()));
    }

    /// Most parsers are wrong in the last digit of some numbers.
    #[test]
    fn a_plan_that_is_read_back_has_the_bytes_it_was_written_with() {
        let mut numbers = vec![0.23333333333333334, 0.025118864315095794, 1e-7];
        numbers.extend((1..200).map(|n| 1.0 / f64::from(n)));
        let numbers = PlanRecord { canonical: json!(numbers), ..plan(4, 2) };
        let (_folder, store) = store_of(&numbers);
        assert_eq!(store.current_plan().expect("sound").bytes(), numbers.bytes());
    }

    #[test]
    fn the_plan_written_last_is_the_current_one() {
        let (folder, store) = store_of(&plan(4, 2));
        assert_eq!(store.current_plan().expect("one plan"), plan(4, 2));
        let edited = plan(6, 2);
        let again = Store::create_or_open(folder.path(), b"edited", &edited).expect("opens");
        assert_eq!(again.current_plan().expect("the edited plan"), edited);
        assert_eq!(again.plans().expect("both").len(), 2);
        std::fs::remove_file(folder.path().join(CURRENT)).expect("removable");
        assert!(matches!(again.current_plan(), Err(StoreError::WhichPlan { count: 2, .. })));
    }

    /// Killed between any two of the files that an edited experiment writes, a reader sees one plan with its own spec.
    #[test]
    fn a_plan_and_the_spec_it_was_resolved_from_change_together() {
        let (before, edited) = (plan(4, 2), plan(6, 2));
        let machine = Machine::new(1);
        Store::create_or_open_on(Arc::new(machine.process()), Path::new("/run"), b"before", &before).expect("made");
        let mut kills = 0;
        for change in 1.. {
            let machine = machine.copy(change, Oddities::default());
            let process = machine.process();
            machine.kill_at(&process, change);
            let files: Arc<dyn StoreFs> = Arc::new(process.clone());
            let outcome = Store::create_or_open_on(files, Path::new("/run"), b"edited", &edited);
            process.end();
            machine.calm();
            let reader = Store::open_on(Arc::new(machine.process()), Path::new("/run")).expect("a run");
            let seen = (reader.current_plan().expect("a plan"), reader.spec().expect("a spec"));
            assert!(seen == (before.clone(), b"before".to_vec()) || seen == (edited.clone(), b"edited".to_vec()));
            if outcome.is_ok() {
                break;
            }
            kills += 1;
        }
        assert!(kills > 10, "{kills}");
    }

    #[test]
    fn the_spec_of_a_run_from_before_each_plan_had_its_own_is_read() {
        let (folder, store) = store_of(&plan(4, 2));
        std::fs::remove_file(folder.path().join(spec_of(&plan(4, 2).hash()))).expect("there");
        assert_eq!(store.spec().expect("spec.yaml"), b"name: test\n");
    }

    #[test]
    fn a_plan_of_a_later_format_is_refused_with_both_versions() {
        let (folder, store) = store_of(&plan(4, 2));
        assert!(!String::from_utf8_lossy(&plan(4, 2).bytes()).contains("\"format\""), "the first format has no number");
        let later = b"{\"format\":7,\"tegum\":\"9.1.0\",\"cells\":[4]}\n";
        let path = store.plan_path(&short_hash(later));
        std::fs::write(&path, later).expect("writable");
        let again = Store::create_or_open(folder.path(), b"name: test\n", &plan(4, 2)).expect("opens").current_plan();
        for error in [again.map(drop), store.verify().map(drop), Past::of(folder.path()).map(drop)] {
            let error = error.expect_err("unknown");
            let text = error.to_string();
            assert_eq!(error.exit_code(), 3, "{text}");
            assert!(text.contains("format 7, written by tegum 9.1.0") && text.contains("formats up to 1"), "{text}");
            assert!(text.contains(env!("CARGO_PKG_VERSION")));
        }
    }

    #[test]
    fn a_plan_with_one_changed_byte_is_damage() {
        let (_folder, store) = store_of(&plan(4, 2));
        let path = store.plan_path(&plan(4, 2).hash());
        let bytes = std::fs::read(&path).expect("readable");
        for at in (0..bytes.len()).step_by(13) {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            std::fs::write(&path, &rotten).expect("writable");
            assert!(matches!(store.plans(), Err(StoreError::Damaged { .. })), "byte {at}");
        }
    }
}

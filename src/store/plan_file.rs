//! The plan on disk: what the experiment was resolved to, immutable and named by its content.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::error::StoreError;
use super::fs::{RealFs, StoreFs, list_if_there};
use super::row::{Column, Schema};
use super::scan::Damage;

/// Which plan the folder's spec was resolved to last; a hint that may be deleted where there is one plan.
const CURRENT: &str = "current-plan";

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

impl Store {
    /// Every plan of the directory with its hash, in the order of the hashes.
    ///
    /// # Errors
    /// A plan file that does not hash to its name is damage.
    pub fn plans(&self) -> Result<Vec<(String, PlanRecord)>, StoreError> {
        let entries = list_if_there(&*self.disk.files, &self.dir).map_err(StoreError::io("list", &self.dir))?;
        let mut plans = Vec::new();
        for entry in entries {
            let hash = entry.name.strip_prefix("plan-").and_then(|rest| rest.strip_suffix(".json"));
            if let Some(hash) = hash.filter(|_| !entry.is_dir) {
                plans.push((hash.to_string(), self.read_plan(hash)?));
            }
        }
        Ok(plans)
    }

    /// Plans that are not what their names say, and a hint at the current one that names none.
    pub(super) fn damaged_plans(&self) -> Result<Vec<Damage>, StoreError> {
        let entries = list_if_there(&*self.disk.files, &self.dir).map_err(StoreError::io("list", &self.dir))?;
        let hash = |name: &str| Some(name.strip_prefix("plan-")?.strip_suffix(".json")?.to_owned());
        let hashes: Vec<String> = entries.iter().filter_map(|entry| hash(&entry.name)).collect();
        let mut damaged = vec![];
        for hash in &hashes {
            match self.read_plan(hash) {
                Err(StoreError::Damaged { path, reason }) => damaged.push(Damage { path, reason, moved_to: None }),
                other => drop(other?),
            }
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
        if short_hash(&bytes) != hash {
            return Err(StoreError::Damaged { path, reason: "its bytes do not hash to its name".into() });
        }
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Damaged { path, reason: error.to_string() })
    }

    /// The plan that the directory's spec was last resolved to: the only one, or the one that `current-plan` names.
    ///
    /// # Errors
    /// No plan at all, or several and no word on which.
    pub fn current_plan(&self) -> Result<PlanRecord, StoreError> {
        let path = self.dir.join(CURRENT);
        if let Ok(hash) = self.disk.files.read(&path) {
            let hash = String::from_utf8_lossy(&hash).trim().to_string();
            if self.plans()?.iter().any(|(known, _)| *known == hash) {
                return self.read_plan(&hash);
            }
        }
        let mut plans = self.plans()?;
        match plans.len() {
            0 => Err(StoreError::NotAStore { path: self.dir.clone() }),
            1 => Ok(plans.remove(0).1),
            count => Err(StoreError::WhichPlan { path: self.dir.clone(), count }),
        }
    }

    /// Whether a directory was run with a plan before; none where it was with no plan at all.
    pub fn was_run_with(dir: &Path, plan: &PlanRecord) -> Option<bool> {
        let names: Vec<String> = RealFs.list(dir).ok()?.into_iter().map(|entry| entry.name).collect();
        let own = format!("plan-{}.json", plan.hash());
        let any = names.iter().any(|name| name.starts_with("plan-") && name.ends_with(".json"));
        any.then(|| names.contains(&own))
    }

    pub(super) fn plan_path(&self, hash: &str) -> PathBuf {
        self.dir.join(format!("plan-{hash}.json"))
    }

    /// Publishes the plan and makes it the current one.
    pub(super) fn write_plan(&self, plan: &PlanRecord) -> Result<(), StoreError> {
        let bytes = plan.bytes();
        let hash = short_hash(&bytes);
        self.disk.publish(&self.plan_path(&hash), &bytes)?;
        self.replace_if_other(CURRENT, format!("{hash}\n").as_bytes())
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
    use super::*;
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

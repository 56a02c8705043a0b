//! What a run asks before it starts: whether this machine has the memory for its largest cell, and the disk room for what it will
//! write. Estimates, and rough: they are there to refuse the hopeless, with the sum that shows why.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use super::RunError;
use crate::plan::Plan;
use crate::plan::chunk::bytes;
use crate::spec::diagnostic::{Diagnostic, SpecError};
use crate::spec::output::WeightsSection;
use crate::store::{Extent, PartName, Past, Store};

/// Bytes of the program itself.
const PROGRAM: f64 = 1e8;

/// Cells that are looked at, at most: of a larger plan every so many.
const LOOKED_AT: usize = 100_000;

/// Share of the free disk that a run may take without being asked twice.
const MOST_OF_DISK: f64 = 0.8;

/// What a plan takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Floating-point operations.
    pub work: f64,
    /// Bytes that the largest cell holds at once, and its plan index.
    pub memory: f64,
    pub largest: usize,
    /// Bytes of the largest model with what training keeps of each weight, and its plan index.
    pub model: f64,
    pub largest_model: usize,
    /// Bytes on disk.
    pub disk: f64,
    /// Files on disk.
    pub files: f64,
}

impl Estimate {
    /// Of a plan whose rows have so many columns of scores, and whose cells keep these weights.
    pub fn of(plan: &Plan, columns: usize, weights: &WeightsSection) -> Estimate {
        let save = &plan.document.experiment.save;
        let (mut work, mut memory, mut largest, mut beside) = (0.0, 0.0f64, 0, 0.0);
        let (mut model, mut largest_model) = (0.0f64, 0);
        let step = (plan.cells.len() / LOOKED_AT).max(1);
        for index in (0..plan.cells.len()).step_by(step) {
            let (stem, own) = plan.work(index);
            let new_stem = index == 0 || !plan.same_stem(index - 1, index);
            work += (own + if new_stem { stem } else { 0.0 }) * step as f64;
            let needs = plan.memory(index);
            if needs > memory {
                (memory, largest) = (needs, index);
            }
            let held = plan.held(index);
            if held > model {
                (model, largest_model) = (held, index);
            }
            let samples = if save.samples { plan.facts(plan.cells[index])[0].dataset as f64 } else { 0.0 };
            let features = if save.features { 40.0 * plan.document.experiment.data.n_features as f64 } else { 0.0 };
            // A quarter of what training holds is weights: the rest are gradients and moments.
            let kept = if *weights == WeightsSection::All { held / 4.0 } else { 0.0 };
            beside += (30.0 * (plan.snapshot_rows_of(index) as f64 + samples) + features + kept) * step as f64;
        }
        let rows = plan.cells.len() as f64 * (200.0 + 9.0 * columns as f64);
        // A file of rows for each chunk, and up to five beside it, each in one of up to 256 folders.
        let chunks = plan.chunks().len() as f64;
        let files = 6.0 * chunks + 6.0 * chunks.min(256.0);
        Estimate { work, memory, largest, model, largest_model, disk: rows + beside, files }
    }

    /// Of a share of its cells.
    pub fn times(self, share: f64) -> Estimate {
        Estimate { work: self.work * share, disk: self.disk * share, files: self.files * share, ..self }
    }
}

/// Bytes that a run may have, and who says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    bytes: f64,
    whose: &'static str,
}

impl Limit {
    /// `most` bytes if somebody asked for it, else what the machine or its control group has; none where nobody knows.
    pub fn of(most: Option<f64>) -> Option<Limit> {
        most.map(|bytes| Limit { bytes, whose: "--max-mem" }).or_else(machine)
    }
}

/// Refuses cells that there is no memory for, one at a time.
///
/// # Errors
/// The sum, with the place of the sizes in the file.
pub fn memory(plan: &Plan, estimate: &Estimate, limit: Option<Limit>) -> Result<(), SpecError> {
    let Some(Limit { bytes: limit, whose }) = limit else { return Ok(()) };
    let needs = PROGRAM + estimate.memory;
    if needs <= limit {
        return Ok(());
    }
    let (needs, limit, sum) = (bytes(needs), bytes(limit), plan.memory_in_words(estimate.largest));
    let message = format!("a cell needs about {needs} of memory, and {whose} has {limit}: {sum}");
    Err(too_large(plan, message, "make it smaller, or say what there is with --max-mem 64G"))
}

/// Refuses models that a GPU has no memory for, one at a time. `least`: the bytes of the GPU with the least, and its name.
///
/// # Errors
/// The sum, with the place of the sizes in the file.
pub fn gpu(plan: &Plan, estimate: &Estimate, least: Option<(f64, String)>) -> Result<(), SpecError> {
    let Some((has, name)) = least.filter(|(has, _)| estimate.model > *has) else { return Ok(()) };
    let (needs, has, sum) = (bytes(estimate.model), bytes(has), plan.memory_in_words(estimate.largest_model));
    let message = format!("a model needs at least {needs} of GPU memory, and {name} has {has}: {sum}");
    Err(too_large(plan, message, "make it smaller, or train on the CPU with --backend cpu"))
}

/// At the place of the sizes in the file.
fn too_large(plan: &Plan, message: String, help: &str) -> SpecError {
    let root = &plan.document.root;
    let place = root.get("data").map_or(root.place, |node| node.place);
    plan.document.error(vec![Diagnostic { place, message, help: Some(help.to_owned()) }])
}

/// Threads that the memory is enough for where it is not for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fewer {
    pub threads: usize,
    all: usize,
    needs: f64,
    limit: Limit,
}

impl Fewer {
    /// None where `all` threads fit, each with the largest cell.
    pub fn of(estimate: &Estimate, limit: Option<Limit>, all: usize) -> Option<Fewer> {
        let limit = limit?;
        let needs = PROGRAM + all as f64 * estimate.memory;
        let fit = ((limit.bytes - PROGRAM) / estimate.memory).max(1.0) as usize;
        (needs > limit.bytes && fit < all).then_some(Fewer { threads: fit, all, needs, limit })
    }
}

impl fmt::Display for Fewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fewer { threads, all, needs, limit: Limit { bytes: limit, whose } } = self;
        let (needs, limit) = (bytes(*needs), bytes(*limit));
        let run = if *threads == 1 { "1 runs".to_owned() } else { format!("{threads} run") };
        write!(f, "{all} threads may need {needs} of memory, and {whose} has {limit}: {run}, with the same rows")
    }
}

/// Refuses a run directory in a folder that is not there, unless such folders are to be made. A slip in `--out` would make a tree
/// of folders that nobody finds again.
///
/// # Errors
/// The folder that is missing.
pub fn parents(out: &Path, make: bool) -> Result<(), RunError> {
    let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    // Where runs go if nothing is said.
    if make || parent.exists() || parent == Path::new("results") {
        return Ok(());
    }
    let (parent, out) = (parent.display(), out.display());
    Err(RunError::Unreadable(format!(
        "{parent}: no such folder, for the run directory {out}\n  check the name, or have it made with -p (--parents)"
    )))
}

/// The share of a plan's cells that a shard has still to write: those of its chunks that have no whole part in `out`. Parts that were
/// merged do not say of which chunks they are, so where there are some nothing is known to be left. Nor do parts say of which plan they
/// are: in a directory that was run with another one than that of `hash` all counts as left. `out`: none where the run begins anew.
pub fn left(plan: &Plan, hash: &str, out: Option<&Path>, shard: (u64, u64)) -> f64 {
    let is_alone = |out: &&Path| Past::of(out).is_ok_and(|past| !past.has_others(hash));
    let names = out.filter(is_alone).and_then(|out| Store::open(out).and_then(|store| store.part_names()).ok());
    let names = names.unwrap_or_default();
    let parts: Vec<PartName> = names.iter().filter_map(|name| PartName::parse(name, "parquet")).collect();
    if parts.iter().any(|part| part.extent == Extent::Merged) {
        return 0.0;
    }
    let whole: BTreeSet<u64> =
        parts.into_iter().filter(|part| part.extent == Extent::Chunk).map(|part| part.chunk).collect();
    let open = (0..).zip(plan.chunks()).filter(|(number, _)| number % shard.1 == shard.0 && !whole.contains(number));
    let cells: usize = open.map(|(_, chunk)| chunk.count).sum();
    cells as f64 / plan.cells.len().max(1) as f64
}

/// Refuses to begin what the disk under `out` will probably not hold, unless `yes`.
///
/// # Errors
/// The bytes or files wanted and those that are free.
pub fn disk(out: &Path, estimate: &Estimate, yes: bool) -> Result<(), RunError> {
    // The folder here has an empty path.
    let is_there = |path: &&Path| path.as_os_str().is_empty() || path.exists();
    let Some(free) = out.ancestors().find(is_there).and_then(free) else { return Ok(()) };
    if yes {
        return Ok(());
    }
    let (what, wants, has) = match free {
        Free { bytes: has, .. } if estimate.disk > MOST_OF_DISK * has => ("", bytes(estimate.disk), bytes(has)),
        Free { files: Some(has), .. } if estimate.files > MOST_OF_DISK * has => {
            (" files", format!("{:.0}", estimate.files), format!("{has:.0}"))
        }
        _ => return Ok(()),
    };
    Err(RunError::Unreadable(format!(
        "{}: this run may write {wants}{what}, and {has}{what} are free there\n  free some, choose another disk with --out DIR, or start all the same with --yes",
        out.display()
    )))
}

struct Free {
    bytes: f64,
    /// None where the file system does not count them.
    files: Option<f64>,
}

fn free(path: &Path) -> Option<Free> {
    // The bare name of a folder here has an empty parent.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let found = rustix::fs::statvfs(path).ok()?;
    let files = (found.f_files > 0).then_some(found.f_favail as f64);
    Some(Free { bytes: found.f_bavail as f64 * found.f_frsize as f64, files })
}

/// Bytes that this process may have, by the machine or a control group.
fn machine() -> Option<Limit> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let total: f64 = 1024.0 * total.map(|kilobytes: u64| kilobytes as f64)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |path: String| std::fs::read_to_string(path).ok();
    match group_limit(&groups, read).filter(|limit| *limit < total) {
        Some(limit) => Some(Limit { bytes: limit, whose: "the control group (container or job)" }),
        None => Some(Limit { bytes: total, whose: "this machine" }),
    }
}

/// The least limit of the control groups that a process is in, versions 2 and 1. `groups`: `/proc/self/cgroup`.
fn group_limit(groups: &str, read: impl Fn(String) -> Option<String>) -> Option<f64> {
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|one| one == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // A group is bound by those above it too.
        for above in Path::new(path).ancestors() {
            let folder = above.to_string_lossy();
            let text = read(format!("{root}{}/{file}", folder.trim_end_matches('/')));
            let limit = text.and_then(|text| text.trim().parse::<f64>().ok());
            least = limit.map_or(least, |limit| Some(least.map_or(limit, |least| least.min(limit))));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Estimate {
        Estimate { work: 0.0, memory: 0.0, largest: 0, model: 0.0, largest_model: 0, disk: 0.0, files: 0.0 }
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let files = |path: String| {
            let text = match path.as_str() {
                "/sys/fs/cgroup/jobs/7/memory.max" => "max\n",
                "/sys/fs/cgroup/jobs/memory.max" => "2147483648\n",
                "/sys/fs/cgroup/memory/old/memory.limit_in_bytes" => "1073741824\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "9223372036854771712\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(group_limit("0::/jobs/7\n", files), Some(2147483648.0));
        assert_eq!(group_limit("5:cpu,memory:/old\n0::/jobs/7\n", files), Some(1073741824.0));
        assert_eq!(group_limit("0::/\n", files), None);
        assert_eq!(group_limit("", files), None);
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_unless_told_otherwise() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("results/x");
        let small = Estimate { disk: 1e3, files: 10.0, ..nothing() };
        assert!(disk(&out, &small, false).is_ok());
        let large = Estimate { disk: 1e18, ..small };
        let error = disk(&out, &large, false).expect_err("an exabyte");
        assert!(error.exit_code() == 5 && error.to_string().contains("1000000.0 TB"), "{error}");
        assert!(disk(&out, &large, true).is_ok());
        assert!(disk(Path::new("bare"), &small, false).is_ok());
    }

    #[test]
    fn a_disk_is_asked_for_under_folders_that_are_not_there_yet() {
        let large = Estimate { disk: 1e18, files: 10.0, ..nothing() };
        for out in ["bare-name", "no-such-folder/run", "./bare"] {
            assert!(disk(Path::new(out), &large, false).is_err(), "{out}");
        }
    }

    #[test]
    fn what_fits_once_but_not_for_every_thread_runs_on_fewer() {
        let estimate = Estimate { memory: 1e9, ..nothing() };
        let fewer = |bytes: f64, all| Fewer::of(&estimate, Some(Limit { bytes, whose: "--max-mem" }), all);
        assert_eq!(fewer(4.1e9, 4), None);
        assert_eq!(fewer(4.0e9, 4).map(|fewer| fewer.threads), Some(3));
        assert_eq!(fewer(1.2e9, 64).map(|fewer| fewer.threads), Some(1));
        assert_eq!(fewer(1.2e9, 1), None, "one is as few as it gets");
        let told = fewer(3.2e9, 8).map(|fewer| fewer.to_string());
        let text = "8 threads may need 8.1 GB of memory, and --max-mem has 3.2 GB: 3 run, with the same rows";
        assert_eq!(told.as_deref(), Some(text));
        assert_eq!(Fewer::of(&estimate, None, 64), None);
    }

    #[test]
    fn a_folder_for_the_run_directory_is_made_only_if_somebody_says_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("slip/run");
        let error = parents(&deep, false).expect_err("nobody made it");
        assert!(error.exit_code() == 5 && error.to_string().contains("have it made with -p"), "{error}");
        assert!(parents(&deep, true).is_ok() && parents(&folder.path().join("run"), false).is_ok());
        for near in ["bare", "results/name", "./bare"] {
            assert!(parents(Path::new(near), false).is_ok(), "{near}");
        }
        assert!(parents(Path::new("results/no/name"), false).is_err());
    }

    #[test]
    fn sizes_are_written_as_people_read_them() {
        assert_eq!([1.0, 5e5, 2e6, 3.5e9, 4e14].map(bytes), ["1 kB", "500 kB", "2 MB", "3.5 GB", "400.0 TB"]);
    }
}

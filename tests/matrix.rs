//! The matrix of bad inputs as golden tests: a folder of `tests/bad_inputs` is a case, and its name begins with the number of
//! its row in the list of bad inputs.
//!
//! A folder holds the files of the case as a user has them, and
//!
//! * `stderr`: what the program says. `<folder>` stands for the folder it ran in, `<number>` for digits that differ.
//! * `code`: the exit code, where it is not 3.
//! * `cmd`: the words of the command line, where they are not `check x.yaml`.
//! * `make`: files too large or too odd to be kept; see [`make`].
//!
//! Each case runs in a copy of its folder, which must be the same afterwards; it may take [`CPU`] seconds and [`MEMORY`]
//! kilobytes; and where it exits with 3 the first error begins with `file:line:col: `.
//!
//! `TEGUM_BLESS=1 cargo test matrix` writes `stderr` and `code` of cases that are new or differ, to be read before they are
//! committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;

use super::program::command;

/// Seconds of all its threads together that a case may take: twice the second that is promised, because processors change
/// their clock.
const CPU: f64 = 2.0;
/// Kilobytes that a case may hold in memory.
const MEMORY: i64 = 256 << 10;

/// Rows that functions hold to, because they need a device, a writer beside them or a run that is under way.
const FUNCTIONS: &[(u32, &str)] = &[
    (13, "rows_13_and_14_a_byte_order_mark_and_carriage_returns_change_nothing"),
    (14, "rows_13_and_14_a_byte_order_mark_and_carriage_returns_change_nothing"),
    (48, "a_model_without_a_bottleneck_is_a_warning_and_an_error_with_strict"),
    (50, "divergence_is_a_row_with_its_reason"),
    (50, "a_figure_with_nothing_to_show_is_a_warning_and_the_rest_of_the_run_goes_on"),
    (69, "what_no_machine_has_room_for_is_refused_with_the_sum_before_anything_is_made"),
    (70, "what_fits_once_but_not_for_every_thread_runs_on_fewer"),
    (70, "a_run_whose_cells_fit_but_not_one_for_each_thread_takes_fewer_and_has_the_same_rows"),
    (71, "the_least_limit_of_all_groups_above_counts"),
    (72, "a_device_too_small_for_a_model_is_refused_with_the_sum_and_the_cpu_trains_where_nobody_asked_for_it"),
    (73, "cells_that_a_device_has_no_room_for_on_the_way_are_left_out_with_4"),
    (73, "a_cell_that_a_gpu_has_no_room_for_is_found_and_left_out"),
    (74, "cuda_says_what_is_missing_and_exits_7"),
    (75, "a_driver_that_lacks_a_function_is_named_with_it_and_exits_7"),
    (76, "a_driver_without_a_device_is_named_and_exits_7"),
    (78, "a_device_that_is_lost_on_the_way_exits_5_and_the_same_command_continues"),
    (78, "a_device_that_is_lost_ends_the_run_with_5_and_what_was_published_stays"),
    (82, "a_folder_of_rows_that_is_a_link_is_refused_and_the_run_directory_itself_may_be_one"),
    (83, "a_folder_for_the_run_directory_is_made_only_if_somebody_says_so"),
    (86, "what_a_directory_was_run_with_is_known"),
    (87, "an_edited_experiment_tells_what_is_kept_new_and_obsolete"),
    (88, "two_writers_of_one_chunk_leave_one_part"),
    (89, "a_full_disk_is_waited_for"),
    (90, "a_full_disk_used_up_inodes_and_a_quota_are_told_apart"),
    (91, "one_failure_at_any_call_leaves_the_file_whole_or_absent"),
    (92, "one_failure_at_any_call_leaves_the_file_whole_or_absent"),
    (93, "truncated_empty_and_renamed_parts_go_to_quarantine"),
    (94, "rows_that_are_of_no_plan_of_the_directory_are_told_with_their_number_and_ignored"),
    (95, "parts_of_another_schema_are_damage"),
    (95, "a_file_that_claims_more_than_its_bytes_can_hold_is_refused"),
    (96, "a_plan_with_one_changed_byte_is_damage"),
    (97, "leftovers_are_ignored_and_removed_when_their_writer_is_gone"),
    (97, "unfinished_files_beside_the_rows_are_counted_too"),
    (98, "a_clock_that_is_wrong_or_jumps_changes_no_file"),
    (108, "row_108_a_file_of_the_world_that_changes_is_an_error_and_not_another_world"),
    (109, "row_109_the_locale_changes_nothing"),
    (110, "row_110_a_reader_that_goes_away_is_no_panic"),
    (115, "a_plan_of_a_later_format_is_refused_with_both_versions"),
    (115, "a_part_of_a_later_format_is_neither_read_nor_damage"),
    (116, "an_interrupted_run_says_so_and_the_same_command_continues"),
    (117, "a_cell_that_panics_costs_itself_and_is_tried_again_at_the_next_start"),
    (118, "a_worker_that_is_killed_is_started_again_and_the_run_ends_well"),
    (118, "a_cell_that_panics_aborts_overflows_or_is_killed_costs_itself"),
];

/// Rows that nothing holds to yet, and why.
const PENDING: &[(u32, &str)] = &[(112, "Slurm"), (113, "Slurm"), (114, "Slurm")];

#[test]
fn every_row_of_the_matrix_is_a_case_a_function_or_pending() {
    let cases = cases();
    let case = |row: u32| cases.iter().any(|(name, _)| row_of(name) == row);
    let all: String = sources(Path::new("src")).chain(sources(Path::new("tests"))).collect();
    for row in 1..=118 {
        let pending = PENDING.iter().any(|(pending, _)| *pending == row);
        let functions: Vec<&str> = FUNCTIONS.iter().filter(|(n, _)| *n == row).map(|(_, name)| *name).collect();
        for name in &functions {
            assert!(all.contains(&format!("fn {name}()")), "row {row}: there is no test `{name}`");
        }
        assert!(case(row) || !functions.is_empty() || pending, "row {row} is nowhere");
        assert!(!pending || !case(row) && functions.is_empty(), "row {row} is pending and has a test");
    }
}

fn row_of(name: &str) -> u32 {
    name.get(..3).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} begins with no number"))
}

/// Texts of all Rust files below a folder.
fn sources(folder: &Path) -> Box<dyn Iterator<Item = String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("a folder of this repository").map(|e| e.expect("it is readable").path());
    Box::new(entries.flat_map(|path| match path.is_dir() {
        true => sources(&path),
        false if path.extension().is_some_and(|e| e == "rs") => {
            Box::new(std::iter::once(fs::read_to_string(path).expect("source is text")))
                as Box<dyn Iterator<Item = String>>
        }
        false => Box::new(std::iter::empty()),
    }))
}

/// Names and folders of all cases, in order.
fn cases() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_inputs");
    let mut cases: Vec<(String, PathBuf)> = fs::read_dir(folder)
        .expect("the cases are there")
        .map(|entry| entry.expect("they are readable"))
        .map(|entry| (entry.file_name().into_string().expect("plain names"), entry.path()))
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_case_of_the_matrix_is_answered_as_its_golden_file_says() {
    let cases = Mutex::new(cases().into_iter());
    let complaints = Mutex::new(String::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(8) {
            scope.spawn(|| {
                while let Some((name, folder)) = { cases.lock().expect("nobody panics").next() } {
                    let wrong = judge(&name, &folder);
                    let mut complaints = complaints.lock().expect("nobody panics");
                    for wrong in wrong {
                        let _ = writeln!(complaints, "== {name}: {wrong}");
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().expect("nobody panics");
    assert!(complaints.is_empty(), "{complaints}");
}

/// What the program did with a case.
struct Did {
    code: i32,
    stderr: String,
    cpu: f64,
    memory: i64,
}

/// What is wrong with the answer to a case.
fn judge(name: &str, case: &Path) -> Vec<String> {
    let text = |file: &str| fs::read_to_string(case.join(file)).ok();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inside = folder.path().join("case");
    copy(case, &inside);
    let obeying = text("make").is_some_and(|recipe| make(&recipe, &inside));
    let before = tree(&inside);
    let words = text("cmd").unwrap_or_else(|| "check x.yaml".to_owned());
    let words: Vec<&str> = words.split_whitespace().collect();
    let run = || run(&words, &inside, folder.path());
    let did = if obeying { obeying_modes(run) } else { run() };
    let mut wrong = vec![];
    if tree(&inside) != before {
        wrong.push("the folder was changed".to_owned());
    }
    let said = did.stderr.replace(&inside.display().to_string(), "<folder>");
    let (code, stderr) = (text("code").unwrap_or_else(|| "3".to_owned()), text("stderr"));
    let same = stderr.as_deref().is_some_and(|golden| matches(golden, &said)) && code.trim() == did.code.to_string();
    if !same && std::env::var_os("TEGUM_BLESS").is_some() {
        fs::write(case.join("stderr"), &said).expect("the case can be written");
        match did.code {
            3 => drop(fs::remove_file(case.join("code"))),
            code => fs::write(case.join("code"), format!("{code}\n")).expect("the case can be written"),
        }
    } else if !same {
        wrong.push(format!("exit {} for {}, and said\n{said}", did.code, code.trim()));
    }
    // Without a place nobody finds what is meant; only the command line itself has none.
    let first = said.lines().find(|line| !line.starts_with("warning: ")).unwrap_or_default();
    if did.code == 3 && !has_place(first) {
        wrong.push(format!("no file:line:col in {first:?}"));
    }
    if did.cpu > CPU {
        wrong.push(format!("took {:.2} s", did.cpu));
    }
    if did.memory > MEMORY {
        wrong.push(format!("took {} MB of memory", did.memory >> 10));
    }
    if std::env::var_os("TEGUM_TIMES").is_some() {
        eprintln!("{name}: {:.3} s, {} MB", did.cpu, did.memory >> 10);
    }
    wrong
}

/// `file:line:col: ` at the start.
fn has_place(line: &str) -> bool {
    let mut parts = line.splitn(4, ':');
    let (file, place) = (parts.next(), [parts.next(), parts.next()]);
    file.is_some_and(|file| !file.is_empty())
        && place.iter().all(|n| n.is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0)))
        && parts.next().is_some_and(|rest| rest.starts_with(' '))
}

/// Whether a text is that of a golden file, whose `<number>` is any number.
fn matches(golden: &str, said: &str) -> bool {
    let mut rest = said;
    let mut parts = golden.split("<number>");
    let start = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(start) else { return false };
    rest = after;
    for part in parts {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if digits.len() == rest.len() {
            return false;
        }
        let Some(after) = digits.strip_prefix(part) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// The inputs of a case, without what is for the harness.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a temporary folder takes a folder");
    for entry in fs::read_dir(from).expect("a case is readable") {
        let entry = entry.expect("a case is readable");
        let name = entry.file_name();
        if !["cmd", "make", "stderr", "code"].iter().any(|own| name == *own) {
            fs::copy(entry.path(), to.join(name)).expect("a temporary folder takes a file");
        }
    }
}

/// What cannot be kept in a folder, a line each, `|` for the end of a line in texts:
/// `fifo FILE`; `folder NAME`; `mode OCTAL FILE`; `obeying modes` (also where root runs the tests); `repeat N FILE TEXT`; `write FILE TEXT`;
/// `lines N FILE TEXT` with the number of the line for `#`; `levels N FILE`, mappings in each other; `safetensors N FILE`, a
/// header of N bytes; `tensors N FILE`, empty ones. All append.
fn make(recipe: &str, folder: &Path) -> bool {
    let mut obeying = false;
    for line in recipe.lines() {
        let (verb, rest) = line.split_once(' ').expect("a verb and more");
        let append = |file: &str, text: &[u8]| {
            let file = fs::OpenOptions::new().create(true).append(true).open(folder.join(file));
            file.and_then(|mut file| file.write_all(text)).expect("a temporary folder takes a file");
        };
        let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let (file, text) = if verb == "write" { (first, text) } else { text.split_once(' ').unwrap_or((text, "")) };
        let text = text.replace('|', "\n");
        let count = || first.parse::<usize>().expect("a number");
        match verb {
            "fifo" => {
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                let made =
                    rustix::fs::mknodat(rustix::fs::CWD, folder.join(first), rustix::fs::FileType::Fifo, mode, 0);
                made.expect("a temporary folder takes a FIFO");
            }
            "folder" => fs::create_dir(folder.join(first)).expect("a temporary folder takes a folder"),
            "mode" => {
                let mode = u32::from_str_radix(first, 8).expect("an octal number");
                fs::set_permissions(folder.join(file), fs::Permissions::from_mode(mode)).expect("ours");
            }
            "obeying" => obeying = true,
            "repeat" => append(file, text.repeat(count()).as_bytes()),
            "write" => append(file, text.as_bytes()),
            "lines" => {
                let lines: String = (0..count()).map(|n| text.replace('#', &n.to_string()) + "\n").collect();
                append(file, lines.as_bytes());
            }
            "levels" => {
                let lines: String = (0..count()).map(|n| " ".repeat(n) + "a:\n").collect();
                append(file, lines.as_bytes());
            }
            "safetensors" => {
                append(file, &(count() as u64).to_le_bytes());
                append(file, " ".repeat(count()).as_bytes());
            }
            "tensors" => {
                let empty = "{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}";
                let entries: Vec<String> = (0..count()).map(|n| format!("\"t{n}\":{empty}")).collect();
                let header = format!("{{{}}}", entries.join(","));
                append(file, &(header.len() as u64).to_le_bytes());
                append(file, header.as_bytes());
            }
            other => panic!("{other} is nothing to make"),
        }
    }
    obeying
}

/// Names, kinds and contents of everything in a folder.
fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("it is readable") {
        let path = entry.expect("it is readable").path();
        let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
        let what = match kind {
            _ if kind.is_dir() => {
                found.extend(tree(&path));
                "folder".to_owned()
            }
            _ if kind.is_fifo() => "FIFO".to_owned(),
            _ => blake3::hash(&fs::read(&path).expect("tests may read it")).to_hex().to_string(),
        };
        found.insert(path, what);
    }
    found
}

fn run(words: &[&str], folder: &Path, beside: &Path) -> Did {
    let file = |name: &str| fs::File::create(beside.join(name)).expect("a temporary folder takes a file");
    let mut command = command(folder, words);
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).env("LC_ALL", "C");
    #[expect(clippy::zombie_processes, reason = "wait4 below waits, and says what it used")]
    let child = command.spawn().expect("the binary starts");
    let (status, cpu, memory) = wait(child.id() as i32);
    let stderr = fs::read(beside.join("stderr")).expect("it was made");
    let stderr = String::from_utf8(stderr).expect("errors are UTF-8, whatever was in the files");
    Did { code: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)), stderr, cpu, memory }
}

/// Does something in a thread whose children are stopped by the modes of files, as everybody but root is anyway: what they may
/// do has a bound, and the bound of this thread loses the two rights of root to pass modes over.
fn obeying_modes<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    unsafe extern "C" {
        fn prctl(option: i32, capability: std::ffi::c_ulong, _: usize, _: usize, _: usize) -> i32;
    }
    const DROP_FROM_BOUND: i32 = 24;
    const DAC_OVERRIDE: std::ffi::c_ulong = 1;
    const DAC_READ_SEARCH: std::ffi::c_ulong = 2;
    let root = rustix::process::geteuid().is_root();
    let own = || {
        for capability in [DAC_OVERRIDE, DAC_READ_SEARCH].into_iter().filter(|_| root) {
            // SAFETY: this option takes numbers alone, and changes nothing but this thread, which ends below.
            let dropped = unsafe { prctl(DROP_FROM_BOUND, capability, 0, 0, 0) };
            assert_eq!(dropped, 0, "root of a container that may not give up a right: run the tests as a user");
        }
        work()
    };
    std::thread::scope(|scope| scope.spawn(own).join().expect("the case is judged"))
}

/// Ends, seconds of its threads and most kilobytes of a child: the standard library and rustix tell only the first.
fn wait(pid: i32) -> (ExitStatus, f64, i64) {
    /// `struct rusage` of Linux on 64-bit machines.
    #[repr(C)]
    #[derive(Default)]
    struct Usage {
        user: [i64; 2],
        system: [i64; 2],
        most_kilobytes: i64,
        rest: [i64; 13],
    }
    unsafe extern "C" {
        fn wait4(pid: i32, status: *mut i32, options: i32, usage: *mut Usage) -> i32;
    }
    let (mut status, mut usage) = (0, Usage::default());
    // SAFETY: both pointers are to values of the layouts that the call writes, which live until it returns; the child is
    // ours and nobody else waits for it.
    let waited = unsafe { wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!(waited, pid, "the child is ours");
    let cpu = usage.user[0] as f64 + usage.user[1] as f64 * 1e-6;
    (ExitStatus::from_raw(status), cpu, usage.most_kilobytes)
}

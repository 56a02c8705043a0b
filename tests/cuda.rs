//! The CUDA backend through the whole program, on a driver of tests whose devices run the kernels on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::program::{Answer, SMALL, answer, command, tegum, write};

/// A folder with a driver's library compiled with these definitions; none, with a word on stderr, where no compiler is there.
fn driver(definitions: &[&str]) -> Option<PathBuf> {
    if cfg!(not(target_arch = "x86_64")) {
        eprintln!("no driver of tests: fibers are switched on x86-64 alone");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("driver{}", definitions.concat()));
    std::fs::create_dir_all(&folder).expect("a folder of the build");
    // Other test programs may use the one of before: it is replaced as a whole.
    let made = folder.join(format!("made-{}.so", std::process::id()));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut compile = Command::new(&compiler);
    compile.args(["-std=c++17", "-O2", "-march=x86-64-v3", "-ffp-contract=off", "-fno-strict-aliasing"]);
    compile.args(["-Wno-unknown-pragmas", "-fPIC", "-shared", "-pthread"]).args(definitions);
    compile.arg("-o").arg(&made);
    compile.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/driver.cpp")).arg("-ldl");
    match compile.output() {
        Err(why) => {
            eprintln!("no driver of tests: {compiler}: {why}");
            None
        }
        Ok(done) => {
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            std::fs::rename(&made, folder.join("libcuda.so")).expect("both are in one folder");
            Some(folder)
        }
    }
}

/// Runs the program with a driver that has no kernels: quick to compile.
fn without_kernels(definitions: &[&str], settings: &[(&str, &str)], arguments: &[&str]) -> Option<Answer> {
    static DRIVERS: OnceLock<[Option<PathBuf>; 3]> = OnceLock::new();
    const KINDS: [&[&str]; 3] = [&[], &["-DOLD"], &["-DNO_GRAPHS"]];
    let drivers = DRIVERS.get_or_init(|| KINDS.map(|kind| driver(&[&["-DNO_KERNELS"], kind].concat())));
    let kind = KINDS.iter().position(|kind| *kind == definitions).expect("a driver that is made");
    let library = drivers[kind].as_ref()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "small.yaml", SMALL);
    let mut command = command(folder.path(), arguments);
    command.env("LD_LIBRARY_PATH", library).envs(settings.iter().copied());
    let answer = answer(command.output().expect("the binary starts"));
    let begun = folder.path().join("results").exists();
    assert!(answer.code == 0 || !begun, "a run that is refused begins nothing");
    Some(answer)
}

#[test]
fn devices_are_listed_as_the_driver_has_them() {
    let Some(answer) = without_kernels(&[], &[("TEGUM_TEST_DEVICES", "2")], &["devices"]) else { return };
    let first = "0: Emulated GPU, compute capability 9.0, 16 GiB, arithmetic f32 or tf32";
    for line in ["driver for CUDA 12.8", first, "1: Emulated GPU"] {
        assert!(answer.code == 0 && answer.stdout.contains(line), "{line}\n{}", answer.stdout);
    }
    let old = without_kernels(&[], &[("TEGUM_TEST_CAPABILITY", "75")], &["devices"]).expect("it was there before");
    assert!(old.stdout.contains("compute capability 7.5, 16 GiB, arithmetic f32\n"), "{}", old.stdout);
}

#[test]
fn a_driver_without_graphs_is_said_to_be() {
    let Some(answer) = without_kernels(&["-DNO_GRAPHS"], &[], &["devices"]) else { return };
    assert!(answer.code == 0 && answer.stdout.contains("without graphs"), "{}", answer.stdout);
    let with = without_kernels(&[], &[], &["devices"]).expect("it was there before");
    assert!(with.code == 0 && !with.stdout.contains("without graphs"), "{}", with.stdout);
}

#[test]
fn a_driver_without_a_device_is_named_and_exits_7() {
    let run = ["run", "small.yaml", "--backend", "cuda"];
    let Some(answer) = without_kernels(&[], &[("TEGUM_TEST_DEVICES", "0")], &run) else { return };
    let said = answer.stderr.contains("there is an NVIDIA driver, but no device");
    assert!(answer.code == 7 && said && answer.stderr.contains("--backend cpu"), "{}", answer.stderr);
}

#[test]
fn a_driver_that_lacks_a_function_is_named_with_it_and_exits_7() {
    let Some(answer) = without_kernels(&["-DOLD"], &[], &["run", "small.yaml", "--backend", "cuda"]) else { return };
    assert!(answer.code == 7 && answer.stderr.contains("cuLaunchKernel"), "{}", answer.stderr);
    let auto = without_kernels(&["-DOLD"], &[], &["-v", "run", "small.yaml"]).expect("it was there before");
    assert!(auto.code == 0 && auto.stderr.contains("the CPU trains"), "{}", auto.stderr);
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let run = ["run", "small.yaml", "--backend", "cuda", "--devices", "0,3"];
    let Some(answer) = without_kernels(&[], &[], &run) else { return };
    assert!(answer.code == 7 && answer.stderr.contains("there is no GPU 3: the driver has 1"), "{}", answer.stderr);
}

#[test]
fn an_arithmetic_that_what_trains_does_not_have_is_refused() {
    let tf32 = |settings: &[(&str, &str)], backend| {
        without_kernels(&[], settings, &["run", "small.yaml", "--arithmetic", "tf32", "--backend", backend])
    };
    let old = [("TEGUM_TEST_CAPABILITY", "75")];
    for (backend, hint) in [("cuda", "--backend auto --arithmetic f32"), ("auto", "use --arithmetic f32")] {
        let Some(answer) = tf32(&old, backend) else { return };
        let said = answer.stderr.contains("has compute capability 7.5, and tf32 needs 8.0");
        assert!(answer.code == 7 && said && answer.stderr.contains(hint), "{}", answer.stderr);
    }
    let none = tf32(&[("TEGUM_TEST_DEVICES", "0")], "auto").expect("it was there before");
    assert!(none.code == 7 && none.stderr.contains("--arithmetic tf32: there is an NVIDIA driver"), "{}", none.stderr);
    let cpu = tf32(&[], "cpu").expect("it was there before");
    assert!(cpu.code == 2 && cpu.stderr.contains("the CPU trains in f32; use --backend cuda"), "{}", cpu.stderr);
}

/// A folder with a driver that runs kernels.
fn with_kernels() -> Option<&'static PathBuf> {
    static DRIVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    DRIVER.get_or_init(|| driver(&[])).as_ref()
}

/// Toy models for every layout of the kernels: a lane, a warp and a block each.
const TOYS: &str = "\
name: toys
seeds: 2
data: {n_features: 5, firing_probability: 0.3}
toy: {d_hidden: 2, restarts: 2, train: {steps: 100, batch_size: 40, lr: 1e-2}}
score: [loss, loss_weighted, norm_0]
evaluate: {samples: 2000}
save: {trace: {every: 40}}
zip:
  - data.n_features: [5, 5, 12, 90]
    toy.d_hidden: [1, 2, 4, 3]
sweep:
  data.firing_probability: [0.05, 0.3]
";

/// What a run of [`TOYS`] came to: its rows but for the names of cells, which have the arithmetic in them.
fn toys(settings: &[(&str, &str)], arguments: &[&str]) -> Option<String> {
    let select = "seed, data.n_features, data.firing_probability, toy.d_hidden, loss, loss_weighted, norm_0";
    rows(TOYS, "results/toys", select, settings, arguments)
}

/// Columns of the rows of a run on the driver of tests.
fn rows(text: &str, results: &str, select: &str, settings: &[(&str, &str)], arguments: &[&str]) -> Option<String> {
    let library = with_kernels()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "experiment.yaml", text);
    let mut run = command(folder.path(), &[&["run", "experiment.yaml"], arguments].concat());
    run.env("LD_LIBRARY_PATH", library).env("XDG_CACHE_HOME", folder.path()).envs(settings.iter().copied());
    let run = answer(run.output().expect("the binary starts"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rows = tegum(folder.path(), &["table", results, "--format", "csv", "--select", select]);
    assert_eq!(rows.code, 0, "{}", rows.stderr);
    Some(rows.stdout)
}

/// Every kind of autoencoder on a fixed dictionary, a few steps of each.
const SAES: &str = "\
name: saes
seeds: 2
data: {n_features: 12, firing_probability: 0.15, dictionary: {d_hidden: 7, vectors: random}}
sae:
  - relu: {n_latents: 12, l1: 0.05}
  - topk: {n_latents: 12, k: 2, aux_k: 3}
  - batch_topk: {n_latents: 12, k: 2}
  - jumprelu: {n_latents: 12, target_l0: 2}
  - gated: {n_latents: 12, l1: 0.05}
  - matryoshka: {n_latents: 12, prefixes: [4, 12], topk: {k: 2}}
  - matching_pursuit: {n_latents: 12, k: 2}
sae_train: {steps: 60, batch_size: 40, lr: 1e-2}
score: [mcc, l0, fvu]
evaluate: {samples: 2000}
";

/// The numbers of a table after its first line.
fn numbers(table: &str) -> Vec<Vec<f64>> {
    let line = |line: &str| line.split(',').map(|number| number.parse().expect("a number")).collect();
    table.lines().skip(1).map(line).collect()
}

/// After 100 steps at a rate of 0.01 a rounding of 6e-8 a step has grown to at most some 1e-4 of the largest number here, and the
/// smallest models are summed in the CPU's order.
#[test]
fn toy_models_of_a_device_are_those_of_the_cpu_but_for_the_rounding_of_sums() {
    let Some(device) = toys(&[], &["--backend", "cuda"]) else { return };
    let cpu = toys(&[], &["--backend", "cpu"]).expect("the driver was there before");
    let (device, cpu) = (numbers(&device), numbers(&cpu));
    assert_eq!((device.len(), cpu.len()), (16, 16));
    for (own, cpu) in device.iter().zip(&cpu) {
        for (own, cpu) in own.iter().zip(cpu) {
            assert!((own - cpu).abs() <= 1e-4 * cpu.abs().max(1.0), "{own} {cpu}");
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_order_of_threads_on_memory_or_on_how_many_devices_there_are() {
    let Some(expected) = toys(&[], &["--backend", "cuda"]) else { return };
    let shuffled = toys(&[("TEGUM_TEST_ORDER", "77")], &["--backend", "cuda"]);
    assert_eq!(shuffled.as_ref(), Some(&expected), "fibers shuffled");
    let little = toys(&[("TEGUM_GPU_MEMORY", "1M")], &["--backend", "cuda"]);
    assert_eq!(little.as_ref(), Some(&expected), "a megabyte of memory");
    let two = toys(&[("TEGUM_TEST_DEVICES", "2")], &["--backend", "cuda", "--devices", "0,1", "--threads", "1"]);
    assert_eq!(two.as_ref(), Some(&expected), "two devices");
    let auto = toys(&[], &[]);
    assert_eq!(auto.as_ref(), Some(&expected), "taken because it is there");
}

/// A run of [`TOYS`] in a folder, on the driver of tests.
fn run_toys(folder: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Option<Answer> {
    let library = with_kernels()?;
    write(folder, "toys.yaml", TOYS);
    let mut run = command(folder, &[&["run", "toys.yaml"], arguments].concat());
    run.env("LD_LIBRARY_PATH", library).env("XDG_CACHE_HOME", folder).envs(settings.iter().copied());
    Some(answer(run.output().expect("it starts")))
}

#[test]
fn a_device_too_small_for_a_model_is_refused_with_the_sum_and_the_cpu_trains_where_nobody_asked_for_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let little = [("TEGUM_GPU_MEMORY", "1K")];
    let Some(run) = run_toys(folder.path(), &little, &["--backend", "cuda"]) else { return };
    let said =
        run.stderr.contains("of GPU memory, and Emulated GPU (0) has 1 kB") && run.stderr.contains("--backend cpu");
    assert!(run.code == 3 && said && run.stderr.starts_with("toys.yaml:"), "{} {}", run.code, run.stderr);
    assert!(!folder.path().join("results").exists());
    let auto = run_toys(folder.path(), &little, &[]).expect("the driver was there before");
    assert!(auto.code == 0 && auto.stderr.contains("the CPU trains instead"), "{} {}", auto.code, auto.stderr);
    let plan = std::fs::read_dir(folder.path().join("results/toys")).expect("it was made").flatten();
    let plan = plan.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("plan-"));
    assert!(std::fs::read_to_string(plan.expect("a plan")).expect("text").contains("cpu-f32-v1"));
}

#[test]
fn cells_that_a_device_has_no_room_for_on_the_way_are_left_out_with_4() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let none = [("TEGUM_TEST_NO_ROOM", "1")];
    let arguments = ["--backend", "cuda", "--shard", "0/1"];
    let Some(run) = run_toys(folder.path(), &none, &arguments) else { return };
    assert!(run.code == 4 && run.stderr.contains("no room for"), "{} {}", run.code, run.stderr);
    assert!(run.stdout.contains("16 failed, 0 missing"), "{}", run.stdout);
    let again = run_toys(folder.path(), &[], &arguments).expect("the driver was there before");
    assert!(again.code == 0 && again.stderr.contains("16 cells failed before and are tried again"), "{again:?}");
}

#[test]
fn a_device_that_is_lost_on_the_way_exits_5_and_the_same_command_continues() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = ["--backend", "cuda", "--chunk-seconds", "0"];
    let Some(half) = run_toys(folder.path(), &[], &[&arguments[..], &["--shard", "0/2"]].concat()) else { return };
    assert!(half.code == 0 && half.stdout.contains("8 of 16 cells in"), "{half:?}");
    let lost = run_toys(folder.path(), &[("TEGUM_TEST_LOST", "3")], &arguments).expect("the driver was there before");
    assert!(lost.code == 5 && lost.stderr.contains("CUDA_ERROR_LAUNCH_FAILED"), "{lost:?}");
    assert!(lost.stderr.contains("what was published stays"), "{lost:?}");
    let again = run_toys(folder.path(), &[], &arguments).expect("the driver was there before");
    assert!(
        again.code == 0 && again.stdout.contains("8 computed") && again.stdout.contains("8 were there"),
        "{again:?}"
    );
}

/// 60 steps keep a rounding of 6e-8 below 1e-4 of a score, but where a latent stands at its threshold: one firing of 2000 samples and
/// two latents more or less is 1e-3 of L0.
#[test]
fn autoencoders_of_a_device_are_those_of_the_cpu_but_for_the_rounding_of_sums() {
    let saes = |settings: &[(&str, &str)], backend| {
        rows(SAES, "results/saes", "seed, mcc, l0, fvu", settings, &["--backend", backend])
    };
    let Some(device) = saes(&[], "cuda") else { return };
    let cpu = saes(&[], "cpu").expect("the driver was there before");
    let (own, cpu) = (numbers(&device), numbers(&cpu));
    assert_eq!((own.len(), cpu.len()), (14, 14));
    for (own, cpu) in own.iter().flatten().zip(cpu.iter().flatten()) {
        assert!((own - cpu).abs() <= 2e-3 * cpu.abs().max(1.0), "{own} {cpu}\n{device}");
    }
    assert_eq!(saes(&[("TEGUM_TEST_ORDER", "77")], "cuda"), Some(device), "fibers shuffled");
}

/// Nine launches are a step of TopK without dead latents; 33 steps are two graphs of sixteen and one step by itself.
#[test]
fn steps_of_autoencoders_run_as_graphs() {
    let Some(library) = with_kernels() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let topk = "\
name: topk
data: {n_features: 12, firing_probability: 0.15, dictionary: {d_hidden: 7, vectors: random}}
sae: [{topk: {n_latents: 12, k: 2, aux_k: 0}}]
sae_train: {steps: 33, batch_size: 40}
score: [mcc]
";
    write(folder.path(), "topk.yaml", topk);
    let mut run = command(folder.path(), &["run", "topk.yaml", "--backend", "cuda"]);
    run.env("LD_LIBRARY_PATH", library).env("XDG_CACHE_HOME", folder.path()).env("TEGUM_TEST_COUNT_GRAPHS", "1");
    let run = answer(run.output().expect("the binary starts"));
    let graphs = run.stderr.lines().filter(|line| line.contains("graph of 144 launches")).count();
    assert!(run.code == 0 && graphs == 2, "{} {graphs}\n{}", run.code, run.stderr);
}

/// Toy models and autoencoders on their hidden states.
const BOTH: &str = "\
name: both
seeds: 2
data: {n_features: 12, firing_probability: 0.15}
toy: {d_hidden: 7, train: {steps: 60, batch_size: 40, lr: 1e-2}}
sae:
  - topk: {n_latents: 12, k: 2}
  - relu: {n_latents: 12, l1: 0.05}
sae_train: {steps: 60, batch_size: 40, lr: 1e-2}
score: [mcc, l0, fvu, loss]
evaluate: {samples: 2000}
";

/// Factors of 11 bits move a pre-activation by 1e-3 of what it adds up, and an fvu by a few times that at most; the toy models have
/// the very bits of f32.
#[test]
fn tf32_is_another_profile_and_moves_the_rows_of_autoencoders_alone() {
    let both = |settings: &[(&str, &str)], arithmetic| {
        let arguments = ["--backend", "cuda", "--arithmetic", arithmetic];
        rows(BOTH, "results/both", "cell, seed, fvu, loss", settings, &arguments)
    };
    let Some(tf32) = both(&[], "tf32") else { return };
    assert_eq!(both(&[("TEGUM_TEST_ORDER", "77")], "tf32").as_ref(), Some(&tf32), "fibers shuffled");
    let f32 = both(&[], "f32").expect("the driver was there before");
    let cells = |table: &str| table.lines().skip(1).map(|row| row.split(',').map(str::to_owned).collect()).collect();
    let (tf32, f32): (Vec<Vec<String>>, Vec<Vec<String>>) = (cells(&tf32), cells(&f32));
    assert_eq!((tf32.len(), f32.len()), (4, 4));
    for (own, f32) in tf32.iter().zip(&f32) {
        assert!(own[0] != f32[0] && own[1] == f32[1] && own[3] == f32[3], "{own:?} {f32:?}");
        let number = |text: &String| text.parse::<f64>().expect("a number");
        let apart = (number(&own[2]) - number(&f32[2])).abs();
        assert!(apart > 0.0 && apart < 5e-3, "{own:?} {f32:?}");
    }
}

#[test]
fn the_plan_of_a_run_keeps_its_arithmetic() {
    let Some(library) = with_kernels() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "both.yaml", BOTH);
    let mut run = command(folder.path(), &["run", "both.yaml", "--backend", "cuda", "--arithmetic", "tf32"]);
    let run = answer(run.env("LD_LIBRARY_PATH", library).output().expect("the binary starts"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let results = std::fs::read_dir(folder.path().join("results/both")).expect("it was made");
    let plans = results.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("plan-"));
    let plans: Vec<String> = plans.map(|path| std::fs::read_to_string(path).expect("text")).collect();
    assert!(plans.len() == 1 && plans[0].contains("cuda-tf32-v1"), "{plans:?}");
}

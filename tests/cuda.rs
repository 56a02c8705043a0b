//! The CUDA backend through the whole program, on a driver of tests whose devices run the kernels on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::program::{Answer, SMALL, answer, command, write};

/// A folder with a driver's library compiled with these definitions; none, with a word on stderr, where no compiler is there.
fn driver(definitions: &[&str]) -> Option<PathBuf> {
    if cfg!(not(target_arch = "x86_64")) {
        eprintln!("no driver of tests: fibers are switched on x86-64 alone");
        return None;
    }
    let folder = tempfile::Builder::new().prefix("tegum-driver").tempdir().expect("a temporary folder").keep();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut compile = Command::new(&compiler);
    compile.args(["-std=c++17", "-O2", "-march=x86-64-v3", "-ffp-contract=off", "-fno-strict-aliasing"]);
    compile.args(["-Wno-unknown-pragmas", "-fPIC", "-shared", "-pthread"]).args(definitions);
    compile.arg("-o").arg(folder.join("libcuda.so"));
    compile.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/driver.cpp")).arg("-ldl");
    match compile.output() {
        Err(why) => {
            eprintln!("no driver of tests: {compiler}: {why}");
            None
        }
        Ok(done) => {
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Some(folder)
        }
    }
}

/// Runs the program with a driver that has no kernels: quick to compile.
fn without_kernels(definitions: &[&str], settings: &[(&str, &str)], arguments: &[&str]) -> Option<Answer> {
    static DRIVERS: OnceLock<[Option<PathBuf>; 2]> = OnceLock::new();
    let drivers = DRIVERS.get_or_init(|| [driver(&["-DNO_KERNELS"]), driver(&["-DNO_KERNELS", "-DOLD"])]);
    let library = drivers[usize::from(definitions.contains(&"-DOLD"))].as_ref()?;
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
    for line in ["driver for CUDA 12.8", "0: Emulated GPU, compute capability 9.0, 16 GiB", "1: Emulated GPU"] {
        assert!(answer.code == 0 && answer.stdout.contains(line), "{line}\n{}", answer.stdout);
    }
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

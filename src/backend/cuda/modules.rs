//! The kernels as a GPU loads them: PTX that came with this binary, or a cubin for the exact chip where NVRTC is found.
//!
//! PTX for compute capability 7.5 (8.0 for the product on tensor cores, which is loaded only where that was asked for) is made ahead of
//! time by `scripts/make_ptx.py` with an NVRTC old enough for drivers from 520 on; the driver compiles it for its chip. What NVRTC of this machine makes of the same source is kept by the content of all that it depends
//! on, under `$XDG_CACHE_HOME/tegum/kernels` (or `~/.cache`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::nvrtc;

/// What kernels share, by the name they include it under.
pub const HEADERS: [(&str, &str); 9] = [
    ("activation.cuh", include_str!("kernels/activation.cuh")),
    ("common.cuh", include_str!("kernels/common.cuh")),
    ("draw.cuh", include_str!("kernels/draw.cuh")),
    ("linked.cuh", include_str!("kernels/linked.cuh")),
    ("sae_view.cuh", include_str!("kernels/sae_view.cuh")),
    ("toy.cuh", include_str!("kernels/toy.cuh")),
    ("toy_block.cuh", include_str!("kernels/toy_block.cuh")),
    ("toy_layers.cuh", include_str!("kernels/toy_layers.cuh")),
    ("variate.cuh", include_str!("kernels/variate.cuh")),
];

/// One source file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Name of the file, without `.cu`.
    pub name: &'static str,
    /// CUDA C++.
    pub source: &'static str,
    /// Made of it, as gzip packs it.
    packed: &'static [u8],
}

macro_rules! module {
    ($name:literal) => {
        Module {
            name: $name,
            source: include_str!(concat!("kernels/", $name, ".cu")),
            packed: include_bytes!(concat!("kernels/ptx/", $name, ".ptx.gz")),
        }
    };
}

/// Every module but those of tests (`probe.cu` and the like), which emulation alone runs.
pub fn modules() -> &'static [Module] {
    const {
        &[
            module!("draw_columns"),
            module!("draw_live"),
            module!("draw_skips"),
            module!("hidden"),
            module!("hidden_see"),
            module!("linked_descend"),
            module!("linked_screen"),
            module!("sae_batch_top"),
            module!("sae_close"),
            module!("sae_decode"),
            module!("sae_encode"),
            module!("sae_encode_tf32"),
            module!("sae_levels"),
            module!("sae_rows"),
            module!("sae_select"),
            module!("sae_update"),
            module!("toy_block"),
            module!("toy_lane"),
            module!("toy_layers"),
            module!("toy_loss"),
            module!("toy_pack"),
            module!("toy_warp"),
        ]
    }
}

/// The module that has a kernel of this name.
pub fn module_of(kernel: &str) -> Option<&'static Module> {
    static KERNELS: OnceLock<BTreeMap<String, &'static Module>> = OnceLock::new();
    let names = |module: &'static Module| kernels(&module.ptx()).into_iter().map(move |name| (name, module));
    KERNELS.get_or_init(|| modules().iter().flat_map(names).collect()).get(kernel).copied()
}

/// Names of the kernels in PTX.
fn kernels(ptx: &str) -> Vec<String> {
    let name = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
    ptx.split(".entry ").skip(1).filter_map(name).collect()
}

/// What the driver loads.
#[derive(Clone, Debug)]
pub enum Image {
    /// Ends with a zero.
    Ptx(Vec<u8>),
    /// For one chip.
    Cubin(Vec<u8>),
}

impl Image {
    /// As the driver takes it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Image::Ptx(bytes) | Image::Cubin(bytes) => bytes,
        }
    }
}

impl Module {
    /// For compute capability 7.5, or what its instructions need.
    fn ptx(&self) -> String {
        let mut text = String::new();
        let read = flate2::read::GzDecoder::new(self.packed).read_to_string(&mut text);
        read.expect("scripts/make_ptx.py packed it, and a test unpacks every one");
        text
    }

    /// For a chip of this compute capability: its own code if this machine can make it, else PTX.
    pub fn image(&self, capability: (i32, i32)) -> Image {
        match self.cubin(capability) {
            Some(cubin) => Image::Cubin(cubin),
            None => Image::Ptx([self.ptx().as_bytes(), &[0]].concat()),
        }
    }

    /// From the cache, or made now and kept.
    fn cubin(&self, capability: (i32, i32)) -> Option<Vec<u8>> {
        let compiler = nvrtc::found()?;
        let options = options(capability);
        let mut hash = blake3::Hasher::new();
        let headers = HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
        let texts = [self.name, self.source].into_iter().chain(headers).map(Cow::Borrowed);
        let texts = texts.chain([Cow::Owned(options.join(" ")), Cow::Owned(compiler.version.clone())]);
        for text in texts {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        let place = cache().map(|folder| folder.join(format!("{}.cubin", hash.finalize().to_hex())));
        if let Some(kept) = place.as_ref().and_then(|place| std::fs::read(place).ok()) {
            return Some(kept);
        }
        let made = nvrtc::compile(self.name, self.source, &HEADERS, &options);
        let cubin = made.inspect_err(|why| tracing::warn!("{why}; the driver compiles {} instead", self.name)).ok()?;
        if let Some(place) = place {
            keep(&place, &cubin);
        }
        Some(cubin)
    }
}

/// Options of every compilation: no contraction, so that a multiplication and an addition stay two roundings.
pub fn options((major, minor): (i32, i32)) -> Vec<String> {
    vec!["--std=c++17".into(), "-fmad=false".into(), format!("--gpu-architecture=sm_{major}{minor}")]
}

fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(folder.join("tegum").join("kernels"))
}

/// Whole or not at all: written beside its place and moved there. What cannot be kept is made again.
fn keep(place: &std::path::Path, bytes: &[u8]) {
    let Some(folder) = place.parent() else { return };
    let beside = place.with_extension(format!("{}", std::process::id()));
    let kept = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&beside, bytes))
        .and_then(|()| std::fs::rename(&beside, place));
    if kept.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
}

#[cfg(test)]
mod tests {
    use super::super::arithmetic::Arithmetic;
    use super::*;

    #[test]
    fn every_module_has_kernels_and_no_two_have_one_of_the_same_name() {
        let names: Vec<Vec<String>> = modules().iter().map(|module| kernels(&module.ptx())).collect();
        assert!(names.iter().all(|names| !names.is_empty()));
        let mut all: Vec<&String> = names.iter().flatten().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(module_of("hidden_rows").is_some_and(|module| module.name == "hidden") && module_of("none").is_none());
    }

    #[test]
    fn whatever_a_source_includes_is_at_hand() {
        let texts = modules().iter().map(|module| module.source).chain(HEADERS.map(|(_, text)| text));
        let known = |name: &str| name == "emulation.h" || HEADERS.iter().any(|(header, _)| *header == name);
        for line in texts.flat_map(str::lines) {
            let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) else { continue };
            assert!(known(name), "{name} is not among HEADERS");
        }
    }

    #[test]
    fn the_ptx_of_every_module_is_for_the_oldest_chip_that_is_asked_to_run_it() {
        for module in modules() {
            let newer = Arithmetic::ALL.into_iter().find(|arithmetic| arithmetic.encoder() == module.name);
            let (major, minor) = newer.map_or((7, 5), Arithmetic::least_capability).max((7, 5));
            let target = format!(".target sm_{major}{minor}");
            assert!(module.ptx().lines().any(|line| line == target), "{}: {target}", module.name);
        }
    }

    /// A bare `mul.f32` or `add.f32` may be fused by the driver's compiler; one with `.rn` may not.
    #[test]
    fn every_float_instruction_of_the_ptx_rounds_to_nearest() {
        for module in modules() {
            for line in module.ptx().lines() {
                let instruction = line.split_whitespace().next().unwrap_or_default();
                let loose = ["add.f32", "sub.f32", "mul.f32", "fma.f32", "div.f32", "sqrt.f32"].contains(&instruction)
                    || [".ftz", ".approx", ".full"].iter().any(|word| instruction.contains(word));
                assert!(!loose, "{}: {line}", module.name);
            }
        }
    }
}

//! NVIDIA's run-time compiler, where this machine has one: on the search path, under `CUDA_HOME` or `CUDA_PATH`, or where pip puts it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::nvrtc::{result, sys};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// An NVRTC that can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvrtc {
    /// "13.0".
    pub version: String,
    /// Where it was loaded from, if not by the search path.
    pub place: Option<PathBuf>,
}

/// The one that is used, looked for once.
pub fn found() -> Option<&'static Nvrtc> {
    static FOUND: OnceLock<Option<Nvrtc>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref()
}

fn find() -> Option<Nvrtc> {
    let mut place = None;
    if !present() {
        place = folders().into_iter().find(|folder| preload(folder));
        if !present() {
            return None;
        }
    }
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: the library is there; both numbers are written.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().ok()?;
    Some(Nvrtc { version: format!("{major}.{minor}"), place })
}

fn present() -> bool {
    // SAFETY: it opens a library of the search path, and runs its initialisers as any use would.
    unsafe { sys::is_culib_present() }
}

/// Folders where an NVRTC may lie that the search path does not name.
fn folders() -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut folders = vec![];
    for home in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set).chain([PathBuf::from("/usr/local/cuda")]) {
        folders.extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|sub| home.join(sub)));
    }
    // pip: lib/python3.*/site-packages/nvidia/*/lib below a virtual environment, or the system's.
    let roots = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set);
    let own = set("HOME").map(|home| home.join(".local"));
    for root in roots.chain(own).chain([PathBuf::from("/usr/local"), PathBuf::from("/usr")]) {
        for python in children(&root.join("lib")).filter(|path| named(path, "python3")) {
            for packages in ["site-packages", "dist-packages"] {
                folders.extend(children(&python.join(packages).join("nvidia")).map(|package| package.join("lib")));
            }
        }
    }
    folders
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    all.sort();
    all.into_iter()
}

fn named(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// Opens the NVRTC of a folder by its path for the whole process, so that the search by name finds it; its builtins first, which it
/// looks for by name itself. False where the folder has none.
fn preload(folder: &Path) -> bool {
    let libraries: Vec<PathBuf> = children(folder).filter(|path| named(path, "libnvrtc")).collect();
    let (builtins, own): (Vec<_>, Vec<_>) = libraries.into_iter().partition(|path| named(path, "libnvrtc-builtins"));
    let open = |path: &PathBuf| {
        // SAFETY: NVIDIA's library runs its own initialisers; it stays open for the life of the process.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        library.map(std::mem::forget).is_ok()
    };
    builtins.iter().filter(|path| open(path)).count();
    own.iter().filter(|path| open(path)).count() > 0
}

/// A cubin, or PTX if the options name a virtual architecture.
///
/// # Errors
/// The compiler's own words, with the file and line they are about.
pub fn compile(name: &str, source: &str, headers: &[(&str, &str)], options: &[String]) -> Result<Vec<u8>, String> {
    if found().is_none() {
        return Err("NVRTC was not found".into());
    }
    let text = |text: &str| CString::new(text).map_err(|_| format!("{name}: a zero in the source"));
    let (file, source) = (text(&format!("{name}.cu"))?, text(source)?);
    let names = headers.iter().map(|(name, _)| text(name)).collect::<Result<Vec<_>, _>>()?;
    let contents = headers.iter().map(|(_, content)| text(content)).collect::<Result<Vec<_>, _>>()?;
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
    let (name_pointers, content_pointers) = (pointers(&names), pointers(&contents));
    let mut program = std::ptr::null_mut();
    // SAFETY: every text ends with a zero and outlives the call, which copies them.
    let created = unsafe {
        sys::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            file.as_ptr(),
            headers.len() as c_int,
            content_pointers.as_ptr(),
            name_pointers.as_ptr(),
        )
    };
    created.result().map_err(|e| format!("{name}: {e:?}"))?;
    // SAFETY: the program was just made, and is destroyed below.
    let compiled = unsafe { result::compile_program(program, options) };
    let made = match compiled {
        Ok(()) => cubin(program).map_err(|e| format!("{name}: {e}")),
        Err(e) => Err(format!("{name}: {e:?}\n{}", log(program))),
    };
    // SAFETY: made above, and not used after.
    let _ = unsafe { result::destroy_program(program) };
    made
}

fn cubin(program: sys::nvrtcProgram) -> Result<Vec<u8>, String> {
    let mut size = 0;
    // SAFETY: the program was compiled; the size is written.
    unsafe { sys::nvrtcGetCUBINSize(program, &mut size) }.result().map_err(|e| format!("{e:?}"))?;
    let mut bytes = vec![0u8; size];
    // SAFETY: room for as many bytes as it said.
    unsafe { sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast()) }.result().map_err(|e| format!("{e:?}"))?;
    Ok(bytes)
}

fn log(program: sys::nvrtcProgram) -> String {
    // SAFETY: the program is there.
    let Ok(log) = (unsafe { result::get_program_log(program) }) else { return String::new() };
    if log.last() != Some(&0) {
        return String::new();
    }
    // SAFETY: it ends with a zero, as was just seen.
    unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned()
}

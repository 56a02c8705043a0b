//! The files that a world is read from, as they were when the plan was made: their content is part of every cell's id, so a
//! file that has changed since is an error, never another world under the old id.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::resolve;
use crate::data::SyntheticModel;
use crate::score::input::{self, Matrix, Problem};
use crate::spec::data::{DataSection, InputFile};
use crate::spec::diagnostic::{Diagnostic, Place, SpecError};
use crate::spec::document::Document;

/// What is known of the files of one document, by name. Clones share it.
#[derive(Clone, Debug)]
pub struct Files {
    file: String,
    source: Arc<str>,
    folder: PathBuf,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
    /// Worlds that were found sound, by what they were read as.
    sound: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
}

/// A file as it was first read.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    /// None: it was not there, and the world may be without it.
    hash: Option<blake3::Hash>,
    /// Where the experiment names it.
    place: Place,
}

impl Files {
    /// Nothing known yet.
    pub fn of(document: &Document) -> Files {
        Files {
            file: document.file.clone(),
            source: document.source.as_str().into(),
            folder: document.folder(),
            known: Arc::default(),
            sound: Arc::default(),
        }
    }

    /// The content of a file of the world; none where it is not there and need not be. What is read first is what has to be
    /// there ever after; `place` is where the experiment names it.
    ///
    /// # Errors
    /// A file that is none, cannot be read, or has changed.
    fn pin(&self, name: &str, optional: bool, place: Place) -> Result<Option<Vec<u8>>, String> {
        let bytes = match input::read(&self.folder.join(name)) {
            Ok(bytes) => Some(bytes),
            Err(Problem::Unreadable(e)) if optional && e.kind() == std::io::ErrorKind::NotFound => None,
            Err(problem) => return Err(format!("{name}: {problem}")),
        };
        let hash = bytes.as_deref().map(blake3::hash);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.entry(name.to_owned()).or_insert(Known { hash, place }).hash {
            first if first == hash => Ok(bytes),
            first => Err(changed(name, first, hash)),
        }
    }

    /// The content of a file that the plan was made with, which is still the same.
    ///
    /// # Errors
    /// A file that cannot be read or has changed: the message shows where the experiment names it.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let (optional, place) = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(name).map_or((false, Place::default()), |known| (known.hash.is_none(), known.place))
        };
        self.pin(name, optional, place).map_err(|message| self.told(place, message))
    }

    /// A message with its place in the experiment.
    fn told(&self, place: Place, message: String) -> String {
        let help = Some("put the file back as it was, or run again once it stays as it is".to_owned());
        let diagnostics = vec![Diagnostic { place, message, help }];
        SpecError { file: self.file.clone(), source: self.source.to_string(), diagnostics }.to_string()
    }

    /// A matrix of this shape, as the plan knows it; `name` as the experiment has it.
    ///
    /// # Errors
    /// As [`Files::read`], and what is no such matrix.
    pub fn matrix(&self, name: &str, shape: (usize, usize), rule: &str) -> Result<Matrix, String> {
        let InputFile { name, tensor, .. } = InputFile::new(name, &[]);
        let path = self.folder.join(&name);
        let fits = |found: (usize, usize)| match found == shape {
            true => Ok(()),
            false => {
                Err(format!("{name} holds [{}, {}], expected {rule} = [{}, {}]", found.0, found.1, shape.0, shape.1))
            }
        };
        // The header first: what has another shape need not be read, however large it is.
        let layout = input::layout_of(&path, tensor.as_deref()).map_err(|problem| format!("{name}: {problem}"))?;
        fits((layout.shape.0 as usize, layout.shape.1 as usize))?;
        let bytes = self.read(&name)?.ok_or_else(|| format!("{name}: no such file"))?;
        let matrix = input::matrix_of(Path::new(&name), tensor.as_deref(), &bytes).map_err(|e| e.to_string())?;
        fits(matrix.dim()).map(|()| matrix)
    }

    /// The synthetic model of a folder, as the plan knows it.
    ///
    /// # Errors
    /// As [`Files::read`], and what is no synthetic model.
    pub fn model(&self, folder: &str) -> Result<SyntheticModel, String> {
        let name = |file: &str| format!("{}/{file}", folder.trim_end_matches('/'));
        SyntheticModel::load_with(Path::new(folder), &|file| self.read(&name(file))).map_err(|e| e.to_string())
    }

    /// Reads the files of a world for the first time, and checks that they hold one: their hashes, in order.
    ///
    /// # Errors
    /// The file that is wrong, and why.
    pub fn check(
        &self,
        section: &DataSection,
        place: impl Fn(&InputFile) -> Place,
    ) -> Result<Vec<Option<blake3::Hash>>, (Place, String)> {
        let files = section.files();
        let mut hashes = Vec::with_capacity(files.len());
        for file in &files {
            let place = place(file);
            let content = self.pin(&file.name, file.optional, place).map_err(|message| (place, message))?;
            hashes.push(content.as_deref().map(blake3::hash));
        }
        for file in &files {
            self.judge(section, file, &hashes).map_err(|message| (place(file), message))?;
        }
        Ok(hashes)
    }

    /// Whether a file holds what the world takes it for; said once however many cells ask.
    fn judge(&self, section: &DataSection, file: &InputFile, hashes: &[Option<blake3::Hash>]) -> Result<(), String> {
        let d_hidden = section.dictionary.as_ref().map_or(0, |dictionary| dictionary.d_hidden);
        let as_what = format!("{:?} {:?} {} {d_hidden} {hashes:?}", file.keys, file.tensor, section.n_features);
        let sound = || self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sound().get(&as_what) {
            return known.clone();
        }
        // Not under the lock: what is computed here may run on the very threads that ask.
        let judged = match file.keys {
            ["correlation", ..] => super::linked::correlation(section, 0, self).map(|_| ()),
            ["dictionary", ..] => resolve::dictionary(section, 0, self).map_or(Ok(()), |made| made.map(|_| ())),
            _ => resolve::world(section, 0, self)
                .and_then(|_| resolve::dictionary(section, 0, self).map_or(Ok(()), |made| made.map(|_| ()))),
        };
        sound().insert(as_what, judged.clone());
        judged
    }
}

fn changed(name: &str, then: Option<blake3::Hash>, now: Option<blake3::Hash>) -> String {
    let told = |hash: Option<blake3::Hash>| hash.map_or("not there".to_owned(), |h| h.to_hex()[..16].to_owned());
    format!("{name} has changed since the plan was made (BLAKE3 then {}, now {})", told(then), told(now))
}

/// Single precision without loss.
///
/// # Errors
/// The first number that would have to be rounded.
pub fn single(name: &str, matrix: Matrix) -> Result<Vec<f32>, String> {
    match matrix {
        Matrix::F32(matrix) => Ok(matrix.iter().copied().collect()),
        Matrix::F64(matrix) => matrix
            .indexed_iter()
            .map(|((row, column), &value)| match value as f32 {
                single if f64::from(single) == value => Ok(single),
                single => Err(format!(
                    "{name}: the entry at [{row}, {column}] is {value}, which single precision would round to {}: save the file \
                     as float32 if that is meant",
                    f64::from(single)
                )),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Files {
        Files {
            file: "x.yaml".into(),
            source: "data: m.npy\n".into(),
            folder: folder.to_owned(),
            known: Arc::default(),
            sound: Arc::default(),
        }
    }

    #[test]
    fn a_file_that_changes_after_it_was_first_read_is_an_error_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (files, place) = (files(folder.path()), Place { line: 1, column: 7, length: 5 });
        std::fs::write(folder.path().join("m.npy"), b"one").unwrap();
        assert_eq!(files.pin("m.npy", false, place).unwrap().unwrap(), b"one");
        assert_eq!(files.read("m.npy").unwrap().unwrap(), b"one");
        std::fs::write(folder.path().join("m.npy"), b"two").unwrap();
        let told = files.read("m.npy").unwrap_err();
        assert!(told.starts_with("x.yaml:1:7: m.npy has changed since the plan was made"), "{told}");
        std::fs::remove_file(folder.path().join("m.npy")).unwrap();
        assert!(files.read("m.npy").is_err());
        std::fs::write(folder.path().join("m.npy"), b"one").unwrap();
        assert!(files.read("m.npy").is_ok());
    }

    #[test]
    fn a_file_the_world_may_be_without_is_missed_if_it_appears_later() {
        let folder = tempfile::tempdir().unwrap();
        let (files, place) = (files(folder.path()), Place::default());
        assert_eq!(files.pin("t.json", true, place), Ok(None));
        assert!(files.pin("u.json", false, place).unwrap_err().starts_with("u.json: cannot be read"));
        std::fs::write(folder.path().join("t.json"), b"{}").unwrap();
        assert!(files.read("t.json").unwrap_err().contains("then not there"));
    }

    #[test]
    fn doubles_pass_where_nothing_is_rounded() {
        let matrix = |v: f64| Matrix::F64(ndarray::arr2(&[[1.0, 0.5], [0.25, v]]));
        assert_eq!(single("m", matrix(-2.0)), Ok(vec![1.0, 0.5, 0.25, -2.0]));
        assert!(single("m", matrix(0.1)).unwrap_err().starts_with("m: the entry at [1, 1] is 0.1"));
        assert!(single("m", matrix(1e300)).is_err());
    }
}

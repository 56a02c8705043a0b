//! Files of a figure: images and the caption, each complete or absent.

use std::path::{Path, PathBuf};

use super::caption::{Caption, Context};
use super::error::FigureError;
use super::scene::Scene;
use super::{png, raster, svg};

/// What a figure can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Pixels at 300 per inch.
    Png,
    /// Outlines.
    Svg,
}

/// Writes the figure in each format and its caption into `folder`, which is made if need be. Every file is written
/// under a temporary name and renamed, so that none is ever half there. Returns the files: images, then the caption.
pub fn write(
    scene: &Scene,
    caption: &Caption,
    context: &Context,
    name: &str,
    folder: &Path,
    formats: &[Format],
) -> Result<Vec<PathBuf>, FigureError> {
    std::fs::create_dir_all(folder).map_err(|source| FigureError::Write { path: folder.to_owned(), source })?;
    let mut files = Vec::new();
    for format in formats {
        let (extension, bytes) = match format {
            Format::Png => ("png", png_bytes(scene, name, folder)?),
            Format::Svg => ("svg", svg::write(scene).into_bytes()),
        };
        files.push(put(folder, &format!("{name}.{extension}"), &bytes)?);
    }
    files.push(put(folder, &format!("{name}.txt"), caption.file(name, context).as_bytes())?);
    Ok(files)
}

fn png_bytes(scene: &Scene, name: &str, folder: &Path) -> Result<Vec<u8>, FigureError> {
    // The encoder wants a file and tells the format by its ending. The process id keeps two runs apart.
    let scratch = folder.join(format!(".{name}.{}.scratch.png", std::process::id()));
    png::encode(&raster::draw(scene), &scene.title, &scene.description, &scratch)
        .map_err(|why| FigureError::Encoding { path: folder.join(format!("{name}.png")), why })
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, FigureError> {
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(source) = written {
        // Nothing more can be done about a temporary file that cannot be removed; the first fault is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        return Err(FigureError::Write { path, source });
    }
    Ok(path)
}

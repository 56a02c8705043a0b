//! Tables that resemble runs, for tests: phase diagrams, panels of vectors, curves and bars.

use super::caption::{Context, TheoryLine};
use super::data::{Column, Table};
use super::sources::{Data, Weights};
use super::spec::{FigureSpec, SideTable};
use crate::spec::kind::{Kind, Reader};
use crate::spec::node;
use crate::store::Tensor;

/// A figure as an experiment file has it.
pub fn written(yaml: &str) -> FigureSpec {
    let node = node::parse("figure.yaml", yaml).expect("YAML");
    let mut reader = Reader::default();
    let figure = FigureSpec::read(&node, &mut reader);
    assert!(reader.diagnostics.is_empty(), "{yaml}: {:?}", reader.diagnostics);
    figure.expect("a figure")
}

/// Rows alone.
pub fn of_rows(rows: Table) -> Data<'static> {
    Data { rows, ..Data::default() }
}

/// Rows and the table of features.
pub fn with_features((rows, features): (Table, Table)) -> Data<'static> {
    Data { rows, sides: vec![(SideTable::Features, features)], weights: None }
}

/// A table built row by row; a cell is a number or a word, NaN and "" are undefined.
#[derive(Default)]
pub struct Rows {
    numbers: Vec<(&'static str, Vec<Option<f64>>)>,
    words: Vec<(&'static str, Vec<Option<String>>)>,
}

impl Rows {
    pub fn push(&mut self, numbers: &[(&'static str, f64)], words: &[(&'static str, &str)]) {
        for (i, (name, number)) in numbers.iter().enumerate() {
            if self.numbers.len() <= i {
                self.numbers.push((name, Vec::new()));
            }
            self.numbers[i].1.push(number.is_finite().then_some(*number));
        }
        for (i, (name, word)) in words.iter().enumerate() {
            if self.words.len() <= i {
                self.words.push((name, Vec::new()));
            }
            self.words[i].1.push((!word.is_empty()).then(|| (*word).to_owned()));
        }
    }

    pub fn table(self) -> Table {
        let numbers = self.numbers.into_iter().map(|(name, column)| (name, Column::Number(column)));
        let words = self.words.into_iter().map(|(name, column)| (name, Column::Text(column)));
        Table::new(numbers.chain(words).collect())
    }
}

impl Table {
    /// A table of the given columns; all must be equally long.
    pub fn new(columns: Vec<(&str, Column)>) -> Table {
        let length = |column: &Column| match column {
            Column::Number(numbers) => numbers.len(),
            Column::Text(words) => words.len(),
        };
        let height = columns.first().map_or(0, |(_, column)| length(column));
        debug_assert!(columns.iter().all(|(_, column)| length(column) == height));
        Table {
            height,
            names: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            columns: columns.into_iter().map(|(name, column)| (name.to_owned(), column)).collect(),
        }
    }
}

/// `n` values from `low` to `high` in equal ratios.
pub fn log_values(low: f64, high: f64, n: usize) -> Vec<f64> {
    let (from, to) = (libm::log10(low), libm::log10(high));
    (0..n).map(|i| libm::exp10(from + (to - from) * i as f64 / (n - 1) as f64)).collect()
}

/// A number in [0, 1) that looks random but is the same everywhere.
fn noise(i: usize) -> f64 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

pub fn context(swept: &[&str]) -> Context {
    Context {
        experiment: "sample".into(),
        plan_hash: "9f86d081884c7d65".into(),
        seeds: vec![0, 1],
        reduction: "none".into(),
        command: "tegum figure results/sample".into(),
        swept: swept.iter().map(|path| (*path).to_owned()).collect(),
        ..Context::default()
    }
}

/// Six densities by four widths by four methods by two seeds, with a missing and some diverged cells.
pub fn quickstart() -> Table {
    let mut rows = Rows::default();
    for (i, p) in log_values(0.01, 0.5, 6).into_iter().enumerate() {
        for (j, d) in [5.0, 10.0, 20.0, 30.0].into_iter().enumerate() {
            for (m, method) in ["relu", "topk", "random", "pca"].into_iter().enumerate() {
                for seed in 0..2 {
                    let fade = [0.95, 1.0, 0.45, 0.6][m];
                    let crowding = 1.0 / (1.0 + libm::pow(p * 40.0 / d * 2.0, 1.5));
                    let mcc = fade * (0.35 + 0.6 * crowding) + 0.04 * noise(97 * i + 13 * j + 7 * m + seed);
                    let status = match (i, j, method) {
                        (5, 0, "relu") => "diverged",
                        (4, 0, "relu") if seed == 1 => "diverged",
                        _ => "ok",
                    };
                    let mcc = if status == "diverged" || (i, j, method) == (0, 3, "topk") { f64::NAN } else { mcc };
                    let loss = 1e-4 * libm::pow(p, 1.3) * 40.0 / d;
                    rows.push(
                        &[
                            ("data.firing_probability", p),
                            ("toy.d_hidden", d),
                            ("seed", seed as f64),
                            ("mcc", mcc),
                            ("loss", loss),
                            ("n_represented", (40.0 * crowding).round().max(d)),
                            ("leakage", 0.8 * crowding - 0.5 + 0.1 * noise(m)),
                            ("k", [1.0, 2.0, 4.0][i % 3]),
                        ],
                        &[("method", method), ("status", status)],
                    );
                }
            }
        }
    }
    rows.table()
}

pub fn facets() -> FigureSpec {
    written("phase_diagram: {name: recovery, x: data.firing_probability, y: toy.d_hidden, colour: mcc, facet: method}")
}

/// One panel of the quickstart rows with another colour.
pub fn single(colour: &str) -> FigureSpec {
    written(&format!("phase_diagram: {{x: data.firing_probability, y: toy.d_hidden, colour: {colour}}}"))
}

/// The phase of the second of two features by the closed forms of the antipodal model, 9 by 9.
pub fn phases() -> Table {
    let mut rows = Rows::default();
    for r in log_values(0.1, 10.0, 9) {
        for p in log_values(0.01, 1.0, 9) {
            let variance = p / 3.0 - p * p / 4.0;
            let losses = [r * variance, (1.0 + r) * p * p / 6.0, variance];
            let names = ["dropped", "superposed", "dedicated"];
            let best = (0..3).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(0);
            rows.push(
                &[
                    ("toy.importance.last", r),
                    ("data.firing_probability", p),
                    ("seed", 0.0),
                    ("norm_last", [0.02, 1.0, 1.0][best]),
                ],
                &[("phase_last", names[best]), ("theory_phase_last", names[best]), ("status", "ok")],
            );
        }
    }
    rows.table()
}

pub fn phase_spec(contours: &str) -> FigureSpec {
    written(&format!(
        "phase_diagram: {{name: trained, x: toy.importance.last, y: data.firing_probability, colour: phase_last, \
         contours: [{contours}]}}"
    ))
}

/// p = 4r/(2 + 5r) below r = 1 and 4/(2r + 5) above.
pub fn phase_context() -> Context {
    let left = log_values(0.05, 1.0, 60).into_iter().map(|r| [r, 4.0 * r / (2.0 + 5.0 * r)]).collect();
    let right = log_values(1.0, 20.0, 60).into_iter().map(|r| [r, 4.0 / (2.0 * r + 5.0)]).collect();
    let line = TheoryLine {
        name: "theory_boundary".into(),
        label: "predicted boundary".into(),
        pieces: vec![left, right, vec![[1.0, 4.0 / 7.0], [1.0, 2.0]]],
    };
    Context { lines: vec![line], ..context(&["toy.importance.last", "data.firing_probability"]) }
}

/// Five densities of five features in two dimensions: rows and the feature table.
pub fn pentagon() -> (Table, Table) {
    let (mut rows, mut features) = (Rows::default(), Rows::default());
    for (panel, p) in [1.0, 0.2, 0.1, 0.05, 0.01].into_iter().enumerate() {
        for seed in 0..2 {
            let cell = format!("{panel:02}{seed:02}");
            let numbers = [("data.firing_probability", p), ("seed", seed as f64), ("loss", 0.01 * (2 - seed) as f64)];
            rows.push(&numbers, &[("cell", &cell), ("status", "ok")]);
            for feature in 0..5 {
                let (norm, turns) = match panel {
                    0 => ([1.0, 1.0, 0.02, 0.01, 0.02][feature], [0.0, 0.25, 0.1, 0.6, 0.8][feature]),
                    1 => ([1.01, 1.0, 1.0, 1.02, 0.03][feature], [0.0, 0.5, 0.25, 0.75, 0.9][feature]),
                    _ => (1.07 + 0.03 * panel as f64, feature as f64 * 0.4),
                };
                let angle = std::f64::consts::TAU * (turns + 0.17 * panel as f64) * if seed == 0 { 1.0 } else { -1.0 };
                features.push(
                    &[
                        ("feature", feature as f64),
                        ("importance", libm::pow(0.9, feature as f64)),
                        ("norm", norm),
                        ("superposition", 0.2 * feature as f64),
                        ("w_0", norm * libm::cos(angle)),
                        ("w_1", norm * libm::sin(angle)),
                    ],
                    &[("cell", &cell)],
                );
            }
        }
    }
    (rows.table(), features.table())
}

pub fn vectors(colour: &str) -> FigureSpec {
    written(&format!("vectors: {{panels: data.firing_probability, colour: {colour}}}"))
}

/// Six SAE kinds at six sparsities, three seeds: l0, fvu and scores.
pub fn zoo() -> Table {
    let mut rows = Rows::default();
    let methods = ["relu", "topk", "batch_topk", "jumprelu", "matryoshka", "matching_pursuit"];
    for (m, method) in methods.into_iter().enumerate() {
        for (i, k) in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0].into_iter().enumerate() {
            for seed in 0..3 {
                let jitter = noise(31 * m + 7 * i + seed);
                let l0 = k * (1.0 + 0.15 * (m as f64) * (jitter - 0.3) / 5.0);
                let fvu = 0.5 * libm::pow(k, -0.7 - 0.06 * m as f64) * (0.8 + 0.4 * jitter);
                rows.push(
                    &[
                        ("l0", l0),
                        ("fvu", fvu),
                        ("loss", fvu * 1e-2),
                        ("seed", seed as f64),
                        ("sae.k", k),
                        ("f1", if m == 5 { f64::NAN } else { 0.9 - 0.05 * m as f64 - 0.06 * jitter }),
                        ("mcc", 0.85 - 0.07 * m as f64 + 0.05 * jitter),
                        ("uniqueness", 0.95 - 0.02 * m as f64 * jitter),
                        ("absorption_any", 0.05 + 0.06 * m as f64 * jitter),
                        ("absorption_gap", 0.3 * jitter - 0.1),
                    ],
                    &[("method", method), ("status", "ok")],
                );
            }
        }
    }
    rows.table()
}

pub fn curve(x: &str, y: &str, group: &str, band: &str) -> FigureSpec {
    written(&format!("curve: {{x: {x}, y: [{y}], group: {group}, band: {band}}}"))
}

pub fn bars(y: &str, x: &str) -> FigureSpec {
    written(&format!("bars: {{y: [{y}], x: {x}, group: method}}"))
}

/// Fifty by fifty cells of a quantity that spans decades, with one corner missing.
pub fn dense() -> Table {
    let mut rows = Rows::default();
    for x in log_values(1e-3, 1.0, 50) {
        for i in 0..50 {
            let y = 0.1 + 0.04 * f64::from(i);
            let value = if x > 0.5 && y > 1.8 { f64::NAN } else { libm::pow(x, 1.2) * y * 1e-3 };
            rows.push(
                &[("data.firing_probability", x), ("toy.importance.last", y), ("loss", value)],
                &[("status", "ok")],
            );
        }
    }
    rows.table()
}

pub fn dense_spec() -> FigureSpec {
    written(
        "phase_diagram: {x: data.firing_probability, y: toy.importance.last, colour: loss, contours: ['loss = 1e-5, 1e-4']}",
    )
}

/// Numbered panels, kinds on an axis.
pub fn by_width() -> FigureSpec {
    written("phase_diagram: {x: method, y: data.firing_probability, colour: mcc, facet: toy.d_hidden}")
}

/// Which method is best, over two axes.
pub fn best() -> Table {
    let mut rows = Rows::default();
    for (i, p) in log_values(0.01, 0.5, 6).into_iter().enumerate() {
        for (j, k) in [1.0, 2.0, 4.0, 8.0, 16.0].into_iter().enumerate() {
            let method = ["relu", "topk", "batch_topk", "matryoshka", "matching_pursuit"][(i * j / 3 + i / 3) % 5];
            rows.push(&[("data.firing_probability", p), ("sae.topk.k", k)], &[("best", method), ("status", "ok")]);
        }
    }
    rows.table()
}

/// Kinds as colour that are no phases.
pub fn best_spec() -> FigureSpec {
    written("phase_diagram: {x: data.firing_probability, y: sae.topk.k, colour: best}")
}

/// Kept weights by cell, for tests.
#[derive(Default)]
pub struct Kept(pub Vec<(String, Vec<Tensor>)>);

impl Weights for Kept {
    fn has(&self, cell: &str) -> bool {
        self.0.iter().any(|(known, _)| known == cell)
    }

    fn tensors(&self, cell: &str) -> Result<Vec<Tensor>, String> {
        let found = self.0.iter().find(|(known, _)| known == cell);
        found.map(|(_, tensors)| tensors.clone()).ok_or_else(|| format!("no weights of {cell}"))
    }
}

/// A tensor of an f64 formula.
pub fn tensor(name: &str, shape: [usize; 2], f: impl Fn(usize, usize) -> f64) -> Tensor {
    let values = (0..shape[0] * shape[1]).map(|at| f(at / shape[1], at % shape[1]) as f32).collect();
    Tensor { name: name.to_owned(), shape: shape.to_vec(), values }
}

/// Seven densities of 20 features in 5 dimensions, more of them stored as antipodal pairs the sparser they are: rows, the
/// table of features, and weights. With `untied`, each second feature's output weights are halved.
pub fn crowded(untied: bool) -> (Table, Table, Kept) {
    let (n, d) = (20, 5);
    let (mut rows, mut features) = (Rows::default(), Rows::default());
    let mut kept = Kept::default();
    for (panel, p) in [1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001].into_iter().enumerate() {
        let cell = format!("{panel:032x}");
        let stored = d + panel.min(d);
        let entry = |i: usize, k: usize| match i {
            i if i < d => f64::from(u8::from(i == k)) * (0.9 + 0.2 * noise(i)),
            i if i < stored => -f64::from(u8::from(i - d == k)) * 0.8 + 0.05 * (noise(7 * i + k) - 0.5),
            i => 0.02 * (noise(31 * i + k) - 0.5),
        };
        let bias = |i: usize| if i < stored { -0.1 * panel as f64 } else { p / 2.0 };
        let mut tensors = vec![tensor("toy.w", [n, d], entry), tensor("toy.b", [n, 1], |i, _| bias(i))];
        tensors[1].shape = vec![n];
        if untied {
            tensors.push(tensor("toy.v", [n, d], |i, k| entry(i, k) * if i % 2 == 0 { 1.0 } else { 0.5 }));
        }
        tensors.push(tensor("sae.W_dec", [6, d], |j, k| entry((j + 2) % 6, k) + 0.1 * noise(j * d + k)));
        tensors.push(tensor("sae.W_enc", [6, d], |j, k| entry((j + 2) % 6, k) - 0.1 * noise(j * d + k)));
        kept.0.push((cell.clone(), tensors));
        let words =
            [("cell", &cell[..]), ("status", "ok"), ("toy.model", if panel % 2 == 0 { "linear" } else { "relu" })];
        rows.push(
            &[("data.firing_probability", p), ("seed", 0.0), ("loss", 0.1 * p), ("d_star", 1.0 / (1.0 + panel as f64))],
            &words,
        );
        for i in 0..n {
            let share = if i < stored { 0.5 + 0.02 * noise(i + panel) } else { 0.0 };
            let numbers = [("feature", i as f64), ("importance", libm::pow(0.7, i as f64)), ("dimensionality", share)];
            features.push(&numbers, &[("cell", &cell)]);
        }
    }
    (rows.table(), features.table(), kept)
}

/// A finite training set: rows of three sizes, features and hidden vectors of samples in two dimensions.
pub fn memorised() -> Data<'static> {
    let (mut rows, mut features, mut samples) = (Rows::default(), Rows::default(), Rows::default());
    for t in [5usize, 8, 50] {
        let cell = format!("{t:032x}");
        let numbers = [("data.samples", t as f64), ("seed", 0.0), ("loss", 0.2 * t as f64)];
        rows.push(&numbers, &[("cell", &cell), ("status", "ok")]);
        for i in 0..40 {
            let (angle, length) = (std::f64::consts::TAU * noise(i + t), 0.1 + 0.5 * noise(3 * i + t));
            let place = [length * libm::cos(angle), length * libm::sin(angle)];
            let numbers = [
                ("feature", i as f64),
                ("importance", 1.0),
                ("w_0", place[0]),
                ("w_1", place[1]),
                ("dimensionality", length * 0.1),
            ];
            features.push(&numbers, &[("cell", &cell)]);
        }
        for i in 0..t {
            let angle = std::f64::consts::TAU * i as f64 / t as f64;
            let numbers = [
                ("sample", i as f64),
                ("h_0", 2.0 * libm::cos(angle)),
                ("h_1", 2.0 * libm::sin(angle)),
                ("data_dimensionality", 2.0 / t as f64),
            ];
            samples.push(&numbers, &[("cell", &cell)]);
        }
    }
    let sides = vec![(SideTable::Features, features.table()), (SideTable::Samples, samples.table())];
    Data { rows: rows.table(), sides, weights: None }
}

/// Two densities by two seeds along training: loss, and dimensionality of `n` features.
pub fn learning(n: usize) -> Data<'static> {
    let (mut rows, mut trace, mut snapshots) = (Rows::default(), Rows::default(), Rows::default());
    for (panel, p) in [0.35, 0.1].into_iter().enumerate() {
        for seed in 0..2 {
            let cell = format!("{:032x}", 10 * panel + seed);
            let numbers = [("data.firing_probability", p), ("seed", seed as f64), ("loss", 0.01 * (2 - seed) as f64)];
            rows.push(&numbers, &[("cell", &cell), ("status", "ok")]);
            for log in 0..60 {
                let step = f64::from(log) * 100.0;
                let loss = 0.01 * p + 0.2 * libm::exp(-step / 900.0) * (1.0 + 0.2 * noise(log as usize + seed));
                trace.push(&[("step", step), ("loss", loss)], &[("cell", &cell), ("model", "toy")]);
                trace.push(&[("step", step), ("loss", 9.0)], &[("cell", &cell), ("model", "sae")]);
                for i in 0..n {
                    let late = step > 6000.0 * noise(i + 50 * seed);
                    let share = if late { 0.5 } else { 0.05 + 0.1 * noise(i) };
                    snapshots
                        .push(&[("step", step), ("feature", i as f64), ("dimensionality", share)], &[("cell", &cell)]);
                }
            }
        }
    }
    let sides = vec![(SideTable::Trace, trace.table()), (SideTable::Snapshots, snapshots.table())];
    Data { rows: rows.table(), sides, weights: None }
}

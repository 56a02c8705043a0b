//! Tables that resemble runs, for tests: phase diagrams, panels of vectors, curves and bars.

use super::caption::{Context, TheoryLine};
use super::data::{Column, Table};
use super::spec::{Band, Bars, Curve, FigureSpec, PhaseDiagram, Vectors};

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
        lines: Vec::new(),
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
    FigureSpec::PhaseDiagram(PhaseDiagram {
        name: Some("recovery".into()),
        x: "data.firing_probability".into(),
        y: "toy.d_hidden".into(),
        colour: "mcc".into(),
        facet: Some("method".into()),
        ..PhaseDiagram::default()
    })
}

/// One panel of the quickstart rows with another colour.
pub fn single(colour: &str) -> FigureSpec {
    FigureSpec::PhaseDiagram(PhaseDiagram {
        x: "data.firing_probability".into(),
        y: "toy.d_hidden".into(),
        colour: colour.into(),
        ..PhaseDiagram::default()
    })
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

pub fn phase_spec(contours: &[&str]) -> FigureSpec {
    FigureSpec::PhaseDiagram(PhaseDiagram {
        name: Some("trained".into()),
        x: "toy.importance.last".into(),
        y: "data.firing_probability".into(),
        colour: "phase_last".into(),
        contours: contours.iter().map(|name| (*name).to_owned()).collect(),
        ..PhaseDiagram::default()
    })
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
    FigureSpec::Vectors(Vectors {
        panels: Some("data.firing_probability".into()),
        colour: Some(colour.into()),
        ..Vectors::default()
    })
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

pub fn curve(x: &str, y: &[&str], group: &str, band: Band) -> FigureSpec {
    FigureSpec::Curve(Curve {
        x: x.into(),
        y: y.iter().map(|column| (*column).to_owned()).collect(),
        group: Some(group.into()),
        band,
        ..Curve::default()
    })
}

pub fn bars(y: &[&str], x: Option<&str>) -> FigureSpec {
    FigureSpec::Bars(Bars {
        y: y.iter().map(|column| (*column).to_owned()).collect(),
        x: x.map(str::to_owned),
        group: Some("method".into()),
        band: Band::MinMax,
        ..Bars::default()
    })
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
    FigureSpec::PhaseDiagram(PhaseDiagram {
        x: "data.firing_probability".into(),
        y: "toy.importance.last".into(),
        colour: "loss".into(),
        contours: vec!["loss = 1e-5, 1e-4".into()],
        ..PhaseDiagram::default()
    })
}

/// Numbered panels, kinds on an axis.
pub fn by_width() -> FigureSpec {
    FigureSpec::PhaseDiagram(PhaseDiagram {
        x: "method".into(),
        y: "data.firing_probability".into(),
        colour: "mcc".into(),
        facet: Some("toy.d_hidden".into()),
        ..PhaseDiagram::default()
    })
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
    FigureSpec::PhaseDiagram(PhaseDiagram {
        x: "data.firing_probability".into(),
        y: "sae.topk.k".into(),
        colour: "best".into(),
        ..PhaseDiagram::default()
    })
}

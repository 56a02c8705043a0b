//! Figures of whole runs: that they are drawn, what their captions say, and what becomes of a run that lacks what they show.

use super::program::{SMALL, tegum, write};

#[test]
fn figures_are_drawn_over_means_of_seeds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(
        folder.path(),
        "small.yaml",
        &format!("{}reduce: {{seeds: mean}}\n", SMALL.replace("equals: 32", "equals: 16")),
    );
    let answer = tegum(folder.path(), &["run", &file]);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(folder.path().join("results/small/recovery.png").is_file());
}

#[test]
fn every_kind_of_figure_is_drawn_from_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "name: kinds
question: |
  Which figures
  are drawn?
source: this test
notice: A file for each ending.
seeds: 2
data: {n_features: 5, firing_probability: 0.1}
toy: {d_hidden: 2, importance: {geometric: 0.9}, train: {steps: 200, batch_size: 64, lr: 1e-2}}
sae: [{topk: {n_latents: 5, k: 1}}]
sae_train: {steps: 50, batch_size: 32}
evaluate: {samples: 500}
save: {weights: all, trace: {every: 20}}
sweep: {data.firing_probability: [1.0, 0.1, 0.02]}
reduce: {seeds: lowest_loss}
figures:
  - curve: {name: curve, x: '1.0 / \"data.firing_probability\"', y: d_star, x_label: 1/(1 - S), lines: [1, {at: 0.5, label: 1/2}]}
  - scatter: {name: scatter, x: data.firing_probability, y: features.dimensionality, colour: importance, lines: [0.5]}
  - scatter: {name: fits, x: data.firing_probability, y: loss, colour: seed, seeds: all}
  - vectors: {name: vectors, panels: data.firing_probability}
  - vectors: {name: overlay, overlay: true, colour: data.firing_probability}
  - matrix: {name: overlaps, facet: data.firing_probability, bars: true}
  - matrix: {name: decoder, show: decoder, facet: data.firing_probability}
  - graph: {name: graph, panels: data.firing_probability}
  - neurons: {name: neurons, panels: data.firing_probability}
  - trace: {name: trace, y: loss, group: data.firing_probability}
  - trace: {name: coder, y: [loss, l0], model: sae, panels: data.firing_probability}
";
    let file = write(folder.path(), "kinds.yaml", text);
    let answer = tegum(folder.path(), &["run", &file]);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    let out = folder.path().join("results/kinds");
    for name in "curve scatter fits vectors overlay overlaps decoder graph neurons trace coder".split(' ') {
        for ending in ["png", "svg", "txt"] {
            assert!(out.join(format!("{name}.{ending}")).is_file(), "{name}.{ending}");
        }
    }
    let caption = |name: &str| std::fs::read_to_string(out.join(format!("{name}.txt"))).expect("a caption");
    assert!(caption("fits").contains("Reduction of seeds before drawing: none"), "{}", caption("fits"));
    let asked = "Experiment: kinds\nQuestion: Which figures are drawn?\nSource: this test\nPlan: ";
    assert!(caption("fits").contains(asked), "{}", caption("fits"));
    let notice = "notice: A file for each ending.\n";
    assert_eq!(answer.stderr.matches(notice).count(), 1, "{}", answer.stderr);
    for (arguments, times) in [(&["check", &file][..], 1), (&["check", &file, "--quiet"], 0)] {
        let said = tegum(folder.path(), arguments).stderr;
        assert_eq!(said.matches(notice).count(), times, "{arguments:?}: {said}");
    }
    // Three densities of two seeds, each a row of the autoencoder.
    assert!(caption("fits").contains("6 dots"), "{}", caption("fits"));
    assert!(caption("scatter").contains("15 dots"), "{}", caption("scatter"));
}

#[test]
fn a_figure_of_the_best_seed_brings_the_loss_that_tells_seeds_apart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "name: best\nseeds: 2\ndata: {n_features: 6, firing_probability: 0.2}\n\
                toy: {d_hidden: 3, train: {steps: 50, batch_size: 16}}\nscore: [norm_mean]\nevaluate: {samples: 500}\n\
                figures: [{curve: {name: best, x: seed, y: norm_mean, seeds: lowest_loss}}]\n";
    write(folder.path(), "best.yaml", text);
    let answer = tegum(folder.path(), &["run", "best.yaml"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(folder.path().join("results/best/best.png").is_file());
    let columns = |spec: &str| {
        write(folder.path(), "other.yaml", spec);
        let said = tegum(folder.path(), &["check", "other.yaml"]).stdout;
        said.lines().find(|line| line.starts_with("  scores: ")).expect("a line of scores").to_owned()
    };
    assert_eq!(columns(text), "  scores: norm_mean, loss_weighted");
    // Seeds can be told apart by what was asked for, and cells keep their ids.
    assert_eq!(columns(&text.replace("[norm_mean]", "[norm_mean, loss]")), "  scores: norm_mean, loss");
    assert_eq!(columns(&text.replace(", seeds: lowest_loss", "")), "  scores: norm_mean");
}

/// A step of 1e9 sends every weight past all numbers: no row has a score.
const DIVERGED: &str = "\
name: gone
seeds: 2
data: {n_features: 8, firing_probability: 0.2, dictionary: {d_hidden: 6}}
sae: [{relu: {n_latents: 8, l1: 0.05}}]
sae_train: {steps: 300, batch_size: 32, lr: 1e9, optimizer: sgd, clip: none}
evaluate: {samples: 500}
figures:
  - bars: {name: bars, y: mcc}
  - phase_diagram: {name: map, x: seed, y: method, colour: fvu}
  - scatter: {name: dots, x: seed, y: features.norm}
expect:
  - {claim: no row has a score, value: count(mcc), equals: 0}
";

#[test]
fn a_figure_with_nothing_to_show_is_a_warning_and_the_rest_of_the_run_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "gone.yaml", DIVERGED);
    let run = tegum(folder.path(), &["run", &file]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("figure bars is not drawn: bars: nothing to draw, because no row"), "{}", run.stderr);
    assert!(run.stderr.contains("figure dots is not drawn: "), "{}", run.stderr);
    assert!(run.stdout.contains("2 diverged") && run.stdout.contains("PASS"), "{}", run.stdout);
    let out = folder.path().join("results/gone");
    assert!(out.join("map.png").is_file() && !out.join("bars.png").exists());
    write(folder.path(), "gone.yaml", &DIVERGED.replace("equals: 0", "at_least: 1"));
    let failing = tegum(folder.path(), &["run", &file]);
    assert!(failing.code == 8 && failing.stdout.contains("FAIL"), "{}{}", failing.stdout, failing.stderr);
    // Who asks for figures alone is told that there are none, when those that there are are drawn.
    std::fs::remove_file(out.join("map.png")).expect("it was drawn");
    let asked = tegum(folder.path(), &["figure", "results/gone"]);
    assert!(asked.code == 3 && asked.stderr.contains("figure bars: bars: nothing to draw"), "{}", asked.stderr);
    assert!(asked.stderr.contains("figure dots: ") && out.join("map.png").is_file(), "{}", asked.stderr);
    assert_eq!(tegum(folder.path(), &["figure", "results/gone", "--only", "map"]).code, 0);
}

#[test]
fn a_figure_that_is_wrong_ends_the_run_in_3_when_the_others_are_drawn_and_the_gates_judged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Words have no place on an axis of numbers.
    let figures = "figures: [{curve: {name: wrong, x: seed, y: method}}, {curve: {name: right, x: seed, y: mcc}}]\n";
    let (before, after) = DIVERGED.split_once("figures:").expect("it has figures");
    let gates = &after[after.find("expect:").expect("it has gates")..];
    let file = write(folder.path(), "gone.yaml", &format!("{before}{figures}{gates}").replace("lr: 1e9", "lr: 1e-3"));
    let run = tegum(folder.path(), &["run", &file]);
    assert!(run.code == 3 && run.stderr.contains("figure wrong: "), "{}", run.stderr);
    assert!(run.stdout.contains("right.png") && run.stdout.contains("FAIL"), "{}", run.stdout);
}

#[test]
fn a_caption_of_an_edited_file_tells_the_run_it_is_of_and_how_to_draw_it_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "small.yaml", SMALL);
    assert_eq!(tegum(folder.path(), &["run", &file, "--out", "a run"]).code, 0);
    let caption = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join("a run").join(name)).expect("a caption");
        let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).expect("a line").to_owned();
        [line("Experiment: "), line("Plan: "), line("Seeds: "), line("Redraw: ")]
    };
    let own = caption("recovery.txt");
    assert_eq!([&own[0], &own[2], &own[3]], ["small", "0, 1", "tegum figure 'a run' --only recovery"]);
    let (before, _) = SMALL.split_once("figures:").expect("it has figures");
    let edited = |figures: &str| {
        let text = before.replace("name: small", "name: another").replace("seeds: 2", "seeds: 7");
        write(folder.path(), "it's.yaml", &format!("{text}figures: [{figures}]\n"));
        tegum(folder.path(), &["figure", "a run", "--spec", "it's.yaml"])
    };
    let drawn = edited("{curve: {name: lines, x: toy.d_hidden, y: mcc, group: method}}");
    assert_eq!(drawn.code, 0, "{}", drawn.stderr);
    let [name, plan, seeds, command] = caption("lines.txt");
    assert_eq!([&name, &plan, &seeds], [&own[0], &own[1], &own[2]]);
    assert_eq!(command, r"tegum figure 'a run' --only lines --spec 'it'\''s.yaml'");
    // What the run does not have is refused with its place in the edited file, before anything is drawn.
    for (figures, why) in [
        (
            "{bars: {y: mcc}}, {curve: {x: seed, y: mc}}",
            "it's.yaml:15:29: figure curve-seed-mc: rows have no column `mc`",
        ),
        ("{matrix: {show: decoder}}", "it's.yaml:15:11: figure matrix-decoder: `matrix` draws weights"),
        ("{trace: {y: snapshots.norm}}", "the table `snapshots`, which the run does not keep"),
        ("{trace: {y: l0}}", "`l0` is logged of autoencoders"),
        ("{trace: {y: los}}", "the table `trace` has no column `los`"),
    ] {
        let refused = edited(figures);
        assert!(refused.code == 3 && refused.stderr.contains(why), "{figures}: {}", refused.stderr);
    }
    assert!(!folder.path().join("a run/bars-mcc.png").exists());
}

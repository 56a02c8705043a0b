//! The caption beside a figure: what a reader needs to trust it and to draw it again.

use super::look::ColumnLook;

/// What the caller knows about the run behind the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Name of the experiment.
    pub experiment: String,
    /// What it asks, in one line.
    pub question: Option<String>,
    /// Where it comes from, in one line.
    pub source: Option<String>,
    /// Hash of the plan.
    pub plan_hash: String,
    /// Seeds of the run.
    pub seeds: Vec<u64>,
    /// How seeds were reduced before drawing: "none", "mean", "lowest loss".
    pub reduction: String,
    /// The command that redraws this figure.
    pub command: String,
    /// Paths that the experiment sweeps, `seed` not among them. They tell a swept axis from a measured one, and the
    /// caption names those that a mean runs over.
    pub swept: Vec<String>,
    /// Theory lines that a figure's `contours` may name, in values of the figure's x and y.
    pub lines: Vec<TheoryLine>,
}

/// A line known in closed form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TheoryLine {
    /// What `contours` calls it.
    pub name: String,
    /// What the legend calls it.
    pub label: String,
    /// Its pieces as (x, y) values.
    pub pieces: Vec<Vec<[f64; 2]>>,
}

/// Sentences about one figure, gathered while it is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caption {
    sentences: Vec<String>,
}

impl Caption {
    /// Adds a sentence, without its full stop.
    pub fn say(&mut self, sentence: impl Into<String>) {
        self.sentences.push(format!("{}.", sentence.into()));
    }

    /// Adds what a column is: "Colour: mean cosine (column mcc; version 1: ...)".
    pub fn column(&mut self, role: &str, name: &str, look: &ColumnLook) {
        let definition = look.definition.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
        self.say(format!("{role}: {} (column {name}{definition})", look.in_words()));
    }

    /// Adds how seeds and, with them, other swept columns were brought together.
    pub fn reduction(&mut self, context: &Context, varying: &[String]) {
        let others: Vec<&str> = varying.iter().map(String::as_str).filter(|name| *name != "seed").collect();
        let over = match (varying.iter().any(|name| name == "seed"), &others[..]) {
            (_, []) if varying.is_empty() => String::new(),
            (_, []) => "; shown is the mean over seeds".to_owned(),
            (true, names) => format!("; shown is the mean over seeds and {}", names.join(", ")),
            (false, names) => format!("; shown is the mean over {}", names.join(", ")),
        };
        let reduction = if context.reduction.is_empty() { "none" } else { &context.reduction };
        self.say(format!("Reduction of seeds before drawing: {reduction}{over}"));
    }

    /// Adds which of the rows of a panel is shown where only one can be.
    pub fn best_of(&mut self, most: usize) {
        if most > 1 {
            self.say(format!("Of up to {most} rows a panel, the one of lowest loss is shown"));
        }
    }

    /// What the figure shows, in one paragraph.
    pub fn description(&self) -> String {
        self.sentences.join(" ")
    }

    /// The text of the caption file.
    pub fn file(&self, name: &str, context: &Context) -> String {
        let seeds: Vec<String> = context.seeds.iter().map(u64::to_string).collect();
        let line = |what: &str, text: &Option<String>| {
            text.as_ref().map(|text| format!("{what}: {text}\n")).unwrap_or_default()
        };
        format!(
            "{name}\n\nExperiment: {}\n{}{}Plan: {}\nSeeds: {}\n\n{}\n\nRedraw: {}\n",
            context.experiment,
            line("Question", &context.question),
            line("Source", &context.source),
            context.plan_hash,
            seeds.join(", "),
            self.sentences.join("\n"),
            context.command
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::look::Amount;

    #[test]
    fn the_caption_says_everything_the_style_asks_for() {
        let context = Context {
            experiment: "quickstart".into(),
            question: Some("Where is room?".into()),
            source: Some("Elhage et al. 2022".into()),
            plan_hash: "3f2a".into(),
            seeds: vec![0, 1],
            reduction: "mean".into(),
            command: "tegum figure results/quickstart --only recovery".into(),
            ..Context::default()
        };
        let mut caption = Caption::default();
        let mut look = ColumnLook::new("mean matched cosine", Amount::Share);
        look.definition = Some("definition version 1".into());
        caption.column("Colour", "mcc", &look);
        caption.reduction(&context, &["seed".into(), "toy.d_hidden".into()]);
        let file = caption.file("recovery", &context);
        for part in [
            "recovery\n",
            "Experiment: quickstart\nQuestion: Where is room?\nSource: Elhage et al. 2022\nPlan",
            "Plan: 3f2a",
            "Seeds: 0, 1",
            "Colour: mean matched cosine (column mcc; definition version 1).",
            "before drawing: mean; shown is the mean over seeds and toy.d_hidden.",
            "Redraw: tegum figure results/quickstart --only recovery",
        ] {
            assert!(file.contains(part), "{part} in {file}");
        }
    }

    #[test]
    fn a_figure_of_reduced_rows_claims_no_further_mean() {
        let mut caption = Caption::default();
        let context = Context { experiment: "a".into(), reduction: "lowest loss".into(), ..Context::default() };
        caption.reduction(&context, &[]);
        assert_eq!(caption.description(), "Reduction of seeds before drawing: lowest loss.");
        let file = caption.file("f", &context);
        assert!(file.starts_with("f\n\nExperiment: a\nPlan: \n"), "what is not given has no line in {file}");
    }
}

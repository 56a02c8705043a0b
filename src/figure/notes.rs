//! Words to the right of a panel at values of its y axis, such as the names of reference lines. Words that would touch
//! move apart as little as possible, and a short line leads from each to its value.

use super::layout::Panel;
use super::scene::{Anchor, Scene};
use super::text::{CAP_HEIGHT, Rich};
use super::theme;

/// Least distance of two baselines.
const APART: f64 = theme::TICK_TEXT * 1.05;
/// Length of the line that leads from a panel to words that moved.
const LEADER: f64 = 5.0;

/// Words at a value of y.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Value of y.
    pub at: f64,
    /// Words.
    pub words: Rich,
}

/// Width that notes take beside a panel; nothing without notes.
pub fn width(notes: &[Note]) -> f64 {
    let widest = notes.iter().map(|note| note.words.width(theme::TICK_TEXT)).fold(0.0, f64::max);
    if notes.is_empty() { 0.0 } else { LEADER + theme::TICK_GAP + widest }
}

/// Draws the notes that lie inside the axis of a panel.
pub fn draw(scene: &mut Scene, panel: &Panel, notes: &[Note]) {
    let mut inside: Vec<(f64, &Rich)> = notes
        .iter()
        .map(|note| (panel.y.place(note.at), &note.words))
        .filter(|(place, _)| (0.0..=1.0).contains(place))
        .map(|(place, words)| (panel.rect.bottom - place * panel.rect.height(), words))
        .collect();
    inside.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted: Vec<f64> = inside.iter().map(|(y, _)| *y).collect();
    for ((from, words), to) in inside.iter().zip(apart(&wanted, APART)) {
        let right = panel.rect.right;
        scene.line([right, *from], [right + LEADER, to], theme::HAIRLINE, theme::HATCH);
        let at = [right + LEADER + theme::TICK_GAP, to + CAP_HEIGHT * theme::TICK_TEXT / 2.0];
        scene.text(at, Anchor::Start, theme::TICK_TEXT, theme::INK, (*words).clone());
    }
}

/// Rising places at least `gap` apart, with the least sum of squared moves: without the gaps this is a monotone
/// regression, solved by pooling neighbours that are out of order.
fn apart(wanted: &[f64], gap: f64) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (i, place) in wanted.iter().enumerate() {
        pools.push((place - i as f64 * gap, 1));
        while let [.., (before, n_before), (last, n_last)] = pools[..]
            && before > last
        {
            let n = n_before + n_last;
            pools.truncate(pools.len() - 2);
            pools.push(((before * n_before as f64 + last * n_last as f64) / n as f64, n));
        }
    }
    let levels = pools.into_iter().flat_map(|(level, n)| std::iter::repeat_n(level, n));
    levels.enumerate().map(|(i, level)| level + i as f64 * gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_would_touch_move_apart_equally_and_others_stay() {
        assert_eq!(apart(&[0.0, 20.0, 40.0], 7.0), [0.0, 20.0, 40.0]);
        assert_eq!(apart(&[10.0, 10.0, 40.0], 8.0), [6.0, 14.0, 40.0]);
        assert!(apart(&[], 7.0).is_empty());
    }
}

//! Greedy choices compared as far as the allowed noise can't turn them.

use crate::metrics::arg_max;

/// Positions compared and left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Positions whose margin is above what noise can turn: they were equal.
    pub equal: usize,
    /// All positions.
    pub all: usize,
}

impl Compared {
    /// Part of the positions that was compared.
    pub fn share(&self) -> f64 {
        self.equal as f64 / self.all as f64
    }
    /// Both.
    pub fn add(&mut self, other: Compared) {
        self.equal += other.equal;
        self.all += other.all;
    }
}

/// The smallest margin that noise within `bound` may not turn: eight standard deviations of the error of one logit.
pub fn threshold(bound: f64, mean_square: f64) -> f64 {
    8.0 * (bound * mean_square).sqrt()
}

/// Mean of the squares.
pub fn mean_square<'a>(rows: impl IntoIterator<Item = &'a [f32]>) -> f64 {
    let (mut sum, mut n) = (0.0, 0);
    for row in rows {
        sum += row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        n += row.len();
    }
    sum / n as f64
}

/// Compares the choices that `rows` make with the expected ids. The sequence they were computed on is the expected one, so that a
/// choice within the noise doesn't end the comparison.
///
/// # Panics
/// If a choice differs whose margin is above the threshold.
pub fn compare<'a>(
    what: &str,
    rows: impl IntoIterator<Item = &'a [f32]>,
    expected: &[u32],
    margins: &[f32],
    threshold: f64,
) -> Compared {
    let mut compared = Compared { equal: 0, all: expected.len() };
    let mut seen = 0;
    for (i, row) in rows.into_iter().enumerate() {
        seen += 1;
        if f64::from(margins[i]) < threshold {
            continue;
        }
        let (found, expected) = (arg_max(row) as u32, expected[i]);
        assert_eq!(found, expected, "{what}: greedy id {i}, margin {} over {threshold:.3}", margins[i]);
        compared.equal += 1;
    }
    assert_eq!(seen, expected.len(), "{what}: rows");
    compared
}

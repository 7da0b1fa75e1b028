//! Score files in words and tables.

use crate::{
    Error, Meta, ScoreFile,
    compare::{compare, order},
    heatmap,
};
use headkv_plugin::HeadScores;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// A score file that was read for showing.
pub struct Shown {
    /// Where it lies.
    pub path: PathBuf,
    /// The heads' means.
    pub scores: HeadScores,
    /// The fewest and the most examples of a head.
    pub examples: (usize, usize),
    /// What lies beside it.
    pub meta: Option<Meta>,
}

impl Shown {
    /// Reads a score file, and what lies beside it.
    ///
    /// # Errors
    /// As [`ScoreFile::read`] and [`Meta::beside`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = ScoreFile::read(path)?;
        Ok(Self {
            path: path.into(),
            scores: file.means()?,
            examples: file.examples(),
            meta: Meta::beside(path)?,
        })
    }

    /// A summary, the `top` best heads, and a heatmap of all.
    pub fn report(&self, top: usize) -> String {
        let values = self.scores.values();
        let total: f64 = values.iter().sum();
        let best = order(values);
        let examples = match self.examples {
            (few, most) if few == most => few.to_string(),
            (few, most) => format!("{few} to {most}"),
        };
        let mut text = format!(
            "{}: {} layers x {} heads, {examples} examples a head\n",
            self.path.display(),
            self.scores.layers(),
            self.scores.heads()
        );
        if let Some(Meta {
            settings,
            counted,
            total,
            date,
            ..
        }) = &self.meta
        {
            let (kind, model, tool) = (settings.kind, &settings.model, &settings.tool);
            let _ = writeln!(
                text,
                "{kind} scores of {model} by {tool}, {date}; {counted} of {total} examples counted"
            );
        }
        let mut held = 0.0;
        let half = best.iter().take_while(|&&head| {
            let before = held;
            held += values[head];
            before < total / 2.0
        });
        let mean = total / values.len() as f64;
        let _ = writeln!(
            text,
            "mean {mean:.4}, largest {:.4}; half of the total in the best {}",
            values[best[0]],
            half.count()
        );
        let _ = writeln!(text, "\nrank  head     score   share");
        for (rank, &head) in best.iter().take(top).enumerate() {
            let name = self.head(head);
            let share = values[head] / total * 100.0;
            let _ = writeln!(
                text,
                "{:>4}  {name:<6} {:>7.4}  {share:>5.1} %",
                rank + 1,
                values[head]
            );
        }
        text + "\n" + &heatmap::text(&self.scores)
    }

    /// How much two files agree.
    ///
    /// # Errors
    /// [`Error::Shapes`] if they are of different models.
    pub fn comparison(&self, other: &Self, top: usize) -> Result<String, Error> {
        let shape = |shown: &Self| {
            (
                shown.path.clone(),
                shown.scores.layers(),
                shown.scores.heads(),
            )
        };
        let (first, second) = (shape(self), shape(other));
        if (first.1, first.2) != (second.1, second.2) {
            return Err(Error::Shapes { first, second });
        }
        let found = compare(&self.scores, &other.scores, top);
        Ok(format!(
            "Pearson {:.4}, Spearman {:.4}, {} of the top {} heads in both\n",
            found.pearson, found.spearman, found.shared, found.top
        ))
    }

    fn head(&self, head: usize) -> String {
        format!(
            "{}-{}",
            head / self.scores.heads(),
            head % self.scores.heads()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(values: &[f64]) -> Shown {
        Shown {
            path: "s.json".into(),
            scores: HeadScores::new(2, values.len() / 2, values.to_vec()).unwrap(),
            examples: (3, 3),
            meta: None,
        }
    }

    #[test]
    fn a_report_names_the_best_heads() {
        insta::assert_snapshot!(shown(&[0.0, 0.01, 0.5, 0.1, 0.0, 0.2, 0.04, 0.0]).report(3), @r"
    s.json: 2 layers x 4 heads, 3 examples a head
    mean 0.1063, largest 0.5000; half of the total in the best 1

    rank  head     score   share
       1  0-2     0.5000   58.8 %
       2  1-1     0.2000   23.5 %
       3  0-3     0.1000   11.8 %

    layer  heads 0 to 3 (· 0 to █ 0.5000)
        0  ·░█░
        1  ·▒░·
    ");
    }

    #[test]
    fn files_of_different_models_do_not_compare() {
        let (a, b) = (shown(&[1.0, 0.0, 0.2, 0.1]), shown(&[0.0, 1.0]));
        insta::assert_snapshot!(a.comparison(&a, 2).unwrap(), @"Pearson 1.0000, Spearman 1.0000, 2 of the top 2 heads in both");
        insta::assert_snapshot!(a.comparison(&b, 2).unwrap_err().to_string(), @"s.json has 2 layers x 2 heads, but s.json has 2 x 1; use files of one model");
    }
}

//! What a report says first: one sentence, and the table that it is about.

use super::{Line, Table};

/// Which table is the report's first, and what it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// The table's place among all.
    pub table: usize,
    /// The sentence.
    pub sentence: String,
}

/// About the table of most answers that has both full attention and a compressed cache of known size.
pub fn lead(tables: &[Table]) -> Option<Lead> {
    let answers = |table: &Table| table.lines.iter().map(|line| line.prompts).sum::<usize>();
    let (at, table) = tables
        .iter()
        .enumerate()
        .filter(|(_, table)| compressed(table).next().is_some())
        .max_by_key(|(at, table)| (answers(table), std::cmp::Reverse(*at)))?;
    Some(Lead {
        table: at,
        sentence: format!("On {}, {}", table.title, sentence(table)?),
    })
}

/// Lines that can be compared with full attention in score and in bytes.
fn compressed(table: &Table) -> impl Iterator<Item = &Line> {
    table
        .lines
        .iter()
        .filter(|line| line.variant.method != "full")
        .filter(|line| line.delta.is_some() && line.kept_share.is_some())
}

fn sentence(table: &Table) -> Option<String> {
    let full = table
        .lines
        .iter()
        .find(|line| line.variant.method == "full")?;
    let share = |line: &Line| line.kept_share.unwrap_or(f64::INFINITY);
    // Of few prompts nothing is known to be lost, nor to be kept.
    let known =
        || compressed(table).filter(|line| line.delta.is_some_and(|delta| delta.low.is_some()));
    let equal = known()
        .filter(|line| line.delta.is_some_and(|delta| !delta.below_zero()))
        .min_by(|a, b| {
            let better = b.average.mean.total_cmp(&a.average.mean);
            share(a).total_cmp(&share(b)).then(better)
        });
    let nearest = || known().max_by(|a, b| a.average.mean.total_cmp(&b.average.mean));
    let Some(shown) = equal.or_else(nearest) else {
        return Some("there are too few prompts to tell methods apart.".into());
    };
    let delta = shown.delta?;
    let (low, high) = (delta.low?, delta.high?);
    let figures = format!(
        "{} keeps {:.1} % of full attention's cache and scores {:.1} against its {:.1} ({:+.1}, 95 % {low:+.1} to \
         {high:+.1}, {} prompts)",
        shown.name,
        share(shown),
        shown.average.mean,
        full.average.mean,
        delta.mean,
        shown.prompts,
    );
    let verdict = if equal.is_some() {
        ": no loss that these prompts show"
    } else {
        ", the nearest to it: every compressed cache loses something here"
    };
    let rival = compressed(table)
        .filter(|line| line.name != shown.name && line.variant.capacity == shown.variant.capacity)
        .max_by(|a, b| a.average.mean.total_cmp(&b.average.mean));
    let rival = rival.map_or(String::new(), |rival| {
        format!(
            "; {}, with {:.1} %, scores {:.1}",
            rival.name,
            share(rival),
            rival.average.mean
        )
    });
    Some(format!("{figures}{verdict}{rival}."))
}

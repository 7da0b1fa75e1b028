//! The numbers behind the pictures.

use super::{
    names::names,
    numbers::{Table, by_variant, table},
    setup::groups,
};
use crate::{
    Row, Variant,
    store::{Heads, Results},
};
use serde::Serialize;
use std::collections::BTreeSet;

/// All pictures of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Those of each table.
    pub tables: Vec<TableFigures>,
    /// What each head keeps, one map per model and variant.
    pub heads: Vec<Map>,
}

/// The pictures that belong to one table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableFigures {
    /// The table's title.
    pub title: String,
    /// Curves over capacity and over beta, where there are several of them.
    pub curves: Vec<Curves>,
    /// Depth against length, one map per variant of a needle test.
    pub maps: Vec<Map>,
}

/// Average scores against a parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curves {
    /// What the picture shows.
    pub title: &'static str,
    /// The parameter.
    pub x: &'static str,
    /// The score of `full`, in percent.
    pub full: Option<f64>,
    /// One line for each set of the other parameters.
    pub series: Vec<Series>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// The method and the parameters that stay the same along it.
    pub name: String,
    /// The method, which has a colour of its own.
    pub method: String,
    /// Parameter and average score in percent, by parameter.
    pub points: Vec<(f64, f64)>,
}

/// A heat map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Map {
    /// What it shows.
    pub name: String,
    /// What stands below it.
    pub across_name: &'static str,
    /// What stands beside it.
    pub down_name: &'static str,
    /// Names of its columns.
    pub across: Vec<String>,
    /// Names of its rows.
    pub down: Vec<String>,
    /// `[down][across]`; none is left blank.
    pub cells: Vec<Vec<Option<Cell>>>,
}

/// One cell of a heat map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Its shade, 0 to 1.
    pub shade: f64,
    /// Its text.
    pub text: String,
}

/// The numbers behind all pictures.
pub fn figures(results: &Results) -> Figures {
    let of_table = |group: &super::setup::Group| {
        let table = table(group);
        TableFigures {
            curves: [by_capacity(&table), by_beta(&table)]
                .into_iter()
                .flatten()
                .collect(),
            maps: if group.setup.benchmark == "needle" {
                needle_maps(&group.rows)
            } else {
                Vec::new()
            },
            title: table.title,
        }
    };
    Figures {
        tables: groups(&results.rows).iter().map(of_table).collect(),
        heads: results.heads.iter().filter_map(head_map).collect(),
    }
}

fn by_capacity(table: &Table) -> Option<Curves> {
    curves(
        table,
        "Score against capacity",
        "tokens kept per head",
        |variant| Some(variant.capacity.take()? as f64),
    )
}

fn by_beta(table: &Table) -> Option<Curves> {
    curves(table, "Score against beta", "beta", |variant| {
        variant.beta.take()
    })
}

/// Lines of the variants that are equal once `take` has taken the parameter out of them.
fn curves(
    table: &Table,
    title: &'static str,
    x: &'static str,
    take: impl Fn(&mut Variant) -> Option<f64>,
) -> Option<Curves> {
    let mut found: Vec<(Variant, Vec<(f64, f64)>)> = Vec::new();
    for line in &table.lines {
        let mut rest = line.variant.clone();
        let Some(at) = take(&mut rest) else { continue };
        let point = (at, line.average);
        match found.iter_mut().find(|(variant, _)| variant.same(&rest)) {
            Some((_, points)) => points.push(point),
            None => found.push((rest, vec![point])),
        }
    }
    if found.iter().all(|(_, points)| points.len() < 2) {
        return None;
    }
    let names = names(&found.iter().map(|(variant, _)| variant).collect::<Vec<_>>());
    let series = names
        .into_iter()
        .zip(found)
        .map(|(name, (variant, mut points))| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series {
                name,
                method: variant.method,
                points,
            }
        });
    let full = table
        .lines
        .iter()
        .find(|line| line.variant.method == "full");
    Some(Curves {
        title,
        x,
        full: full.map(|line| line.average),
        series: series.collect(),
    })
}

fn needle_maps(rows: &[&Row]) -> Vec<Map> {
    let lengths: BTreeSet<usize> = rows.iter().filter_map(|row| row.length).collect();
    let mut depths: Vec<f64> = rows.iter().filter_map(|row| row.depth).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    let variants = by_variant(rows);
    let names = names(
        &variants
            .iter()
            .map(|(variant, _)| *variant)
            .collect::<Vec<_>>(),
    );
    let map = |(name, (_, rows)): (String, (&Variant, Vec<&Row>))| {
        let cell = |depth: f64, length: usize| {
            let here = rows
                .iter()
                .filter(|row| row.depth == Some(depth) && row.length == Some(length));
            let scores: Vec<f64> = here.map(|row| row.score).collect();
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            (!scores.is_empty()).then(|| Cell {
                shade: mean,
                text: format!("{:.0}", 100.0 * mean),
            })
        };
        Map {
            name,
            across_name: "tokens of context",
            down_name: "depth",
            across: lengths.iter().map(usize::to_string).collect(),
            down: depths.iter().map(|depth| format!("{depth} %")).collect(),
            cells: depths
                .iter()
                .map(|&depth| lengths.iter().map(|&length| cell(depth, length)).collect())
                .collect(),
        }
    };
    names.into_iter().zip(variants).map(map).collect()
}

fn head_map(heads: &Heads) -> Option<Map> {
    let kept = &heads.capacities;
    let most = kept
        .iter()
        .flatten()
        .copied()
        .max()
        .filter(|most| *most > 0)?;
    let count = kept.iter().map(Vec::len).max()?;
    // The square root tells small capacities apart: importance is very uneven.
    let cell = |tokens: &usize| Cell {
        shade: (*tokens as f64 / most as f64).sqrt(),
        text: tokens.to_string(),
    };
    let scores = heads.variant.scores_name();
    let scores = scores.map_or(String::new(), |name| format!(", scores {name}"));
    Some(Map {
        name: format!("{}, {}{scores}", heads.model, heads.variant),
        across_name: "layer",
        down_name: "head",
        across: (0..kept.len()).map(|layer| layer.to_string()).collect(),
        down: (0..count).map(|head| head.to_string()).collect(),
        cells: (0..count)
            .map(|head| kept.iter().map(|layer| layer.get(head).map(cell)).collect())
            .collect(),
    })
}

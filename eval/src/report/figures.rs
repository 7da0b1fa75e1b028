//! The numbers behind the pictures.

use super::{
    names::names,
    numbers::{Line, Table, by_variant, table},
    setup::groups,
};
use crate::{
    Row, Variant,
    store::{Heads, Results},
};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// All pictures of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Those of each table.
    pub tables: Vec<TableFigures>,
    /// What each head keeps, one map per model and variant, all on one scale.
    pub heads: Vec<Map>,
    /// Variants that keep as much of every head, in a line each.
    pub uniform: Vec<String>,
    /// Maps that are left out, because a page of them would be too large.
    pub left_out: usize,
}

/// The pictures that belong to one table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableFigures {
    /// The table's title.
    pub title: String,
    /// Score against the part of full's cache that is kept.
    pub pareto: Option<Curves>,
    /// Curves over capacity and over beta, where there are several of them.
    pub curves: Vec<Curves>,
    /// Depth against length, one map per variant of a needle test.
    pub maps: Vec<Map>,
    /// Such maps that are left out, because a page of them would be too large.
    #[serde(skip_serializing_if = "nothing")]
    pub maps_left_out: usize,
}

/// Average scores against a parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curves {
    /// What the picture shows.
    pub title: &'static str,
    /// The parameter.
    pub x: &'static str,
    /// Whether it grows by factors, and is a percentage.
    pub log: bool,
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
    /// By parameter.
    pub points: Vec<Point>,
}

/// One variant in a chart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The parameter.
    pub x: f64,
    /// The average score in percent.
    pub y: f64,
    /// The lower bound of its interval.
    pub low: Option<f64>,
    /// The upper one.
    pub high: Option<f64>,
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

fn nothing(count: &usize) -> bool {
    *count == 0
}

/// The most cells of all maps of a kind: browsers get slow with more.
const MOST_CELLS: usize = 20_000;

/// The numbers behind all pictures.
pub fn figures(results: &Results) -> Figures {
    let mut room = MOST_CELLS;
    let mut of_table = |group: &super::setup::Group| {
        let table = table(group);
        let (maps, maps_left_out) = if group.setup.benchmark == "needle" {
            needle_maps(&group.rows, &mut room)
        } else {
            (Vec::new(), 0)
        };
        TableFigures {
            pareto: pareto(&table),
            curves: [by_capacity(&table), by_beta(&table)]
                .into_iter()
                .flatten()
                .collect(),
            maps,
            maps_left_out,
            title: table.title,
        }
    };
    let tables = groups(&results.rows).iter().map(&mut of_table).collect();
    let (same, uneven): (Vec<_>, Vec<_>) = results
        .heads
        .iter()
        .partition(|heads| equal(heads).is_some());
    let largest = uneven.iter().flat_map(|heads| &heads.capacities).flatten();
    let largest = largest.copied().max().unwrap_or(0);
    let mut room = MOST_CELLS;
    let heads: Vec<Map> = uneven
        .iter()
        .filter(|heads| {
            let layers = &heads.capacities;
            let cells = layers.len() * layers.iter().map(Vec::len).max().unwrap_or(0);
            take(cells, &mut room)
        })
        .filter_map(|heads| head_map(heads, largest))
        .collect();
    Figures {
        tables,
        left_out: uneven.len() - heads.len(),
        heads,
        uniform: same
            .iter()
            .filter_map(|heads| {
                let tokens = equal(heads)?;
                Some(format!(
                    "{}: {tokens} tokens of every head",
                    head_name(heads)
                ))
            })
            .collect(),
    }
}

/// Takes cells from the room that is left; false if they do not fit.
fn take(cells: usize, room: &mut usize) -> bool {
    let left = room.checked_sub(cells);
    *room = left.unwrap_or(*room);
    left.is_some()
}

/// What every head keeps, if all keep as much.
fn equal(heads: &Heads) -> Option<usize> {
    let mut all = heads.capacities.iter().flatten();
    let first = *all.next()?;
    all.all(|tokens| *tokens == first).then_some(first)
}

/// A picture of a single method shows nothing of how methods compare, but of several sizes it does.
fn pareto(table: &Table) -> Option<Curves> {
    let found = curves(
        table,
        "Score against the cache that is kept",
        "% of full attention's cache, 95 % intervals",
        |variant, line| {
            variant.capacity.take()?;
            line.kept_share
        },
    )?;
    Some(Curves { log: true, ..found })
}

fn by_capacity(table: &Table) -> Option<Curves> {
    let found = curves(
        table,
        "Score against capacity",
        "tokens kept per head",
        |variant, _| Some(variant.capacity.take()? as f64),
    );
    found.filter(has_lines)
}

fn by_beta(table: &Table) -> Option<Curves> {
    let found = curves(table, "Score against beta", "beta", |variant, _| {
        variant.beta.take()
    });
    found.filter(has_lines)
}

fn has_lines(curves: &Curves) -> bool {
    curves.series.iter().any(|series| series.points.len() > 1)
}

/// Lines of the variants that are equal once `take` has taken the parameter out of them.
fn curves(
    table: &Table,
    title: &'static str,
    x: &'static str,
    take: impl Fn(&mut Variant, &Line) -> Option<f64>,
) -> Option<Curves> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut found: Vec<(Variant, Vec<Point>)> = Vec::new();
    for line in &table.lines {
        let mut rest = line.variant.clone();
        let Some(x) = take(&mut rest, line) else {
            continue;
        };
        let at = *places.entry(rest.identity()).or_insert_with(|| {
            found.push((rest, Vec::new()));
            found.len() - 1
        });
        found[at].1.push(Point {
            x,
            y: line.average.mean,
            low: line.average.low,
            high: line.average.high,
        });
    }
    // Beyond that no picture tells lines apart.
    if found.is_empty() || found.len() > MOST_LINES {
        return None;
    }
    let names = names(&found.iter().map(|(variant, _)| variant).collect::<Vec<_>>());
    let series = names
        .into_iter()
        .zip(found)
        .map(|(name, (variant, mut points))| {
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
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
        log: false,
        full: full.map(|line| line.average.mean),
        series: series.collect(),
    })
}

/// The most lines of a chart.
const MOST_LINES: usize = 40;

/// The maps of all variants, as far as there is room, and how many find none.
fn needle_maps(rows: &[&Row], room: &mut usize) -> (Vec<Map>, usize) {
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
        let mut scores: HashMap<(u64, usize), (f64, usize)> = HashMap::new();
        for row in rows {
            if let (Some(depth), Some(length)) = (row.depth, row.length) {
                let cell = scores.entry((depth.to_bits(), length)).or_default();
                *cell = (cell.0 + row.score, cell.1 + 1);
            }
        }
        let cell = |depth: f64, length: usize| {
            let (sum, count) = scores.get(&(depth.to_bits(), length))?;
            let mean = sum / *count as f64;
            Some(Cell {
                shade: mean,
                text: format!("{:.0}", 100.0 * mean),
            })
        };
        Map {
            name,
            across_name: "tokens",
            down_name: "depth",
            across: lengths.iter().map(usize::to_string).collect(),
            down: depths.iter().map(|depth| format!("{depth} %")).collect(),
            cells: depths
                .iter()
                .map(|&depth| lengths.iter().map(|&length| cell(depth, length)).collect())
                .collect(),
        }
    };
    // Before they are made: thousands of lengths and depths are millions of cells, few of which were run.
    let cells = lengths.len().saturating_mul(depths.len());
    let all = names.len();
    let maps = names.into_iter().zip(variants);
    let maps: Vec<_> = maps.filter(|_| take(cells, room)).map(map).collect();
    let left_out = all - maps.len();
    (maps, left_out)
}

fn head_name(heads: &Heads) -> String {
    let scores = heads.variant.scores_name();
    let scores = scores.map_or(String::new(), |name| format!(", scores {name}"));
    format!("{}, {}{scores}", heads.model, heads.variant)
}

/// Shaded by the `largest` of all maps.
fn head_map(heads: &Heads, largest: usize) -> Option<Map> {
    let kept = &heads.capacities;
    let count = kept.iter().map(Vec::len).max().filter(|_| largest > 0)?;
    // The square root tells small capacities apart: importance is very uneven.
    let cell = |tokens: &usize| Cell {
        shade: (*tokens as f64 / largest as f64).sqrt(),
        text: tokens.to_string(),
    };
    Some(Map {
        name: head_name(heads),
        across_name: "layer",
        down_name: "head",
        across: (0..kept.len()).map(|layer| layer.to_string()).collect(),
        down: (0..count).map(|head| head.to_string()).collect(),
        cells: (0..count)
            .map(|head| kept.iter().map(|layer| layer.get(head).map(cell)).collect())
            .collect(),
    })
}

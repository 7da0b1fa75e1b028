//! The report as one HTML file that needs nothing else.

use super::{
    charts,
    failures::failures,
    numbers::{Table, tables},
};
use crate::{Error, Row, store::Results};
use minijinja::{Environment, context, value::Value};
use serde::Serialize;

#[derive(Serialize)]
struct Section {
    table: Table,
    capacity_chart: Option<Value>,
    beta_chart: Option<Value>,
    maps: Vec<Map>,
    /// The most KV bytes of any line, for the bars.
    most_bytes: f64,
}

#[derive(Serialize)]
struct Map {
    name: String,
    svg: Value,
}

/// The page.
///
/// # Errors
/// [`Error::Backend`] if the template fails, which a test excludes.
pub fn html(results: &Results) -> Result<String, Error> {
    let sections: Vec<Section> = tables(&results.rows)
        .into_iter()
        .map(|table| section(table, &results.rows))
        .collect();
    let heads: Vec<_> = results
        .heads
        .iter()
        .filter_map(|heads| {
            Some(Map {
                name: format!("{}, {}", heads.model, heads.variant),
                svg: safe(charts::head_map(heads)?),
            })
        })
        .collect();
    let prompts: usize = results.rows.len();
    let failed = results
        .rows
        .iter()
        .filter(|row| row.error.is_some())
        .count();
    let mut environment = Environment::new();
    environment.add_filter("fixed", |value: f64, digits: usize| {
        format!("{value:.digits$}")
    });
    environment.add_filter("signed", |value: f64| format!("{value:+.1}"));
    environment.add_filter("bytes", crate::table::bytes);
    let page = environment
        .add_template("report.html", include_str!("report.html"))
        .and_then(|()| environment.get_template("report.html"))
        .and_then(|template| {
            template.render(context! {
                sections, heads, prompts, failed,
                failures => failures(results),
                runs => results.runs,
                version => env!("CARGO_PKG_VERSION"),
            })
        });
    page.map_err(|e| Error::Backend(format!("report template: {e}")))
}

fn section(table: Table, rows: &[Row]) -> Section {
    let ours: Vec<&Row> = rows
        .iter()
        .filter(|row| row.benchmark == table.benchmark && row.model == table.model)
        .collect();
    let maps = if table.benchmark == "needle" {
        charts::needle_maps(&ours)
    } else {
        Vec::new()
    };
    Section {
        capacity_chart: charts::by_capacity(&table).map(safe),
        beta_chart: charts::by_beta(&table).map(safe),
        maps: maps
            .into_iter()
            .map(|(name, svg)| Map {
                name,
                svg: safe(svg),
            })
            .collect(),
        most_bytes: table
            .lines
            .iter()
            .filter_map(|line| line.kv_bytes)
            .fold(1.0, f64::max),
        table,
    }
}

/// SVG of our own making, in which plotters has escaped every text.
fn safe(svg: String) -> Value {
    Value::from_safe_string(svg)
}

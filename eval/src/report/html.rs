//! The report as one HTML file that needs nothing else.

use super::{
    Options,
    charts::chart,
    failures::failures,
    figures::{Map, figures},
    heatmap::heatmap,
    lead::lead,
    numbers::{Table, tables},
    palette::shades,
    provenance::provenance,
    text::{SPEED, TURNS, UNEVEN, UNINFORMATIVE},
};
use crate::{Error, speed, store::Results};
use minijinja::{Environment, context, value::Value};
use serde::Serialize;

#[derive(Serialize)]
struct Section {
    table: Table,
    pareto: Option<Picture>,
    curves: Vec<Picture>,
    maps: Vec<Picture>,
    maps_left_out: usize,
    /// The most KV bytes of any line, for the bars.
    most_bytes: f64,
}

#[derive(Serialize)]
struct Picture {
    name: String,
    svg: Value,
}

impl Picture {
    /// SVG of our own making, in which plotters has escaped every text.
    fn new(name: &str, svg: Option<String>) -> Option<Self> {
        Some(Self {
            name: name.into(),
            svg: Value::from_safe_string(svg?),
        })
    }
}

/// The page.
///
/// # Errors
/// [`Error::Backend`] if the template fails, which a test excludes.
pub fn html(results: &Results, options: &Options) -> Result<String, Error> {
    let figures = figures(results);
    let maps = |maps: &[Map]| -> Vec<Picture> {
        maps.iter()
            .filter_map(|map| Picture::new(&map.name, heatmap(map)))
            .collect()
    };
    let tables = tables(&results.rows);
    let lead = lead(&tables);
    let sections: Vec<Section> = tables
        .into_iter()
        .zip(&figures.tables)
        .map(|(table, figures)| Section {
            pareto: figures
                .pareto
                .as_ref()
                .and_then(|curves| Picture::new(curves.title, chart(curves))),
            curves: figures
                .curves
                .iter()
                .filter_map(|curves| Picture::new(curves.title, chart(curves)))
                .collect(),
            maps: maps(&figures.maps),
            maps_left_out: figures.maps_left_out,
            most_bytes: table
                .lines
                .iter()
                .filter_map(|line| line.kept_bytes)
                .fold(1.0, f64::max),
            table,
        })
        .collect();
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
                sections, failed,
                lead => lead.as_ref().map(|lead| &lead.sentence),
                first => lead.as_ref().map(|lead| lead.table),
                speed => speed::tables(&results.speed), speed_note => SPEED,
                uneven => UNEVEN, uninformative => UNINFORMATIVE, turns => TURNS,
                uniform => figures.uniform, left_out => figures.left_out,
                shades => shades(),
                prompts => results.rows.len(),
                heads => maps(&figures.heads),
                failures => failures(results, options),
                provenance => provenance(results),
                runs => results.runs,
                version => env!("CARGO_PKG_VERSION"),
            })
        });
    page.map_err(|e| Error::Backend(format!("report template: {e}")))
}

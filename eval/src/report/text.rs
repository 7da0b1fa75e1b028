//! Tables as Markdown and CSV.

use super::{Line, Table};
use std::fmt::Write;

/// The tables as Markdown, aligned so that they also read well in a terminal.
pub fn markdown(tables: &[Table]) -> String {
    let mut out = String::new();
    for table in tables {
        let (title, protocol) = (&table.title, &table.setup.protocol);
        let _ = writeln!(out, "### {title} (prompt protocol: {protocol})\n");
        let lines: Vec<_> = table.lines.iter().map(cells).collect();
        out.push_str(&crate::table::markdown(&header(table), &lines));
        out.push('\n');
    }
    out
}

fn header(table: &Table) -> Vec<String> {
    let mut cells = vec!["method".to_string()];
    cells.extend(table.columns.iter().cloned());
    cells.extend(
        [
            "average",
            "vs full",
            "KV cache",
            "prompt tok/s",
            "decode tok/s",
        ]
        .map(String::from),
    );
    cells
}

fn cells(line: &Line) -> Vec<String> {
    let failed = if line.failed > 0 {
        format!(" ({} failed)", line.failed)
    } else {
        String::new()
    };
    let mut cells = vec![line.name.clone() + &failed];
    let bold = |text: String, best: bool| if best { format!("**{text}**") } else { text };
    cells.extend(
        line.scores
            .iter()
            .zip(&line.best)
            .map(|(score, best)| match score {
                Some(score) => bold(format!("{score:.1}"), *best),
                None => "-".into(),
            }),
    );
    cells.push(bold(format!("{:.1}", line.average), line.best_average));
    cells.push(
        line.delta
            .map_or("-".into(), |delta| format!("{delta:+.1}")),
    );
    cells.push(line.kv_bytes.map_or("-".into(), crate::table::bytes));
    cells.extend(
        [line.prompt_speed, line.decode_speed]
            .map(|speed| speed.map_or("-".into(), |speed| format!("{speed:.0}"))),
    );
    cells
}

/// The tables as CSV (RFC 4180), one record per set-up, method and column; the average is a column too.
pub fn csv(tables: &[Table]) -> String {
    let mut out = String::from(
        "benchmark,model,model_digest,backend,protocol,version,method,capacity,beta,scores,settings,column,score,kv_bytes,prompt_tokens_per_s,decode_tokens_per_s,prompts,failed\r\n",
    );
    for table in tables {
        let setup = &table.setup;
        for line in &table.lines {
            let columns = table
                .columns
                .iter()
                .map(String::as_str)
                .zip(line.scores.iter().copied());
            for (column, score) in columns.chain([("average", Some(line.average))]) {
                let variant = &line.variant;
                let number =
                    |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
                let scores = variant
                    .scores
                    .as_deref()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default();
                let fields = [
                    setup.benchmark.clone(),
                    setup.model.clone(),
                    setup.model_digest.clone(),
                    setup.backend.clone(),
                    setup.protocol.clone(),
                    setup.version.clone(),
                    variant.method.clone(),
                    variant
                        .capacity
                        .map_or(String::new(), |tokens| tokens.to_string()),
                    number(variant.beta),
                    scores,
                    variant.settings.join(" "),
                    column.into(),
                    number(score),
                    number(line.kv_bytes),
                    number(line.prompt_speed),
                    number(line.decode_speed),
                    line.prompts.to_string(),
                    line.failed.to_string(),
                ];
                out.push_str(&fields.map(quote).join(","));
                out.push_str("\r\n");
            }
        }
    }
    out
}

fn quote(field: String) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

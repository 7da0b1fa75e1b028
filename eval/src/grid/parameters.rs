//! The compression's parameters that a run gives one value, each with a flag of its own.

use clap::Args;
use serde::{Deserialize, Serialize};

/// Parameters of the methods; the plugin's default stands for one that is left out.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// The last tokens of the prompt, always kept; their attention ranks the others [default: 8]
    #[arg(long, value_name = "TOKENS")]
    pub window: Option<usize>,
    /// Neighbouring positions whose scores are pooled; odd [default: 7]
    #[arg(long, value_name = "TOKENS")]
    pub kernel: Option<usize>,
    /// How they are pooled: max, average [default: max]
    #[arg(long, value_name = "HOW", value_parser = ["max", "average"], hide_possible_values = true)]
    pub pooling: Option<String>,
    /// How positions are ranked: window, value-norm, drop, keydiff, tova [default: the method's own]
    #[arg(long, value_name = "NAME")]
    pub ranking: Option<String>,
    /// A hit also counts for so many positions before it [default: the method's own, mostly kernel / 2]
    #[arg(long, value_name = "TOKENS")]
    pub pool_before: Option<usize>,
    /// A hit also counts for so many positions after it [default: the method's own, mostly kernel / 2]
    #[arg(long, value_name = "TOKENS")]
    pub pool_after: Option<usize>,
    /// What is left of a hit one position further, 0 to 1 [default: the method's own, mostly 1]
    #[arg(long, value_name = "PART")]
    pub pool_decay: Option<f32>,
    /// HeadKV-Plus: exponent on the static head scores [default: 0.25]
    #[arg(long, value_name = "NUMBER")]
    pub prior: Option<f64>,
    /// HeadKV: exponent on the heads' shares; below 1 flattens, above 1 sharpens [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub temp: Option<f64>,
    /// Ada-KV: the part of the even capacity that every head is sure of, 0 to 1 [default: 0.2]
    #[arg(long, value_name = "PART")]
    pub floor: Option<f64>,
    /// PyramidKV: the last layer keeps the capacity divided by this [default: 20]
    #[arg(long, value_name = "N")]
    pub pyramid_beta: Option<usize>,
    /// StreamingLLM: first tokens of the prompt that are always kept [default: 4]
    #[arg(long, value_name = "TOKENS")]
    pub sinks: Option<usize>,
    /// Who keeps a set of positions: kv-head, query-head [default: kv-head]
    #[arg(long, value_name = "WHO", value_parser = ["kv-head", "query-head"], hide_possible_values = true)]
    pub granularity: Option<String>,
    /// How scores of query heads that share a KV head become one: mean, max [default: mean]
    #[arg(long, value_name = "HOW", value_parser = ["mean", "max"], hide_possible_values = true)]
    pub reduce: Option<String>,
    /// Spend budgets exactly; false rounds as the original does [default: true]
    #[arg(long, value_name = "BOOL")]
    pub redistribute: Option<bool>,
}

impl Parameters {
    /// Those that are given, as `key=value`; the keys are the plugin's.
    pub fn settings(&self) -> Vec<String> {
        fn given<T: ToString>(key: &str, value: &Option<T>) -> Option<String> {
            let value = value.as_ref()?.to_string();
            Some(format!("{key}={value}"))
        }
        let all = [
            given("window", &self.window),
            given("kernel", &self.kernel),
            given("pooling", &self.pooling),
            given("ranking", &self.ranking),
            given("pool_before", &self.pool_before),
            given("pool_after", &self.pool_after),
            given("pool_decay", &self.pool_decay),
            given("prior", &self.prior),
            given("temp", &self.temp),
            given("floor", &self.floor),
            given("pyramid_beta", &self.pyramid_beta),
            given("sinks", &self.sinks),
            given("granularity", &self.granularity),
            given("reduce", &self.reduce),
            given("redistribute", &self.redistribute),
        ];
        all.into_iter().flatten().collect()
    }
}

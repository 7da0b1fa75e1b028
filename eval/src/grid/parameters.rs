//! The compression's parameters that a run gives one value, each with a flag of its own.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// How neighbouring scores are pooled.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The largest of the neighbourhood.
    Max,
    /// The mean of the neighbourhood.
    Average,
}

/// Who keeps a set of positions.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// Each KV head.
    KvHead,
    /// Each query head.
    QueryHead,
}

/// How scores of the query heads that share a KV head become one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// Their mean.
    Mean,
    /// Their maximum.
    Max,
}

/// Parameters of the methods; the plugin's default stands for one that is left out.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Method")]
pub struct Parameters {
    /// The last tokens of the prompt, whose attention ranks the others [default: 8]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Those of them that are kept whatever they are worth [default: the method's own, mostly all]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent: Option<usize>,
    /// Neighbouring positions whose scores are pooled; odd [default: 7]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<usize>,
    /// How they are pooled: max, average [default: max]
    #[arg(long, value_name = "HOW", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// How positions are ranked; the command line has a list of them.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranking: Option<String>,
    /// A hit also counts for so many positions before it [default: the method's own, mostly kernel / 2]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_before: Option<usize>,
    /// A hit also counts for so many positions after it [default: the method's own, mostly kernel / 2]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_after: Option<usize>,
    /// What is left of a hit one position further, 0 to 1 [default: the method's own, mostly 1]
    #[arg(long, value_name = "PART")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_decay: Option<f32>,
    /// HeadKV-Plus: exponent on the static head scores [default: 0.25]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<f64>,
    /// HeadKV: exponent on the heads' shares; below 1 flattens, above 1 sharpens [default: 1]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp: Option<f64>,
    /// Ada-KV: the part of the even capacity that every head is sure of, 0 to 1 [default: 0.2]
    #[arg(long, value_name = "PART")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Threshold: the part of each head's ranking that may be dropped, 0 to 1 [default: 0.1]
    #[arg(long, value_name = "PART")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// PyramidKV: the last layer keeps the capacity divided by this [default: 20]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pyramid_beta: Option<usize>,
    /// StreamingLLM: first tokens of the prompt that are always kept [default: 4]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sinks: Option<usize>,
    /// Who keeps a set of positions: kv-head, query-head [default: kv-head]
    #[arg(long, value_name = "WHO", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// How scores of query heads that share a KV head become one: mean, max [default: mean]
    #[arg(long, value_name = "HOW", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduce: Option<Reduce>,
    /// Spend budgets exactly; false rounds as the original does [default: true]
    #[arg(long, value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redistribute: Option<bool>,
}

impl Parameters {
    /// Whether none is given.
    pub fn are_default(&self) -> bool {
        *self == Self::default()
    }

    /// Those that are given, as `key=value`; the keys are the plugin's.
    pub fn settings(&self) -> Vec<String> {
        fn given<T: ToString>(key: &str, value: &Option<T>) -> Option<String> {
            let value = value.as_ref()?.to_string();
            Some(format!("{key}={value}"))
        }
        let all = [
            given("window", &self.window),
            given("recent", &self.recent),
            given("kernel", &self.kernel),
            given("pooling", &self.pooling.map(name)),
            given("ranking", &self.ranking),
            given("pool_before", &self.pool_before),
            given("pool_after", &self.pool_after),
            given("pool_decay", &self.pool_decay),
            given("prior", &self.prior),
            given("temp", &self.temp),
            given("floor", &self.floor),
            given("loss", &self.loss),
            given("pyramid_beta", &self.pyramid_beta),
            given("sinks", &self.sinks),
            given("granularity", &self.granularity.map(name)),
            given("reduce", &self.reduce.map(name)),
            given("redistribute", &self.redistribute),
        ];
        all.into_iter().flatten().collect()
    }
}

/// A choice as its flag says it.
fn name(choice: impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().into())
}

/// Reads them as rows have them: a table, or what rows of earlier versions had, a list of `key=value`.
pub(crate) fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Parameters, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`settings` is a table of parameters")]
    enum Stored {
        Table(toml::Table),
        List(Vec<String>),
    }
    let table = match Stored::deserialize(from)? {
        Stored::Table(table) => table,
        Stored::List(settings) => {
            let mut table = toml::Table::new();
            for setting in &settings {
                // What is no number and no truth is a name, which TOML wants quoted.
                let line = toml::from_str::<toml::Table>(setting).or_else(|_| {
                    let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
                    toml::from_str(&format!("{key} = {value:?}"))
                });
                table.extend(line.map_err(serde::de::Error::custom)?);
            }
            table
        }
    };
    table.try_into().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variant;

    #[test]
    fn rows_of_all_versions_hold_the_same_parameters() {
        let parameters = Parameters {
            window: Some(16),
            pooling: Some(Pooling::Average),
            pool_decay: Some(0.8),
            redistribute: Some(false),
            ..Parameters::default()
        };
        let variant = Variant {
            settings: parameters.clone(),
            ..Variant::new("snapkv")
        };
        let text = serde_json::to_string(&variant).unwrap();
        assert!(
            text.contains(r#""settings":{"window":16,"pooling":"average""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Variant>(&text).unwrap(), variant);
        let listed = serde_json::json!({"method": "snapkv", "settings": parameters.settings()});
        assert_eq!(
            serde_json::from_value::<Variant>(listed).unwrap().settings,
            parameters
        );
        let wrong = serde_json::json!({"method": "snapkv", "settings": {"windw": 1}});
        let message = serde_json::from_value::<Variant>(wrong).unwrap_err();
        assert!(
            message.to_string().contains("unknown field `windw`"),
            "{message}"
        );
    }
}

//! What Prometheus is told: under vLLM's names where the meaning is the same, else under `headkv_`.

use crate::{generate::ChoiceUsage, state::App};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder, core::Collector,
};
use std::{collections::HashMap, time::Duration};

/// Seconds of whole requests and of waiting.
const LONG: [f64; 13] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0,
];
/// Seconds to a first token.
const FIRST: [f64; 14] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 80.0,
];
/// Seconds between tokens, and of compression.
const SHORT: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// All counters of one server.
pub struct Metrics {
    registry: Registry,
    running: IntGauge,
    waiting: IntGauge,
    prompt_tokens: IntCounter,
    generation_tokens: IntCounter,
    first_token: Histogram,
    between_tokens: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    success: IntCounterVec,
    responses: IntCounterVec,
    held: IntGauge,
    full: IntGauge,
    reserved: IntGauge,
    budget: IntGauge,
    prefix_queries: IntCounter,
    prefix_tokens: IntCounter,
    prefix_hits: IntCounter,
    prefix_held: IntGauge,
    prefix_budget: IntGauge,
    kept_tokens: IntCounterVec,
    compression: Histogram,
    log_lost: IntCounter,
}

impl Metrics {
    /// Counters labelled with the model's name.
    ///
    /// # Errors
    /// None in practice: the names are valid and differ.
    pub fn new(model: &str) -> prometheus::Result<Self> {
        let label = HashMap::from([("model_name".to_string(), model.to_string())]);
        let registry = Registry::new_custom(None, Some(label))?;
        let made = Maker(&registry);
        Ok(Self {
            running: made.gauge("vllm:num_requests_running", "Sequences in the engine")?,
            waiting: made.gauge("vllm:num_requests_waiting", "Requests that wait for memory")?,
            prompt_tokens: made.counter("vllm:prompt_tokens_total", "Tokens of prompts")?,
            generation_tokens: made.counter("vllm:generation_tokens_total", "Tokens generated")?,
            first_token: made.histogram(
                "vllm:time_to_first_token_seconds",
                "From a request's arrival to the first token, waiting included",
                &FIRST,
            )?,
            between_tokens: made.histogram(
                "vllm:inter_token_latency_seconds",
                "Between two tokens of an answer",
                &SHORT,
            )?,
            end_to_end: made.histogram(
                "vllm:e2e_request_latency_seconds",
                "From a request's arrival to its end",
                &LONG,
            )?,
            queue: made.histogram(
                "vllm:request_queue_time_seconds",
                "From a request's arrival to its admission",
                &LONG,
            )?,
            success: made.counters(
                "vllm:request_success_total",
                "Choices that ended well, by reason",
                "finished_reason",
            )?,
            responses: made.counters(
                "headkv_http_responses_total",
                "Responses, by status; 499 are clients that left",
                "status",
            )?,
            held: made.gauge("headkv_kv_bytes_held", "Bytes of keys and values held now")?,
            full: made.gauge(
                "headkv_kv_bytes_full",
                "Bytes that the same sequences would hold with nothing dropped",
            )?,
            reserved: made.gauge("headkv_kv_bytes_reserved", "Bytes promised to requests")?,
            budget: made.gauge("headkv_kv_bytes_budget", "Bytes that may be promised")?,
            prefix_queries: made.counter(
                "vllm:prefix_cache_queries_total",
                "Tokens of prompts whose beginning was looked for among earlier ones",
            )?,
            prefix_tokens: made.counter(
                "vllm:prefix_cache_hits_total",
                "Those of them that did not run again",
            )?,
            prefix_hits: made.counter(
                "headkv_prefix_hits_total",
                "Prompts that were read on from an earlier one",
            )?,
            prefix_held: made.gauge(
                "headkv_prefix_bytes_held",
                "Bytes of prompts that are remembered, in host memory",
            )?,
            prefix_budget: made.gauge(
                "headkv_prefix_bytes_budget",
                "Bytes of prompts that may be remembered",
            )?,
            kept_tokens: made.counters(
                "headkv_kept_tokens_total",
                "Prompt tokens kept, all heads of a layer together",
                "layer",
            )?,
            compression: made.histogram(
                "headkv_compression_seconds",
                "A prompt's ranking, selecting and copying, on the host",
                &SHORT,
            )?,
            log_lost: made.counter(
                "headkv_access_log_lost_total",
                "Lines that could not be written to the access log",
            )?,
            registry,
        })
    }

    /// Counts a prompt with `choices` answers, and what is kept of it by layer.
    pub fn prompt(&self, tokens: usize, choices: usize, kept: &[usize]) {
        self.prompt_tokens.inc_by(tokens as u64);
        for (layer, kept) in kept.iter().enumerate() {
            let counter = self.kept_tokens.with_label_values(&[&layer.to_string()]);
            counter.inc_by((kept * choices) as u64);
        }
    }

    /// A request was admitted.
    pub fn queued(&self, waited: Duration) {
        self.queue.observe(waited.as_secs_f64());
    }

    /// A choice's first token came.
    pub fn first_token(&self, after: Duration) {
        self.generation_tokens.inc();
        self.first_token.observe(after.as_secs_f64());
    }

    /// A further token came.
    pub fn token(&self, after: Duration) {
        self.generation_tokens.inc();
        self.between_tokens.observe(after.as_secs_f64());
    }

    /// A choice ended well.
    pub fn finished(&self, reason: &str, usage: Option<&ChoiceUsage>) {
        self.success.with_label_values(&[reason]).inc();
        if let Some(usage) = usage {
            self.compression.observe(usage.compression_seconds);
        }
    }

    /// A request ended, well or not.
    pub fn end_to_end(&self, after: Duration) {
        self.end_to_end.observe(after.as_secs_f64());
    }

    /// A response was given.
    pub fn response(&self, status: u16) {
        self.responses
            .with_label_values(&[&status.to_string()])
            .inc();
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> u64 {
        self.generation_tokens.get()
    }

    /// Everything in Prometheus's text format, the gauges as they are now.
    pub fn text(&self, app: &App) -> String {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.running.set(number(app.running.count()));
        self.waiting.set(number(app.admission.waiting()));
        self.held.set(number(app.served.model().held_bytes()));
        let full = app.running.tokens() * app.served.sizes.token_bytes();
        self.full.set(number(full));
        self.reserved.set(number(app.admission.used().bytes));
        self.budget.set(number(app.admission.limits().all.bytes));
        let reuse = app.served.model().reused();
        let (held, limit) = app.served.model().remembered_bytes();
        self.prefix_held.set(number(held));
        self.prefix_budget.set(number(limit));
        for (counter, count) in [
            (&self.prefix_queries, reuse.prompt_tokens),
            (&self.prefix_tokens, reuse.tokens),
            (&self.prefix_hits, reuse.hits),
        ] {
            counter.reset();
            counter.inc_by(count);
        }
        self.log_lost.reset();
        self.log_lost.inc_by(app.log.lost());
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: C) -> prometheus::Result<C> {
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help)?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn histogram(&self, name: &str, help: &str, to: &[f64]) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(to.to_vec());
        self.add(Histogram::with_opts(options)?)
    }
}

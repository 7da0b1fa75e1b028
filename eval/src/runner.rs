//! Runs every sample under every variant, once.

use crate::{
    Backend, Error, Failure, Job, Row, Sample, Variant,
    progress::{Progress, Standing},
    row::{Model, key},
    shard::Shard,
    store::Store,
};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

/// What a run does besides its jobs.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The part of the jobs that this run does.
    pub shard: Shard,
    /// Set from outside to end the run after the jobs in progress.
    pub stop: &'a AtomicBool,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Prompts answered.
    pub done: usize,
    /// Prompts that had an answer already.
    pub skipped: usize,
    /// Prompts without an answer, with the first reasons.
    pub failed: usize,
    /// The first few reasons.
    pub reasons: Vec<String>,
    /// Whether it was stopped.
    pub stopped: bool,
    /// Seconds in the model, over all prompts.
    pub model_seconds: f64,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens of all answers.
    pub tokens: usize,
}

impl Summary {
    /// Adds what another run did.
    pub fn add(&mut self, other: Summary) {
        self.done += other.done;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.reasons.extend(other.reasons);
        self.stopped |= other.stopped;
        self.model_seconds += other.model_seconds;
        self.prompt_tokens += other.prompt_tokens;
        self.tokens += other.tokens;
    }
}

/// Reasons that a summary lists.
const REASONS: usize = 3;

/// Answers every sample under every variant, except those that the store has.
///
/// # Errors
/// A variant that the backend cannot run, a store that cannot be written, or a backend that fails for good. Prompts that
/// fail alone are rows with an error, and the run goes on.
pub fn run(
    samples: &[Sample],
    variants: &[Variant],
    model: &Model,
    backend: &dyn Backend,
    store: &mut Store,
    options: Options,
) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    let mut todo: Vec<(&Variant, Vec<&Sample>)> = Vec::new();
    for (at, variant) in variants.iter().enumerate() {
        let mine = (0..)
            .zip(samples)
            .filter(|(job, _)| options.shard.owns(at * samples.len() + job));
        let (had, new): (Vec<_>, Vec<_>) = mine
            .map(|(_, sample)| sample)
            .partition(|sample| store.has(&key(sample, model, variant)));
        for sample in &had {
            store.renew(&key(sample, model, variant))?;
        }
        summary.skipped += had.len();
        todo.push((variant, new));
    }
    let total = todo.iter().map(|(_, samples)| samples.len()).sum();
    let progress = Progress::new(total)?;
    let shared = Mutex::new(Shared { store, summary });
    for (variant, samples) in todo.iter().filter(|(_, samples)| !samples.is_empty()) {
        if options.stop.load(Ordering::Relaxed) {
            break;
        }
        backend.configure(variant)?;
        let group = Group {
            variant,
            samples,
            model,
            backend,
            progress: &progress,
            total,
            next: AtomicUsize::new(0),
            sum: Mutex::new((0.0, 0)),
        };
        let started = Instant::now();
        thread::scope(|scope| {
            let wanted = match group.one_by_one() {
                true => 1,
                false => backend.concurrency().clamp(1, samples.len()),
            };
            // Where the system has no room for more threads, those that are there do all the work.
            let workers: Vec<_> = (1..wanted)
                .map_while(|_| {
                    let worker = thread::Builder::new();
                    let work = || group.work(&shared, options.stop);
                    worker.spawn_scoped(scope, work).ok()
                })
                .collect();
            let own = group.work(&shared, options.stop);
            let ends = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| {
                    Err(Error::Backend("a worker panicked; report this".into()))
                })
            });
            ends.chain([own]).collect::<Result<Vec<_>, _>>()
        })?;
        let (score, count) = *group.sum.lock().unwrap_or_else(PoisonError::into_inner);
        progress.say(format!(
            "{variant}: {count} prompts, score {:.1}, {:.1} s",
            mean(score, count),
            started.elapsed().as_secs_f64()
        ));
    }
    progress.finish();
    let mut summary = shared
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .summary;
    summary.stopped = options.stop.load(Ordering::Relaxed);
    Ok(summary)
}

/// The mean as a percentage.
fn mean(sum: f64, count: usize) -> f64 {
    100.0 * sum / count.max(1) as f64
}

struct Shared<'a> {
    store: &'a mut Store,
    summary: Summary,
}

/// The jobs of one variant.
struct Group<'a> {
    variant: &'a Variant,
    samples: &'a [&'a Sample],
    model: &'a Model,
    backend: &'a dyn Backend,
    progress: &'a Progress,
    /// Jobs of all variants.
    total: usize,
    next: AtomicUsize,
    /// Sum of the scores, and how many.
    sum: Mutex<(f64, usize)>,
}

impl Group<'_> {
    /// Turns follow each other.
    fn one_by_one(&self) -> bool {
        self.samples.iter().any(|sample| sample.turn.is_some())
    }

    /// Takes one batch of jobs after the other until none is left.
    fn work(&self, shared: &Mutex<Shared>, stop: &AtomicBool) -> Result<(), Error> {
        let batch = match self.one_by_one() {
            true => 1,
            false => self.backend.batch().max(1),
        };
        while !stop.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(batch, Ordering::Relaxed);
            let Some(rest) = self.samples.get(first..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let samples = &rest[..batch.min(rest.len())];
            let jobs: Vec<Job> = samples
                .iter()
                .map(|sample| Job {
                    prompt: &sample.prompt,
                    before: sample.turn.as_ref().and_then(|turn| turn.before.as_ref()),
                    min_tokens: sample.min_tokens,
                    max_tokens: sample.max_tokens,
                    stop: &sample.stop,
                })
                .collect();
            for (sample, outcome) in samples.iter().zip(self.backend.complete_all(&jobs)) {
                let outcome = match outcome {
                    Ok(completion) => Ok(completion),
                    Err(Failure::Row(why)) => Err(why),
                    Err(Failure::Stopped) => continue,
                    Err(Failure::Fatal(why)) => {
                        // The other workers need not find out for themselves.
                        self.next.store(self.samples.len(), Ordering::Relaxed);
                        return Err(Error::Backend(why));
                    }
                };
                let row = Row::new(sample, self.model, self.variant, outcome);
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.store.add(&row, &sample.prompt.text)?;
                self.count(&row, &mut shared.summary);
            }
        }
        Ok(())
    }

    fn count(&self, row: &Row, summary: &mut Summary) {
        match &row.error {
            None => summary.done += 1,
            Some(why) => {
                summary.failed += 1;
                if summary.reasons.len() < REASONS && !summary.reasons.contains(why) {
                    summary.reasons.push(why.clone());
                }
            }
        }
        summary.model_seconds += row.prompt_seconds.unwrap_or(0.0) + row.decode_seconds;
        summary.prompt_tokens += row.prompt_tokens;
        summary.tokens += row.tokens;
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = (sum.0 + row.score, sum.1 + 1);
        self.progress.show(&Standing {
            done: summary.done + summary.failed,
            total: self.total,
            tokens: summary.prompt_tokens + summary.tokens,
            elapsed: self.progress.elapsed(),
            variant: self.variant,
            score: mean(sum.0, sum.1),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Completion,
        row::tests::{model, sample},
        store::Results,
    };

    /// Answers with the prompt's last word; fails for prompts that say so.
    struct Parrot {
        workers: usize,
        batch: usize,
        calls: AtomicUsize,
        asked: AtomicUsize,
        stop: Option<&'static AtomicBool>,
    }

    impl Backend for Parrot {
        fn configure(&self, variant: &Variant) -> Result<(), Error> {
            if variant.method == "bad" {
                Err(Error::Backend("no such method".into()))
            } else {
                Ok(())
            }
        }

        fn complete(&self, job: &Job) -> Result<Completion, Failure> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if let Some(stop) = self.stop {
                stop.store(true, Ordering::Relaxed);
            }
            let text = job.prompt.text.split(' ').next_back().unwrap_or_default();
            match text {
                "fail" => Err(Failure::Row("out of luck".into())),
                "dead" => Err(Failure::Fatal("gone".into())),
                text => Ok(Completion {
                    text: text.into(),
                    prompt_tokens: 2,
                    tokens: 1,
                    ..Completion::default()
                }),
            }
        }

        fn batch(&self) -> usize {
            self.batch
        }

        fn complete_all(&self, jobs: &[Job]) -> Vec<Result<Completion, Failure>> {
            assert!((1..=self.batch).contains(&jobs.len()));
            self.calls.fetch_add(1, Ordering::Relaxed);
            jobs.iter().map(|job| self.complete(job)).collect()
        }

        fn concurrency(&self) -> usize {
            self.workers
        }
    }

    fn parrot(workers: usize) -> Parrot {
        Parrot {
            workers,
            batch: 1,
            calls: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            stop: None,
        }
    }

    fn go(
        dir: &std::path::Path,
        ids: &[&str],
        parrot: &Parrot,
        shard: &str,
    ) -> Result<Summary, Error> {
        let samples: Vec<_> = ids.iter().map(|id| sample(id)).collect();
        let variants = [Variant::new("full"), Variant::new("snapkv").capacity(16)];
        static NEVER: AtomicBool = AtomicBool::new(false);
        let options = Options {
            shard: shard.parse().unwrap(),
            stop: parrot.stop.unwrap_or(&NEVER),
        };
        run(
            &samples,
            &variants,
            &model(),
            parrot,
            &mut Store::open(dir)?,
            options,
        )
    }

    #[test]
    fn everything_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let ids = ["yes", "no", "maybe"];
        for (asked, skipped) in [(6, 0), (0, 6)] {
            let parrot = parrot(4);
            let summary = go(dir.path(), &ids, &parrot, "1/1").unwrap();
            assert_eq!((summary.done, summary.skipped), (asked, skipped));
            assert_eq!(parrot.asked.into_inner(), asked);
        }
        let rows = Results::read(dir.path()).unwrap().rows;
        assert_eq!(rows.iter().filter(|row| row.score == 1.0).count(), 2);
    }

    #[test]
    fn batches_bring_the_rows_of_single_jobs() {
        let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ids = ["yes", "fail", "no", "maybe", "fail"];
        go(one.path(), &ids, &parrot(1), "1/1").unwrap();
        let batches = Parrot {
            batch: 2,
            ..parrot(1)
        };
        let summary = go(many.path(), &ids, &batches, "1/1").unwrap();
        assert_eq!((summary.done, summary.failed), (6, 4));
        assert_eq!(batches.calls.into_inner(), 6, "2, 2 and 1 jobs, twice");
        assert_eq!(
            Results::read(one.path()).unwrap(),
            Results::read(many.path()).unwrap()
        );
    }

    #[test]
    fn failed_rows_do_not_end_the_run_but_a_dead_backend_does() {
        let dir = tempfile::tempdir().unwrap();
        let summary = go(dir.path(), &["fail", "yes"], &parrot(1), "1/1").unwrap();
        assert_eq!(
            (summary.done, summary.failed, summary.reasons),
            (2, 2, vec!["out of luck".to_string()])
        );
        let parrot = parrot(2);
        let error = go(dir.path(), &["dead", "no", "a", "b"], &parrot, "1/1").unwrap_err();
        assert_eq!(error.to_string(), "gone");
    }

    #[test]
    fn shards_share_the_work() {
        let ids = ["a", "b", "c", "d", "e"];
        let (all, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        go(all.path(), &ids, &parrot(1), "1/1").unwrap();
        let mut done = Vec::new();
        for shard in ["1/3", "2/3", "3/3"] {
            done.push(go(parts.path(), &ids, &parrot(1), shard).unwrap().done);
        }
        assert_eq!(done, [4, 3, 3]);
        assert_eq!(
            Results::read(all.path()).unwrap(),
            Results::read(parts.path()).unwrap()
        );
    }

    #[test]
    fn a_stop_ends_the_run_after_the_job_in_progress() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let dir = tempfile::tempdir().unwrap();
        let parrot = Parrot {
            stop: Some(&STOP),
            ..parrot(1)
        };
        let summary = go(dir.path(), &["a", "b", "c"], &parrot, "1/1").unwrap();
        assert_eq!((summary.done, summary.stopped), (1, true));
    }
}

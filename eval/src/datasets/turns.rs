//! Several questions over one text: each by itself, or one after the other as a conversation goes.

use super::{Target, babilong, needle, ruler::scatter::Scatter};
use crate::{
    Error, Sample,
    sample::{Prompt, Scoring, Turn},
    suggest,
};
use headkv_haystack::{
    Needle, Template,
    held_out::{FAMILIES, Family},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{collections::HashSet, path::PathBuf, str::FromStr};

/// The most tokens of an answer.
const MAX_TOKENS: usize = 50;
/// The most tokens of a question and its right answer.
const QUESTION: usize = 60;
/// Families with one fact for a question: with those of several facts a text of many questions has no room for text.
const SINGLE: [&str; 3] = ["words", "digits", "statements"];
/// Draws after which a family has no further question.
const DRAWS: usize = 64;

/// How questions follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each behind the text.
    Questions,
    /// Each behind the text, the questions before it and their right answers: every model and mode reads the same.
    Conversation,
}

impl Kind {
    /// All kinds with their names.
    pub const ALL: [(Kind, &str); 2] = [
        (Kind::Questions, "questions"),
        (Kind::Conversation, "conversation"),
    ];

    fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(kind, _)| *kind == self)
            .map_or("", |(_, name)| name)
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(_, known)| *known == name).map(|(kind, _)| *kind);
        let names = Self::ALL.iter().map(|(_, known)| *known);
        found.ok_or_else(|| Error::Option(suggest::unknown("kind", name, names)))
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The kinds.
    pub kinds: Vec<Kind>,
    /// Texts of each length and kind.
    pub documents: usize,
    /// Questions over each text.
    pub questions: usize,
    /// Lengths in tokens of the texts with their facts; questions are not counted.
    pub lengths: Vec<usize>,
    /// The seed of facts, places and generated text.
    pub seed: u64,
    /// A text file or a folder of them; generated text if there is none.
    pub haystack: Option<PathBuf>,
    /// How text and question become a prompt.
    pub template: Template,
    /// Whether the text is compressed before a question is known.
    pub question_apart: bool,
    /// babilong's stories, with all of their questions.
    pub babilong: Option<babilong::Options>,
}

/// Generates the samples, the turns of each text in a row; the same options give the same ones.
///
/// # Errors
/// A haystack that cannot be read, a length that does not fit the facts or the model, conversations in a chat template;
/// as [`babilong::samples`].
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    let longest = options.lengths.iter().copied().max().unwrap_or(0);
    let lists = options.kinds.len().saturating_mul(options.lengths.len());
    let each = options.documents.saturating_mul(options.questions);
    super::check_count(lists, each, longest)?;
    let chat = options.template.is_chat();
    if chat && options.kinds.contains(&Kind::Conversation) {
        return Err(Error::Option(
            "conversations have no chat template yet; set --kinds questions, or --template plain"
                .into(),
        ));
    }
    let turns = match options.kinds.contains(&Kind::Conversation) {
        true => options.questions,
        false => 1,
    };
    target.check_length(
        longest,
        &options.template.fill("", ""),
        chat,
        turns.saturating_mul(QUESTION).saturating_add(MAX_TOKENS),
    )?;
    let mut samples = Vec::new();
    for &kind in &options.kinds {
        for &length in &options.lengths {
            for document in 0..options.documents {
                samples.extend(over_one_text(options, kind, length, document, target)?);
            }
        }
    }
    if let Some(babilong) = &options.babilong {
        samples.extend(stories(babilong::samples(babilong, target)?));
    }
    Ok(samples)
}

fn over_one_text(
    options: &Options,
    kind: Kind,
    length: usize,
    document: usize,
    target: &Target,
) -> Result<Vec<Sample>, Error> {
    // No two texts begin with the same words: what is read on from is the text itself.
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream((kind as u64) << 60 | (length as u64) << 24 | document as u64);
    let seed = rng.random();
    let needles = needles(seed, options.questions)?;
    let facts: Vec<String> = needles.iter().map(|one| one.needle.clone()).collect();
    let haystack = needle::haystack(options.haystack.as_deref(), seed)?;
    let scatter = Scatter::new(target.tokenizer, &haystack, length)?;
    let mut context = scatter.scatter(&facts, length, &mut rng)?;
    if options.haystack.is_some() {
        context = format!("Part {}. {context}", document + 1);
    }
    let template = &options.template;
    let mut before: Option<(Prompt, String)> = None;
    let mut samples = Vec::new();
    for (at, needle) in needles.into_iter().enumerate() {
        let text = match (&before, kind) {
            (Some((last, answer)), Kind::Conversation) => {
                template.go_on(&last.text, answer, &needle.question)
            }
            _ => template.fill(&context, &needle.question),
        };
        let prompt = Prompt {
            text,
            chat: template.is_chat(),
            special: !template.is_chat(),
            apart: options
                .question_apart
                .then(|| template.context_end(&context)),
        };
        let turn = Turn {
            number: at + 1,
            before: before.map(|(prompt, _)| prompt),
        };
        before = Some((prompt.clone(), needle.answer.clone()));
        samples.push(Sample {
            benchmark: "turns",
            dataset: kind.name().into(),
            id: format!(
                "{length}/{}.{}{}",
                document + 1,
                at + 1,
                super::of_seed(options.seed)
            ),
            length: Some(length),
            depth: None,
            bucket: None,
            protocol: super::apart_label(
                needle::protocol(template, options.haystack.as_deref()),
                options.question_apart,
            ),
            prompt,
            min_tokens: 0,
            max_tokens: MAX_TOKENS,
            stop: vec!["\n".into()],
            turn: Some(turn),
            scoring: Scoring::Needle {
                answer: needle.answer,
                needle: needle.needle,
            },
        });
    }
    Ok(samples)
}

/// Facts of all families in turn, no two with the same question.
fn needles(seed: u64, count: usize) -> Result<Vec<Needle>, Error> {
    let single = |family: &&Family| SINGLE.contains(&family.name);
    let mut families = Vec::new();
    for family in FAMILIES.iter().filter(single) {
        families.push(family.draw(seed, DRAWS.max(count))?.into_iter());
    }
    let mut asked = HashSet::new();
    let mut needles = Vec::new();
    while needles.len() < count {
        let before = needles.len();
        for family in &mut families {
            let new = family.find(|needle| asked.insert(needle.question.clone()));
            needles.extend(new);
        }
        if needles.len() == before {
            return Err(Error::Option(format!(
                "there are {before} different questions for a text; lower --questions"
            )));
        }
    }
    needles.truncate(count);
    Ok(needles)
}

/// babilong's samples, of which some are the same story a few sentences later: those are turns of one.
fn stories(samples: Vec<Sample>) -> Vec<Sample> {
    let mut last: Option<(String, usize, Prompt)> = None;
    let mut turns = Vec::with_capacity(samples.len());
    for mut sample in samples {
        let text = &sample.prompt.text;
        let story = text
            .split("\n</context>")
            .next()
            .unwrap_or(text)
            .to_string();
        let goes_on = last
            .take()
            .filter(|(before, ..)| story.starts_with(before.as_str()));
        let turn = match goes_on {
            Some((_, number, prompt)) => Turn {
                number: number + 1,
                before: Some(prompt),
            },
            None => Turn {
                number: 1,
                before: None,
            },
        };
        last = Some((story, turn.number, sample.prompt.clone()));
        sample.benchmark = "turns";
        sample.dataset = format!("babilong {}", sample.dataset);
        sample.turn = Some(turn);
        turns.push(sample);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate(kinds: &[Kind], questions: usize) -> Result<Vec<Sample>, Error> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
        let tokenizer = tokenizers::Tokenizer::from_file(file).unwrap();
        let target = Target {
            model: "tiny",
            tokenizer: &tokenizer,
            chat: None,
            context: 8192,
        };
        let options = Options {
            kinds: kinds.to_vec(),
            documents: 2,
            question_apart: false,
            questions,
            lengths: vec![600],
            seed: 3,
            haystack: None,
            template: Template::plain(),
            babilong: None,
        };
        samples(&options, &target)
    }

    #[test]
    fn questions_share_their_text_and_conversations_grow() {
        let kinds = [Kind::Questions, Kind::Conversation];
        let samples = generate(&kinds, 4).unwrap();
        assert_eq!(samples, generate(&kinds, 4).unwrap());
        assert_eq!(samples.len(), 2 * 2 * 4);
        let beginning = |at: usize| &samples[at].prompt.text[..100];
        for text in [4, 8, 12] {
            assert_ne!(beginning(0), beginning(text));
        }
        for pair in samples.windows(2) {
            let (turn, text) = (pair[1].turn.as_ref().unwrap(), &pair[1].prompt.text);
            assert_eq!(
                turn.before.as_ref(),
                (turn.number > 1).then_some(&pair[0].prompt)
            );
            if turn.number == 1 {
                continue;
            }
            let Scoring::Needle { answer, needle } = &pair[0].scoring else {
                panic!()
            };
            assert!(text.contains(needle), "{needle}");
            match pair[1].dataset.as_str() {
                "questions" => assert_eq!(text.matches("Question: ").count(), 1),
                _ => assert!(text.starts_with(&format!("{} {answer}\n", pair[0].prompt.text))),
            }
        }
        let mut names: Vec<_> = samples.iter().map(|s| (&s.dataset, &s.id)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), samples.len());
    }

    #[test]
    fn a_story_goes_on_where_the_next_one_begins_with_it() {
        let like = generate(&[Kind::Questions], 1).unwrap().remove(0);
        let story = |context: &str| {
            let mut sample = like.clone();
            sample.dataset = "qa1".into();
            sample.prompt.text = format!("<context>\n{context}\n</context>\n\nQuestion: Who?");
            sample
        };
        let told = stories(["A.", "A. B.", "A. B. C.", "D.", "A."].map(story).to_vec());
        let numbers = told.iter().map(|one| one.turn.as_ref().unwrap().number);
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3, 1, 1]);
        assert_eq!(
            told[2].turn.as_ref().unwrap().before,
            Some(told[1].prompt.clone())
        );
        assert_eq!(told[0].dataset, "babilong qa1");
    }

    #[test]
    fn more_questions_than_there_are_are_refused() {
        let message = generate(&[Kind::Questions], 2000).unwrap_err().to_string();
        assert!(
            message.contains("--questions") || message.contains("needle"),
            "{message}"
        );
    }
}

//! Whether an answer names the right place, person or thing and no other, as babilong's own scripts decide it.

/// The tasks, `qa1` to `qa20`.
pub const TASKS: [&str; 20] = [
    "qa1", "qa2", "qa3", "qa4", "qa5", "qa6", "qa7", "qa8", "qa9", "qa10", "qa11", "qa12", "qa13",
    "qa14", "qa15", "qa16", "qa17", "qa18", "qa19", "qa20",
];

/// What answers to a task can be; nothing for an unknown task.
pub fn labels(task: &str) -> &'static [&'static str] {
    match task {
        "qa1" | "qa2" | "qa3" | "qa4" | "qa11" | "qa12" | "qa13" => &[
            "bathroom", "bedroom", "garden", "hallway", "kitchen", "office",
        ],
        "qa5" => &["bill", "fred", "jeff", "mary", "apple", "football", "milk"],
        "qa6" | "qa9" | "qa17" | "qa18" => &["no", "yes"],
        "qa7" => &["none", "one", "three", "two"],
        "qa8" => &["apple", "football", "milk", "nothing"],
        "qa10" => &["maybe", "no", "yes"],
        "qa14" => &["bedroom", "cinema", "kitchen", "office", "park", "school"],
        "qa15" => &["cat", "mouse", "sheep", "wolf"],
        "qa16" => &["gray", "green", "white", "yellow"],
        "qa19" => &[
            "e,e", "e,n", "e,s", "n,e", "n,n", "n,w", "s,e", "s,s", "s,w", "w,n", "w,s", "w,w",
        ],
        "qa20" => &[
            "bedroom", "bored", "garden", "hungry", "kitchen", "thirsty", "tired",
        ],
        _ => &[],
    }
}

/// Whether the first sentence of the prediction names the target and no other label of the task, those in the question
/// aside. A target with commas (`qa8`) is a set of labels.
///
/// As in the reference, a label counts wherever its letters occur: the right `none` of `qa7` also names `one`, and is
/// wrong.
pub fn correct(task: &str, question: &str, prediction: &str, target: &str) -> bool {
    let (question, target, prediction) = (
        question.to_lowercase(),
        target.to_lowercase(),
        prediction.to_lowercase(),
    );
    let first = |text: &'_ str, end: &str| text.find(end).unwrap_or(text.len());
    let sentence = &prediction[..first(&prediction, ".")];
    let sentence = &sentence[..first(sentence, "<context>")];
    let sentence = &sentence[..first(sentence, "<example>")];
    let named = |label: &&&str| sentence.contains(**label) && !question.contains(**label);
    let named: Vec<&str> = labels(task).iter().filter(named).copied().collect();
    // `qa19` answers with two directions, `n,w`: one label with a comma in it.
    if target.contains(',') && target.len() > 3 {
        let targets: Vec<&str> = target.split(',').collect();
        targets.iter().all(|t| named.contains(t)) && named.len() == targets.len()
    } else {
        named == [target.as_str()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_must_be_the_only_label() {
        let ask = |answer: &str, target: &str| correct("qa1", "Where is Mary?", answer, target);
        assert!(ask("Mary is in the Kitchen. Then the garden.", "kitchen"));
        assert!(!ask("kitchen or garden", "kitchen"));
        assert!(!ask("nowhere", "kitchen"));
    }

    #[test]
    fn labels_of_the_question_do_not_count() {
        assert!(correct(
            "qa4",
            "What is north of the kitchen?",
            "The kitchen is south of the office.",
            "office"
        ));
    }

    #[test]
    fn sets_and_directions() {
        assert!(correct(
            "qa8",
            "What is Mary carrying?",
            "milk and apple",
            "apple,milk"
        ));
        assert!(!correct(
            "qa8",
            "What is Mary carrying?",
            "milk, apple, football",
            "apple,milk"
        ));
        assert!(correct("qa19", "How do you go?", "n,w", "n,w"));
        assert!(!correct("qa7", "How many?", "none", "none"));
    }

    #[test]
    fn every_task_has_labels() {
        assert!(TASKS.iter().all(|task| !labels(task).is_empty()));
        assert!(labels("qa21").is_empty());
    }
}

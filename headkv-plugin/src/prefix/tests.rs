use super::*;
use candle_core::DType;

/// Runs a prompt whose keys and values take 8 bytes a token.
fn read(prefixes: &Prefixes, tokens: &[u32]) {
    let Some(mut recording) = prefixes.record(tokens) else {
        return;
    };
    let ids: Vec<f32> = tokens.iter().map(|&id| id as f32).collect();
    let x = Tensor::from_vec(ids, (1, tokens.len(), 1), &Device::Cpu).unwrap();
    prefixes.add(&mut recording, [&x, &x], 1).unwrap();
    prefixes.insert(recording);
}

fn known(prefixes: &Prefixes, prompt: &[u32]) -> usize {
    prefixes.find(prompt, 1).map_or(0, |known| known.tokens())
}

fn prompt(from: u32, tokens: u32) -> Vec<u32> {
    (from..from + tokens).collect()
}

/// A text of `text` tokens and another question behind it each time.
fn question(text: u32, number: u32, tokens: u32) -> Vec<u32> {
    [prompt(0, text), prompt(100_000 * (number + 1), tokens)].concat()
}

#[test]
fn the_longest_beginning_is_found_in_whole_blocks() {
    let prefixes = Prefixes::new(1 << 20, Place::Host);
    let first = prompt(0, 200);
    read(&prefixes, &first);
    read(&prefixes, &first[..100]);
    assert_eq!(known(&prefixes, &first), 192);
    assert_eq!(known(&prefixes, &first[..129]), 128);
    // The last token of a prompt must run, and as many as rank the others.
    assert_eq!(known(&prefixes, &first[..128]), 64);
    let of = |last| prefixes.find(&first, last).unwrap().tokens();
    assert_eq!((of(0), of(8), of(9)), (192, 192, 128));
    let mut other = first.clone();
    other[70] = 7;
    assert_eq!(known(&prefixes, &other), 64);
    other[3] = 7;
    assert_eq!(known(&prefixes, &other), 0);
    let reuse = prefixes.reused();
    assert_eq!((reuse.prompts, reuse.hits), (8, 7));
    assert_eq!(reuse.tokens, 192 + 128 + 64 + 192 + 192 + 128 + 64);
}

#[test]
fn the_bytes_are_bounded_and_the_least_recently_used_goes_first() {
    let prefixes = Prefixes::new(2500, Place::Host);
    let prompts = [0, 1000, 2000].map(|from| prompt(from, 100));
    for prompt in &prompts {
        read(&prefixes, prompt);
    }
    assert_eq!(prefixes.bytes(), 3 * 64 * 8);
    assert_eq!(known(&prefixes, &prompts[0]), 64);
    read(&prefixes, &prompt(3000, 130));
    assert_eq!(prefixes.bytes(), (64 + 64 + 128) * 8);
    assert_eq!(known(&prefixes, &prompts[0]), 64, "used last");
    assert_eq!(known(&prefixes, &prompts[1]), 0);
    read(&prefixes, &prompt(5000, 1000));
    assert_eq!(
        prefixes.bytes(),
        (64 + 64 + 128) * 8,
        "larger than the limit"
    );
    for from in 10..400 {
        read(&prefixes, &prompt(from * 1000, 64 + from % 200));
        assert!(prefixes.bytes() <= 2500);
    }
}

#[test]
fn nothing_is_forgotten_for_what_finds_no_room() {
    let prefixes = Prefixes::new(3 * 64 * 8, Place::Host);
    let text = prompt(0, 128);
    read(&prefixes, &text);
    read(&prefixes, &prompt(1000, 64));
    let in_use = prefixes.find(&prompt(0, 200), 1).unwrap();
    // There is room for two blocks if the first text goes, but somebody reads on from it.
    read(&prefixes, &prompt(2000, 128));
    assert_eq!(known(&prefixes, &prompt(1000, 65)), 64);
    assert_eq!(known(&prefixes, &prompt(2000, 129)), 0);
    drop(in_use);
    read(&prefixes, &prompt(2000, 128));
    assert_eq!(known(&prefixes, &prompt(2000, 129)), 128);
    assert_eq!(prefixes.bytes(), 3 * 64 * 8);
}

#[test]
fn a_conversation_is_stored_once() {
    let prefixes = Prefixes::new(1 << 20, Place::Host);
    let turns = prompt(0, 6400);
    for turn in 1..=100 {
        read(&prefixes, &turns[..64 * turn]);
    }
    assert_eq!(prefixes.bytes(), 6400 * 8);
    assert_eq!(known(&prefixes, &turns), 6336);
    assert_eq!(known(&prefixes, &prompt(0, 6401)), 6400);
    // Once in a while all of it is stored anew, so that the chain of its turns stays short.
    let turns = prompt(50_000, 64 * (chain::DEPTH as u32 + 10));
    for end in (64..=turns.len()).step_by(64) {
        read(&prefixes, &turns[..end]);
    }
    assert_eq!(prefixes.bytes(), (6400 + turns.len()) * 8);
}

#[test]
fn forks_of_a_text_hold_it_once() {
    let prefixes = Prefixes::new(1 << 20, Place::Host);
    read(&prefixes, &prompt(0, 1000));
    let text = prefixes.bytes();
    assert_eq!(text, 960 * 8);
    for number in 0..100 {
        // Short questions leave nothing of their own.
        read(&prefixes, &question(1000, number, 20));
    }
    assert_eq!(prefixes.bytes(), text);
    for number in 0..100 {
        read(&prefixes, &question(1000, number, 100));
    }
    assert_eq!(prefixes.bytes(), text + 100 * (1088 - 960) * 8);
    for number in 0..100 {
        let again = [question(1000, number, 100), vec![1, 2, 3]].concat();
        assert_eq!(known(&prefixes, &again), 1088, "question {number}");
    }
}

#[test]
fn a_text_outlives_none_of_its_questions() {
    let prefixes = Prefixes::new((960 + 4 * 128) * 8, Place::Host);
    read(&prefixes, &prompt(0, 1000));
    for number in 0..50 {
        read(&prefixes, &question(1000, number, 100));
        assert!(prefixes.bytes() <= (960 + 4 * 128) * 8);
        assert_eq!(known(&prefixes, &question(1000, number, 100)), 1088);
    }
    // Its questions go first; then it may go itself.
    read(&prefixes, &prompt(500_000_000, 1408));
    assert_eq!(prefixes.bytes(), 1408 * 8);
}

#[test]
fn what_is_put_together_is_what_was_read() {
    let prefixes = Prefixes::new(1 << 20, Place::Host);
    let (first, second) = (question(300, 0, 100), question(300, 1, 200));
    for prompt in [&prompt(0, 300), &first, &second] {
        read(&prefixes, prompt);
    }
    let state = prefixes.state(&second).unwrap().unwrap();
    assert_eq!(state.tokens, second[..448]);
    let [k, v] = &state.layers[0];
    let values = k.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(values.iter().zip(&second).all(|(x, &id)| *x == id as f32));
    assert_eq!(k.dims(), v.dims());
    assert!(prefixes.state(&prompt(7, 300)).unwrap().is_none());

    let other = Prefixes::new(state.bytes(), Place::Host);
    other.pin(state.clone()).unwrap();
    assert_eq!(known(&other, &second), 448);
    assert_eq!(known(&other, &first), 256, "as far as it goes");
    let full = other.pin(state.clone());
    assert_eq!(full, Err((state.bytes(), 0)));
    read(&other, &prompt(5000, 64));
    assert_eq!(known(&other, &second), 448, "never forgotten");
    other.restart(0, Place::Host);
    assert_eq!((other.bytes(), other.is_on()), (0, false));
}

#[test]
fn what_is_being_read_counts() {
    let prefixes = Prefixes::new(64 * 8, Place::Host);
    let (mut one, mut two) = (
        prefixes.record(&prompt(0, 64)).unwrap(),
        prefixes.record(&prompt(1000, 64)).unwrap(),
    );
    let x = Tensor::zeros((1, 64, 1), DType::F32, &Device::Cpu).unwrap();
    prefixes.add(&mut one, [&x, &x], 1).unwrap();
    assert_eq!(prefixes.bytes(), 64 * 8);
    prefixes.add(&mut two, [&x, &x], 1).unwrap();
    assert!(!two.wants(1));
    prefixes.insert(two);
    prefixes.insert(one);
    assert_eq!(known(&prefixes, &prompt(0, 65)), 64);
    assert_eq!(known(&prefixes, &prompt(1000, 65)), 0);
}

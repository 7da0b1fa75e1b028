//! Every command of every program has an example in its help, completions for the usual shells, and a man page.

use headkv_tests::program;
use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
};

const PROGRAMS: [&str; 3] = ["headkv-eval", "head-scoring", "headkv-serve"];

fn run(program: &Path, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{program:?} {args:?}: {message}"
    );
    output
}

fn help(program: &Path, args: &[&str]) -> String {
    let args: Vec<&str> = args.iter().copied().chain(["--help"]).collect();
    String::from_utf8(run(program, &args).stdout).unwrap()
}

/// The commands that a program's help lists.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = listed.lines().take_while(|line| !line.is_empty());
    // Lines that go on are indented further than a name.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[test]
fn every_command_has_an_example() {
    for name in PROGRAMS {
        let Some(program) = program(name) else {
            continue;
        };
        let main = help(&program, &[]);
        let commands = commands(&main);
        assert!(commands.contains(&"completions"), "{name}: {commands:?}");
        for command in commands {
            let help = help(&program, &[command]);
            assert!(
                help.contains("Example") && help.contains(&format!("{name} {command}")),
                "{name} {command}: {help}"
            );
        }
    }
}

#[test]
fn options_stand_in_groups() {
    for (name, command, groups) in [
        (
            "headkv-eval",
            "needle",
            &["Model:", "Method:", "Benchmark:", "Endpoint:", "Output:"][..],
        ),
        ("headkv-eval", "bench", &["Model:", "Method:", "Benchmark:"]),
        (
            "head-scoring",
            "score",
            &["Model:", "Scores:", "Examples drawn:", "Output:"],
        ),
        (
            "headkv-serve",
            "",
            &["Model:", "Method:", "Endpoint:", "Admission:", "Output:"],
        ),
    ] {
        let Some(program) = program(name) else {
            continue;
        };
        let command: Vec<&str> = command.split_whitespace().collect();
        let help = help(&program, &command);
        for group in groups {
            assert_eq!(
                help.matches(&format!("\n{group}\n")).count(),
                1,
                "{name}: {group} in {help}"
            );
        }
        // Outside of the groups, only what every program has.
        let rest = help.split("\nOptions:\n").nth(1).unwrap_or_default();
        let rest = rest
            .lines()
            .take_while(|line| line.starts_with(' ') || line.is_empty());
        let flags: BTreeSet<_> = rest
            .flat_map(str::split_whitespace)
            .filter(|word| word.starts_with("--"))
            .map(|word| word.trim_end_matches([',', '.']))
            .collect();
        assert!(
            flags
                .iter()
                .all(|flag| ["--help", "--version"].contains(flag)),
            "{name}: {flags:?}"
        );
    }
}

#[test]
fn completions_and_man_pages_know_the_commands() {
    for name in PROGRAMS {
        let Some(program) = program(name) else {
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        for shell in ["bash", "zsh", "fish"] {
            let script = run(&program, &["completions", shell]).stdout;
            let script = String::from_utf8(script).unwrap();
            assert!(
                script.contains(name) && script.contains("completions"),
                "{name} {shell}"
            );
        }
        run(&program, &["man", dir.path().to_str().unwrap()]);
        let main = help(&program, &[]);
        for command in commands(&main) {
            let page = dir.path().join(format!("{name}-{command}.1"));
            let page = std::fs::read_to_string(&page).unwrap();
            assert!(page.contains("Example"), "{name} {command}: {page}");
        }
        assert!(dir.path().join(format!("{name}.1")).is_file());
        assert!(!dir.path().join(format!("{name}-bench-one.1")).exists());
    }
}

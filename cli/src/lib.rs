//! What the programs' command lines share: help, completions of a shell, and man pages.
#![deny(missing_docs)]

pub use clap_complete::Shell;

use clap::Command;
use headkv_files::{Error, terminal};
use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::Path,
};

/// Prints the help that was asked for; other arguments that are no command end the process with clap's message.
///
/// # Errors
/// A standard output that cannot be written.
pub fn help(asked: &clap::Error) -> Result<(), Error> {
    if asked.use_stderr() {
        asked.exit();
    }
    written(asked.print().and_then(|()| io::stdout().flush()))
}

/// A reader that went away is no error.
fn written(result: io::Result<()>) -> Result<(), Error> {
    match result {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(why)),
        _ => Ok(()),
    }
}

/// Prints the completions of a program for a shell.
///
/// # Errors
/// A standard output that cannot be written.
pub fn completions(mut program: Command, shell: Shell) -> Result<(), Error> {
    let name = program.get_name().to_string();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    // As it is: what escapes a terminal's commands would break the script.
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(&script).and_then(|()| stdout.flush()))
}

/// Writes the man pages of a program into a folder: its own, `program.1`, and one for each command, `program-command.1`.
///
/// # Errors
/// A folder that cannot be written.
pub fn man(program: Command, folder: &Path) -> Result<(), Error> {
    let name = program.get_name().to_string();
    let written =
        fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(program, folder));
    written.map_err(Error::io("write to", folder))?;
    let page = folder.join(name + ".1");
    terminal::say(&format!("read them with: man -l {}", page.display()));
    Ok(())
}

//! The example runs as it is.

use std::process::Command;

#[test]
fn it_answers() {
    let ran = Command::new(env!("CARGO_BIN_EXE_headkv-sdk-example"))
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    assert!(ran.status.success(), "{}", said(&ran.stderr));
    assert!(!said(&ran.stdout).is_empty());
}

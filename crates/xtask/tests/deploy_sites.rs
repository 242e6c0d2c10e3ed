//! The table of deploy sites is the one that CloudFormation's resource schemas give.
#![allow(clippy::unwrap_used, reason = "test code: a broken fixture is a failed test")]

use std::path::Path;
use std::process::{Command, Stdio};

/// A type or property that is new in the schemas changes the table or the list of what is left out, and fails this test.
#[test]
fn the_table_is_that_of_the_schemas() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let tools = std::env::var("IMAGE_LIFECYCLE_TOOLS").unwrap_or_else(|_| {
        let mut install = Command::new(root.join("tests/support/tools/install"));
        let output = install.arg("test").stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{}", output.status);
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().find_map(|line| line.strip_prefix("IMAGE_LIFECYCLE_TOOLS=")).unwrap().to_owned()
    });
    let mut check = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = check.args(["deploy-sites", "--check"]).env("IMAGE_LIFECYCLE_TOOLS", tools).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
}

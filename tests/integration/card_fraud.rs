//! `dataflows/card_fraud.yaml` against a second computation of its features, by pandas.

use std::process::Command;

use crate::support::{python, root};

#[test]
fn pandas_computes_the_same_features() {
    let Some(python) = python("the features of card_fraud.yaml in pandas") else { return };
    let output = Command::new(python)
        .arg(root().join("tests/python/check_card_fraud.py"))
        .args(["--tidemill", env!("CARGO_BIN_EXE_tidemill"), "--workers", "2"])
        .output()
        .expect("Python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

//! Replays what fuzzing has found worth keeping (`fuzz/corpus`), without a fuzzer.

mod promises;

use std::fs;
use std::path::Path;

/// Runs `check` on every file of one corpus.
fn replay(corpus: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = fs::read_dir(folder.join(corpus)).expect("the corpus is part of the repository");
    let mut count = 0;
    for file in files {
        let path = file.expect("a corpus can be listed").path();
        check(&fs::read(&path).expect("a corpus can be read"));
        count += 1;
    }
    assert!(count > 10, "{corpus}: {count} files are no corpus");
}

#[test]
fn mount_configurations_of_the_corpus_keep_their_promises() {
    replay("conf", promises::of_conf);
}

#[test]
fn specs_of_the_corpus_keep_their_promises() {
    replay("spec", promises::of_spec);
}

//! Scripts in virtual time: see `support/grammar.rs` for how they read.

mod support;

use std::fs;
use std::path::Path;

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                let file = concat!(stringify!($name), ".txt");
                support::script::run(file, include_str!(concat!("scripts/", stringify!($name), ".txt")));
            }
        )+

        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

scripts!(connect, reset, close, order, paws, window, challenge, icmp, rto, recovery, tail);

#[test]
fn no_script_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(NAMES.contains(&name), "{} is run by no test", path.display());
    }
}

//! Tests of the content of the scripts. tests/it runs them in real shells.

use super::*;

#[test]
fn every_command_and_option_is_in_every_script() {
    let scripts = [bash(), zsh(), fish()];
    for definition in commands() {
        for script in &scripts {
            assert!(script.contains(definition.name), "{} is missing in\n{script}", definition.name);
            for option in definition.options() {
                let long = option.long.trim_start_matches('-');
                assert!(script.contains(long), "{long} is missing in\n{script}");
            }
        }
    }
}

#[test]
fn no_placeholder_remains() {
    for script in [bash(), zsh(), fish()] {
        for mark in ["@VALUES@", "@OPTIONS@", "@OPERANDS@", "@COMMANDS@", "@CASES@", "@LINES@", "@VALUED@"] {
            assert!(!script.contains(mark), "{mark} in\n{script}");
        }
    }
}

#[test]
fn fish_offers_no_files_beside_defined_values() {
    let script = fish();
    let open: Vec<&str> = script.lines().filter(|line| line.contains(" -r -a ")).collect();
    assert!(open.is_empty() && script.contains("-l restart -r -x -a 'always on-failure never'"), "{open:?}");
}

//! The built-in schemas of arguments: a command line, one argument a line, judged by the profile `dev`
//! with every known program allowed. What is refused for its arguments stays refused with more of
//! them, and with any of them behind `--`.
#![no_main]

use cortex_core::policy::{Args, Document, Program, Question, Rule, Site, judge};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Ground, Level, Place};
use libfuzzer_sys::fuzz_target;

const PROGRAMS: &[&str] = &[
    "awk", "cargo", "env", "find", "gcc", "git", "go", "less", "make", "npm", "pip", "rg", "rsync", "sort",
    "ssh", "tar", "vi", "xargs",
];

fuzz_target!(|text: &str| {
    let mut argv: Vec<String> = text.lines().map(str::to_owned).collect();
    let Some(first) = argv.first_mut() else { return };
    // One byte chooses the program, so that no input is wasted on unknown names.
    let chosen = first.bytes().next().map_or(0, usize::from) % PROGRAMS.len();
    PROGRAMS[chosen].clone_into(first);
    let Some(refused) = rule(&argv).filter(|rule| rule.starts_with("exec.args")) else { return };
    for more in ["--", "-v", "status", ""] {
        let longer = [argv.clone(), vec![more.to_owned()]].concat();
        let again = rule(&longer).unwrap_or_default();
        assert!(again.starts_with("exec.args"), "{refused} is gone with {more:?}: {longer:?} {again}");
    }
});

/// The rule by which a command is refused, or a person is asked.
fn rule(argv: &[String]) -> Option<String> {
    let mut document = Document::profile("dev").expect("built in");
    document.programs = PROGRAMS
        .iter()
        .map(|name| Program { name: (*name).to_owned(), args: Args::Known, until: None })
        .collect();
    let ground = Ground { place: Place::default(), level: Some(Level::Full) };
    let site = Site { ground, ceilings: Vec::new() };
    let spec = RunSpec { argv: argv.to_vec(), ..RunSpec::default() };
    let question = Question { spec: &spec, node: "n", site: &site, now: None, consent: false };
    match judge(&document, &question) {
        Ok(cortex_core::policy::Answer::Allowed { .. }) => None,
        Ok(cortex_core::policy::Answer::Ask { rule }) => Some(rule.as_str().to_owned()),
        Err(refusal) => Some(Rule::of(&refusal).unwrap_or("none").to_owned()),
    }
}

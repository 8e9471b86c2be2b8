//! The policy matcher: a document on the first line, a ceiling on the second, an argument on each that
//! follows. Judging is total; with a ceiling never more is allowed than without; walls that two made
//! are within those of each.
#![no_main]

use cortex_core::policy::{Answer, Ceiling, Document, Question, Site, judge};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Ground, Level, Place};
use cortex_wire::policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let document = lines.next().unwrap_or_default();
    let document = policy::read_document(document.as_bytes()).unwrap_or_else(|_| {
        Document::profile(document).unwrap_or_else(|| Document::profile("dev").expect("built in"))
    });
    let ceiling = policy::read_ceilings(lines.next().unwrap_or_default().as_bytes()).unwrap_or_default();
    let ceilings: Vec<Ceiling> =
        ceiling.into_iter().map(|bounds| Ceiling::Bounds(Box::new(bounds))).collect();
    let spec = RunSpec { argv: lines.map(str::to_owned).collect(), ..RunSpec::default() };
    for level in Level::ALL {
        let place = Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] };
        let ground = Ground { place, level: Some(*level) };
        let allowed = |ceilings: &[Ceiling]| {
            let site = Site { ground: ground.clone(), ceilings: ceilings.to_vec() };
            let question = Question { spec: &spec, node: "n", site: &site, now: None, consent: false };
            matches!(judge(&document, &question), Ok(Answer::Allowed { .. }))
        };
        assert!(!allowed(&ceilings) || allowed(&[]), "a ceiling allows more");
        let (own, both) = (document.walls(&ground.place, &[]), document.walls(&ground.place, &ceilings));
        let Some(own) = own else { continue };
        let both = both.expect("a ceiling takes no walls away");
        assert_eq!(both.meet(&own), both, "walls under a ceiling are within those without");
    }
});

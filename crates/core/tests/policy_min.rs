//! What two bounds leave is never more than either: judgements and walls over random documents,
//! ceilings and commands. And the machine of a node says what [`judge`] says.

use std::collections::BTreeSet;

use cortex_core::id::{ConsentId, Epoch, Generation, NodeId, Revision, RunId};
use cortex_core::message::{Envelope, Start, ToHub, ToNode, Welcome};
use cortex_core::node_runs::{Action, NodeRuns};
use cortex_core::policy::{
    Answer, ArgRule, Args, Bounds, Ceiling, Document, Effect, Mode, Policy, Program, Question, Rule,
    Sensitive, Shape, Site, judge,
};
use cortex_core::run::{EndCause, RunSpec};
use cortex_core::sandbox::{Access, Ground, Level, Limits, Network, Place, Root, RootPath, Walls};
use cortex_core::time::{Timestamp, WallTime};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;

const PROGRAMS: &[&str] = &["git", "find", "sh", "env", "tool", "/opt/tool", "sudo"];
const ARGS: &[&str] = &["-c", "--exec-path=x", "clone", "-exec", "--", "x", "", "-delete", "/w/a", "--force"];
const PATHS: &[&str] =
    &["/w", "/w/a", "/w/ab", "/home/u", "/home/u/x", "/srv", "/etc", "/", "/tmp/x", "/w/../etc"];
const ENV: &[&str] = &["TERM", "LANG", "PATH", "LD_PRELOAD"];

fn text(list: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(list).prop_map(str::to_owned)
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        select(vec!["exec-path", "force"]).prop_map(|name| Shape::Long(name.into())),
        select(vec!['c', 'd']).prop_map(Shape::Short),
        select(vec!['c', 'x']).prop_map(Shape::Old),
        text(ARGS).prop_map(|text| Shape::Exact(text.into())),
        text(ARGS).prop_map(|text| Shape::Prefix(text.into())),
        text(ARGS).prop_map(|text| Shape::Lead(text.into())),
        vec(text(ARGS).prop_map(Into::into), 0..3).prop_map(|words| Shape::First(words.into())),
    ]
}

fn arg_rule() -> impl Strategy<Value = ArgRule> {
    (select(vec![Effect::Deny, Effect::Ask]), shape(), of(text(ARGS)))
        .prop_map(|(effect, shape, with)| ArgRule { effect, shape, with: with.map(Into::into) })
}

fn program() -> impl Strategy<Value = Program> {
    let args = prop_oneof![Just(Args::Any), Just(Args::Known), vec(arg_rule(), 0..3).prop_map(Args::Rules)];
    (text(PROGRAMS), args, of((0..20_i64).prop_map(WallTime))).prop_map(|(name, args, until)| Program {
        name,
        args,
        until,
    })
}

fn root() -> impl Strategy<Value = Root> {
    let path = prop_oneof![
        select(vec!["/w/a", "/srv", "/home/u", "/"]).prop_map(|path| RootPath::Absolute(path.to_owned())),
        select(vec!["x", ".cargo"]).prop_map(|below| RootPath::Home(below.to_owned())),
        Just(RootPath::Work),
    ];
    (path, select(vec![Access::Read, Access::Write]), any::<bool>()).prop_map(|(path, access, exec)| Root {
        path,
        access,
        exec,
    })
}

fn network() -> impl Strategy<Value = Network> {
    prop_oneof![
        Just(Network::None),
        Just(Network::All),
        vec(select(vec![53, 80, 443_u16]), 1..3)
            .prop_map(|ports| Network::Ports(ports.into_iter().collect())),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (of(1..3_u64), of(1..3_u32), of(1..3_u64)).prop_map(|(memory_bytes, processes, output_bytes)| Limits {
        memory_bytes,
        processes,
        output_bytes,
        ..Limits::default()
    })
}

fn level() -> impl Strategy<Value = Level> {
    select(Level::ALL.to_vec())
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Strict, Mode::Permissive])
}

fn sensitive() -> impl Strategy<Value = Vec<Sensitive>> {
    let program = prop_oneof![Just("*".to_owned()), text(PROGRAMS)];
    vec((program, vec(text(ARGS), 1..3)).prop_map(|(program, words)| Sensitive { program, words }), 0..2)
}

fn document() -> impl Strategy<Value = Document> {
    let lists =
        (vec(program(), 0..5), vec(text(PROGRAMS), 0..2), vec(text(PROGRAMS), 0..2), vec(text(ENV), 0..3));
    let walls = (vec(root(), 0..4), network(), limits(), level());
    (mode(), lists, walls, 1..5_u64, sensitive()).prop_map(
        |(mode, lists, walls, timeout_ms_max, sensitive)| {
            let (programs, deny, always_denied, env) = lists;
            let (roots, network, limits, sandbox) = walls;
            Document {
                mode,
                programs,
                deny,
                always_denied,
                env,
                roots,
                network,
                timeout_ms_max,
                limits,
                sensitive,
                sandbox,
            }
        },
    )
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let lists = (of(vec(program(), 0..5)), vec(text(PROGRAMS), 0..2), of(vec(text(ENV), 0..3)));
    let walls = (of(vec(root(), 0..4)), of(network()), limits(), of(level()));
    (of(mode()), lists, walls, of(1..5_u64), sensitive()).prop_map(
        |(mode, lists, walls, timeout_ms_max, sensitive)| {
            let (programs, deny, env) = lists;
            let (roots, network, limits, sandbox) = walls;
            Bounds { mode, programs, deny, env, roots, network, timeout_ms_max, limits, sensitive, sandbox }
        },
    )
}

fn ceiling() -> impl Strategy<Value = Ceiling> {
    prop_oneof![
        9 => bounds().prop_map(|bounds| Ceiling::Bounds(Box::new(bounds))),
        1 => Just(Ceiling::Unreadable),
    ]
}

fn spec() -> impl Strategy<Value = RunSpec> {
    let program = prop_oneof![9 => text(PROGRAMS), 1 => ".{0,6}"];
    let args = prop_oneof![4 => vec(text(ARGS), 0..4), 1 => vec(".{0,8}", 0..4)];
    (program, args, of(text(PATHS)), vec(text(ENV), 0..2), of(1..6_u64)).prop_map(
        |(program, args, cwd, env, timeout_ms)| RunSpec {
            argv: std::iter::once(program).chain(args).collect(),
            cwd,
            env: env.into_iter().map(|name| (name, "x".to_owned())).collect(),
            timeout_ms,
            stdin: false,
        },
    )
}

fn place() -> Place {
    Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] }
}

fn site(ceilings: Vec<Ceiling>, level: Level) -> Site {
    Site { ground: Ground { place: place(), level: Some(level) }, ceilings }
}

/// A policy that bounds nothing: what is left is what a ceiling says alone.
fn open() -> Document {
    Document { always_denied: vec![], ..Document::profile("permissive").expect("built in") }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leave {
    Denied,
    Asked,
    Allowed,
}

fn leave(document: &Document, spec: &RunSpec, site: &Site, consent: bool) -> Leave {
    let now = Some(WallTime(10));
    match judge(document, &Question { spec, node: "n", site, now, consent }) {
        Ok(Answer::Allowed { .. }) => Leave::Allowed,
        Ok(Answer::Ask { .. }) => Leave::Asked,
        Err(_) => Leave::Denied,
    }
}

/// What a command comes to on a node with this policy and ceiling: the rule that refuses or asks,
/// or the walls.
fn on_a_node(
    document: &Document,
    site: &Site,
    spec: &RunSpec,
    consent: bool,
) -> Result<Option<Walls>, String> {
    let id = NodeId::mint(1, &[1; 10]);
    let policy = Policy { document: document.clone(), ..Policy::strict(id, WallTime(0)) };
    let mut runs = NodeRuns::restore(Generation(1), Epoch(0), []);
    runs.stand_on(site.ground.clone());
    runs.stand_under(site.ceilings.clone());
    let welcome =
        Welcome { generation: Generation(1), name: "n".into(), policy: policy.into(), audit_head: None };
    let run = RunId::mint(1, &[1; 10]);
    let start = Start {
        run,
        spec: spec.clone(),
        caller: "a".into(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: consent.then(|| ConsentId::mint(1, &[1; 10])),
    };
    for message in [ToNode::Welcome(welcome), ToNode::Start(start)] {
        runs.handle(Envelope { epoch: Epoch(1), message }, Timestamp(0));
    }
    runs.journaled(run);
    while let Some(action) = runs.poll_action() {
        if let Action::Spawn { walls, .. } = action {
            return Ok(walls);
        }
    }
    match runs.poll_end() {
        Some(ToHub::Ended { ended, .. }) => {
            assert_eq!(ended.cause, EndCause::Denied);
            Err(ended.diagnostic.expect("a reason"))
        }
        other => panic!("{other:?}"),
    }
}

fn no_more(less: &Walls, more: &Walls) -> Result<(), TestCaseError> {
    prop_assert!(less.level >= more.level);
    prop_assert_eq!(less.network.meet(&more.network), less.network.clone());
    prop_assert_eq!(less.limits.meet(&more.limits), less.limits);
    let paths: BTreeSet<&str> =
        PATHS.iter().copied().chain(less.trees.iter().map(|t| t.path.as_str())).collect();
    for path in paths.into_iter().filter(|path| !path.contains("..")) {
        if let Some((access, exec)) = less.allows(path) {
            let Some((wider, executes)) = more.allows(path) else {
                return Err(TestCaseError::fail(format!("{path} is only in the narrower")));
            };
            prop_assert!(access <= wider && exec <= executes, "{}", path);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config::with_cases(2_000))]

    #[test]
    fn policy_and_ceiling_together_allow_no_more_than_either(
        document in document(),
        ceilings in vec(ceiling(), 1..3),
        spec in spec(),
        level in level(),
        consent in any::<bool>(),
    ) {
        let both = leave(&document, &spec, &site(ceilings.clone(), level), consent);
        prop_assert!(both <= leave(&document, &spec, &site(vec![], level), consent));
        for ceiling in &ceilings {
            let one = site(vec![ceiling.clone()], level);
            prop_assert!(both <= leave(&document, &spec, &one, consent));
            // A ceiling alone knows no STRICT of the hub, whose mode only matters to `local.mode`.
            if document.mode == Mode::Permissive {
                prop_assert!(both <= leave(&open(), &spec, &one, consent));
            }
        }
    }

    #[test]
    fn a_higher_level_and_a_yes_never_turn_leave_into_refusal(
        document in document(),
        ceiling in ceiling(),
        spec in spec(),
    ) {
        let at = |level, consent| leave(&document, &spec, &site(vec![ceiling.clone()], level), consent);
        for levels in Level::ALL.windows(2) {
            prop_assert!(at(levels[0], false) <= at(levels[1], false));
        }
        prop_assert!(at(Level::Full, false) <= at(Level::Full, true));
        prop_assert_ne!(at(Level::Full, true), Leave::Asked);
    }

    #[test]
    fn walls_leave_no_more_than_policy_or_ceiling(document in document(), ceilings in vec(ceiling(), 1..3)) {
        let own = document.walls(&place(), &[]);
        let both = document.walls(&place(), &ceilings);
        if let Some(own) = &own {
            no_more(both.as_ref().expect("walls do not vanish"), own)?;
        }
        for ceiling in &ceilings {
            let alone = open().walls(&place(), std::slice::from_ref(ceiling));
            if let Some(alone) = alone {
                no_more(both.as_ref().expect("the ceiling wants walls"), &alone)?;
            }
        }
        prop_assert_eq!(own.is_none(), document.mode == Mode::Permissive);
    }

    #[test]
    fn the_machine_of_a_node_decides_as_the_judgement_does(
        document in document(),
        ceilings in vec(ceiling(), 0..2),
        spec in spec(),
        level in level(),
        consent in any::<bool>(),
    ) {
        let site = site(ceilings, level);
        let question = Question { spec: &spec, node: "n", site: &site, now: None, consent };
        let said = judge(&document, &question).and_then(|answer| answer.allowed("n"));
        match (on_a_node(&document, &site, &spec, consent), said) {
            (Ok(walls), Ok(_)) => prop_assert_eq!(walls, document.walls(&site.ground.place, &site.ceilings)),
            (Err(why), Err(refusal)) => {
                prop_assert!(why.ends_with(&refusal.message), "{} / {}", why, refusal.message);
                if let Some(rule) = Rule::of(&refusal) {
                    prop_assert!(why.contains(&format!("(rule {rule})")), "{} / {}", why, rule);
                }
            }
            (node, said) => prop_assert!(false, "the node: {:?}, the judgement: {:?}", node, said),
        }
    }

}

proptest! {
    #![proptest_config(Config::with_cases(300))]

    #[test]
    fn any_text_at_all_is_judged(
        document in document(),
        argv in vec("\\PC{0,40}", 1..8),
        cwd in of("\\PC{0,40}"),
        env in vec(("\\PC{0,10}", "\\PC{0,10}"), 0..4),
    ) {
        let spec = RunSpec { argv, cwd, env, ..RunSpec::default() };
        let _answer = leave(&document, &spec, &site(vec![], Level::Full), false);
    }
}

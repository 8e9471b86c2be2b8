//! Random documents, ceilings, machines and commands, and what is said to a command there.

use std::collections::BTreeSet;

use cortex_core::policy::{
    Answer, ArgRule, Args, Bounds, Ceiling, Document, Effect, Mode, Program, Question, Sensitive, Shape,
    Site, judge,
};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Access, Ground, Level, Limits, Network, Place, Root, RootPath, Walls};
use cortex_core::time::WallTime;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

const PROGRAMS: &[&str] = &["git", "find", "sh", "env", "tool", "/opt/tool", "sudo"];
const ARGS: &[&str] = &["-c", "--exec-path=x", "clone", "-exec", "--", "x", "", "-delete", "/w/a", "--force"];
const PATHS: &[&str] =
    &["/w", "/w/a", "/w/ab", "/home/u", "/home/u/x", "/srv", "/etc", "/", "/tmp/x", "/w/../etc"];
const ENV: &[&str] = &["TERM", "LANG", "PATH", "LD_PRELOAD"];

pub(crate) fn text(list: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(list).prop_map(str::to_owned)
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
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

pub(crate) fn arg_rule() -> impl Strategy<Value = ArgRule> {
    (select(vec![Effect::Deny, Effect::Ask]), shape(), of(text(ARGS)))
        .prop_map(|(effect, shape, with)| ArgRule { effect, shape, with: with.map(Into::into) })
}

pub(crate) fn program() -> impl Strategy<Value = Program> {
    let args = prop_oneof![Just(Args::Any), Just(Args::Known), vec(arg_rule(), 0..3).prop_map(Args::Rules)];
    (text(PROGRAMS), args, of((0..20_i64).prop_map(WallTime))).prop_map(|(name, args, until)| Program {
        name,
        args,
        until,
    })
}

pub(crate) fn root() -> impl Strategy<Value = Root> {
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

pub(crate) fn network() -> impl Strategy<Value = Network> {
    prop_oneof![
        Just(Network::None),
        Just(Network::All),
        vec(select(vec![53, 80, 443_u16]), 1..3)
            .prop_map(|ports| Network::Ports(ports.into_iter().collect())),
    ]
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    (of(1..3_u64), of(1..3_u32), of(1..3_u64)).prop_map(|(memory_bytes, processes, output_bytes)| Limits {
        memory_bytes,
        processes,
        output_bytes,
        ..Limits::default()
    })
}

pub(crate) fn level() -> impl Strategy<Value = Level> {
    select(Level::ALL.to_vec())
}

pub(crate) fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Strict, Mode::Permissive])
}

pub(crate) fn sensitive() -> impl Strategy<Value = Vec<Sensitive>> {
    let program = prop_oneof![Just("*".to_owned()), text(PROGRAMS)];
    vec((program, vec(text(ARGS), 1..3)).prop_map(|(program, words)| Sensitive { program, words }), 0..2)
}

pub(crate) fn document() -> impl Strategy<Value = Document> {
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

pub(crate) fn bounds() -> impl Strategy<Value = Bounds> {
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

pub(crate) fn ceiling() -> impl Strategy<Value = Ceiling> {
    prop_oneof![
        9 => bounds().prop_map(|bounds| Ceiling::Bounds(Box::new(bounds))),
        1 => Just(Ceiling::Unreadable),
    ]
}

pub(crate) fn spec() -> impl Strategy<Value = RunSpec> {
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

pub(crate) fn place() -> Place {
    Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] }
}

pub(crate) fn site(ceilings: Vec<Ceiling>, level: Level) -> Site {
    Site { ground: Ground { place: place(), level: Some(level) }, ceilings }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leave {
    Denied,
    Asked,
    Allowed,
}

pub(crate) fn leave(
    document: &Document,
    spec: &RunSpec,
    site: &Site,
    now: Option<WallTime>,
    consent: bool,
) -> Leave {
    match judge(document, &Question { spec, node: "n", site, now, consent }) {
        Ok(Answer::Allowed { .. }) => Leave::Allowed,
        Ok(Answer::Ask { .. }) => Leave::Asked,
        Err(_) => Leave::Denied,
    }
}

pub(crate) fn no_more(less: &Walls, more: &Walls) -> Result<(), TestCaseError> {
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

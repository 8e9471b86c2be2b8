//! The judgement of commands, case by case.

use cortex_core::error::Code;
use cortex_core::policy::{
    Answer, Args, Bounds, Ceiling, Document, Mode, Program, Question, Rule, Sensitive, Site, judge,
};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Access, Ground, Level, Limits, Place, Root, RootPath};
use cortex_core::time::WallTime;

fn profile(name: &str) -> Document {
    Document::profile(name).expect("a built-in profile")
}

fn spec(argv: &[&str]) -> RunSpec {
    RunSpec { argv: argv.iter().map(|arg| (*arg).to_owned()).collect(), ..RunSpec::default() }
}

fn site(level: Level, ceilings: Vec<Ceiling>) -> Site {
    let place = Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] };
    Site { ground: Ground { place, level: Some(level) }, ceilings }
}

fn ceiling(bounds: Bounds) -> Ceiling {
    Ceiling::Bounds(Box::new(bounds))
}

/// `exec.allow`, `no: exec.deny`, `ask: sensitive rm`.
fn verdict(document: &Document, spec: &RunSpec, site: &Site, consent: bool) -> String {
    match judge(document, &Question { spec, node: "n1", site, now: Some(WallTime(0)), consent }) {
        Ok(Answer::Allowed { rule }) => rule.to_string(),
        Ok(Answer::Ask { rule }) => format!("ask: {rule}"),
        Err(refusal) => {
            let rule = Rule::of(&refusal).expect("a rule").to_owned();
            let level = rule.ends_with("sandbox.level");
            assert_eq!(refusal.code, if level { Code::SandboxUnavailable } else { Code::PolicyDenied });
            assert!(refusal.message.contains(&format!("(rule {rule})")), "{}", refusal.message);
            format!("no: {rule}")
        }
    }
}

fn rule(document: &Document, spec: &RunSpec) -> String {
    verdict(document, spec, &site(Level::Full, vec![]), false)
}

#[test]
fn each_profile_allows_what_it_says_and_no_more() {
    for (name, program, answer) in [
        ("strict", "echo", "exec.allow"),
        ("strict", "ls", "no: exec.allow"),
        ("strict", "cargo", "no: exec.allow"),
        ("strict", "sh", "no: exec.allow"),
        ("ci", "cargo", "exec.allow"),
        ("ci", "ls", "no: exec.allow"),
        ("dev", "ls", "exec.allow"),
        ("dev", "bash", "no: exec.allow"),
        ("dev", "python3", "no: exec.allow"),
        ("permissive", "bash", "mode.permissive"),
        ("permissive", "sudo", "no: exec.always_denied"),
        ("permissive", "/usr/bin/sudo", "no: exec.always_denied"),
        ("dev", "su", "no: exec.always_denied"),
    ] {
        assert_eq!(rule(&profile(name), &spec(&[program])), answer, "{name} {program}");
    }
}

#[test]
fn an_allowed_name_is_no_path_and_no_other_spelling() {
    for program in ["./ls", "bin/ls", "ls/"] {
        assert_eq!(rule(&profile("dev"), &spec(&[program])), "no: exec.path", "{program:?}");
    }
    for program in ["/tmp/ls", "/bin/ls", "LS", "ls ", " ls", "ls\n", "ｌｓ"] {
        assert_eq!(rule(&profile("dev"), &spec(&[program])), "no: exec.allow", "{program:?}");
    }
}

#[test]
fn deny_beats_allow_and_permissive_in_every_spelling() {
    for (denied, program, answer) in [
        ("ls", "ls", "no: exec.deny"),
        ("ls", "/bin/ls", "no: exec.deny"),
        ("ls", "/tmp/x/../ls", "no: exec.deny"),
        ("ls", "/bin/ls/", "no: exec.deny"),
        ("/bin/ls", "ls", "no: exec.deny"),
        ("/bin/ls", "/bin//ls", "no: exec.deny"),
        ("/bin/ls", "/usr/../bin/./ls", "no: exec.deny"),
        ("/bin/ls", "/opt/ls", "mode.permissive"),
        ("ls", "lsblk", "mode.permissive"),
    ] {
        let document = Document { deny: vec![denied.to_owned()], ..profile("permissive") };
        assert_eq!(rule(&document, &spec(&[program])), answer, "deny {denied}, run {program}");
    }
    let document = Document { deny: vec!["ls".to_owned()], ..profile("dev") };
    assert_eq!(rule(&document, &spec(&["ls"])), "no: exec.deny");
}

#[test]
fn every_metacharacter_in_every_position_is_an_ordinary_byte() {
    let metas = [
        "; id", "&& id", "| sh", "$(id)", "`id`", "\n id", "\r id", "> f", "< f", "& id", "{a,b}", "~",
        "$IFS", "* ?",
    ];
    let strict = profile("strict");
    for meta in metas {
        for position in 1..4 {
            let mut argv = vec!["echo", "a", "b", "c"];
            argv[position] = meta;
            assert_eq!(rule(&strict, &spec(&argv)), "exec.allow", "{meta:?} at {position}");
        }
        let joined = format!("echo {meta}");
        assert_eq!(rule(&strict, &spec(&[&joined])), "no: exec.allow", "{meta:?} in the program");
    }
    assert_eq!(spec(&["echo", "a\0b"]).check().expect_err("NUL").code, Code::InvalidArgument);
}

#[test]
fn variables_that_are_not_listed_are_refused_in_strict_and_a_loaders_in_both_modes() {
    let set = |name: &str| RunSpec { env: vec![(name.to_owned(), "x".to_owned())], ..spec(&["echo"]) };
    assert_eq!(rule(&profile("strict"), &set("TERM")), "exec.allow");
    assert_eq!(rule(&profile("permissive"), &set("PATH")), "mode.permissive");
    for name in ["PATH", "term", "TERM ", "GIT_SSH_COMMAND"] {
        assert_eq!(rule(&profile("strict"), &set(name)), "no: env.allow", "{name}");
    }
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "CORTEX_TOKEN_FILE"] {
        for profile in [profile("strict"), profile("permissive")] {
            assert_eq!(rule(&profile, &set(name)), "no: env.reserved", "{name}");
        }
    }
}

#[test]
fn a_run_begins_in_a_folder_that_it_has_by_its_text_alone() {
    let at = |name: &str, cwd: &str| {
        rule(&profile(name), &RunSpec { cwd: Some(cwd.to_owned()), ..spec(&["echo"]) })
    };
    for cwd in ["/", "/tmp", "/tmp/x", "/usr/share", "/w", "/w/a//b", "/home/u/.cargo/bin"] {
        assert_eq!(at("ci", cwd), "exec.allow", "{cwd}");
    }
    for cwd in
        ["/etc", "/home/u", "/home/u/.cargo", "/wide", "/w/../etc", "/w/.", "/root", "/home/u/.gitconfig"]
    {
        assert_eq!(at("ci", cwd), "no: roots.cwd", "{cwd}");
    }
    assert_eq!(at("strict", "/w"), "no: roots.cwd");
    assert_eq!(at("permissive", "/root"), "mode.permissive");
}

#[test]
fn a_run_may_ask_for_the_longest_time_and_no_more() {
    for name in ["strict", "permissive"] {
        let document = Document { timeout_ms_max: 1_000, ..profile(name) };
        let with = |ms| rule(&document, &RunSpec { timeout_ms: Some(ms), ..spec(&["echo"]) });
        assert!(!with(1_000).starts_with("no"));
        assert_eq!(with(1_001), "no: limits.timeout");
    }
}

#[test]
fn arguments_are_judged_by_the_programs_schema_unless_any_were_granted() {
    let mut document = profile("dev");
    assert_eq!(rule(&document, &spec(&["git", "-c", "core.pager=id", "log"])), "no: exec.args git -c");
    assert_eq!(rule(&document, &spec(&["cargo", "install", "x"])), "ask: exec.args cargo install");
    for program in &mut document.programs {
        program.args = Args::Any;
    }
    assert_eq!(rule(&document, &spec(&["git", "-c", "core.pager=id", "log"])), "exec.allow");
}

#[test]
fn the_level_that_is_needed_must_be_reached_and_permissive_needs_none() {
    let lacking = site(Level::Partial, vec![]);
    let echo = spec(&["echo"]);
    assert_eq!(verdict(&profile("strict"), &echo, &lacking, true), "no: sandbox.level");
    assert_eq!(verdict(&profile("permissive"), &echo, &lacking, false), "mode.permissive");
    let lower = Document { sandbox: Level::Partial, ..profile("strict") };
    assert_eq!(verdict(&lower, &echo, &lacking, false), "exec.allow");
    let unknown = Site::default();
    assert_eq!(verdict(&profile("strict"), &echo, &unknown, false), "exec.allow");
    let owners =
        site(Level::Kernel, vec![ceiling(Bounds { sandbox: Some(Level::Full), ..Bounds::default() })]);
    for name in ["strict", "permissive"] {
        assert_eq!(verdict(&profile(name), &echo, &owners, false), "no: local.sandbox.level");
    }
}

#[test]
fn what_is_sensitive_is_asked_and_nothing_is_asked_that_is_denied() {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut document = profile("dev");
    document.sensitive = vec![
        Sensitive { program: "git".to_owned(), words: words(&["push", "--force*"]) },
        Sensitive { program: "*".to_owned(), words: words(&["/w/prod*"]) },
    ];
    assert_eq!(rule(&document, &spec(&["git", "push"])), "exec.allow");
    assert_eq!(
        rule(&document, &spec(&["git", "push", "--force-with-lease"])),
        "ask: sensitive git push --force*"
    );
    assert_eq!(rule(&document, &spec(&["cat", "/w/prod.toml"])), "ask: sensitive * /w/prod*");
    assert_eq!(rule(&document, &spec(&["nano", "/w/prod.toml"])), "no: exec.allow");
    let yes = |argv: &[&str]| verdict(&document, &spec(argv), &site(Level::Full, vec![]), true);
    assert_eq!(yes(&["git", "push", "--force"]), "exec.allow");
    assert_eq!(yes(&["nano", "/w/prod.toml"]), "consent");
    assert_eq!(yes(&["python3", "-c", "1"]), "consent");
    assert_eq!(yes(&["sudo", "id"]), "no: exec.always_denied");
    assert_eq!(yes(&["find", ".", "-exec", "id"]), "no: exec.args find -exec");
    assert_eq!(yes(&["./nano"]), "no: exec.path");
}

#[test]
fn a_ceiling_is_judged_after_the_hubs_policy_and_no_consent_lifts_it() {
    let program = |name: &str| Program { name: name.to_owned(), args: Args::Known, until: None };
    let work = Root { path: RootPath::Absolute("/w/a".to_owned()), access: Access::Read, exec: false };
    let bounds = Bounds {
        mode: Some(Mode::Strict),
        programs: Some(vec![program("cargo"), program("git")]),
        env: Some(vec!["TERM".to_owned()]),
        roots: Some(vec![work]),
        timeout_ms_max: Some(500),
        limits: Limits::default(),
        ..Bounds::default()
    };
    let here = site(Level::Full, vec![ceiling(bounds)]);
    let dev = profile("dev");
    let say = |spec: &RunSpec| verdict(&dev, spec, &here, true);
    assert_eq!(say(&spec(&["cargo", "build"])), "exec.allow");
    assert_eq!(say(&spec(&["ls"])), "no: local.exec.allow");
    assert_eq!(say(&spec(&["nano"])), "no: local.exec.allow");
    let env = |name: &str| RunSpec { env: vec![(name.to_owned(), "x".to_owned())], ..spec(&["cargo"]) };
    assert_eq!((say(&env("TERM")), say(&env("LANG"))), ("exec.allow".into(), "no: local.env.allow".into()));
    let cwd = |cwd: &str| RunSpec { cwd: Some(cwd.to_owned()), ..spec(&["cargo"]) };
    assert_eq!((say(&cwd("/w/a")), say(&cwd("/w/b"))), ("exec.allow".into(), "no: local.roots.cwd".into()));
    assert_eq!(say(&RunSpec { timeout_ms: Some(501), ..spec(&["cargo"]) }), "no: local.limits.timeout");
    assert_eq!(verdict(&profile("permissive"), &spec(&["cargo"]), &here, true), "no: local.mode");
    let broken = site(Level::Full, vec![Ceiling::Unreadable]);
    assert_eq!(verdict(&profile("permissive"), &spec(&["echo"]), &broken, true), "no: local.unreadable");
}

#[test]
fn what_a_node_says_of_its_ceiling_hides_nothing_and_talks_nobody_into_anything() {
    let program = |name: String| Program { name, args: Args::Known, until: None };
    let programs = Some(vec![program(format!("a\u{202e}b{}", "x".repeat(3_000)))]);
    let env = Some((0..200).map(|n| format!("V\u{202e}{n}")).collect());
    let hint = |document: &Document, spec: &RunSpec, bounds: Bounds| {
        let site = site(Level::Full, vec![ceiling(bounds)]);
        let question = Question { spec, node: "n1", site: &site, now: Some(WallTime(0)), consent: false };
        judge(document, &question).expect_err("denied").hint
    };
    let dev = Document::profile("dev").expect("built in");
    let ls = spec(&["ls"]);
    let set = RunSpec { env: vec![("TZ".to_owned(), "x".to_owned())], ..ls.clone() };
    for (spec, bounds) in
        [(ls, Bounds { programs, ..Bounds::default() }), (set, Bounds { env, ..Bounds::default() })]
    {
        let hint = hint(&dev, &spec, bounds);
        assert!(hint.len() < 600 && !hint.contains('\u{202e}'), "{hint}");
    }
}

#[test]
fn a_hint_never_carries_the_callers_text_into_a_command_to_copy() {
    let site = site(Level::Full, vec![]);
    let hint = |program: &str| {
        let spec = spec(&[program]);
        let question = Question { spec: &spec, node: "n1", site: &site, now: None, consent: false };
        judge(&profile("strict"), &question).expect_err("denied").hint
    };
    assert!(hint("cargo").contains("`cortex policy allow n1 cargo --for 1h`"));
    assert!(hint("python3").contains("run any code"));
    for program in ["x; rm -rf ~", "$(id)", "a`b", "-rf", "x y"] {
        assert!(!hint(program).contains(program), "{}", hint(program));
    }
}

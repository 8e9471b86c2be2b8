//! The JSON shapes of a document and of a ceiling, and their way into core's types and back.

use cortex_core::policy::{ArgRule, Args, Bounds, Document, Effect, Mode, Program, Sensitive, Shape};
use cortex_core::sandbox::{Access, Level, Limits, Network, Root, RootPath};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a policy says. Every field may be left out; what is left out is as in a STRICT policy with
/// nothing allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DocumentText {
    /// `strict`, or `permissive`: everything runs that is not denied, without walls.
    mode: ModeText,
    /// What may be started, in order of name.
    programs: Vec<ProgramText>,
    /// Programs that may not be started, whatever else is said.
    deny: Vec<String>,
    /// The same, and `policy allow` does not take it back. The programs that raise rights when
    /// missing.
    always_denied: Vec<String>,
    /// Variables that a caller may set.
    env: Vec<String>,
    /// Files beside the base set that runs may use.
    roots: Vec<RootText>,
    /// Connections that runs may open.
    network: NetworkText,
    /// Longest run, milliseconds; thirty days when missing.
    timeout_ms_max: u64,
    /// What one run may use at most.
    limits: LimitsText,
    /// Commands for which a person is asked.
    sensitive: Vec<SensitiveText>,
    /// The least level of the sandbox: `partial`, `kernel` or `full`; `none` when PERMISSIVE.
    sandbox: LevelText,
}

/// Leave to start one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramText {
    /// Name or absolute path.
    name: String,
    /// With which arguments; `known` when missing.
    #[serde(default, skip_serializing_if = "ArgsText::is_known")]
    args: ArgsText,
    /// When it ends: the hub's clock, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
}

/// Which arguments a program may be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ArgsText {
    /// Any.
    Any,
    /// Those that the built-in schema lets through.
    #[default]
    Known,
    /// The same, and these rules beside it.
    Rules(Vec<ArgRuleText>),
}

impl ArgsText {
    const fn is_known(&self) -> bool {
        matches!(self, Self::Known)
    }
}

/// One rule on arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArgRuleText {
    /// `deny` or `ask`.
    effect: EffectText,
    /// What the argument looks like.
    #[serde(rename = "match")]
    shape: ShapeText,
    /// Only when this word is among the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<String>,
}

/// What an argument looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ShapeText {
    /// `--NAME`, `--NAME=…` and every abbreviation.
    Long(String),
    /// This letter after one dash, alone or in a cluster.
    Short(char),
    /// The same, and in a first argument without a dash.
    Old(char),
    /// Exactly this.
    Exact(String),
    /// Whatever begins so.
    Prefix(String),
    /// Exactly this, up to and including the first word.
    Lead(String),
    /// The first word, when it is none of these.
    First(Vec<String>),
}

/// Files that runs may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RootText {
    /// An absolute path; `~/…` below the home directory of the node's user; or `work`, the folders
    /// that the node's owner gave.
    path: String,
    /// `read` or `write`.
    access: AccessText,
    /// Whether programs below it may be executed.
    #[serde(default)]
    exec: bool,
}

/// Connections that runs may open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum NetworkText {
    /// None, loopback neither.
    #[default]
    None,
    /// Outgoing TCP to these ports.
    Ports(Vec<u16>),
    /// Whatever the machine can reach.
    All,
}

/// What one run may use at most; what is missing has no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsText {
    /// Bytes of memory of all its processes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// Processes and threads at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<u32>,
    /// Bytes of both output streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_bytes: Option<u64>,
    /// Descriptors that one process has open.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    /// Bytes of one file that it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<u64>,
}

/// A command for which a person is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SensitiveText {
    /// Name or path of a program; `*` for any.
    program: String,
    /// All of them must be among the arguments; a last `*` stands for whatever follows.
    #[serde(default)]
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ModeText {
    #[default]
    Strict,
    Permissive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EffectText {
    Deny,
    Ask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AccessText {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum LevelText {
    None,
    Partial,
    #[default]
    Kernel,
    Full,
}

/// A ceiling file: what it leaves out it does not bound.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BoundsText {
    version: Option<u32>,
    mode: Option<ModeText>,
    programs: Option<Vec<ProgramText>>,
    #[serde(default)]
    deny: Vec<String>,
    env: Option<Vec<String>>,
    roots: Option<Vec<RootText>>,
    network: Option<NetworkText>,
    timeout_ms_max: Option<u64>,
    #[serde(default)]
    limits: LimitsText,
    #[serde(default)]
    sensitive: Vec<SensitiveText>,
    sandbox: Option<LevelText>,
}

impl Default for DocumentText {
    fn default() -> Self {
        Self::from(&Document::nothing())
    }
}

impl From<&Document> for DocumentText {
    fn from(document: &Document) -> Self {
        Self {
            mode: document.mode.into(),
            programs: document.programs.iter().map(ProgramText::from).collect(),
            deny: document.deny.clone(),
            always_denied: document.always_denied.clone(),
            env: document.env.clone(),
            roots: document.roots.iter().map(RootText::from).collect(),
            network: NetworkText::from(&document.network),
            timeout_ms_max: document.timeout_ms_max,
            limits: document.limits.into(),
            sensitive: document.sensitive.iter().map(SensitiveText::from).collect(),
            sandbox: document.sandbox.into(),
        }
    }
}

impl TryFrom<DocumentText> for Document {
    type Error = Refusal;

    fn try_from(text: DocumentText) -> Result<Self, Refusal> {
        let document = Self {
            mode: text.mode.into(),
            programs: text.programs.into_iter().map(Program::from).collect(),
            deny: text.deny,
            always_denied: text.always_denied,
            env: text.env,
            roots: text.roots.into_iter().map(Root::from).collect(),
            network: text.network.into(),
            timeout_ms_max: text.timeout_ms_max,
            limits: text.limits.into(),
            sensitive: text.sensitive.into_iter().map(Sensitive::from).collect(),
            sandbox: text.sandbox.into(),
        };
        document.check()?;
        Ok(document)
    }
}

impl TryFrom<BoundsText> for Bounds {
    type Error = Refusal;

    fn try_from(text: BoundsText) -> Result<Self, Refusal> {
        if text.version.is_some_and(|version| version != super::VERSION) {
            return Err(Refusal::new(
                Code::PolicyInvalid,
                "The ceiling has a version that this build does not read.",
            ));
        }
        let bounds = Self {
            mode: text.mode.map(Mode::from),
            programs: text.programs.map(|list| list.into_iter().map(Program::from).collect()),
            deny: text.deny,
            env: text.env,
            roots: text.roots.map(|list| list.into_iter().map(Root::from).collect()),
            network: text.network.map(Network::from),
            timeout_ms_max: text.timeout_ms_max,
            limits: text.limits.into(),
            sensitive: text.sensitive.into_iter().map(Sensitive::from).collect(),
            sandbox: text.sandbox.map(Level::from),
        };
        bounds.check()?;
        Ok(bounds)
    }
}

impl From<&Program> for ProgramText {
    fn from(program: &Program) -> Self {
        let args = match &program.args {
            Args::Any => ArgsText::Any,
            Args::Known => ArgsText::Known,
            Args::Rules(rules) => ArgsText::Rules(rules.iter().map(ArgRuleText::from).collect()),
        };
        Self { name: program.name.clone(), args, until_ms: program.until.map(|end| end.0) }
    }
}

impl From<ProgramText> for Program {
    fn from(text: ProgramText) -> Self {
        let args = match text.args {
            ArgsText::Any => Args::Any,
            ArgsText::Known => Args::Known,
            ArgsText::Rules(rules) => Args::Rules(rules.into_iter().map(ArgRule::from).collect()),
        };
        Self { name: text.name, args, until: text.until_ms.map(WallTime) }
    }
}

impl From<&ArgRule> for ArgRuleText {
    fn from(rule: &ArgRule) -> Self {
        let shape = match &rule.shape {
            Shape::Long(text) => ShapeText::Long(text.clone().into_owned()),
            Shape::Short(letter) => ShapeText::Short(*letter),
            Shape::Old(letter) => ShapeText::Old(*letter),
            Shape::Exact(text) => ShapeText::Exact(text.clone().into_owned()),
            Shape::Prefix(text) => ShapeText::Prefix(text.clone().into_owned()),
            Shape::Lead(text) => ShapeText::Lead(text.clone().into_owned()),
            Shape::First(words) => {
                ShapeText::First(words.iter().map(|word| word.clone().into_owned()).collect())
            }
        };
        let effect = match rule.effect {
            Effect::Deny => EffectText::Deny,
            Effect::Ask => EffectText::Ask,
        };
        Self { effect, shape, with: rule.with.clone().map(std::borrow::Cow::into_owned) }
    }
}

impl From<ArgRuleText> for ArgRule {
    fn from(text: ArgRuleText) -> Self {
        let shape = match text.shape {
            ShapeText::Long(text) => Shape::Long(text.into()),
            ShapeText::Short(letter) => Shape::Short(letter),
            ShapeText::Old(letter) => Shape::Old(letter),
            ShapeText::Exact(text) => Shape::Exact(text.into()),
            ShapeText::Prefix(text) => Shape::Prefix(text.into()),
            ShapeText::Lead(text) => Shape::Lead(text.into()),
            ShapeText::First(words) => Shape::First(words.into_iter().map(Into::into).collect()),
        };
        let effect = match text.effect {
            EffectText::Deny => Effect::Deny,
            EffectText::Ask => Effect::Ask,
        };
        Self { effect, shape, with: text.with.map(Into::into) }
    }
}

impl From<&Root> for RootText {
    fn from(root: &Root) -> Self {
        let path = match &root.path {
            RootPath::Absolute(path) => path.clone(),
            RootPath::Home(below) => format!("~/{below}"),
            RootPath::Work => "work".to_owned(),
        };
        let access = match root.access {
            Access::Read => AccessText::Read,
            Access::Write => AccessText::Write,
        };
        Self { path, access, exec: root.exec }
    }
}

impl From<RootText> for Root {
    fn from(text: RootText) -> Self {
        let access = match text.access {
            AccessText::Read => Access::Read,
            AccessText::Write => Access::Write,
        };
        Self { path: root_path(&text.path), access, exec: text.exec }
    }
}

/// `work`, `~/below home`, or an absolute path; whether it may be given is [`Document::check`]'s.
pub fn root_path(text: &str) -> RootPath {
    match text.strip_prefix("~/") {
        Some(below) => RootPath::Home(below.to_owned()),
        None if text == "work" => RootPath::Work,
        None => RootPath::Absolute(text.to_owned()),
    }
}

impl From<&Network> for NetworkText {
    fn from(network: &Network) -> Self {
        match network {
            Network::None => Self::None,
            Network::Ports(ports) => Self::Ports(ports.iter().copied().collect()),
            Network::All => Self::All,
        }
    }
}

impl From<NetworkText> for Network {
    fn from(text: NetworkText) -> Self {
        match text {
            NetworkText::None => Self::None,
            NetworkText::Ports(ports) => Self::Ports(ports.into_iter().collect()),
            NetworkText::All => Self::All,
        }
    }
}

impl From<Limits> for LimitsText {
    fn from(limits: Limits) -> Self {
        let Limits { memory_bytes, processes, output_bytes, files, file_bytes } = limits;
        Self { memory_bytes, processes, output_bytes, files, file_bytes }
    }
}

impl From<LimitsText> for Limits {
    fn from(text: LimitsText) -> Self {
        let LimitsText { memory_bytes, processes, output_bytes, files, file_bytes } = text;
        Self { memory_bytes, processes, output_bytes, files, file_bytes }
    }
}

impl From<&Sensitive> for SensitiveText {
    fn from(one: &Sensitive) -> Self {
        Self { program: one.program.clone(), words: one.words.clone() }
    }
}

impl From<SensitiveText> for Sensitive {
    fn from(text: SensitiveText) -> Self {
        Self { program: text.program, words: text.words }
    }
}

impl From<Mode> for ModeText {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Strict => Self::Strict,
            Mode::Permissive => Self::Permissive,
        }
    }
}

impl From<ModeText> for Mode {
    fn from(text: ModeText) -> Self {
        match text {
            ModeText::Strict => Self::Strict,
            ModeText::Permissive => Self::Permissive,
        }
    }
}

impl From<Level> for LevelText {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Partial => Self::Partial,
            Level::Kernel => Self::Kernel,
            Level::Full => Self::Full,
        }
    }
}

impl From<LevelText> for Level {
    fn from(text: LevelText) -> Self {
        match text {
            LevelText::None => Self::None,
            LevelText::Partial => Self::Partial,
            LevelText::Kernel => Self::Kernel,
            LevelText::Full => Self::Full,
        }
    }
}

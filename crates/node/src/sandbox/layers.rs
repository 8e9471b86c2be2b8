//! What the trial of the walls says of each layer, and how high a level that makes. Data only. Never
//! here: trying anything.

use cortex_core::limits::LAYER_NOTE_BYTES_MAX;
use cortex_core::name::printable;
use cortex_core::sandbox::{Layer, LayerState, Level};

use super::probe::{Found, Hole, Tried};
use super::step::Failed;

/// First version of Landlock that keeps signals among the processes that it holds.
const ABI_SIGNALS: u32 = 6;
/// First version that closes TCP, so that its lack of scopes is all that a process namespace has to
/// make up for.
const ABI_NETWORK: u32 = 4;
/// What Landlock mended in versions that were out.
const ERRATA: u32 = 0b111;

/// Layers that a run has only at level full, in the order of their steps.
const FULL: &[&str] = &["userns", "mount", "ipc", "uts", "net", "pid"];

/// All layers of a machine.
pub(super) fn judge(found: &Found) -> Vec<Layer> {
    let mut layers = inside(found);
    layers.extend(namespaces(found));
    layers.push(cgroup(found));
    layers
}

/// The level that these layers make.
pub(super) fn level(layers: &[Layer], landlock: Option<(u32, u32)>) -> Level {
    let is = |name: &str| {
        // A layer that this machine has no use for is not in the list.
        layers.iter().find(|layer| layer.name == name).is_none_or(|layer| layer.state == LayerState::Held)
    };
    let abi = landlock.map_or(0, |(abi, _)| abi);
    let is_filtered =
        layers.iter().any(|layer| layer.name == "landlock" && layer.state != LayerState::Missing)
            && is("seccomp")
            && is("no_new_privs");
    let is_bare = is("caps") && is("user");
    let has_namespaces = FULL.iter().all(|name| is(name));
    match () {
        () if !is_filtered || abi == 0 => Level::None,
        () if is_bare && has_namespaces && abi >= ABI_NETWORK => Level::Full,
        () if is_bare && abi >= ABI_SIGNALS => Level::Kernel,
        () => Level::Partial,
    }
}

/// What the trial from inside says.
fn inside(found: &Found) -> Vec<Layer> {
    let trial = [&found.full, &found.kernel].into_iter().find_map(Tried::holes);
    let failed = [&found.kernel, &found.full].into_iter().find_map(Tried::failed);
    let mut names = vec!["caps", "no_new_privs", "seccomp"];
    if found.changes_user {
        names.insert(0, "user");
    }
    let mut layers: Vec<Layer> = names
        .into_iter()
        .map(|name| match (trial, failed) {
            (Some(holes), _) => match Hole::of_layer(name).find(|hole| holes & hole.bit() != 0) {
                Some(hole) => layer(name, LayerState::Missing, hole.as_str()),
                None => layer(name, LayerState::Held, ""),
            },
            (None, Some(failed)) if failed.step.layer() == name => {
                layer(name, LayerState::Missing, &failed.to_string())
            }
            (None, _) => layer(name, LayerState::Missing, &untried(found)),
        })
        .collect();
    layers.push(landlock(found, trial, failed));
    layers
}

fn landlock(found: &Found, trial: Option<u32>, failed: Option<&Failed>) -> Layer {
    let name = "landlock";
    let Some((abi, errata)) = found.landlock else {
        let note = "This kernel has none: it needs Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and \
            `landlock` in the list of `lsm=` at boot.";
        return layer(name, LayerState::Missing, note);
    };
    let version = format!("ABI {abi}, errata {errata:#b}");
    match (trial, failed) {
        (Some(holes), _) => match Hole::of_layer(name).find(|hole| holes & hole.bit() != 0) {
            Some(hole) if abi < ABI_SIGNALS && hole == Hole::Signal => {
                layer(name, LayerState::Part, &format!("{version}: {}", hole.as_str()))
            }
            Some(hole) => layer(name, LayerState::Missing, &format!("{version}: {}", hole.as_str())),
            None if abi < ABI_SIGNALS => layer(
                name,
                LayerState::Part,
                &format!("{version}: signals are not kept inside before ABI 6."),
            ),
            None if errata & ERRATA != ERRATA => layer(
                name,
                LayerState::Held,
                &format!("{version}: a later kernel has mended mistakes of this one."),
            ),
            None => layer(name, LayerState::Held, &version),
        },
        (None, Some(failed)) if failed.step.layer() == name => {
            layer(name, LayerState::Missing, &format!("{version}: {failed}"))
        }
        (None, _) => layer(name, LayerState::Missing, &format!("{version}: {}", untried(found))),
    }
}

/// Those of level full: up to the step that failed they held.
fn namespaces(found: &Found) -> Vec<Layer> {
    let names = FULL.iter().filter(|name| **name != "userns" || found.is_user);
    let failed = found.full.failed();
    let broken = failed.map(|failed| failed.step.layer());
    let mut is_before = true;
    names
        .map(|name| match (&found.full, failed) {
            (Tried::Inside(_), _) => layer(name, LayerState::Held, ""),
            (Tried::Failed(_), Some(failed)) if broken == Some(*name) => {
                is_before = false;
                layer(name, LayerState::Missing, &format!("{failed}. {}", mend(name, found)))
            }
            (Tried::Failed(_), Some(_))
                if is_before && broken.is_some_and(|broken| FULL.contains(&broken)) =>
            {
                layer(name, LayerState::Held, "")
            }
            (Tried::Failed(_) | Tried::Silent(_), _) => layer(name, LayerState::Missing, &untried(found)),
        })
        .collect()
}

fn cgroup(found: &Found) -> Layer {
    let (memory, processes) = found.groups;
    let instead = if found.numbers {
        "process numbers of each run and limits of each process stand in"
    } else {
        "limits of each process stand in, and of all processes of its user"
    };
    let mend = "Delegate a group to the node (`Delegate=yes` in its unit)";
    match (memory, processes) {
        (true, true) => layer("cgroup", LayerState::Held, ""),
        (true, false) => layer("cgroup", LayerState::Part, &format!("Memory alone; {instead}. {mend}.")),
        (false, true) => layer("cgroup", LayerState::Part, &format!("Processes alone; {instead}. {mend}.")),
        (false, false) => layer("cgroup", LayerState::Part, &format!("None can be made; {instead}. {mend}.")),
    }
}

fn untried(found: &Found) -> String {
    match (&found.full, &found.kernel) {
        (Tried::Silent(why), _) | (_, Tried::Silent(why)) => why.clone(),
        (_, Tried::Failed(failed)) | (Tried::Failed(failed), _) => {
            format!("Not tried, since this failed: {failed}.")
        }
        (Tried::Inside(_), Tried::Inside(_)) => String::new(),
    }
}

/// What would mend a missing namespace.
fn mend(name: &str, found: &Found) -> String {
    match name {
        "userns" => match found.userns_knob.as_deref() {
            Some(knob) => format!("{knob}: change that, or run the node as a system service."),
            None => "Run the node as a system service, or allow user namespaces.".to_owned(),
        },
        "pid" => "In a container with a masked /proc none can be mounted (`--security-opt \
            systempaths=unconfined`)."
            .to_owned(),
        _ if found.is_user => "Run the node as a system service.".to_owned(),
        _ => "A container needs CAP_SYS_ADMIN for it.".to_owned(),
    }
}

fn layer(name: &str, state: LayerState, note: &str) -> Layer {
    let note = printable(note, LAYER_NOTE_BYTES_MAX - 3);
    Layer { name: name.to_owned(), state, note }
}

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
    // What holds inside of namespaces shows nothing for runs that go without them.
    let trial = [&found.kernel, &found.full].into_iter().find_map(Tried::holes);
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
            (Tried::Inside(_), _) => match open_behind_full(found) {
                Some(hole) => {
                    layer(name, LayerState::Missing, &format!("Not used: behind it {}", lower(hole.as_str())))
                }
                None => layer(name, LayerState::Held, ""),
            },
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

/// What a run could do behind full walls that it must not. A kernel that cannot keep signals inside has
/// them among process numbers of the run's own, where nobody else is but its guard.
fn open_behind_full(found: &Found) -> Option<Hole> {
    let holes = found.full.holes()?;
    let is_kept = found.landlock.is_some_and(|(abi, _)| abi >= ABI_SIGNALS);
    Hole::ALL.iter().copied().find(|hole| holes & hole.bit() != 0 && (is_kept || *hole != Hole::Signal))
}

/// As the rest of a sentence.
fn lower(sentence: &str) -> String {
    sentence.replacen("The run", "the run", 1)
}

fn cgroup(found: &Found) -> Layer {
    let (memory, processes) = found.groups;
    let has_numbers = matches!(found.full, Tried::Inside(_)) && open_behind_full(found).is_none();
    let instead = if found.numbers && has_numbers {
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

#[cfg(test)]
mod tests {
    use super::super::step::Step;
    use super::*;

    fn found(full: Tried, kernel: Tried) -> Found {
        Found {
            full,
            kernel,
            landlock: Some((7, ERRATA)),
            groups: (true, true),
            numbers: true,
            is_user: true,
            changes_user: false,
            userns_knob: None,
        }
    }

    fn failed(step: Step) -> Tried {
        Tried::Failed(Failed::new(step, nix::libc::EPERM))
    }

    fn reached(found: &Found) -> Level {
        level(&judge(found), found.landlock)
    }

    fn state(found: &Found, name: &str) -> (LayerState, String) {
        let layer = judge(found).into_iter().find(|layer| layer.name == name).expect("it is there");
        (layer.state, layer.note)
    }

    #[test]
    fn a_trial_without_holes_is_level_full() {
        let whole = found(Tried::Inside(0), Tried::Inside(0));
        assert_eq!(reached(&whole), Level::Full);
        assert!(judge(&whole).iter().all(|layer| layer.state == LayerState::Held), "{:?}", judge(&whole));
        assert!(judge(&whole).iter().all(|layer| layer.name != "user"), "nobody changes it here");
    }

    #[test]
    fn the_step_that_failed_is_the_layer_that_is_missing() {
        let userns = Found {
            userns_knob: Some("kernel.apparmor_restrict_unprivileged_userns is 1".to_owned()),
            ..found(failed(Step::UserNamespace), Tried::Inside(0))
        };
        assert_eq!(reached(&userns), Level::Kernel);
        let (state_of, note) = state(&userns, "userns");
        assert_eq!(state_of, LayerState::Missing);
        assert!(note.contains("Operation not permitted") && note.contains("apparmor_restrict"), "{note}");
        assert!(state(&userns, "pid").1.starts_with("Not tried"));
        let masked = found(failed(Step::Proc), Tried::Inside(0));
        assert_eq!(reached(&masked), Level::Kernel);
        assert_eq!(state(&masked, "mount").0, LayerState::Held);
        assert!(state(&masked, "pid").1.contains("masked /proc"));
        let unfiltered = found(failed(Step::Filter), failed(Step::Filter));
        assert_eq!(reached(&unfiltered), Level::None);
        assert!(state(&unfiltered, "seccomp").1.contains("filtering its system calls"));
    }

    #[test]
    fn a_hole_takes_its_layer_away() {
        for (hole, name, level) in [
            (Hole::Capabilities, "caps", Level::Partial),
            (Hole::Privileges, "no_new_privs", Level::None),
            (Hole::Socket, "seccomp", Level::None),
            (Hole::Unshare, "seccomp", Level::None),
            (Hole::Unfiltered, "seccomp", Level::None),
            (Hole::File, "landlock", Level::None),
            (Hole::Signal, "landlock", Level::None),
        ] {
            let open = found(Tried::Inside(hole.bit()), Tried::Inside(hole.bit()));
            assert_eq!(state(&open, name).0, LayerState::Missing, "{hole:?}");
            assert_eq!(reached(&open), level, "{hole:?}");
        }
        let root = Found { changes_user: true, ..found(Tried::Inside(0), Tried::Inside(Hole::Root.bit())) };
        assert_eq!(reached(&root), Level::Partial);
    }

    #[test]
    fn a_hole_behind_full_walls_alone_takes_that_level_away_and_no_other() {
        for hole in [Hole::Capabilities, Hole::Privileges, Hole::Unfiltered, Hole::Socket, Hole::File] {
            let open = found(Tried::Inside(hole.bit()), Tried::Inside(0));
            assert_eq!(reached(&open), Level::Kernel, "{hole:?}");
            let (state_of, note) = state(&open, "mount");
            assert_eq!(state_of, LayerState::Missing, "{hole:?}");
            assert!(note.contains(&lower(hole.as_str())), "{note}");
        }
        let signal = found(Tried::Inside(Hole::Signal.bit()), Tried::Inside(0));
        assert_eq!(reached(&signal), Level::Kernel);
        // Such a kernel cannot keep it inside; the only process in sight is the run's guard.
        let older = Found { landlock: Some((5, 0)), ..signal };
        assert_eq!(reached(&older), Level::Full);
    }

    #[test]
    fn numbers_stand_in_for_a_bound_on_processes_only_where_runs_have_their_own() {
        let bare = |full| Found { groups: (true, false), ..found(full, Tried::Inside(0)) };
        assert!(state(&bare(Tried::Inside(0)), "cgroup").1.contains("process numbers of each run"));
        let shared = state(&bare(failed(Step::UserNamespace)), "cgroup").1;
        assert!(!shared.contains("process numbers of each run"), "{shared}");
    }

    #[test]
    fn an_older_landlock_needs_a_process_namespace() {
        let old = |abi, full| {
            let holes = Tried::Inside(Hole::Signal.bit());
            Found { landlock: Some((abi, 0)), ..found(full, holes) }
        };
        assert_eq!(reached(&old(5, failed(Step::UserNamespace))), Level::Partial);
        assert_eq!(reached(&old(3, failed(Step::UserNamespace))), Level::Partial);
        let whole = Found { landlock: Some((4, 0)), ..found(Tried::Inside(0), Tried::Inside(0)) };
        assert_eq!(reached(&whole), Level::Full);
        let none = Found { landlock: None, ..found(failed(Step::Landlock), failed(Step::Landlock)) };
        assert_eq!((reached(&none), state(&none, "landlock").0), (Level::None, LayerState::Missing));
    }

    #[test]
    fn without_groups_the_layer_is_there_in_part_and_no_level_goes_down() {
        let bare = Found { groups: (false, false), ..found(Tried::Inside(0), Tried::Inside(0)) };
        assert_eq!((reached(&bare), state(&bare, "cgroup").0), (Level::Full, LayerState::Part));
    }
}

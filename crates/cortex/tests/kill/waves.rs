//! Power cuts of the hub at every point of a wave: afterwards each folder has what the workspace has, and
//! nothing that anybody wrote is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::points::WAVES;
use crate::world::{World, hub};
use crate::{SOON, arm, restart, rounds, wait_for_kill};

const NODES: [&str; 3] = ["a", "b", "c"];

struct Scene {
    world: World,
    folders: Vec<PathBuf>,
}

impl Scene {
    fn new() -> Self {
        let world = NODES.iter().fold(hub(), |plan, name| plan.open_node(name)).start();
        let folders = NODES.iter().map(|name| world.path(&format!("folder-{name}"))).collect();
        let scene = Self { world, folders };
        for folder in &scene.folders {
            std::fs::create_dir(folder).expect("a folder");
        }
        scene.write(0, "أول", "first\n");
        scene
    }

    fn ws(&self, arguments: &[&str]) -> Option<i32> {
        self.world.cortex(&[&["workspace"], arguments].concat()).code
    }

    fn place(&self, node: usize) -> String {
        format!("{}:{}", NODES[node], self.folders[node].display())
    }

    fn write(&self, node: usize, name: &str, content: &str) {
        std::fs::write(self.folders[node].join(name), content).expect("write");
    }

    /// The hub ends at that point, with these changes under way.
    fn cut(&mut self, point: &str) {
        let armed = arm(&self.world, point);
        // It may not live to answer.
        let _answered = self.ws(&["resync", "notes"]);
        wait_for_kill(point, &armed);
        restart(&mut self.world, point);
        for node in NODES {
            self.world.node_reaches(node, "online", SOON);
        }
        let settled = self.world.cortex(&["workspace", "resync", "notes", "--wait", "--timeout", "60s"]);
        assert_eq!(settled.code, Some(0), "{point}: {}\n{}", settled.stderr, self.world.logs());
    }

    fn is_everywhere(&self, point: &str, expected: &BTreeMap<String, String>) {
        for folder in &self.folders {
            assert_eq!(&files(folder), expected, "{point}: {}", folder.display());
        }
    }
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let text = |path: PathBuf| std::fs::read_to_string(path).expect("a text");
    files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), text(entry.path()))).collect()
}

#[test]
fn r16_1_a_power_cut_at_any_point_of_a_wave_of_a_lead_leaves_no_follower_behind() {
    let mut scene = Scene::new();
    assert_eq!(scene.ws(&["create", "notes", "--lead", &scene.place(0)]), Some(0));
    for node in [1, 2] {
        assert_eq!(scene.ws(&["attach", "notes", &scene.place(node)]), Some(0));
    }
    let mut expected = BTreeMap::from([("أول".to_owned(), "first\n".to_owned())]);
    for (round, point) in (0..rounds()).flat_map(|_| WAVES).enumerate() {
        for (name, content) in
            [(format!("new {round}"), "new\n".to_owned()), ("أول".to_owned(), format!("{round}\n"))]
        {
            scene.write(0, &name, &content);
            expected.insert(name, content);
        }
        scene.cut(point);
        scene.is_everywhere(point, &expected);
    }
}

#[test]
fn r16_1_a_power_cut_at_any_point_of_a_wave_of_peers_loses_nothing_that_they_wrote() {
    let mut scene = Scene::new();
    assert_eq!(scene.ws(&["create", "notes", "--from", &scene.place(0), "--wait"]), Some(0));
    for node in [1, 2] {
        assert_eq!(scene.ws(&["attach", "notes", &scene.place(node), "--wait"]), Some(0));
    }
    let mut expected = BTreeMap::from([("أول".to_owned(), "first\n".to_owned())]);
    for (round, point) in (0..rounds()).flat_map(|_| WAVES).enumerate() {
        for (node, of) in NODES.iter().enumerate() {
            for name in [format!("{of} {round}"), format!("{of} again")] {
                let content = format!("{of} in {round}\n");
                scene.write(node, &name, &content);
                expected.insert(name, content);
            }
        }
        scene.cut(point);
        scene.is_everywhere(point, &expected);
    }
}

//! Which network namespaces belong to a lab: the lab's keeper writes a file for each lab it holds.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Where the keepers of labs register, one JSON file a lab; the layout is documented in `python/irlstack/lab/registry.py`.
const REGISTRY: &str = "/run/irlstack/labs";

/// The lab whose living keeper registered the network namespace with this inode.
///
/// A file that cannot be read, is of another version or names a keeper that is gone grants nothing.
pub fn lab_of_namespace(inode: u64) -> Option<String> {
    find(Path::new(REGISTRY), inode, start_time)
}

fn find(registry: &Path, inode: u64, start_time: impl Fn(u64) -> Option<u64>) -> Option<String> {
    let files = fs::read_dir(registry).ok()?;
    files.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).find_map(
        |path| {
            let document: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            let keeper = &document["keeper"];
            let alive = start_time(keeper["pid"].as_u64()?)? == keeper["start_time"].as_u64()?;
            let holds = document["namespaces"].as_object()?.values().any(|each| each["inode"].as_u64() == Some(inode));
            (document["version"].as_u64() == Some(1) && alive && holds)
                .then(|| document["name"].as_str().map(str::to_owned))
                .flatten()
        },
    )
}

/// Field 22 of /proc/PID/stat, in clock ticks since boot; `None` when there is no such process, or a dead one. It tells
/// a recycled process id from the keeper's.
fn start_time(pid: u64) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry_with(name: &str, text: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("irl-link-lab-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("demo.json"), text).unwrap();
        folder
    }

    const DEMO: &str = r#"{"version": 1, "name": "demo", "state": "ready", "keeper": {"pid": 7, "start_time": 99},
        "namespaces": {"client": {"name": "irl-demo-client", "inode": 4026532300}}}"#;

    #[test]
    fn a_registered_namespace_is_the_labs() {
        let folder = registry_with("good", DEMO);
        let alive = |pid| (pid == 7).then_some(99);
        assert_eq!(find(&folder, 4026532300, alive).as_deref(), Some("demo"));
        assert_eq!(find(&folder, 4026532301, alive), None, "another namespace");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_dead_keepers_file_grants_nothing() {
        let folder = registry_with("dead", DEMO);
        assert_eq!(find(&folder, 4026532300, |_| None), None, "no such process");
        assert_eq!(find(&folder, 4026532300, |_| Some(100)), None, "a recycled process id");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn nonsense_grants_nothing() {
        for (name, text) in [("empty", ""), ("array", "[]"), ("version", &DEMO.replace("1,", "2,"))] {
            let folder = registry_with(name, text);
            assert_eq!(find(&folder, 4026532300, |_| Some(99)), None, "{text}");
            fs::remove_dir_all(folder).unwrap();
        }
        assert_eq!(find(Path::new("/nonexistent"), 1, |_| Some(99)), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_start_time_is_known() {
        assert!(start_time(u64::from(std::process::id())).is_some_and(|ticks| ticks > 0));
    }
}

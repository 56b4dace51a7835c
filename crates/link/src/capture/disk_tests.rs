//! Files in the place of a network.

use super::*;
use crate::policy::{PolicyRefusal, Targets};
use irl_targets::PrefixSet;
use irl_wire::{Key, PortRange, Protocol};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("irl-disk-{}-{name}", std::process::id()))
}

fn config(path: PathBuf, replay: bool) -> DiskConfig {
    DiskConfig {
        path,
        replay,
        sources: vec!["198.18.0.10".parse().unwrap()],
        source_mac: Mac([2, 0, 0, 0, 0, 1]),
        gateway_mac: Mac([2, 0, 0, 0, 0, 2]),
        vlan: None,
        program: "irlstack 0".into(),
    }
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let path = path("there");
    fs::write(&path, "the only capture of a run").unwrap();
    let told = DiskNetwork::open(config(path.clone(), false)).err().unwrap().to_string();
    assert!(told.contains("replay:"), "{told}");
    assert_eq!(fs::read(&path).unwrap(), b"the only capture of a run");
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_dry_run_needs_no_permission_and_keeps_from_where_nobody_may_send() {
    let path = path("dry");
    let network = DiskNetwork::open(config(path.clone(), false)).unwrap();
    let settings = network.policy_settings();
    let items = |text: &str| [PrefixSet::parse_items([text]).unwrap()];
    let policy = Arc::new(settings.authorise(Targets::Items(&items("9.9.9.0/24"))).unwrap());
    assert!(matches!(settings.authorise(Targets::Items(&items("224.0.0.0/24"))), Err(PolicyRefusal::NothingLeft)));
    let request =
        WorkerRequest::new(policy, Key::new([1; 16]), PortRange { first: 61_000, last: 61_999 }, Protocol::Tcp);
    let mut worker = network.workers(&request).unwrap().remove(0);
    assert_eq!(worker.receiver.is_exhausted(), Some(true));

    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    frame.extend([198, 18, 0, 10, 9, 9, 9, 7]);
    frame.extend([0; 20]);
    let foreign = [&frame[..30], &[9, 9, 8, 7], &frame[34..]].concat();
    let mut built = [&frame, &foreign].into_iter();
    let filled = worker.gate.fill(2, 54, |slot| {
        let frame = built.next()?;
        slot[..54].copy_from_slice(frame);
        Some(54)
    });
    assert_eq!(filled.unwrap(), crate::Filled { built: 2, refused: 1 });
    worker.gate.kick().unwrap();
    let mut reader = Reader::new(File::open(&path).unwrap(), "it").unwrap();
    assert_eq!(reader.read().unwrap().unwrap().frame, frame, "what the policy refused is not there");
    assert!(reader.read().unwrap().is_none());
    assert_eq!(worker.gate.counters().sent(), 1);
    fs::remove_file(&path).unwrap();
}

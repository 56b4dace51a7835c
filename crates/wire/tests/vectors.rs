//! The published vectors of the cookie, which the filter's twin in C reads too.

use std::hash::Hasher;
use std::net::IpAddr;

use irl_wire::Key;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Vector {
    secret: String,
    ours: String,
    target: String,
    port: u16,
    cookie: String,
}

fn vectors() -> Vec<Vector> {
    let mut out = Vec::new();
    for (number, secret) in [[0; 16], std::array::from_fn(|i| i as u8), [0xff; 16]].into_iter().enumerate() {
        let key = Key::new(secret);
        let hex = secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (low, port) in [(0_u32, 0_u16), (1, 80), (0x0a01_0203, 443), (u32::MAX, 65535), (0xc000_0207, 53)] {
            let (ours, target) = (0xc612_000a_u32.wrapping_add(number as u32), low);
            let cookie = key.v4(ours, target, port);
            let dotted = |address: u32| std::net::Ipv4Addr::from_bits(address).to_string();
            out.push((hex.clone(), dotted(ours), dotted(target), port, cookie.0));
            let (ours, target) = (0xfd00_u128 << 112 | 10, 0x2001_0db8_u128 << 96 | u128::from(low));
            let cookie = key.v6(ours, target, port);
            let text = |address: u128| std::net::Ipv6Addr::from_bits(address).to_string();
            out.push((hex.clone(), text(ours), text(target), port, cookie.0));
        }
    }
    out.into_iter()
        .map(|(secret, ours, target, port, cookie)| Vector {
            secret,
            ours,
            target,
            port,
            cookie: format!("{cookie:016x}"),
        })
        .collect()
}

/// Frozen: a change of the cookie is a new version. `IRL_WRITE_VECTORS=1` writes the file anew.
#[test]
fn the_cookie_is_what_was_published() {
    assert_eq!(irl_wire::cookie::VERSION, 1);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/cookie-v1.json");
    let ours = vectors();
    if std::env::var_os("IRL_WRITE_VECTORS").is_some() {
        let lines: Vec<_> = ours.iter().map(|vector| serde_json::to_string(vector).unwrap()).collect();
        std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    let published: Vec<Vector> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(ours, published);
}

/// By an implementation that is not ours, from the file and docs/cookie.md alone.
#[test]
fn what_was_published_is_siphash_1_3() {
    let text = include_str!("../vectors/cookie-v1.json");
    let published: Vec<Vector> = serde_json::from_str(text).unwrap();
    assert_eq!(published.len(), 30);
    for vector in published {
        let secret = u128::from_str_radix(&vector.secret, 16).unwrap().to_be_bytes();
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(&secret);
        for address in [&vector.ours, &vector.target] {
            match address.parse().unwrap() {
                IpAddr::V4(v4) => hasher.write(&v4.octets()),
                IpAddr::V6(v6) => hasher.write(&v6.octets()),
            }
        }
        hasher.write(&vector.port.to_be_bytes());
        assert_eq!(format!("{:016x}", hasher.finish()), vector.cookie, "{vector:?}");
    }
}

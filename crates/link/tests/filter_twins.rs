//! The C twins say what their Rust sides say: record layout against `record.rs`, cookie against the published vectors
//! and `irl_wire::cookie`.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use irl_link::record::{HEADER_LEN, Kind, MAX_FRAME_BODY, VERSION, flags, options};
use irl_wire::cookie::Key;
use support::Random;

/// Compiles and runs a C program that includes our headers; `None`, said aloud, where there is no compiler.
fn run_c(name: &str, source: &str) -> Option<String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (file, program) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&file, source).expect("the folder for tests is writable");
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let compiler = ["cc", "clang"].into_iter().find(|cc| Command::new(cc).arg("--version").output().is_ok());
    let Some(compiler) = compiler else {
        eprintln!("SKIPPED {name}: needs a C compiler");
        return None;
    };
    let compiled = Command::new(compiler)
        .args(["-std=gnu11", "-O1", "-Wall", "-Wno-unused-variable", "-Wno-int-to-pointer-cast", "-I"])
        .arg(&headers)
        .arg(&file)
        .arg("-o")
        .arg(&program)
        .output()
        .expect("the compiler was found");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().expect("it was just compiled");
    Some(String::from_utf8(output.stdout).expect("it prints ASCII"))
}

#[test]
fn the_record_header_is_record_rs_in_c() {
    // Offsets count from the start of the body, as in the module's description.
    let body: &[(&str, &str, usize)] = &[
        ("tcp4_body", "saddr", 0),
        ("tcp4_body", "daddr", 4),
        ("tcp4_body", "tcp.sport", 8),
        ("tcp4_body", "tcp.dport", 10),
        ("tcp4_body", "tcp.seq", 12),
        ("tcp4_body", "tcp.ack", 16),
        ("tcp4_body", "tcp.window", 20),
        ("tcp4_body", "tcp.flags", 22),
        ("tcp4_body", "tcp.ttl", 23),
        ("tcp4_body", "tcp.ip_id", 24),
        ("tcp4_body", "tcp.mss", 26),
        ("tcp4_body", "tcp.window_scale", 28),
        ("tcp4_body", "tcp.options", 29),
        ("tcp4_body", "tcp.payload_len", 30),
        ("tcp4_body", "tcp.tsval", 32),
        ("tcp4_body", "tcp.tsecr", 36),
        ("tcp6_body", "saddr", 0),
        ("tcp6_body", "daddr", 16),
        ("tcp6_body", "tcp", 32),
        ("icmp_body", "saddr", 0),
        ("icmp_body", "daddr", 16),
        ("icmp_body", "type", 32),
        ("icmp_body", "code", 33),
        ("icmp_body", "ttl", 34),
        ("icmp_body", "quoted_protocol", 35),
        ("icmp_body", "ip_id", 36),
        ("icmp_body", "id", 38),
        ("icmp_body", "sequence", 40),
        ("icmp_body", "payload_len", 42),
        ("icmp_body", "quoted_seq", 44),
        ("icmp_body", "quoted_daddr", 48),
        ("icmp_body", "payload", 64),
        ("udp_body", "saddr", 0),
        ("udp_body", "daddr", 16),
        ("udp_body", "sport", 32),
        ("udp_body", "dport", 34),
        ("udp_body", "length", 36),
        ("udp_body", "ttl", 38),
        ("udp_body", "ip_id", 40),
        ("udp_body", "payload_len", 44),
        ("record_header", "version", 0),
        ("record_header", "kind", 1),
        ("record_header", "flags", 2),
        ("record_header", "length", 4),
        ("record_header", "owner", 6),
        ("record_header", "time_ns", 8),
    ];
    let fixed = |kind: Kind| kind.body_len().expect("compact records have a fixed length");
    let mut expected: Vec<(String, usize)> =
        body.iter().map(|(name, field, at)| (format!("offsetof(struct {name}, {field})"), *at)).collect();
    for (expression, value) in [
        ("sizeof(struct record_header)", HEADER_LEN),
        ("sizeof(struct tcp4_body)", fixed(Kind::Tcp4)),
        ("sizeof(struct tcp6_body)", fixed(Kind::Tcp6)),
        ("sizeof(struct icmp_body)", fixed(Kind::Icmp)),
        ("sizeof(struct udp_body)", fixed(Kind::Udp)),
        ("offsetof(struct tcp4_record, body)", HEADER_LEN),
        ("offsetof(struct tcp6_record, body)", HEADER_LEN),
        ("offsetof(struct icmp_record, body)", HEADER_LEN),
        ("offsetof(struct udp_record, body)", HEADER_LEN),
        ("RECORD_VERSION", usize::from(VERSION)),
        ("MAX_FRAME_BODY", MAX_FRAME_BODY),
        ("KIND_TCP4", Kind::Tcp4 as usize),
        ("KIND_TCP6", Kind::Tcp6 as usize),
        ("KIND_ICMP", Kind::Icmp as usize),
        ("KIND_UDP", Kind::Udp as usize),
        ("KIND_FRAME", Kind::Frame as usize),
        ("FLAG_CLASS_MASK", usize::from(flags::CLASS_MASK)),
        ("FLAG_COOKIE", usize::from(flags::COOKIE)),
        ("FLAG_BAD_CHECKSUM", usize::from(flags::BAD_CHECKSUM)),
        ("FLAG_UNCHECKED", usize::from(flags::UNCHECKED)),
        ("FLAG_VLAN", usize::from(flags::VLAN)),
        ("FLAG_CUT", usize::from(flags::CUT)),
        ("FLAG_FRAGMENT", usize::from(flags::FRAGMENT)),
        ("FLAG_NEIGHBOUR", usize::from(flags::NEIGHBOUR)),
        ("OPTION_SACK_PERMITTED", usize::from(options::SACK_PERMITTED)),
        ("OPTION_TIMESTAMPS", usize::from(options::TIMESTAMPS)),
        ("OPTION_MALFORMED", usize::from(options::MALFORMED)),
    ] {
        expected.push((expression.to_owned(), value));
    }
    let prints: String =
        expected.iter().map(|(expression, _)| format!("printf(\"%zu\\n\", (size_t)({expression}));\n")).collect();
    let source = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include \"kernel.h\"\n#include \"record.h\"\nint main(void)\n{{\n{prints}}}\n"
    );
    let Some(output) = run_c("record_layout", &source) else { return };
    let found: Vec<usize> = output.lines().map(|line| line.parse().expect("a number a line")).collect();
    assert_eq!(found.len(), expected.len());
    for ((expression, value), found) in expected.iter().zip(found) {
        assert_eq!(found, *value, "{expression}");
    }
}

/// One cookie to compute: key, our address, the target's and its port.
struct Case {
    key: Key,
    ours: IpAddr,
    target: IpAddr,
    port: u16,
}

impl Case {
    /// The call that has the C twin compute it, with addresses and port as a load from the wire gives them: the bytes
    /// in network order, read as the machine reads them.
    fn call(&self) -> String {
        let [k0, k1] = self.key.halves();
        let port = u16::from_ne_bytes(self.port.to_be_bytes());
        match (self.ours, self.target) {
            (IpAddr::V4(ours), IpAddr::V4(target)) => {
                let [ours, target] = [ours, target].map(|address| u32::from_ne_bytes(address.octets()));
                format!("four({k0}ULL, {k1}ULL, {ours}U, {target}U, {port});\n")
            }
            (IpAddr::V6(ours), IpAddr::V6(target)) => {
                let halves = |address: Ipv6Addr| {
                    let bytes = address.octets();
                    [0, 8].map(|at| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 of 16")))
                };
                let ([o0, o1], [t0, t1]) = (halves(ours), halves(target));
                format!("six({k0}ULL, {k1}ULL, {o0}ULL, {o1}ULL, {t0}ULL, {t1}ULL, {port});\n")
            }
            _ => panic!("{} and {} are of two families", self.ours, self.target),
        }
    }
}

/// The cookies of the C twin, each with its parts: seq, port part, IP id, echo id, echo seq.
fn cookies_in_c(name: &str, cases: &[Case]) -> Option<Vec<String>> {
    let calls: String = cases.iter().map(Case::call).collect();
    let source = format!(
        r#"#include <stdio.h>
#include "kernel.h"
#include "cookie.h"
static void print(u64 c)
{{
	printf("%016llx %u %u %u %u %u\n", c, cookie_seq(c), cookie_port_part(c), cookie_ip_id(c), cookie_echo_id(c),
	       cookie_echo_seq(c));
}}
static void four(u64 k0, u64 k1, u32 ours, u32 target, u16 port)
{{
	print(cookie_v4(k0, k1, ours, target, port));
}}
static void six(u64 k0, u64 k1, u64 o0, u64 o1, u64 t0, u64 t1, u16 port)
{{
	u64 ours[2] = {{ o0, o1 }}, target[2] = {{ t0, t1 }};
	print(cookie_v6(k0, k1, ours, target, port));
}}
int main(void)
{{
{calls}
}}
"#
    );
    Some(run_c(name, &source)?.lines().map(str::to_owned).collect())
}

#[test]
fn the_cookie_in_c_is_what_was_published() {
    let file = include_str!("../../wire/vectors/cookie-v1.json");
    let published: Vec<serde_json::Value> = serde_json::from_str(file).expect("the published vectors are JSON");
    assert!(!published.is_empty());
    let text = |vector: &serde_json::Value, name: &str| vector[name].as_str().expect("a string").to_owned();
    let cases: Vec<Case> = published
        .iter()
        .map(|vector| Case {
            key: Key::new(u128::from_str_radix(&text(vector, "secret"), 16).expect("32 digits").to_be_bytes()),
            ours: text(vector, "ours").parse().expect("an address"),
            target: text(vector, "target").parse().expect("an address"),
            port: vector["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port"),
        })
        .collect();
    let Some(output) = cookies_in_c("cookie_published", &cases) else { return };
    assert_eq!(output.len(), published.len());
    for (found, vector) in output.iter().zip(&published) {
        assert_eq!(found.split(' ').next(), vector["cookie"].as_str(), "{vector}");
    }
}

#[test]
fn the_cookie_in_c_is_the_cookie_in_rust() {
    let mut random = Random::new(5);
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let key = Key::new(random.bytes(16).try_into().expect("16 were asked for"));
        let mut number = || u128::from_be_bytes(random.bytes(16).try_into().expect("16 were asked for"));
        let (ours, target) = (number(), number());
        let port = random.next() as u16;
        let (ours4, target4) = (ours as u32, target as u32);
        for cookie in [key.v4(ours4, target4, port), key.v6(ours, target, port)] {
            let (id, echo) = (cookie.ip_id(), (cookie.echo_id(), cookie.echo_seq()));
            let (seq, part) = (cookie.seq(), cookie.port_part());
            expected.push(format!("{:016x} {seq} {part} {id} {} {}", cookie.0, echo.0, echo.1));
        }
        let [ours4, target4] = [ours4, target4].map(|address| Ipv4Addr::from_bits(address).into());
        let [ours, target] = [ours, target].map(|address| Ipv6Addr::from_bits(address).into());
        cases.push(Case { key, ours: ours4, target: target4, port });
        cases.push(Case { key, ours, target, port });
    }
    let Some(output) = cookies_in_c("cookie_twin", &cases) else { return };
    assert_eq!(output, expected);
}

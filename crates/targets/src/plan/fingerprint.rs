//! The fingerprint of a plan.

use sha2::{Digest, Sha256};

use super::{FileRef, Plan};
use crate::error::Result;
use crate::hex;
use crate::prefix::PrefixSet;

impl Plan {
    /// SHA-256, in hexadecimal, over a canonical form of everything that decides which frames a run sends and in what
    /// order: family, targets, contents of the files, ports, seed, order, `max_targets`, probes, shards, sources and
    /// their ports, TTL, probe, versions, and the *hash* of the secret key.
    ///
    /// Left out: `rate` and `contact`, which may change between runs of one plan, and the files' paths. Prefixes count
    /// by the addresses they hold and not by spelling or order: `10.0.0.1/8` is `10.0.0.0/8`.
    ///
    /// The form is one line a field, `name`, a space, the length of the value in bytes, a space, the value.
    ///
    /// # Errors
    /// When a prefix does not parse.
    pub fn fingerprint(&self) -> Result<String> {
        let mut form = Form(Sha256::new());
        form.field("irlstack-plan", &self.versions.plan.to_string());
        form.field("permutation", &self.versions.permutation.to_string());
        form.field("cookie", &self.versions.cookie.to_string());
        form.field("registry", &self.versions.registry);
        form.field("family", &self.family.to_string());
        // One by one, because a prefix inside special-purpose space and the same space inside a wider one differ.
        let items = self.targets.iter().map(|item| Ok(PrefixSet::parse_items([item.as_str()])?.to_string()));
        form.set("target", items.collect::<Result<_>>()?);
        form.set("allowlist", self.allowlist.iter().map(hash).collect());
        form.set("list", self.list.iter().map(hash).collect());
        form.set("blocklist", self.blocklist.iter().map(hash).collect());
        form.field("ports", &self.ports.to_string());
        form.field("seed", &self.seed.to_string());
        form.field("order", &self.order.to_string());
        form.field("max-targets", &self.max_targets.map_or(String::new(), |count| count.to_string()));
        form.field("probes", &self.probes.to_string());
        form.field("shards", &self.shards.to_string());
        for source in &self.sources {
            form.field("source", &source.to_string());
        }
        form.field("source-ports", &self.source_ports.to_string());
        form.field("ttl", &self.ttl.to_string());
        form.field("probe", &self.probe.name);
        for (name, value) in &self.probe.args {
            form.field("probe-argument", name);
            form.field("probe-value", value);
        }
        form.field("secret-hash", &self.secret.hash());
        Ok(hex::encode(&form.0.finalize()))
    }
}

fn hash(file: &FileRef) -> String {
    file.sha256.to_ascii_lowercase()
}

struct Form(Sha256);

impl Form {
    fn field(&mut self, name: &str, value: &str) {
        self.0.update(format!("{name} {} {value}\n", value.len()));
    }

    /// Values whose order does not matter.
    fn set(&mut self, name: &str, mut values: Vec<String>) {
        values.sort_unstable();
        values.dedup();
        for value in values {
            self.field(name, &value);
        }
    }
}

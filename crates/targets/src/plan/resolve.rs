//! From a plan's prefixes and files to its set of targets.

use std::path::Path;

use super::{Order, Plan};
use crate::error::{Origin, Result, TargetsError};
use crate::list::TargetList;
use crate::prefix::{PrefixSet, SetParser, for_each_line};
use crate::registry::{never, not_global};
use crate::search::PrefixIndex;
use crate::target_set::{TargetCounts, TargetSet};

impl Plan {
    /// The targets: what was asked for, without special-purpose space and without the blocklists.
    ///
    /// Special-purpose space ([`not_global`]) is cut out of a wider prefix and kept where a prefix lies inside it, since
    /// then it was meant; a list is cut unless all of it lies inside. What can never be probed ([`never`]) is always cut.
    ///
    /// # Errors
    /// [`TargetsError::FileChanged`], [`TargetsError::NoTargets`], [`TargetsError::Io`] and what [`Plan::validate`] says.
    pub fn target_set(&self) -> Result<TargetSet> {
        self.validate()?;
        match &self.list {
            None => self.product(),
            Some(file) if file.path == Path::new("-") => Err(TargetsError::ListNotFile { path: file.path.clone() }),
            Some(file) => self.listed(TargetList::from_file(file.locate(self.directory.as_deref()))?),
        }
    }

    /// The same for a list that was read already (standard input can be read only once).
    ///
    /// # Errors
    /// As [`Plan::target_set`].
    pub fn target_set_with(&self, list: TargetList) -> Result<TargetSet> {
        self.validate()?;
        self.listed(list)
    }

    /// The blocklists' addresses of the plan's family.
    ///
    /// # Errors
    /// [`TargetsError::FileChanged`], [`TargetsError::Io`], and lines that do not parse.
    pub fn denied(&self) -> Result<PrefixSet> {
        let empty = PrefixSet::empty(self.family);
        self.denied_by_file()?.iter().try_fold(empty, |denied, each| denied.union(each))
    }

    /// The same, of each blocklist by itself.
    ///
    /// # Errors
    /// As [`Plan::denied`].
    pub fn denied_by_file(&self) -> Result<Vec<PrefixSet>> {
        let read = self.blocklist.iter().map(|file| {
            let bytes = file.read(self.directory.as_deref())?;
            let (v4, v6) = PrefixSet::both_from_file_bytes(&file.path, &bytes)?;
            Ok(if self.family == v4.family() { v4 } else { v6 })
        });
        read.collect()
    }

    fn product(&self) -> Result<TargetSet> {
        let mut parser = SetParser::expecting(Some(self.family));
        for item in &self.targets {
            parser.add(item, &Origin::default())?;
        }
        for file in &self.allowlist {
            let bytes = file.read(self.directory.as_deref())?;
            for_each_line(&file.path, &bytes, |text, origin| parser.add(text, origin))?;
        }
        let special = not_global(self.family);
        let (inside, wider): (Vec<_>, Vec<_>) = parser
            .into_ranges()
            .into_iter()
            .partition(|&range| PrefixSet::from_ranges(self.family, vec![range]).is_subset(special));
        let meant = PrefixSet::from_ranges(self.family, inside);
        let wider = PrefixSet::from_ranges(self.family, wider);
        let asked = meant.union(&wider)?;
        let allowed = meant.union(&wider.minus(special)?)?.minus(never(self.family))?;
        let kept = allowed.minus(&self.denied()?)?;
        let counts = TargetCounts {
            asked: asked.count(),
            special: asked.count() - allowed.count(),
            denied: allowed.count() - kept.count(),
            duplicates: 0,
            kept: kept.count(),
        };
        TargetSet::product_counted(kept, self.ports.clone(), counts)
    }

    fn listed(&self, list: TargetList) -> Result<TargetSet> {
        let Some(file) = &self.list else {
            let reason = "the plan names prefixes, not a list";
            return Err(TargetsError::value("list", list.path().display(), reason));
        };
        file.verify(list.path(), list.sha256())?;
        if list.family() != self.family {
            return Err(TargetsError::value("family", self.family, "the target list is of the other family"));
        }
        let mut entries = list.into_entries();
        if self.order == Order::Spread {
            // Neighbours in the index space have to be neighbours in the network.
            entries.sort();
        }
        let all_special = entries.addresses().all(|address| not_global(self.family).contains(address));
        let special = PrefixIndex::new(if all_special { never(self.family) } else { not_global(self.family) }.clone());
        let denied = PrefixIndex::new(self.denied()?);
        let mut counts = TargetCounts { asked: entries.len() as u128, ..TargetCounts::default() };
        for address in entries.addresses() {
            if special.contains(address) {
                counts.special += 1;
            } else if denied.contains(address) {
                counts.denied += 1;
            }
        }
        let keep = |address| !special.contains(address) && !denied.contains(address);
        TargetSet::list(self.family, entries, self.ports.clone(), counts, keep)
    }
}

//! Many files of one directory: pages of its listing in place of one HEAD each.
//! A page that covers fewer files than it costs in HEADs is the last one: then the rest are asked alone, and so are
//! those that S3 has somewhere else.

use std::collections::{BTreeMap, HashMap};

use super::queue::{Job, LIST_PAYS};
use super::{Asked, Claim, Revalidator, Stamps, Trouble, check};
use crate::index::Node;
use crate::store::{ListPage, ListRequest, ObjectMeta};
use crate::types::{Ino, Key};

impl Revalidator {
    /// Settles the files that a listing shows unchanged; the others are returned, to be asked alone.
    pub(super) async fn check_many(&self, dir: Ino, files: Vec<Claim>) -> Result<Vec<Job>, Trouble> {
        let Some(prefix) = self.index.remote_prefix(dir)? else { return Err(Trouble::Gone) };
        let mut alone = Vec::new();
        let mut due = BTreeMap::new();
        for claim in files {
            match self.index.remote_key(claim.node().ino)? {
                Some(key) if is_entry(&key, &prefix, claim.node()) => drop(due.insert(key, claim)),
                _ => alone.push(claim),
            }
        }
        while due.len() >= LIST_PAYS
            && let Some((first, _)) = due.first_key_value()
        {
            let request = ListRequest {
                prefix: prefix.to_string(),
                delimited: true,
                start_after: first.just_before(),
                ..ListRequest::default()
            };
            let Asked { answer, at } = self.ask(self.stores.background.list(&request)).await;
            let page = answer?;
            let covered = take_covered(&mut due, &page);
            let paid = covered.len() >= LIST_PAYS;
            alone.extend(self.settle_listed(covered, &page, at));
            if !paid {
                break;
            }
        }
        alone.extend(due.into_values());
        Ok(alone.into_iter().map(|claim| Job::File { claim, known_stale: false }).collect())
    }

    /// Settles what `page` shows as it is here, and returns the rest.
    fn settle_listed(&self, covered: BTreeMap<Key, Claim>, page: &ListPage, at: Stamps) -> Vec<Claim> {
        let listed: HashMap<&Key, &ObjectMeta> = page.objects.iter().map(|(key, meta)| (key, meta)).collect();
        let is_unchanged = |key: &Key, claim: &Claim| {
            let node = self.index.node(claim.node().ino).ok().flatten()?;
            let meta = listed.get(key)?;
            let is_known = check::is_as_known(&node, meta) && node.freshness.distrusted() < at.sent;
            is_known.then(|| self.unchanged(&node, at))
        };
        let left = |(key, claim)| if is_unchanged(&key, &claim).is_none() { Some(claim) } else { claim.end() };
        covered.into_iter().filter_map(left).collect()
    }
}

/// Whether `key` is where the entry `node` of the directory at `prefix` is, unless it was renamed.
fn is_entry(key: &Key, prefix: &Key, node: &Node) -> bool {
    key.strip_prefix(prefix.as_str()) == Some(node.component.suffix())
}

/// Takes the keys that `page` says something about: all up to its last one.
fn take_covered(due: &mut BTreeMap<Key, Claim>, page: &ListPage) -> BTreeMap<Key, Claim> {
    if page.next.is_none() {
        return std::mem::take(due);
    }
    let Some(last) = page.objects.last().map(|(key, _)| key).into_iter().chain(page.prefixes.last()).max().cloned()
    else {
        return BTreeMap::new();
    };
    let after = due.split_off(&last);
    let mut covered = std::mem::replace(due, after);
    if let Some(claim) = due.remove(&last) {
        covered.insert(last, claim);
    }
    covered
}

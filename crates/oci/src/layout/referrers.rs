//! Referrers in a layout, in every form that programs write.
//!
//! The specification of layouts has no list of referrers. Some programs add an entry without a name to `index.json`,
//! others one with a tag, or list the referrers in an index under the tag that replaces the referrers API
//! (`sha256-<hex>`). A referrer is therefore a manifest with a subject that can be reached from `index.json`,
//! directly or through indexes.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use super::Layout;
use super::index::{Links, ReferrersBySubject, Root, may_be_manifest};
use crate::{Descriptor, Digest, ErrorKind, StoreError, Tag, annotation, media_type};

/// The maximum number of manifests that can be reached through the indexes of a layout. A store with ten thousand images
/// has a tenth of that.
const MANIFESTS_LIMIT: usize = 1_000_000;

impl Layout {
    /// Returns the referrers of a digest, sorted by their digests.
    ///
    /// # Errors
    /// Returns an error if the layout lists a manifest that is missing or broken: it may be a referrer.
    pub(super) fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        let all = self.referrers_by_subject()?;
        Ok(all.and_then(|all| all.get(subject).cloned()).unwrap_or_default())
    }

    /// Returns the referrers of every digest, from the cache if `index.json` is unchanged. `None` if there is no layout.
    fn referrers_by_subject(&self) -> Result<Option<Arc<ReferrersBySubject>>, StoreError> {
        let _listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((stamp, entries)) = self.stamped_entries()? else { return Ok(None) };
        let cached = self.seen().referrers.as_ref().filter(|(of, _)| *of == stamp).map(|(_, all)| all.clone());
        if cached.is_some() {
            return Ok(cached);
        }
        let referrers = Arc::new(self.all_referrers(&entries.all, MANIFESTS_LIMIT)?);
        self.seen().referrers = Some((stamp, referrers.clone()));
        Ok(Some(referrers))
    }

    /// Finds the referrers of every digest.
    fn all_referrers(&self, entries: &[Root], limit: usize) -> Result<ReferrersBySubject, StoreError> {
        let mut referrers = ReferrersBySubject::new();
        for root in entries {
            // Build lists an image that it did not copy from the release.
            if !root.descriptor.annotations.contains_key(annotation::REUSED_FROM) {
                self.check_listed(&root.descriptor)?;
            }
            if root.is_list_of_referrers()
                && let Some(links) = self.links(&root.descriptor)?
            {
                links.children.iter().try_for_each(|child| self.check_listed(child))?;
            }
        }
        let mut seen: HashSet<Digest> = HashSet::new();
        let mut left: Vec<Descriptor> = entries.iter().map(|root| root.descriptor.clone()).collect();
        while let Some(descriptor) = left.pop() {
            if !may_be_manifest(&descriptor.media_type) || !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if seen.len() > limit {
                return Err(self.invalid(&format!("lists more than {limit} manifests")));
            }
            // An index may list platforms that were not copied.
            let Some(links) = self.links(&descriptor)? else { continue };
            if let (Some(subject), Some(referrer)) = (&links.subject, &links.referrer) {
                referrers.entry(subject.clone()).or_default().push(referrer.clone());
            }
            left.extend(links.children.iter().cloned());
        }
        for referrers in referrers.values_mut() {
            referrers.sort_by(|one, other| one.digest.cmp(&other.digest));
        }
        Ok(referrers)
    }

    /// Reads what a manifest refers to. Returns `None` if it does not exist.
    pub(super) fn links(&self, descriptor: &Descriptor) -> Result<Option<Arc<Links>>, StoreError> {
        let digest = &descriptor.digest;
        if let Some(known) = self.seen().links.get(digest) {
            return Ok(Some(known.clone()));
        }
        let Some(manifest) = self.manifest_of(descriptor)? else { return Ok(None) };
        let subject = manifest.subject.as_ref().map(|subject| subject.digest.clone());
        let referrer = subject
            .is_some()
            .then(|| Descriptor { annotations: manifest.annotations.clone(), ..manifest.descriptor() });
        let links = Arc::new(Links { subject, referrer, children: manifest.children().to_vec() });
        self.seen().links.insert(digest.clone(), links.clone());
        Ok(Some(links))
    }

    /// Checks that a manifest exists if `index.json` or a list of referrers contains it.
    fn check_listed(&self, descriptor: &Descriptor) -> Result<(), StoreError> {
        if !may_be_manifest(&descriptor.media_type) || self.links(descriptor)?.is_some() {
            return Ok(());
        }
        let (layout, digest) = (self.path().display(), &descriptor.digest);
        let message = format!("the OCI layout {layout} is missing the manifest {digest} that it lists");
        Err(StoreError::new(ErrorKind::NotFound, message).hint("take it out of index.json, or copy it again"))
    }
}

impl Root {
    /// Returns whether this is an index under the tag that replaces the referrers API.
    fn is_list_of_referrers(&self) -> bool {
        let is_index = self.descriptor.media_type == media_type::INDEX;
        let tag = self.name.as_deref().and_then(|name| name.parse::<Tag>().ok());
        is_index && tag.is_some_and(|tag| tag.is_list_of_referrers())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;
    use crate::{Manifest, Store};

    fn layout() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        layout.add_blob(b"{}").unwrap();
        (folder, layout)
    }

    fn add(layout: &Layout, json: &Value) -> Manifest {
        let manifest = Manifest::parse(json.to_string().into(), None).unwrap();
        layout.add_blob(&manifest.bytes).unwrap();
        manifest
    }

    fn artifact(layout: &Layout, note: &str, subject: Option<&Manifest>) -> Manifest {
        let empty = Descriptor::of(media_type::EMPTY, b"{}");
        let mut json = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "artifactType": "x/y",
            "config": empty.to_json(), "layers": [], "annotations": {"note": note}});
        if let Some(subject) = subject {
            json["subject"] = subject.descriptor().to_json();
        }
        add(layout, &json)
    }

    fn index(layout: &Layout, children: &[&Manifest], subject: Option<&Manifest>) -> Manifest {
        let children: Vec<Value> = children.iter().map(|child| child.descriptor().to_json()).collect();
        let mut json = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": children});
        if let Some(subject) = subject {
            json["subject"] = subject.descriptor().to_json();
        }
        add(layout, &json)
    }

    fn fallback(subject: &Manifest) -> String {
        Tag::of_referrers(&subject.digest).to_string()
    }

    async fn found(layout: &Layout, subject: &Manifest) -> Vec<Digest> {
        let referrers = layout.referrers(&subject.digest).await.unwrap();
        referrers.into_iter().map(|referrer| referrer.digest).collect()
    }

    fn sorted(manifests: &[&Manifest]) -> Vec<Digest> {
        let mut digests: Vec<Digest> = manifests.iter().map(|manifest| manifest.digest.clone()).collect();
        digests.sort();
        digests
    }

    #[tokio::test]
    async fn every_form_of_a_referrer_is_found() {
        let (_folder, layout) = layout();
        let image = artifact(&layout, "image", None);
        layout.add_root(&image.descriptor(), Some("v1")).unwrap();
        let untagged = artifact(&layout, "untagged", Some(&image));
        layout.add_root(&untagged.descriptor(), None).unwrap();
        let tagged = artifact(&layout, "tagged", Some(&image));
        layout.add_root(&tagged.descriptor(), Some("sbom")).unwrap();
        let listed = artifact(&layout, "listed", Some(&image));
        let about_another = artifact(&layout, "about another", Some(&tagged));
        let list = index(&layout, &[&listed, &about_another, &tagged], None);
        layout.add_root(&list.descriptor(), Some(&fallback(&image))).unwrap();
        let in_an_index = artifact(&layout, "in an index", Some(&image));
        let bundle = index(&layout, &[&in_an_index, &image], Some(&image));
        layout.add_root(&bundle.descriptor(), Some("bundle")).unwrap();

        let expected = sorted(&[&untagged, &tagged, &listed, &in_an_index, &bundle]);
        assert_eq!(found(&layout, &image).await, expected);
        assert_eq!(found(&layout, &tagged).await, sorted(&[&about_another]));
        let types = layout.referrers(&image.digest).await.unwrap().into_iter().map(|referrer| referrer.artifact_type);
        assert_eq!(types.flatten().collect::<Vec<_>>(), ["x/y"; 4]);

        // A tag of that form that does not name a list says nothing.
        layout.add_root(&image.descriptor(), Some(&fallback(&image))).unwrap();
        let without_list = sorted(&[&untagged, &tagged, &in_an_index, &bundle]);
        assert_eq!(found(&layout, &image).await, without_list);
    }

    #[tokio::test]
    async fn a_referrer_that_is_listed_and_missing_is_an_error() {
        let (_folder, layout) = layout();
        let image = artifact(&layout, "image", None);
        let listed = artifact(&layout, "listed", Some(&image));
        let list = index(&layout, &[&listed], None);
        layout.add_root(&list.descriptor(), Some(&fallback(&image))).unwrap();
        // The same entry in an index of platforms does not have to exist.
        let platforms = index(&layout, &[&image, &listed], None);
        layout.add_root(&platforms.descriptor(), Some("v1")).unwrap();
        fs::remove_file(layout.blob_path(&listed.digest)).unwrap();
        let error = layout.referrers(&image.digest).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.to_string().contains(&format!("missing the manifest {}", listed.digest)), "{error}");

        layout.forget(&[&fallback(&image)]).unwrap();
        assert_eq!(found(&layout, &image).await, []);
        // An image that build took from a release is not in the layout.
        let mut reused = Descriptor::of(media_type::IMAGE, b"in the registry");
        reused.annotations.insert(annotation::REUSED_FROM.to_owned(), "host/api:1".to_owned());
        layout.add_root(&reused, Some("ApiKey")).unwrap();
        assert_eq!(found(&layout, &image).await, []);
        layout.add_root(&Descriptor::of(media_type::IMAGE, b"lost"), Some("lost")).unwrap();
        assert_eq!(layout.referrers(&image.digest).await.unwrap_err().kind, ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn circles_layers_and_deep_indexes_end() {
        let (_folder, layout) = layout();
        let image = artifact(&layout, "image", None);
        // The subject lists nothing, its referrer lists the subject, and a list holds both and itself as an entry.
        let circle = index(&layout, &[&image], Some(&image));
        let list = index(&layout, &[&circle, &image], None);
        for name in [fallback(&image), "again".to_owned()] {
            layout.add_root(&list.descriptor(), Some(&name)).unwrap();
        }
        layout.add_root(&Descriptor::of("application/vnd.oci.image.layer.v1.tar", b"{}"), None).unwrap();
        let signature = artifact(&layout, "signature", Some(&image));
        let mut outer = index(&layout, &[&signature], None);
        for _ in 0..200 {
            outer = index(&layout, &[&outer], None);
        }
        layout.add_root(&outer.descriptor(), Some("deep")).unwrap();
        assert_eq!(found(&layout, &image).await, sorted(&[&circle, &signature]));
        let entries = layout.entries().unwrap();
        assert!(layout.all_referrers(&entries.all, 206).is_ok());
        let error = layout.all_referrers(&entries.all, 100).unwrap_err();
        assert!(error.to_string().ends_with("lists more than 100 manifests"), "{error}");
    }

    #[test]
    fn callers_at_one_time_share_one_look() {
        let (_folder, layout) = layout();
        let image = artifact(&layout, "image", None);
        layout.add_root(&image.descriptor(), Some("Image")).unwrap();
        for note in ["one", "two"] {
            layout.add_root(&artifact(&layout, note, Some(&image)).descriptor(), None).unwrap();
        }
        let looks: Vec<_> = std::thread::scope(|scope| {
            let look = || scope.spawn(|| layout.clone().referrers_by_subject().unwrap().unwrap());
            let threads: Vec<_> = (0..8).map(|_| look()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(looks[0][&image.digest].len(), 2);
        assert!(looks.iter().all(|look| Arc::ptr_eq(look, &looks[0])));
    }
}

use super::placeholders::{DIGEST, PatternInput};
use super::{Named, NamedTag, Project, Release};
use crate::ActionError;
use cfn_images::NamePattern;
use oci::{Digest, InvalidReference, Tag};

impl Project {
    /// Expands the patterns of `extra-tags` for an image, except those with `{digest}`, which are only checked. The result
    /// has no duplicates, and not the tag of the reference.
    ///
    /// # Errors
    /// If a pattern does not expand to a valid tag, or to that of another version.
    pub fn extra_tags(
        &self,
        patterns: &[String],
        named: &Named,
        release: Release<'_>,
    ) -> Result<Vec<NamedTag>, ActionError> {
        let (of_digest, others): (Vec<&String>, Vec<&String>) =
            patterns.iter().partition(|pattern| pattern.contains(DIGEST));
        for pattern in of_digest {
            self.extra_tag(pattern, named, release, &Digest::of(b""))?;
        }
        self.expanded(others, named, release, &Digest::of(b""))
    }

    /// Expands the patterns of `extra-tags` with `{digest}`, as [`extra_tags`](Self::extra_tags) does the others.
    ///
    /// # Errors
    /// If a pattern does not expand to a valid tag.
    pub fn digest_tags(
        &self,
        patterns: &[String],
        named: &Named,
        release: Release<'_>,
        digest: &Digest,
    ) -> Result<Vec<NamedTag>, ActionError> {
        self.expanded(patterns.iter().filter(|pattern| pattern.contains(DIGEST)), named, release, digest)
    }

    fn expanded<'p>(
        &self,
        patterns: impl IntoIterator<Item = &'p String>,
        named: &Named,
        release: Release<'_>,
        digest: &Digest,
    ) -> Result<Vec<NamedTag>, ActionError> {
        let mut tags: Vec<NamedTag> = Vec::new();
        for pattern in patterns {
            let found = self.extra_tag(pattern, named, release, digest)?;
            if found.tag != named.reference.tag && tags.iter().all(|known| known.tag != found.tag) {
                tags.push(found);
            }
        }
        Ok(tags)
    }

    fn extra_tag(
        &self,
        pattern: &str,
        named: &Named,
        release: Release<'_>,
        digest: &Digest,
    ) -> Result<NamedTag, ActionError> {
        let input = PatternInput::ExtraTags;
        let text = input.fill(pattern, release, &[("image", &named.image)], &self.run, Some(digest))?;
        let made = if text.as_str() == pattern { String::new() } else { format!(" makes `{text}`, which") };
        let typed = pattern;
        let refused = |why: &str| ActionError::usage_error(format!("input `extra-tags`: `{typed}`{made} {why}"));
        let tag: Tag = text.parse().map_err(|_: InvalidReference| {
            let filled = input.listed();
            refused("is not a tag").hint(format!("letters, digits, `_`, `.` and `-`; {filled} are filled in"))
        })?;
        if tag.is_of_evidence() {
            let why = "is a tag under which registries and cosign list the evidence of an image";
            return Err(refused(why).hint("put another word in front of the digest, or none"));
        }
        let pattern: NamePattern = named.pattern.with_tag(text).in_run_for(release.version);
        if let Some(other) = pattern.other_version(release.environment, release.version) {
            let why = format!("is the tag of version {other}, and this is {}", release.version);
            return Err(refused(&why).hint("write `{version}` instead of the version"));
        }
        let environments = self.other_environments(release.environment);
        let others = environments.iter().map(String::as_str);
        if let Some(other) = pattern.other_environment_in_tag(release.environment, others) {
            let why = format!("contains `{other}`, and the run is for `{}`", release.environment);
            let own = typed.replacen(other, "{environment}", 1);
            return Err(refused(&why).hint(format!("write `{own}`")));
        }
        Ok(NamedTag { tag, pattern })
    }
}

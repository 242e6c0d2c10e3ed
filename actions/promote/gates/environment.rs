//! Gates about where the image is and where it goes.

use std::time::Duration;

use time::OffsetDateTime;

use lifecycle::deployment::{Fit, fit, platforms, unusable_layer};
use lifecycle::evidence::{RecordKind, Recorded};
use oci::{ErrorKind, listed};

use super::evidence::rounded;
use super::{Image, Verdict, could_not_look, publications};
use crate::environment::tells_of;

/// Records whose signatures are looked at, the newest: each is a run of cosign.
const BELIEVED: usize = 20;

impl Image<'_> {
    /// The time since the image's newest record in the environment that it comes from.
    pub(super) async fn soak(&self, wanted: Duration, typed: &str) -> Verdict {
        if self.request.rollback {
            return Ok(format!("it was in {} before", self.request.to));
        }
        let from = &self.request.from;
        let records =
            Recorded::of_environment(&self.delivery.source, self.root(), from).await.map_err(could_not_look)?;
        let tells = records.iter().filter(|found| tells_of(&found.record, &self.planned.source));
        let is_promoted = tells.clone().next().is_some_and(|newest| newest.record.kind != RecordKind::Publish);
        let newest = self.believed(tells).await.map_err(|unsigned| match is_promoted && self.trust.wants_signatures() {
            true => format!(
                "promote signs no record, so no signed one says since when it is in {from}; {typed} there \
                 was wanted (hint: ask for `soak` only where publish has put the image, and let the job's `environment` \
                 wait here)"
            ),
            false => format!("no record{unsigned} says since when it is in {from}; {typed} there was wanted"),
        })?;
        let Some(since) = newest.record.at() else { return Err("its record holds no time".to_owned()) };
        match Duration::try_from(OffsetDateTime::now_utc() - since) {
            Ok(there) => {
                let sentence = format!("it has been in {from} for {}; {typed} was wanted", rounded(there));
                if there < wanted { Err(sentence) } else { Ok(sentence) }
            }
            Err(_) => Err(format!("its record in {from} is of the future, {since}")),
        }
    }

    /// What deploys the image under its new name runs on platforms that it has.
    pub(super) async fn platforms(&self) -> Verdict {
        let usages = &self.planned.image.named.usages;
        if usages.is_empty() {
            return Ok("nothing in the template runs it".to_owned());
        }
        let root = &self.delivery.graph.root;
        let has = match platforms(&self.delivery.source, root).await {
            Ok(has) => has,
            // Not that it could not look: it did, and that is what it found.
            Err(error) if error.kind == ErrorKind::Invalid => return Err(format!("it can't be decided: {error}")),
            Err(error) => return Err(could_not_look(error)),
        };
        for usage in usages {
            if let Some(why) = unusable_layer(usage, &self.delivery.graph) {
                return Err(format!("{why} ({})", usage.runtime.place));
            }
            if let Fit::Unsure(why) | Fit::Refused(why) = fit(usage, root, &has) {
                return Err(format!("{why} ({})", usage.runtime.place));
            }
        }
        let list = listed(&has);
        let users: Vec<&str> = usages.iter().map(|usage| usage.resource.as_str()).collect();
        Ok(format!("it has {list}, as wanted by {}", users.join(", ")))
    }

    /// The version is not below the current one.
    pub(super) fn forward(&self) -> Verdict {
        let (version, to) = (&self.request.version, &self.request.to);
        let held = match &self.planned.held {
            Some(Ok(held)) => held,
            Some(Err(error)) => return Err(format!("it can't be decided what is in {to}: {error}")),
            None => return Err(format!("it can't be decided what is in {to}")),
        };
        if self.request.rollback {
            return Ok(match held.current() {
                None => format!("no version is recorded in {to} yet"),
                Some(current) => {
                    format!("a rollback was asked for: {to} has {}, and goes to {version}", current.version)
                }
            });
        }
        // What was there before there were records, or was written without one.
        if let Some(tag) = held.unrecorded(version, self.root()) {
            return Err(format!("it can't be decided what is in {to}: no record tells of its tag `{tag}`"));
        }
        match held.current() {
            None => Ok(format!("no version is recorded in {to} yet")),
            // What went back to one of those is current, and may be above.
            Some(current) if current.version <= *version && held.leaves_out_above(version) => Err(format!(
                "it can't be decided what is in {to}: it has more versions above {version} than are looked at"
            )),
            Some(current) if current.version <= *version => {
                Ok(format!("{to} has {}, and {version} is not below it", current.version))
            }
            Some(current) => {
                Err(format!("{to} has {}, and {version} is below it; no version below was wanted", current.version))
            }
        }
    }

    /// The template is the one that the image was published with.
    pub(super) async fn template_unchanged(&self) -> Verdict {
        let now = self.request.common.project.template_sha256();
        let publications = publications(self.request, self.delivery).await.map_err(could_not_look)?;
        let published = self.believed(publications.iter()).await.map_err(|unsigned| {
            let version = &self.request.version;
            format!("no record{unsigned} tells of the publication of version {version}, and so of its template")
        })?;
        let then = &published.record.template;
        match *then == now {
            true => Ok(format!("the template is the published one, SHA-256 {}", short(&now))),
            false => Err(format!(
                "the template has SHA-256 {}; {}, that of the publication, was wanted",
                short(&now),
                short(then)
            )),
        }
    }

    /// The first record that is to be believed; where there is none, what a sentence has to say of those that are not.
    async fn believed<'a>(&self, records: impl Iterator<Item = &'a Recorded>) -> Result<&'a Recorded, String> {
        let mut unsigned = String::new();
        for found in records.take(BELIEVED) {
            match self.trust.statement(&found.digest).await {
                Ok(()) => return Ok(found),
                Err(reason) => unsigned = format!(" that is signed as `signature` wants it ({reason})"),
            }
        }
        Err(unsigned)
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

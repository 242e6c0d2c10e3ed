//! Writes deliveries: content first, then records and signatures, and the tags last.

use futures::stream::{self, StreamExt};

use super::{Attachments, Delivery, Planned, PlannedWrites, Signatures, Stage};
use crate::ActionError;
use crate::access::RegistryAccess;
use crate::clock;
use crate::delivery::attach;
use crate::inputs::WritingOptions;
use crate::naming::Named;
use oci::transfer::copy;
use oci::{Digest, Reference};
use runner_protocol::Runner;

/// Everything that writing needs apart from the deliveries.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Access to the target, to create repositories.
    pub target: &'a RegistryAccess,
    /// The options for evidence and for new repositories.
    pub writing: &'a WritingOptions,
    /// How many images are written concurrently.
    pub concurrency: usize,
    /// The runner, for progress messages and cancellation.
    pub runner: &'a Runner,
}

/// The order of writes across images. Within one image the order is always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each image is complete on its own.
    ImageByImage,
    /// The content of all images is written before the first tag. Records are written in between, so that their time is
    /// close to that of the tags however long the content takes.
    StepByStep,
}

/// One step of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The repository, the image's own content, and its evidence.
    Content,
    /// The record, and the signatures.
    Record,
    /// The tags.
    Tags,
}

/// The progress of a delivery.
#[derive(Default)]
pub(super) struct Progress {
    writes: PlannedWrites,
    /// The digests of the evidence that was written.
    referrers: Vec<Digest>,
}

impl Order {
    fn rounds(self) -> &'static [&'static [Step]] {
        match self {
            Self::ImageByImage => &[&[Step::Content, Step::Record, Step::Tags]],
            Self::StepByStep => &[&[Step::Content], &[Step::Record], &[Step::Tags]],
        }
    }
}

impl Writer<'_> {
    /// Writes the deliveries in the stage [`Stage::Applied`]. In the stage [`Stage::Planned`], returns what would be
    /// written. `sign` signs digests in the repository of a reference.
    pub async fn deliver<'p>(
        &self,
        images: impl IntoIterator<Item = &'p mut Planned>,
        stage: Stage,
        order: Order,
        sign: impl AsyncFn(&Reference, &[Digest]) -> anyhow::Result<()>,
    ) -> Vec<(String, PlannedWrites)> {
        match stage {
            Stage::Blocked => Vec::new(),
            Stage::Planned => self.planned_writes(images).await,
            Stage::Applied => {
                self.apply(images, order, sign).await;
                Vec::new()
            }
        }
    }

    /// Lists what has to be written for each image, by its key. A failure concerns its own image only. A cancelled run
    /// lists nothing.
    async fn planned_writes<'p>(
        &self,
        images: impl IntoIterator<Item = &'p mut Planned>,
    ) -> Vec<(String, PlannedWrites)> {
        let listings = images.into_iter().map(|planned| async {
            let delivery = planned.delivery.as_ref().ok()?;
            match delivery.writes(&planned.named, self.writing.evidence, self.runner).await {
                Ok(writes) => Some((planned.named.key.clone(), writes)),
                Err(error) => {
                    planned.delivery = Err(error);
                    None
                }
            }
        });
        let all = stream::iter(listings).buffered(self.concurrency).filter_map(std::future::ready).collect();
        tokio::select! {
            all = all => all,
            () = self.runner.cancelled() => Vec::new(),
        }
    }

    /// Writes what [`Delivery::writes`] lists for each image. An image that fails gets no tag, and does not stop the
    /// others.
    async fn apply<'p>(
        &self,
        images: impl IntoIterator<Item = &'p mut Planned>,
        order: Order,
        sign: impl AsyncFn(&Reference, &[Digest]) -> anyhow::Result<()>,
    ) {
        let mut images: Vec<&mut Planned> = images.into_iter().collect();
        for steps in order.rounds() {
            let runs = images.iter_mut().map(|planned| async {
                for step in *steps {
                    self.step(planned, *step, &sign).await;
                }
            });
            stream::iter(runs).buffered(self.concurrency).collect::<()>().await;
        }
    }

    async fn step(
        &self,
        planned: &mut Planned,
        step: Step,
        sign: &impl AsyncFn(&Reference, &[Digest]) -> anyhow::Result<()>,
    ) {
        let Planned { named, delivery, attachments, progress } = planned;
        let Ok(current) = &*delivery else { return };
        let outcome = match step {
            Step::Content => self.unless_cancelled(self.content(named, current, progress, attachments)).await,
            Step::Record => self.unless_cancelled(self.record(named, current, progress, attachments, sign)).await,
            Step::Tags => self.tags(current, &progress.writes).await,
        };
        if let Err(error) = outcome {
            *delivery = Err(error);
        }
    }

    async fn unless_cancelled(&self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            outcome = work => outcome,
            () = self.runner.cancelled() => Err(ActionError::failure("cancelled before its tag was written").into()),
        }
    }

    async fn content(
        &self,
        named: &Named,
        delivery: &Delivery,
        progress: &mut Progress,
        attachments: &mut Attachments,
    ) -> anyhow::Result<()> {
        if delivery.kept().is_some() {
            return Ok(());
        }
        let (key, to) = (&named.key, &named.reference);
        self.runner.say(match &delivery.from {
            Some(from) => format!("{key}: {from} → {to}"),
            None => format!("{key}: {to}"),
        });
        let (source, target) = (&delivery.source, &delivery.target.store);
        progress.writes = delivery.writes(named, self.writing.evidence, self.runner).await?;
        let writes = &progress.writes;
        if writes.repository.is_some()
            && delivery.repository.create(&self.target.aws, named, &self.writing.repository_settings).await?
        {
            self.runner.say(format!("{key}: created the repository {}", to.repository));
        }
        if let Some(graph) = &writes.content {
            copy::below_root(source, target, graph).await?;
            if writes.needs_root() {
                copy::root(target, graph).await?;
            }
        }
        let failed = |error| self.writing.evidence.tolerate(key, error, self.runner);
        progress.referrers = copy::attachments(source, target, &writes.evidence, failed).await?;
        attachments.evidence = progress.referrers.len();
        Ok(())
    }

    async fn record(
        &self,
        named: &Named,
        delivery: &Delivery,
        progress: &Progress,
        attachments: &mut Attachments,
        sign: &impl AsyncFn(&Reference, &[Digest]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let writes = &progress.writes;
        let record = match writes.record.clone() {
            Some(mut record) => {
                record.time = clock::now_millis();
                let artifact = record.artifact(&delivery.graph.root.descriptor())?;
                let referrer = attach(artifact, &delivery.target.store).await?;
                attachments.record = true;
                Some(referrer)
            }
            None => None,
        };
        let summary = match &writes.summary {
            Some(summary) => {
                let artifact = summary.artifact(&delivery.graph.root.descriptor())?;
                let referrer = attach(artifact, &delivery.target.store).await?;
                attachments.summary = true;
                Some(referrer)
            }
            None => None,
        };
        let said = record.into_iter().chain(summary);
        let signed: Vec<Digest> = match writes.signatures {
            Signatures::None => return Ok(()),
            Signatures::Record => said.collect(),
            Signatures::All => {
                let content =
                    writes.content.iter().flat_map(|graph| graph.manifests()).map(|manifest| &manifest.digest);
                progress.referrers.iter().cloned().chain(said).chain(content.cloned()).collect()
            }
        };
        if !signed.is_empty() {
            sign(&named.reference, &signed).await?;
            attachments.signatures = signed.len();
        }
        Ok(())
    }

    async fn tags(&self, delivery: &Delivery, writes: &PlannedWrites) -> anyhow::Result<()> {
        let tags = writes.tags.iter().map(|plan| &plan.tag);
        Ok(copy::tags(&delivery.target.store, &delivery.graph, tags, self.runner.cancelled()).await?)
    }
}

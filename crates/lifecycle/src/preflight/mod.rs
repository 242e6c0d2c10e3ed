//! Looks, before anything is written, at what would make a run fail or would undo it later: the identity, its
//! permissions, the repositories, and the registry's settings.
//!
//! A dry run of publish and promote shows the checks as one table. Each check says what was found and what to do about
//! it. What could not be asked is `unknown`, and never passes.

mod check;
mod encryption;
mod identity;
mod mounting;
mod permissions;
mod policies;
mod quota;
mod replication;
mod report;
mod repositories;
mod retention;
mod scanning;
mod scope;
mod signing;

use futures::future;

pub use check::{Check, CheckStatus, Side};
pub use report::{has_failed, show};
pub use scope::{PlannedImage, PlannedRun};

use permissions::Permissions;
use repositories::Repositories;
use scope::Registry;

/// Makes all checks. Images in other registries than ECR are not checked.
pub async fn checks(run: &PlannedRun<'_>) -> Vec<Check> {
    let registries = run.registries().await;
    let registries = registries.iter().map(|registry| of_registry(run, registry));
    let checks: Vec<Vec<Check>> = future::join_all(registries).await;
    let mut checks: Vec<Check> = checks.into_iter().flatten().collect();
    checks.sort_by_key(|check| (check.side, check.subject.clone()));
    checks.extend(repositories::failed_images(run, &checks));
    checks
}

/// Makes the checks of one registry. The registry is asked once for what holds for all of its repositories.
async fn of_registry(run: &PlannedRun<'_>, registry: &Registry<'_>) -> Vec<Check> {
    let mut checks = vec![identity::check(registry)];
    if registry.caller.is_err() {
        return checks;
    }
    let permissions = Permissions::ask(run, registry).await;
    let (scanning, replication) = future::join(scanning::check(run, registry), replication::check(run, registry)).await;
    checks.extend(permissions.checks(registry));
    if registry.side == Side::Target {
        let repositories = Repositories::read(run, registry).await;
        let (encryption, mounting, signing, quota, retention) = future::join5(
            encryption::check(run, registry, &repositories),
            mounting::check(run, registry, &repositories),
            signing::check(registry),
            quota::check(run, registry, &repositories),
            retention::check(run, registry, &repositories),
        )
        .await;
        checks.extend(repositories.checks(run, registry));
        checks.extend(encryption.into_iter().chain(mounting).chain(signing).chain(quota).chain(retention));
    }
    checks.extend(scanning.into_iter().chain(replication));
    checks
}

//! Black-box tests: the real binaries as the runner starts them, against registries that are as strict as the real ones.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken fixture is a failed test")]

mod build;
mod build_buildkit;
mod build_checks;
mod build_inputs;
mod build_log;
mod contract;
mod deployments;
mod docs;
mod dry_run;
mod emulators;
mod extra_tags;
mod faults;
mod gallery;
mod gates;
mod github;
mod history;
mod hostile;
mod log_safety;
mod names;
mod promote;
mod promote_many;
mod proxies;
mod publish;
mod publish_cancel;
mod publish_stores;
mod repositories;
mod resolves;
mod rollback;
mod signatures;
mod since;
mod summaries;
mod support;
mod template;
mod tls;
mod transfer;

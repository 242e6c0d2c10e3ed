#![doc = include_str!("../README.md")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test double: a broken fixture is a failed test")]

mod action;
mod blob_content;
mod blobs;
mod call;
mod config;
mod control_plane;
mod data_plane;
mod hook;
pub mod http;
mod iam;
mod iam_api;
mod image;
mod image_scan;
mod lifecycle_preview;
mod listings;
mod log;
mod manifests;
pub mod proxy;
mod query;
mod registry;
mod registry_api;
mod registry_settings;
mod repositories;
mod repository_settings;
mod scan_findings;
mod snapshot;
mod ssm;
mod state;
mod sts;
mod throttle;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use hyper::{
    Request,
    body::{Body as _, Incoming},
};

use self::http::{Handler, Peer, Reply, RequestKind, Server};
use self::state::State;
pub use self::{
    blob_content::{BlobContent, digest},
    config::{ACCESS_KEY, ACCOUNT, Config, Parameter, Quirks, REGION},
    hook::{Hook, kill},
    iam::{Policy, Role, User},
    image::{Image, ImageSpec, RawManifest},
    image_scan::ImageScan,
    log::{LoggedRequest, Plane},
    registry::Registry,
    registry_settings::RegistrySettings,
    repository_settings::{ImageTagMutability, RepositoryCreationTemplate, RepositorySettings},
    snapshot::{RepositoryContents, Snapshot},
    state::{LifecyclePreview, Manifest, RegistryId, Repository},
    throttle::{Quota, Throttle},
};

/// A running fake. Dropping it stops it.
pub struct Ecr {
    shared: Arc<Shared>,
    server: Server,
}

/// The state that all listeners share.
pub(crate) struct Shared {
    state: Mutex<State>,
    log: Mutex<Vec<LoggedRequest>>,
    rules: Mutex<Vec<hook::Rule>>,
    answers: AtomicU64,
    control: String,
    download: String,
    data: Vec<(RegistryId, String)>,
    /// The token that the web identity endpoint issues.
    identity: Mutex<String>,
}

impl Ecr {
    /// Starts a fake.
    ///
    /// # Panics
    /// If a port cannot be bound.
    pub fn start(config: Config) -> Ecr {
        Ecr::try_start(config).expect("ports that can be bound")
    }

    /// Starts a fake. Fails if a port cannot be bound.
    pub fn try_start(config: Config) -> io::Result<Ecr> {
        const LOCAL: &str = "127.0.0.1";
        let control = http::listen_on(LOCAL, config.port)?;
        // Only Linux has all of 127/8. Elsewhere the port alone tells the hosts apart.
        let download = http::listen_on(&config.download_address, config.port).or_else(|_| http::listen(LOCAL))?;
        let mut data = Vec::new();
        let mut port = config.port;
        for (account, region) in &config.registries {
            if port != 0 {
                port = port.checked_add(1).ok_or_else(|| io::Error::other("no port is left for a registry"))?;
            }
            data.push((RegistryId::new(account, region), http::listen_on(LOCAL, port)?));
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(&config)),
            log: Mutex::default(),
            rules: Mutex::default(),
            answers: AtomicU64::new(0),
            control: http::base_url(&control),
            download: http::base_url(&download),
            data: data.iter().map(|(id, listener)| (id.clone(), http::base_url(listener))).collect(),
            identity: Mutex::new("identity-token".into()),
        });
        let mut listeners: Vec<(_, Handler)> = Vec::new();
        let state = shared.clone();
        listeners.push((
            control,
            Arc::new(move |request, peer| Box::pin(control_plane::serve(state.clone(), request, peer))),
        ));
        let state = shared.clone();
        listeners.push((download, Arc::new(move |request, peer| Box::pin(blobs::serve(state.clone(), request, peer)))));
        for (id, listener) in data {
            let state = shared.clone();
            listeners.push((
                listener,
                Arc::new(move |request, peer| Box::pin(data_plane::serve(state.clone(), id.clone(), request, peer))),
            ));
        }
        Ok(Ecr { shared, server: Server::start(listeners) })
    }

    /// Returns a closure for a [`Hook`] that pushes an image and moves a tag to it.
    pub fn tag_move(
        &self,
        account: &str,
        region: &str,
        (repository, tag): (&'static str, &'static str),
        image: Image,
    ) -> impl Fn() + Send + Sync + 'static {
        let (shared, id) = (self.shared.clone(), RegistryId::new(account, region));
        move || Registry::new(&shared, id.clone()).push(repository, &[tag], &image)
    }

    /// Returns a closure for a [`Hook`] that pushes an image as a concurrent writer would. A tag that exists stays.
    pub fn concurrent_push(
        &self,
        account: &str,
        region: &str,
        (repository, tag): (&'static str, &'static str),
        image: Image,
    ) -> impl Fn() + Send + Sync + 'static {
        let (shared, id) = (self.shared.clone(), RegistryId::new(account, region));
        move || {
            let registry = Registry::new(&shared, id.clone());
            registry.push(repository, &[], &image);
            let digest = image.root.digest.clone();
            registry.change(repository, |repository| {
                repository.tags.entry(tag.to_owned()).or_insert(digest);
            });
        }
    }

    /// Returns the URL of the control plane, for `AWS_ENDPOINT_URL`.
    pub fn endpoint_url(&self) -> &str {
        &self.shared.control
    }

    /// Returns a line `host=url` for each registry: the host in images' names, and the URL of its data plane.
    pub fn registry_endpoints(&self) -> String {
        let lines: Vec<_> = self.shared.data.iter().map(|(id, url)| format!("{}={url}", id.host())).collect();
        lines.join("\n")
    }

    /// Returns the environment variables with which an AWS SDK uses this fake, as the owner of an access key.
    pub fn environment(&self, access_key: &str, region: &str) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.shared.control.clone()),
            ("AWS_ACCESS_KEY_ID", access_key.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", region.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]
    }

    /// Returns the environment variables of a GitHub Actions job with `id-token: write`. The endpoint issues `token`.
    pub fn web_identity(&self, token: &str) -> Vec<(&'static str, String)> {
        *self.shared.identity.lock().unwrap() = token.to_owned();
        vec![
            ("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/oidc?api-version=2.0", self.shared.control)),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", OIDC_BEARER.to_owned()),
        ]
    }

    /// Returns direct access to a registry.
    pub fn registry(&self, account: &str, region: &str) -> Registry<'_> {
        Registry::new(&self.shared, RegistryId::new(account, region))
    }

    /// Returns direct access to the registry of the default account and region.
    pub fn default_registry(&self) -> Registry<'_> {
        self.registry(ACCOUNT, REGION)
    }

    /// Changes how the service behaves.
    pub fn quirks(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.shared.state().quirks);
    }

    /// Replaces all throttles. Their counts start from zero.
    pub fn throttle(&self, throttles: Vec<Throttle>) {
        self.shared.state().throttle(throttles);
    }

    /// Lets every token expire that has been issued.
    pub fn expire_tokens(&self) {
        self.shared.state().tokens.values_mut().for_each(|token| token.expired = true);
    }

    /// Sets an SSM parameter, replacing one of the same account, region and name.
    pub fn set_parameter(&self, parameter: Parameter) {
        let mut state = self.shared.state();
        state.parameters.retain(|old| {
            (&old.account, &old.region, &old.name) != (&parameter.account, &parameter.region, &parameter.name)
        });
        state.parameters.push(parameter);
    }

    /// Sets a hook on the `n`th request (from 1) to a data plane or the download host, counted from now on.
    pub fn on_request(&self, n: u64, hook: Hook) {
        self.on(|entry| entry.plane != Plane::Control, n, 1, hook);
    }

    /// Sets a hook on the `n`th request (from 1) of a kind, counted from now on.
    pub fn on_kind(&self, kind: RequestKind, n: u64, hook: Hook) {
        self.on(move |entry| entry.kind == kind, n, 1, hook);
    }

    /// Sets a hook on `times` matching requests, starting with the `n`th (from 1), counted from now on.
    pub fn on(&self, matches: impl Fn(&LoggedRequest) -> bool + Send + 'static, n: u64, times: u64, hook: Hook) {
        let rule = hook::Rule { matches: Box::new(matches), skip: n.saturating_sub(1), times, hook };
        self.shared.rules.lock().unwrap().push(rule);
    }

    /// Removes all hooks.
    pub fn clear_hooks(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// Returns all requests in the order of their arrival.
    pub fn log(&self) -> Vec<LoggedRequest> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Empties the log.
    pub fn clear_log(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// Returns the requests to data planes and the download host.
    pub fn data_plane(&self) -> Vec<LoggedRequest> {
        self.log().into_iter().filter(|entry| entry.plane != Plane::Control).collect()
    }

    /// Returns the number of requests of a kind.
    pub fn count(&self, kind: RequestKind) -> usize {
        self.log().iter().filter(|entry| entry.kind == kind).count()
    }

    /// Returns the requests that can change something, whatever their status.
    pub fn writes(&self) -> Vec<LoggedRequest> {
        self.log().into_iter().filter(|entry| entry.kind.writes()).collect()
    }

    /// Returns the number of downloads with an `Authorization` header: each is a leak of credentials.
    pub fn leaks(&self) -> usize {
        self.log().iter().filter(|entry| entry.plane == Plane::Download && entry.authorization).count()
    }

    /// Formats the log as a table, for the message of a failed assertion.
    pub fn table(&self) -> String {
        log::table(&self.log())
    }

    /// Returns the number of connections from clients.
    pub fn connections(&self) -> u64 {
        self.server.traffic.connections.load(SeqCst)
    }

    /// Returns a copy of everything that the registries contain.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.shared.state())
    }
}

const OIDC_BEARER: &str = "oidc-request-token";

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn url(&self, id: &RegistryId) -> &str {
        &self.data.iter().find(|(known, _)| known == id).expect("a registry of the configuration").1
    }

    /// Logs a request, applies a hook if there is one, and answers.
    async fn answer<F>(
        self: &Arc<Self>,
        entry: LoggedRequest,
        mut request: Request<Incoming>,
        peer: Peer,
        handle: impl FnOnce(LoggedRequest, Request<Incoming>) -> F,
    ) -> io::Result<Reply>
    where
        F: Future<Output = io::Result<Reply>>,
    {
        let hook = {
            // One lock over both: the hooks see requests in the log's order.
            let mut entries = self.log.lock().unwrap();
            entries.push(entry.clone());
            hook::hook(&mut self.rules.lock().unwrap(), &entry)
        };
        match &hook {
            Some(Hook::Before(closure)) => {
                hook::run(closure.clone()).await;
                return hook::lost();
            }
            Some(Hook::Reset) => {
                peer.reset();
                return hook::lost();
            }
            Some(Hook::Answer { status, headers, body }) => {
                http::drain(request.body_mut(), &entry.meter()).await?;
                entry.answer(*status, self.answers.fetch_add(1, SeqCst) + 1);
                return Ok(hook::canned(*status, headers, body));
            }
            Some(Hook::After(_) | Hook::Run(_)) | None => {}
        }
        let reply = handle(entry.clone(), request).await?;
        // Bodies of blobs count themselves as they go.
        if !matches!(entry.kind, RequestKind::GetBlob | RequestKind::Redirected) {
            entry.sent_meter().store(reply.body().size_hint().exact().unwrap_or(0), SeqCst);
        }
        entry.answer(reply.status().as_u16(), self.answers.fetch_add(1, SeqCst) + 1);
        match hook {
            Some(Hook::After(closure)) => {
                hook::run(closure).await;
                hook::lost()
            }
            Some(Hook::Run(closure)) => {
                hook::run(closure).await;
                Ok(reply)
            }
            _ => Ok(reply),
        }
    }
}

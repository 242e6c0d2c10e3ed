//! A strict fake of AWS ECR on real sockets: control plane (ECR, SSM, STS), one data plane for each registry, and the
//! host that blob downloads are redirected to. Many accounts and regions; nothing that the real service refuses passes.
#![allow(dead_code, unused_imports, reason = "no single test needs all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken fixture is a failed test")]

mod blobs;
mod config;
mod content;
mod control;
mod data;
mod iam;
mod image;
mod listings;
mod log;
mod manifests;
mod repositories;
mod scans;
mod seed;
mod selftest;
mod ssm;
mod state;
mod sts;

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use hyper::{
    Request,
    body::{Body as _, Incoming},
};

use self::state::State;
pub(crate) use self::{
    config::{
        ACCESS_KEY, ACCOUNT, Config, CreationTemplate, Parameter, Policy, Quirks, Quota, REGION, Role, Scan, Settings,
        Throttle, User,
    },
    content::{Content, digest},
    image::{Artifact, Image, ImageSpec},
    log::{Entry, Hook, Plane, kill},
    seed::{Registry, Snapshot},
    state::{Manifest, RegistryId, Repository},
};
use super::http::{self, Handler, Kind, Peer, Reply, Server};

/// A running fake; dropping it stops it.
pub(crate) struct Ecr {
    shared: Arc<Shared>,
    server: Server,
}

/// What all listeners share.
pub(crate) struct Shared {
    state: Mutex<State>,
    log: Mutex<Vec<Entry>>,
    rules: Mutex<Vec<log::Rule>>,
    answers: AtomicU64,
    control: String,
    download: String,
    data: Vec<(RegistryId, String)>,
    /// What the web identity endpoint hands out.
    identity: Mutex<String>,
}

impl Ecr {
    pub(crate) fn start(config: Config) -> Ecr {
        let control = http::listen("127.0.0.1").expect("a port");
        // Only Linux has all of 127/8; elsewhere the port alone tells the hosts apart.
        let download = http::listen(&config.download_address).or_else(|_| http::listen("127.0.0.1")).expect("a port");
        let data: Vec<_> = config
            .registries
            .iter()
            .map(|(account, region)| (RegistryId::new(account, region), http::listen("127.0.0.1").expect("a port")))
            .collect();
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
        listeners
            .push((control, Arc::new(move |request, peer| Box::pin(control::serve(state.clone(), request, peer)))));
        let state = shared.clone();
        listeners.push((download, Arc::new(move |request, peer| Box::pin(blobs::serve(state.clone(), request, peer)))));
        for (id, listener) in data {
            let state = shared.clone();
            listeners.push((
                listener,
                Arc::new(move |request, peer| Box::pin(data::serve(state.clone(), id.clone(), request, peer))),
            ));
        }
        Ecr { shared, server: Server::start(listeners) }
    }

    /// Another writer: puts an image into a registry, under a tag that is not there yet.
    pub(crate) fn writer(
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

    /// Puts an image into a registry and moves a tag to it.
    pub(crate) fn mover(
        &self,
        account: &str,
        region: &str,
        (repository, tag): (&'static str, &'static str),
        image: Image,
    ) -> impl Fn() + Send + Sync + 'static {
        let (shared, id) = (self.shared.clone(), RegistryId::new(account, region));
        move || Registry::new(&shared, id.clone()).push(repository, &[tag], &image)
    }

    /// For `AWS_ENDPOINT_URL`.
    pub(crate) fn endpoint_url(&self) -> &str {
        &self.shared.control
    }

    /// For the input `registry-endpoints`: a line `host=url` for each registry.
    pub(crate) fn registry_endpoints(&self) -> String {
        let lines: Vec<_> = self.shared.data.iter().map(|(id, url)| format!("{}={url}", id.host())).collect();
        lines.join("\n")
    }

    /// The variables that make an AWS SDK speak to this fake as the owner of an access key.
    pub(crate) fn environment(&self, access_key: &str, region: &str) -> Vec<(&'static str, String)> {
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

    /// The variables of a job with `id-token: write`; the endpoint hands out `token`.
    pub(crate) fn web_identity(&self, token: &str) -> Vec<(&'static str, String)> {
        *self.shared.identity.lock().unwrap() = token.to_owned();
        vec![
            ("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/oidc?api-version=2.0", self.shared.control)),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", OIDC_BEARER.to_owned()),
        ]
    }

    /// A registry, to seed and to look at.
    pub(crate) fn registry(&self, account: &str, region: &str) -> Registry<'_> {
        Registry::new(&self.shared, RegistryId::new(account, region))
    }

    /// The registry of the default account and region.
    pub(crate) fn default_registry(&self) -> Registry<'_> {
        self.registry(ACCOUNT, REGION)
    }

    /// Changes how the service behaves from now on.
    pub(crate) fn quirks(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.shared.state().quirks);
    }

    /// Replaces all throttles; their counts begin anew.
    pub(crate) fn throttle(&self, throttles: Vec<Throttle>) {
        self.shared.state().throttle(throttles);
    }

    /// Expires every token that was issued until now.
    pub(crate) fn expire_tokens(&self) {
        self.shared.state().tokens.values_mut().for_each(|token| token.expired = true);
    }

    /// Sets an SSM parameter, replacing one of the same account, region and name.
    pub(crate) fn set_parameter(&self, parameter: Parameter) {
        let mut state = self.shared.state();
        state.parameters.retain(|old| {
            (&old.account, &old.region, &old.name) != (&parameter.account, &parameter.region, &parameter.name)
        });
        state.parameters.push(parameter);
    }

    /// At the `n`th request (from 1) to data planes and downloads from now on.
    pub(crate) fn on_request(&self, n: u64, hook: Hook) {
        self.on(|entry| entry.plane != Plane::Control, n, 1, hook);
    }

    /// At the `n`th request (from 1) of a kind from now on.
    pub(crate) fn on_kind(&self, kind: Kind, n: u64, hook: Hook) {
        self.on(move |entry| entry.kind == kind, n, 1, hook);
    }

    /// At the `n`th request (from 1) that matches, and at `times` of them in all.
    pub(crate) fn on(&self, matches: impl Fn(&Entry) -> bool + Send + 'static, n: u64, times: u64, hook: Hook) {
        let rule = log::Rule { matches: Box::new(matches), skip: n.saturating_sub(1), times, hook };
        self.shared.rules.lock().unwrap().push(rule);
    }

    pub(crate) fn clear_hooks(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// All requests in the order of their arrival.
    pub(crate) fn log(&self) -> Vec<Entry> {
        self.shared.log.lock().unwrap().clone()
    }

    pub(crate) fn clear_log(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// Requests to data planes and downloads.
    pub(crate) fn data_plane(&self) -> Vec<Entry> {
        self.log().into_iter().filter(|entry| entry.plane != Plane::Control).collect()
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.log().iter().filter(|entry| entry.kind == kind).count()
    }

    /// Requests that change something or would have, whatever their status.
    pub(crate) fn writes(&self) -> Vec<Entry> {
        self.log().into_iter().filter(|entry| entry.kind.writes()).collect()
    }

    /// Downloads to which a client sent its `Authorization`: each is a leak.
    pub(crate) fn leaks(&self) -> usize {
        self.log().iter().filter(|entry| entry.plane == Plane::Download && entry.authorization).count()
    }

    /// The log as a table.
    pub(crate) fn table(&self) -> String {
        log::table(&self.log())
    }

    pub(crate) fn connections(&self) -> u64 {
        self.server.traffic.connections.load(SeqCst)
    }

    /// Everything that all registries hold.
    pub(crate) fn snapshot(&self) -> Snapshot {
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

    /// Logs a request, lets the hooks have their say, and answers.
    async fn answer<F>(
        self: &Arc<Self>,
        entry: Entry,
        mut request: Request<Incoming>,
        peer: Peer,
        handle: impl FnOnce(Entry, Request<Incoming>) -> F,
    ) -> std::io::Result<Reply>
    where
        F: Future<Output = std::io::Result<Reply>>,
    {
        let hook = {
            // One lock over both: the hooks see requests in the log's order.
            let mut entries = self.log.lock().unwrap();
            entries.push(entry.clone());
            log::hook(&mut self.rules.lock().unwrap(), &entry)
        };
        match &hook {
            Some(Hook::Before(closure)) => {
                log::run(closure.clone()).await;
                return log::lost();
            }
            Some(Hook::Reset) => {
                peer.reset();
                return log::lost();
            }
            Some(Hook::Answer { status, headers, body }) => {
                data::drain(request.body_mut(), &entry.meter()).await?;
                entry.answer(*status, self.answers.fetch_add(1, SeqCst) + 1);
                return Ok(log::canned(*status, headers, body));
            }
            Some(Hook::After(_) | Hook::Run(_)) | None => {}
        }
        let reply = handle(entry.clone(), request).await?;
        // Bodies of blobs count themselves as they go.
        if !matches!(entry.kind, Kind::GetBlob | Kind::Redirected) {
            entry.sent_meter().store(reply.body().size_hint().exact().unwrap_or(0), SeqCst);
        }
        entry.answer(reply.status().as_u16(), self.answers.fetch_add(1, SeqCst) + 1);
        match hook {
            Some(Hook::After(closure)) => {
                log::run(closure).await;
                log::lost()
            }
            Some(Hook::Run(closure)) => {
                log::run(closure).await;
                Ok(reply)
            }
            _ => Ok(reply),
        }
    }
}

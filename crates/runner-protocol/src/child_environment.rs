//! The environment of the programs that the actions start.
//!
//! A step's environment contains more than any program needs: GitHub tokens, AWS credentials, build secrets. A
//! program therefore starts with an empty environment and gets only the variables that it reads, according to its
//! documentation and source. Credentials are a [`Grant`]: they are passed to the one command that uses them.
//!
//! Each entry is a pattern with its reason. A pattern is a name, or a prefix followed by `*`. The latter is for
//! programs that read a variable for each of their options, and only after the program's own name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::Variables;
use super::variables::matches;

/// Patterns of variables, each with the reason why a program gets them.
type VariableList = &'static [(&'static str, &'static str)];

/// The variables that every program gets.
const COMMON: VariableList = &[
    ("PATH", "programs that it starts itself: credential helpers, `newuidmap`, `ssh`, `git`"),
    ("HOME", "its configuration and caches"),
    ("USER", "the user's range in /etc/subuid"),
    ("LOGNAME", "the same"),
    ("XDG_*", "its configuration, caches and sockets where they are not in HOME"),
    ("TMPDIR", "temporary files"),
    ("TMP", "the same, for Node.js and Python"),
    ("TEMP", "the same, for Node.js and Python"),
    ("LANG", "the encoding of what it reads and prints"),
    ("LANGUAGE", "the language of what it prints"),
    ("LC_*", "the same as LANG"),
    ("LOCALE_ARCHIVE", "locales on NixOS"),
    ("TZ", "the time zone"),
    ("TZDIR", "time zones elsewhere than in /usr/share"),
    ("TERM", "whether it may print colours"),
    ("NO_COLOR", "that it may not"),
    ("CI", "that nobody answers questions"),
    ("HTTP_PROXY", "the way out"),
    ("HTTPS_PROXY", "the way out"),
    ("ALL_PROXY", "the way out"),
    ("FTP_PROXY", "the way out"),
    ("NO_PROXY", "what is reached without it"),
    ("http_proxy", "the way out"),
    ("https_proxy", "the way out"),
    ("all_proxy", "the way out"),
    ("ftp_proxy", "the way out"),
    ("no_proxy", "what is reached without it"),
    ("SSL_CERT_FILE", "the certificates that it trusts"),
    ("SSL_CERT_DIR", "the certificates that it trusts"),
    ("CURL_CA_BUNDLE", "the certificates that it trusts"),
    ("NIX_SSL_CERT_FILE", "the certificates that it trusts, on NixOS"),
    ("LD_LIBRARY_PATH", "libraries of a program that actions/setup-python and others installed"),
    ("NIX_LD", "the loader of foreign programs on NixOS"),
    ("NIX_LD_LIBRARY_PATH", "libraries of foreign programs on NixOS"),
    ("GODEBUG", "settings of the Go runtime"),
    ("GOGC", "settings of the Go runtime"),
    ("GOMAXPROCS", "settings of the Go runtime"),
    ("GOMEMLIMIT", "settings of the Go runtime"),
    ("ASDF_DIR", "programs that asdf installed"),
    ("ASDF_DATA_DIR", "programs that asdf installed"),
    ("ASDF_CONFIG_FILE", "programs that asdf installed"),
    ("AQUA_ROOT_DIR", "programs that aqua installed"),
    ("AQUA_CONFIG", "programs that aqua installed"),
    ("AQUA_GLOBAL_CONFIG", "programs that aqua installed"),
    ("MISE_DATA_DIR", "programs that mise installed"),
    ("MISE_CONFIG_DIR", "programs that mise installed"),
    ("MISE_CACHE_DIR", "programs that mise installed"),
    ("RUNNER_TRACKING_ID", "GitHub's runner ends what a job left running by it"),
];

/// Password stores of Docker's credential helpers. These variables contain no secret.
const PASSWORD_STORES: VariableList = &[
    ("DBUS_SESSION_BUS_ADDRESS", "the helper `secretservice`"),
    ("GNUPGHOME", "the helper `pass`"),
    ("GPG_TTY", "the helper `pass`"),
    ("PASSWORD_STORE_DIR", "the helper `pass`"),
    ("PASSWORD_STORE_GPG_OPTS", "the helper `pass`"),
];

const BUILDAH: VariableList = &[
    ("BUILDAH_*", "buildah's own: isolation, runtime, layers"),
    ("BUILD_REGISTRY_SOURCES", "registries that a base image may come from"),
    ("CONTAINERS_*", "configuration of storage, registries and the engine"),
    ("_CONTAINERS_*", "that `buildah unshare` or `podman unshare` has made the user namespace"),
    ("REGISTRIES_CONFIG_PATH", "the older name for the configuration of registries"),
    ("REGISTRY_AUTH_FILE", "logins of registries"),
    ("DOCKER_CONFIG", "logins of registries"),
    ("STORAGE_DRIVER", "the storage's driver"),
    ("STORAGE_OPTS", "the storage's options"),
    ("DBUS_SYSTEM_BUS_ADDRESS", "systemd, which manages control groups"),
    ("SUDO_USER", "the user's range in /etc/subuid"),
    ("container", "that it runs in a container itself"),
    ("SSH_AUTH_SOCK", "`RUN --mount=type=ssh`"),
    ("SOURCE_DATE_EPOCH", "the time that an image is dated with"),
    ("LOGLEVEL", "how much its helpers print"),
    ("OCICRYPT_*", "encrypted images"),
];

const DOCKER: VariableList = &[
    ("DOCKER_API_VERSION", "the engine's API"),
    ("DOCKER_AUTH_CONFIG", "logins of registries"),
    ("DOCKER_BUILDKIT", "the builder"),
    ("DOCKER_CERT_PATH", "certificates of a remote engine"),
    ("DOCKER_CLI_EXPERIMENTAL", "plugins of an older client"),
    ("DOCKER_CLI_HINTS", "what it prints"),
    ("DOCKER_CONFIG", "logins of registries, contexts, plugins"),
    ("DOCKER_CONTENT_TRUST", "signed base images"),
    ("DOCKER_CONTENT_TRUST_SERVER", "signed base images"),
    ("DOCKER_CONTEXT", "which engine"),
    ("DOCKER_CUSTOM_HEADERS", "a proxy before the engine"),
    ("DOCKER_DEFAULT_PLATFORM", "the platform where none is named"),
    ("DOCKER_HOST", "which engine"),
    ("DOCKER_TLS", "certificates of a remote engine"),
    ("DOCKER_TLS_VERIFY", "certificates of a remote engine"),
    ("BUILDX_*", "buildx's own: builder, configuration, metadata"),
    ("BUILDKIT_*", "BuildKit's own: address, progress"),
    ("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", "which sources a build may use"),
    ("KUBECONFIG", "the driver `kubernetes`"),
    ("KUBERNETES_*", "the driver `kubernetes` in a cluster"),
    ("POD_NAMESPACE", "the driver `kubernetes` in a cluster"),
    ("SSH_AUTH_SOCK", "an engine behind ssh, and `RUN --mount=type=ssh`"),
    ("SOURCE_DATE_EPOCH", "the time that an image is dated with"),
    ("OTEL_*", "traces of the build"),
    ("TRACEPARENT", "traces of the build"),
    ("TRACESTATE", "traces of the build"),
];

/// The variables that `cosign env` lists. Passwords and tokens among them are grants.
const COSIGN: VariableList = &[
    ("COSIGN_DOCKER_MEDIA_TYPES", "how a signature is stored"),
    ("COSIGN_EXPERIMENTAL", "how a signature is stored"),
    ("COSIGN_OCI_EXPERIMENTAL", "how a signature is stored"),
    ("COSIGN_MAX_ATTACHMENT_SIZE", "how large a signature may be"),
    ("COSIGN_REPOSITORY", "where signatures are"),
    ("SIGSTORE_CT_LOG_PUBLIC_KEY_FILE", "roots of trust of an own Sigstore"),
    ("SIGSTORE_NO_CACHE", "roots of trust"),
    ("SIGSTORE_REKOR_PUBLIC_KEY", "roots of trust of an own Sigstore"),
    ("SIGSTORE_ROOT_FILE", "roots of trust of an own Sigstore"),
    ("SIGSTORE_TSA_CERTIFICATE_FILE", "roots of trust of an own Sigstore"),
    ("TUF_MIRROR", "roots of trust of an own Sigstore"),
    ("TUF_ROOT", "roots of trust of an own Sigstore"),
    ("TUF_ROOT_JSON", "roots of trust of an own Sigstore"),
    ("SOURCE_DATE_EPOCH", "the time that a signature is dated with"),
];

/// The variables of notation.
const NOTATION: VariableList = &[
    ("NOTATION_CONFIG", "its trust policy and trust stores"),
    ("NOTATION_LIBEXEC", "its plugins"),
    ("NOTATION_CACHE", "lists of revoked certificates"),
];

const HADOLINT: VariableList = &[("HADOLINT_*", "hadolint's own, one for each option")];

/// Variables of Node.js, without `NODE_AUTH_TOKEN`.
const NODE: VariableList = &[
    ("NODE_EXTRA_CA_CERTS", "the certificates that it trusts"),
    ("NODE_OPTIONS", "settings of Node.js"),
    ("NODE_TLS_REJECT_UNAUTHORIZED", "the certificates that it trusts"),
    ("NODE_USE_ENV_PROXY", "the way out"),
    ("NODE_USE_SYSTEM_CA", "the certificates that it trusts"),
    ("VOLTA_HOME", "a Node.js that Volta installed"),
];

const SNYK: VariableList = &[("SNYK_*", "snyk's own: token, organisation, address")];

const TRIVY: VariableList = &[
    ("TRIVY_*", "trivy's own, one for each option"),
    ("DOCKER_CONFIG", "the login of a registry that mirrors its database"),
];

const GRYPE: VariableList = &[("GRYPE_*", "grype's own, one for each option")];

const SYFT: VariableList = &[("SYFT_*", "syft's own, one for each option")];

/// Variables that name configuration, or that a clone without blobs needs to fetch one. Variables that would select
/// another repository than the checkout are left out.
const GIT: VariableList = &[
    ("GIT_CEILING_DIRECTORIES", "where it looks for the repository"),
    ("GIT_DISCOVERY_ACROSS_FILESYSTEM", "where it looks for the repository"),
    ("GIT_CONFIG_COUNT", "configuration, for example `safe.directory`"),
    ("GIT_CONFIG_KEY_*", "configuration"),
    ("GIT_CONFIG_VALUE_*", "configuration"),
    ("GIT_CONFIG_PARAMETERS", "configuration that an outer git was given"),
    ("GIT_CONFIG_GLOBAL", "configuration"),
    ("GIT_CONFIG_SYSTEM", "configuration"),
    ("GIT_CONFIG_NOSYSTEM", "configuration"),
    ("GIT_ASKPASS", "fetching a blob"),
    ("GIT_TERMINAL_PROMPT", "that nobody answers questions"),
    ("GIT_SSH", "fetching a blob"),
    ("GIT_SSH_COMMAND", "fetching a blob"),
    ("GIT_SSL_CAINFO", "fetching a blob"),
    ("GIT_SSL_CAPATH", "fetching a blob"),
    ("GIT_SSL_NO_VERIFY", "fetching a blob"),
    ("SSH_AUTH_SOCK", "fetching a blob"),
];

const PIP: VariableList = &[
    ("PIP_*", "pip's own, one for each option: index, proxy, certificates"),
    ("NETRC", "the login of a package index"),
    ("REQUESTS_CA_BUNDLE", "the certificates that it trusts"),
    ("PYTHONHOME", "where Python's library is"),
    ("PYENV_ROOT", "a Python that pyenv installed"),
    ("PYENV_VERSION", "a Python that pyenv installed"),
];

const AWS: VariableList = &[("AWS_*", "credentials of AWS")];

const GOOGLE: VariableList = &[
    ("GOOGLE_*", "credentials of Google Cloud"),
    ("CLOUDSDK_*", "credentials of Google Cloud"),
    ("GCE_METADATA_HOST", "credentials of Google Cloud"),
];

const AZURE: VariableList = &[
    ("AZURE_*", "credentials of Azure"),
    ("IDENTITY_ENDPOINT", "a managed identity of Azure"),
    ("IDENTITY_HEADER", "a managed identity of Azure"),
    ("IMDS_ENDPOINT", "a managed identity of Azure"),
    ("MSI_ENDPOINT", "a managed identity of Azure"),
    ("MSI_SECRET", "a managed identity of Azure"),
];

const VAULT: VariableList = &[
    ("VAULT_*", "address and token of Vault"),
    ("BAO_*", "address and token of OpenBao"),
    ("TRANSIT_SECRET_ENGINE_PATH", "the path of the keys"),
];

const KUBERNETES: VariableList = &[("KUBECONFIG", "the cluster"), ("KUBERNETES_*", "the cluster that it runs in")];

const GITLAB: VariableList = &[("GITLAB_HOST", "the server"), ("GITLAB_TOKEN", "its token")];

const GITHUB: VariableList = &[("GITHUB_TOKEN", "its token"), ("GH_TOKEN", "its token")];

const PRIVATE_KEY: VariableList = &[("COSIGN_PASSWORD", "the password of a private key")];

const IDENTITY_TOKEN: VariableList = &[
    ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "asks GitHub for the token that the certificate is given for"),
    ("ACTIONS_ID_TOKEN_REQUEST_URL", "the same"),
    ("SIGSTORE_ID_TOKEN", "the token itself"),
    ("SPIFFE_ENDPOINT_SOCKET", "asks SPIFFE for it"),
];

const GITHUB_CACHE: VariableList = &[
    ("ACTIONS_RUNTIME_TOKEN", "the cache's token"),
    ("ACTIONS_RESULTS_URL", "the cache's address"),
    ("ACTIONS_CACHE_URL", "the older cache's address"),
    ("ACTIONS_CACHE_SERVICE_V2", "which of the two"),
];

/// A program that the actions start, which determines its variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program<'a> {
    /// `buildah`
    Buildah,
    /// `docker`, with buildx and other plugins.
    Docker,
    /// `cosign`. Keys and tokens are grants.
    Cosign,
    /// `notation`
    Notation,
    /// `hadolint`
    Hadolint,
    /// `snyk`
    Snyk,
    /// `trivy`
    Trivy,
    /// `grype`
    Grype,
    /// `syft`
    Syft,
    /// `soci`
    Soci,
    /// `git`
    Git,
    /// Python, for pip.
    Pip,
    /// `docker-credential-NAME`
    CredentialHelper(&'a str),
}

/// Variables that a command needs in addition to those of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant<'a> {
    /// A single variable, such as a build secret.
    Variable(&'a str),
    /// GitHub's cache, for `cache: gha`.
    GitHubCache,
    /// An identity token, for keyless signing.
    IdentityToken,
    /// A private key: a file, or a URI in cosign's format.
    PrivateKey(&'a str),
    /// A public key, or the public part of a key in a KMS.
    PublicKey(&'a str),
    /// AWS Signer, which its plugin for notation asks whether a signature was revoked.
    AwsSigner,
}

/// Returns a command with only the variables that the program needs.
pub fn command(program: Program<'_>, path: impl AsRef<OsStr>) -> Command {
    let variables = Variables::of_process();
    let mut command = Command::new(path);
    command.env_clear();
    give(&mut command, &variables, &program_variables(program, &variables));
    command
}

/// Adds variables to a command.
pub fn grant(command: &mut Command, grant: Grant<'_>) {
    give(command, &Variables::of_process(), &grant_variables(grant));
}

fn give(command: &mut Command, variables: &Variables, patterns: &[String]) {
    for (name, value) in variables.all() {
        if patterns.iter().any(|pattern| matches(pattern, name)) {
            command.env(name, value);
        }
    }
}

fn program_variables(program: Program<'_>, variables: &Variables) -> Vec<String> {
    let own: &[VariableList] = match program {
        Program::Buildah => &[BUILDAH, PASSWORD_STORES],
        Program::Docker => &[DOCKER, PASSWORD_STORES],
        Program::Cosign => &[COSIGN],
        Program::Notation => &[NOTATION],
        Program::Hadolint => &[HADOLINT],
        Program::Snyk => &[SNYK, NODE],
        Program::Trivy => &[TRIVY],
        Program::Grype => &[GRYPE],
        Program::Syft => &[SYFT],
        // It only reads variables about containerd, which it does not use here.
        Program::Soci => &[],
        Program::Git => &[GIT],
        Program::Pip => &[PIP],
        Program::CredentialHelper(_) => &[PASSWORD_STORES],
    };
    let mut patterns: Vec<String> = names(&[&[COMMON], own].concat());
    match program {
        Program::CredentialHelper(name) => patterns.extend(helper_variables(name)),
        // These programs run the credential helpers that the user has configured.
        Program::Buildah => patterns.extend(helpers_variables(containers_helpers(variables))),
        Program::Docker => {
            patterns.extend(helpers_variables(docker_helpers(variables)));
            // A cluster's configuration may get its token from AWS.
            patterns.extend(if has_kubernetes_builder(variables) { names(&[AWS]) } else { Vec::new() });
        }
        _ => {}
    }
    patterns
}

fn grant_variables(grant: Grant<'_>) -> Vec<String> {
    match grant {
        Grant::Variable(name) => vec![name.to_owned()],
        Grant::GitHubCache => names(&[GITHUB_CACHE]),
        Grant::IdentityToken => names(&[IDENTITY_TOKEN]),
        Grant::AwsSigner => names(&[AWS]),
        Grant::PrivateKey(key) if has_password(key) => [names(&[PRIVATE_KEY]), key_variables(key)].concat(),
        Grant::PrivateKey(key) | Grant::PublicKey(key) => key_variables(key),
    }
}

/// Returns whether cosign itself reads a private key, which may be encrypted. A key in a KMS is not read.
fn has_password(key: &str) -> bool {
    matches!(key.split_once("://"), None | Some(("env" | "http" | "https", _)))
}

/// Returns the variables that are needed to access a key, by the scheme of its URI.
fn key_variables(key: &str) -> Vec<String> {
    match key.split_once("://") {
        None | Some(("http" | "https", _)) => Vec::new(),
        // A pattern would match more than one variable.
        Some(("env", name)) if !name.contains('*') => vec![name.to_owned()],
        Some(("env", _)) => Vec::new(),
        Some(("awskms", _)) => names(&[AWS]),
        Some(("gcpkms", _)) => names(&[GOOGLE]),
        Some(("azurekms", _)) => names(&[AZURE]),
        Some(("hashivault", _)) => names(&[VAULT]),
        // A cluster's configuration may get its token from AWS.
        Some(("k8s", _)) => names(&[KUBERNETES, AWS]),
        Some(("gitlab", _)) => names(&[GITLAB]),
        // A plugin of cosign, `sigstore-kms-SCHEME`.
        Some((scheme, _)) => own_prefix(scheme),
    }
}

/// Returns the variables of a credential helper, by its name.
fn helper_variables(name: &str) -> Vec<String> {
    match name {
        "ecr-login" => names(&[AWS]),
        "gcr" | "gcloud" => names(&[GOOGLE]),
        "acr-env" => names(&[AZURE]),
        "gh" | "ghcr-login" => names(&[GITHUB]),
        // It reads passwords from variables with this prefix, and those of AWS and GitHub.
        "env" => [names(&[AWS, GITHUB]), own_prefix("docker")].concat(),
        name => own_prefix(name),
    }
}

/// Returns the pattern of variables that begin with the name of an unknown program.
fn own_prefix(program: &str) -> Vec<String> {
    vec![format!("{}_*", program.to_uppercase().replace(['-', '.'], "_"))]
}

fn helpers_variables(helpers: Vec<String>) -> Vec<String> {
    helpers.iter().flat_map(|helper| helper_variables(helper)).collect()
}

/// Returns the credential helpers in Docker's configuration. An unreadable configuration has none, and the program
/// reports the problem.
fn docker_helpers(variables: &Variables) -> Vec<String> {
    let folder = variables.docker_config();
    folder.map(|folder| helpers_of_docker(&folder.join("config.json"))).unwrap_or_default()
}

/// Returns the credential helpers in the files that [buildah](https://github.com/containers/image/blob/main/docs)
/// reads.
fn containers_helpers(variables: &Variables) -> Vec<String> {
    let below = |variable: &str, path: &str| variables.raw(variable).map(|folder| Path::new(folder).join(path));
    let logins = [
        variables.docker_config().map(|folder| folder.join("config.json")),
        variables.raw("REGISTRY_AUTH_FILE").map(PathBuf::from),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
        below("XDG_CONFIG_HOME", "containers/auth.json"),
        below("HOME", ".config/containers/auth.json"),
        below("HOME", ".docker/config.json"),
    ];
    let registries = [
        variables.raw("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from),
        variables.raw("REGISTRIES_CONFIG_PATH").map(PathBuf::from),
        below("XDG_CONFIG_HOME", "containers/registries.conf"),
        below("HOME", ".config/containers/registries.conf"),
        Some(PathBuf::from("/etc/containers/registries.conf")),
    ];
    let of_logins = logins.into_iter().flatten().flat_map(|file| helpers_of_docker(&file));
    of_logins.chain(registries.into_iter().flatten().flat_map(|file| helpers_of_registries(&file))).collect()
}

/// Reads the helpers in a Docker configuration or an auth.json.
fn helpers_of_docker(file: &Path) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let of_hosts = config["credHelpers"].as_object().into_iter().flat_map(|hosts| hosts.values());
    let all = of_hosts.chain([&config["credsStore"]]).filter_map(|name| name.as_str());
    all.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Reads the helpers in a registries.conf and its drop-in folder: `credential-helpers = ["ecr-login"]`.
fn helpers_of_registries(file: &Path) -> Vec<String> {
    let additions = std::fs::read_dir(file.with_extension("conf.d")).into_iter().flatten().flatten();
    let files = additions.map(|entry| entry.path()).chain([file.to_owned()]);
    files.flat_map(|file| helpers_in(&std::fs::read_to_string(file).unwrap_or_default())).collect()
}

fn helpers_in(registries: &str) -> Vec<String> {
    let lines = registries.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
    let lists = lines.split("credential-helpers").skip(1).filter_map(|list| list.split(']').next());
    lists.flat_map(|list| list.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn has_kubernetes_builder(variables: &Variables) -> bool {
    let buildx = variables.raw("BUILDX_CONFIG").map(PathBuf::from);
    let buildx = buildx.or_else(|| variables.docker_config().map(|folder| folder.join("buildx")));
    let instances = buildx.and_then(|folder| std::fs::read_dir(folder.join("instances")).ok());
    instances.into_iter().flatten().flatten().any(|instance| {
        let bytes = std::fs::read(instance.path()).unwrap_or_default();
        let instance: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        instance["Driver"] == "kubernetes"
    })
}

fn names(lists: &[VariableList]) -> Vec<String> {
    lists.iter().copied().flatten().map(|(pattern, _)| (*pattern).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the variables that match the patterns.
    fn of(patterns: &[String], variables: &[&'static str]) -> Vec<&'static str> {
        let is_given = |name: &&&'static str| patterns.iter().any(|pattern| matches(pattern, name));
        variables.iter().filter(is_given).copied().collect()
    }

    const SECRETS: [&str; 12] = [
        "AWS_SECRET_ACCESS_KEY",
        "AZURE_CLIENT_SECRET",
        "VAULT_TOKEN",
        "COSIGN_PASSWORD",
        "COSIGN_PRIVATE_KEY",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_RUNTIME_TOKEN",
        "GITHUB_TOKEN",
        "SNYK_TOKEN",
        "TRIVY_TOKEN",
        "NODE_AUTH_TOKEN",
        "DOCKER_PASSWORD",
    ];

    #[test]
    fn a_key_brings_what_leads_to_it() {
        let given = |grant| of(&grant_variables(grant), &SECRETS);
        assert_eq!(given(Grant::PrivateKey("cosign.key")), ["COSIGN_PASSWORD"]);
        assert_eq!(given(Grant::PublicKey("cosign.pub")), [""; 0]);
        assert_eq!(given(Grant::PrivateKey("awskms:///alias/x")), ["AWS_SECRET_ACCESS_KEY"]);
        assert_eq!(given(Grant::PublicKey("awskms:///alias/x")), ["AWS_SECRET_ACCESS_KEY"]);
        assert_eq!(given(Grant::PublicKey("azurekms://v/k")), ["AZURE_CLIENT_SECRET"]);
        assert_eq!(given(Grant::PublicKey("hashivault://k")), ["VAULT_TOKEN"]);
        assert_eq!(given(Grant::PrivateKey("env://COSIGN_PRIVATE_KEY")), ["COSIGN_PASSWORD", "COSIGN_PRIVATE_KEY"]);
        assert_eq!(given(Grant::PublicKey("env://*")), [""; 0]);
        assert_eq!(of(&key_variables("acme-hsm://k"), &["ACME_HSM_PIN", "ACME_TOKEN"]), ["ACME_HSM_PIN"]);
        assert_eq!(given(Grant::IdentityToken), ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]);
        assert_eq!(given(Grant::GitHubCache), ["ACTIONS_RUNTIME_TOKEN"]);
    }

    #[test]
    fn a_credential_helper_gets_the_credentials_of_its_cloud() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().display().to_string();
        let variables = Variables::from([("HOME", home.as_str())]);
        let given = |program| of(&program_variables(program, &variables), &SECRETS);
        assert_eq!(given(Program::CredentialHelper("ecr-login")), ["AWS_SECRET_ACCESS_KEY"]);
        assert_eq!(given(Program::CredentialHelper("vault")), ["VAULT_TOKEN"]);
        assert_eq!(given(Program::CredentialHelper("pass")), [""; 0]);
        // The builders that run the helper do not get it either.
        assert_eq!((given(Program::Docker), given(Program::Buildah)), (vec![], vec![]));
        std::fs::create_dir_all(folder.path().join(".docker/buildx/instances")).unwrap();
        let config = folder.path().join(".docker/config.json");
        std::fs::write(&config, r#"{"credHelpers": {"h": "ecr-login", "o": ""}, "credsStore": "desktop"}"#).unwrap();
        assert_eq!(given(Program::Docker), ["AWS_SECRET_ACCESS_KEY"]);
        assert_eq!(given(Program::Buildah), ["AWS_SECRET_ACCESS_KEY"]);
        assert_eq!(given(Program::Trivy), ["TRIVY_TOKEN"]);
        std::fs::write(&config, "{").unwrap();
        assert_eq!(given(Program::Docker), [""; 0]);
        let instance = folder.path().join(".docker/buildx/instances/eks");
        std::fs::write(instance, r#"{"Name": "eks", "Driver": "kubernetes"}"#).unwrap();
        assert_eq!(given(Program::Docker), ["AWS_SECRET_ACCESS_KEY"]);
    }

    #[test]
    fn helpers_of_buildah_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registries.conf");
        let text = "short-name-mode = \"enforcing\"\n# credential-helpers = [\"no\"]\ncredential-helpers = [\n \"ecr-login\",\n \"gcr\"\n]\n[a]\nb = \"c\"\n";
        std::fs::write(&file, text).unwrap();
        std::fs::create_dir(folder.path().join("registries.conf.d")).unwrap();
        std::fs::write(folder.path().join("registries.conf.d/1.conf"), "credential-helpers=[\"acme\"]").unwrap();
        assert_eq!(helpers_of_registries(&file), ["acme", "ecr-login", "gcr"]);
        assert_eq!(helpers_of_registries(&folder.path().join("absent")), [""; 0]);
        let file = file.display().to_string();
        let variables = Variables::from([("CONTAINERS_REGISTRIES_CONF", file.as_str())]);
        let given = |program| of(&program_variables(program, &variables), &SECRETS);
        assert_eq!((given(Program::Buildah), given(Program::Docker)), (vec!["AWS_SECRET_ACCESS_KEY"], vec![]));
    }

    #[test]
    fn the_documentation_names_every_variable() {
        let text = include_str!("../../../docs/security.md");
        let programs =
            [Program::Buildah, Program::Docker, Program::Cosign, Program::Hadolint, Program::Snyk, Program::Trivy];
        let others = [Program::Notation, Program::Grype, Program::Syft, Program::Soci, Program::Git, Program::Pip];
        let variables = Variables::from([]);
        let of_programs = programs.into_iter().chain(others).flat_map(|program| program_variables(program, &variables));
        let keys = ["awskms://", "gcpkms://", "azurekms://", "hashivault://", "k8s://", "gitlab://", "acme://"];
        let of_grants = keys.into_iter().map(Grant::PrivateKey).chain([
            Grant::PrivateKey("key"),
            Grant::GitHubCache,
            Grant::IdentityToken,
            Grant::AwsSigner,
        ]);
        let of_helpers = ["gh", "env"].into_iter().flat_map(helper_variables);
        for pattern in of_programs.chain(of_grants.flat_map(grant_variables)).chain(of_helpers) {
            let is_named = text.contains(&format!("`{pattern}`"));
            assert!(is_named || pattern.ends_with("_proxy"), "{pattern}");
        }
    }

    #[test]
    fn no_list_has_a_secret_of_another() {
        let variables = Variables::from([]);
        for (program, expected) in [
            (Program::Hadolint, &[][..]),
            (Program::Snyk, &["SNYK_TOKEN"]),
            (Program::Trivy, &["TRIVY_TOKEN"]),
            (Program::Grype, &[]),
            (Program::Syft, &[]),
            (Program::Soci, &[]),
            (Program::Git, &[]),
            (Program::Cosign, &[]),
            (Program::Notation, &[]),
            (Program::Pip, &[]),
        ] {
            assert_eq!(of(&program_variables(program, &variables), &SECRETS), expected, "{program:?}");
        }
    }
}

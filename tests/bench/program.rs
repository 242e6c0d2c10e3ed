//! The programs that are compared, and how each is told to do the same work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::project::{BY_REPOSITORY, BY_TAG};
use crate::support::runner::Action;
use crate::support::tools::{printed, tools};

/// What is done. Every one but `Again` has a target that the registry has never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// From a layout on disk to a registry.
    Publish,
    /// Another tag in the same repository.
    Retag,
    /// The same once more.
    Again,
    /// Another repository of the same registry.
    Mount,
    OtherRegistry,
    /// Another registry, whose repository has one of the platforms.
    HalfPresent,
    /// Another registry, with everything that is attached to the image.
    Referrers,
}

impl Case {
    pub(crate) const ALL: [Case; 7] =
        [Case::Publish, Case::Retag, Case::Again, Case::Mount, Case::OtherRegistry, Case::HalfPresent, Case::Referrers];

    /// What a reader calls it, and by how much the fastest of the others is to be beaten.
    pub(crate) fn about(self) -> (&'static str, Option<f64>) {
        match self {
            Case::Publish => ("publish", None),
            Case::Retag => ("retag", Some(2.0)),
            Case::Again => ("the same again", None),
            Case::Mount => ("other repository", Some(2.0)),
            Case::OtherRegistry => ("other registry", Some(1.5)),
            Case::HalfPresent => ("one platform is there", None),
            Case::Referrers => ("with three referrers", None),
        }
    }

    fn by_tag(self) -> bool {
        matches!(self, Case::Retag | Case::Again)
    }

    /// Whether the target is in the other registry.
    pub(crate) fn is_to_another(self) -> bool {
        matches!(self, Case::OtherRegistry | Case::HalfPresent | Case::Referrers)
    }
}

/// One piece of work: the image `dev` goes to the environment `to`.
pub(crate) struct Job<'a> {
    pub(crate) case: Case,
    /// `127.0.0.1:PORT`, of the proxies.
    pub(crate) source: &'a str,
    pub(crate) target: &'a str,
    pub(crate) layout: &'a Path,
    pub(crate) to: &'a str,
    /// An empty folder: no program finds what an earlier run has kept.
    pub(crate) home: &'a Path,
}

impl Job<'_> {
    /// `shop/api:dev-1.0.0` or `dev/shop/api:1.0.0`.
    pub(crate) fn name(&self, environment: &str) -> String {
        match self.case.by_tag() {
            true => format!("shop/api:{environment}-1.0.0"),
            false => format!("{environment}/shop/api:1.0.0"),
        }
    }

    fn from(&self) -> String {
        match self.case {
            Case::Publish => format!("{}:Api", self.layout.display()),
            _ => format!("{}/{}", self.source, self.name("dev")),
        }
    }

    fn into(&self) -> String {
        format!("{}/{}", self.target, self.name(self.to))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Ours,
    Skopeo,
    Oras,
    Crane,
    Regctl,
}

impl Program {
    /// Those that are installed.
    pub(crate) fn present() -> Vec<Program> {
        let others = [Program::Skopeo, Program::Oras, Program::Crane, Program::Regctl];
        [Program::Ours].into_iter().chain(others.into_iter().filter(|other| other.file().is_some())).collect()
    }

    /// Its name, and the flags that matter to a reader.
    pub(crate) fn about(self) -> (&'static str, &'static str) {
        match self {
            Program::Ours => ("image-lifecycle", "`record: false`, and `evidence: none` but with referrers"),
            Program::Skopeo => ("skopeo", "`copy --all --preserve-digests`"),
            Program::Oras => ("oras", "`tag` in one repository, otherwise `cp`, with referrers `--recursive`"),
            Program::Crane => ("crane", "`tag` in one repository, otherwise `copy`"),
            Program::Regctl => ("regctl", "`image copy`, with referrers `--referrers`"),
        }
    }

    pub(crate) fn file(self) -> Option<PathBuf> {
        std::env::split_paths(&tools().path).map(|folder| folder.join(self.about().0)).find(|path| path.is_file())
    }

    fn command(self) -> Command {
        let mut command = Command::new(match self {
            Program::Ours => binary(Action::Publish),
            _ => self.file().expect("an installed program"),
        });
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command
    }

    pub(crate) fn version(self) -> String {
        let mut command = self.command();
        command.arg(if matches!(self, Program::Ours | Program::Skopeo) { "--version" } else { "version" });
        let text = printed(&mut command);
        let version = text.split_whitespace().find(|word| word.trim_start_matches('v').starts_with(char::is_numeric));
        version.unwrap_or("of unknown version").to_owned()
    }

    /// The command line of a job; none where the program has nothing like it.
    pub(crate) fn work(self, job: &Job) -> Option<Command> {
        let mut command = self.command();
        command.env("HOME", job.home);
        let (from, into) = (job.from(), job.into());
        let publish = job.case == Case::Publish;
        let tag = into.rsplit(':').next().unwrap_or_default();
        let hosts = [job.source, job.target].map(|host| format!("--host=reg={host},tls=disabled"));
        match self {
            Program::Ours => return Some(ours(job)),
            Program::Crane if publish => return None,
            Program::Crane | Program::Skopeo if job.case == Case::Referrers => return None,
            Program::Skopeo => {
                let from = format!("{}{from}", if publish { "oci:" } else { "docker://" });
                command.args(["copy", "--all", "--preserve-digests", "--src-tls-verify=false"]);
                // To root, it keeps what it knows of blobs in a folder of the system; to anybody else, in the home.
                command.env("XDG_RUNTIME_DIR", job.home).env("_CONTAINERS_ROOTLESS_UID", "65534");
                command.args(["--dest-tls-verify=false", &from, &format!("docker://{into}")])
            }
            Program::Oras if job.case.by_tag() => command.args(["tag", "--plain-http", &from, tag]),
            Program::Oras if publish => command.args(["cp", "--from-oci-layout", "--to-plain-http", &from, &into]),
            Program::Oras => {
                let recursive = (job.case == Case::Referrers).then_some("--recursive");
                command.arg("cp").args(recursive).args(["--from-plain-http", "--to-plain-http", &from, &into])
            }
            Program::Crane if job.case.by_tag() => command.args(["tag", "--insecure", &from, tag]),
            Program::Crane => command.args(["copy", "--insecure", &from, &into]),
            Program::Regctl => {
                let from = format!("{}{from}", if publish { "ocidir://" } else { "" });
                let referrers = (job.case == Case::Referrers).then_some("--referrers");
                command.args(hosts).args(["image", "copy"]).args(referrers).args([&from, &into])
            }
        };
        Some(command)
    }
}

/// The step as a workflow has it.
fn ours(job: &Job) -> Command {
    let any = BY_TAG.replace(", AllowedValues: [dev, test, prod]", "");
    let template = if job.case.by_tag() { any.as_str() } else { BY_REPOSITORY };
    fs::write(job.home.join("template.yaml"), template.trim_start()).unwrap();
    let publish = job.case == Case::Publish;
    let mut command = action(if publish { Action::Publish } else { Action::Promote }, job.home);
    let (layout, environments) = (job.layout.display().to_string(), format!("dev,{}", job.to));
    let own = match publish {
        true => [("LAYOUT", &*layout), ("ENVIRONMENT", job.to), ("REGISTRY", job.target), ("SIGN", "off")],
        false => [
            ("ENVIRONMENTS", &*environments),
            ("TO", job.to),
            ("SOURCE_REGISTRY", job.source),
            ("TARGET_REGISTRY", job.target),
        ],
    };
    let evidence = if job.case == Case::Referrers { "required" } else { "none" };
    let same = [("VERSION", "1.0.0"), ("IMAGES", "Api"), ("EVIDENCE", evidence), ("RECORD", "false")];
    command.envs(same.into_iter().chain(own).map(|(name, value)| (format!("INPUT_{name}"), value)));
    command
}

/// Those of the folder in `BENCH_BINARIES`, such as `dist/bin/Linux-X64`, else those that were compiled with this.
pub(crate) fn binary(action: Action) -> PathBuf {
    let compiled = action.binary().to_owned();
    match (std::env::var_os("BENCH_BINARIES"), compiled.file_name()) {
        (Some(folder), Some(name)) => fs::canonicalize(folder).expect("BENCH_BINARIES is a folder").join(name),
        _ => compiled,
    }
}

/// An action in a checkout that is also its home.
pub(crate) fn action(action: Action, folder: &Path) -> Command {
    let mut command = Command::new(binary(action));
    command.env_clear().current_dir(folder).env("PATH", "/usr/bin:/bin").env("GITHUB_WORKSPACE", folder);
    command.env("HOME", folder).env("RUNNER_TEMP", folder);
    for file in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        fs::write(folder.join(file), "").unwrap();
        command.env(file, folder.join(file));
    }
    command
}

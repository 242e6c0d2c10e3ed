//! The programs that are compared, and how each is told to do the same work.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    project::{BY_REPOSITORY, BY_TAG},
    runner::Action,
    tools::{printed, tools},
};

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
}

impl Case {
    pub(crate) const ALL: [Case; 5] = [Case::Publish, Case::Retag, Case::Again, Case::Mount, Case::OtherRegistry];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Publish => "publish",
            Case::Retag => "retag",
            Case::Again => "the same again",
            Case::Mount => "other repository",
            Case::OtherRegistry => "other registry",
        }
    }

    /// By how much the fastest of the others is to be beaten.
    pub(crate) fn aim(self) -> Option<f64> {
        match self {
            Case::Retag | Case::Mount => Some(2.0),
            Case::OtherRegistry => Some(1.5),
            Case::Publish | Case::Again => None,
        }
    }

    fn by_tag(self) -> bool {
        matches!(self, Case::Retag | Case::Again)
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
        if self.case.by_tag() {
            format!("shop/api:{environment}-1.0.0")
        } else {
            format!("{environment}/shop/api:1.0.0")
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
        let all = [Program::Ours, Program::Skopeo, Program::Oras, Program::Crane, Program::Regctl];
        all.into_iter().filter(|program| *program == Program::Ours || program.file().is_some()).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Ours => "image-lifecycle",
            Program::Skopeo => "skopeo",
            Program::Oras => "oras",
            Program::Crane => "crane",
            Program::Regctl => "regctl",
        }
    }

    fn file(self) -> Option<PathBuf> {
        std::env::split_paths(&tools().path).map(|folder| folder.join(self.name())).find(|path| path.is_file())
    }

    fn command(self) -> Command {
        let mut command = Command::new(match self {
            Program::Ours => Action::Publish.binary().to_owned(),
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

    /// The flags that matter, for the reader of the table.
    pub(crate) fn flags(self) -> &'static str {
        match self {
            Program::Ours => "`evidence: none`, `record: false`, as none of the others carries either",
            Program::Skopeo => "`copy --all --preserve-digests`",
            Program::Oras => "`tag` in one repository, else `cp`",
            Program::Crane => "`tag` in one repository, else `copy`",
            Program::Regctl => "`image copy`",
        }
    }

    /// The command line of a job; none where the program has nothing like it.
    pub(crate) fn work(self, job: &Job) -> Option<Command> {
        let mut command = self.command();
        command.env("HOME", job.home);
        let (from, into) = (job.from(), job.into());
        let publish = job.case == Case::Publish;
        let tag = into.rsplit(':').next().unwrap_or_default();
        let hosts = [job.source, job.target].map(|host| format!("--host=reg={host},tls=disabled"));
        let copy = if publish { ["cp", "--from-oci-layout"] } else { ["cp", "--from-plain-http"] };
        match self {
            Program::Ours => return Some(ours(job)),
            Program::Crane if publish => return None,
            Program::Skopeo => {
                let from = format!("{}{from}", if publish { "oci:" } else { "docker://" });
                command.args(["copy", "--all", "--preserve-digests", "--src-tls-verify=false"]);
                command.args(["--dest-tls-verify=false", &from, &format!("docker://{into}")]);
                without_root(&mut command, job);
            }
            Program::Oras if job.case.by_tag() => {
                command.args(["tag", "--plain-http", &from, tag]);
            }
            Program::Oras => {
                command.args(copy).args(["--no-tty", "--to-plain-http", &from, &into]);
            }
            Program::Crane if job.case.by_tag() => {
                command.args(["tag", "--insecure", &from, tag]);
            }
            Program::Crane => {
                command.args(["copy", "--insecure", &from, &into]);
            }
            Program::Regctl => {
                let from = format!("{}{from}", if publish { "ocidir://" } else { "" });
                command.args(hosts).args(["image", "copy", &from, &into]);
            }
        }
        Some(command)
    }
}

/// The step as a workflow has it.
fn ours(job: &Job) -> Command {
    let template =
        if job.case.by_tag() { BY_TAG.replace(", AllowedValues: [dev, test, prod]", "") } else { BY_REPOSITORY.into() };
    fs::write(job.home.join("template.yaml"), template.trim_start()).unwrap();
    let publish = job.case == Case::Publish;
    let mut command = action(if publish { Action::Publish } else { Action::Promote }, job.home);
    let mut input = |name: &str, value: &str| {
        command.env(format!("INPUT_{name}"), value);
    };
    input("VERSION", "1.0.0");
    input("IMAGES", "Api");
    input("EVIDENCE", "none");
    input("RECORD", "false");
    if publish {
        input("LAYOUT", &job.layout.display().to_string());
        input("ENVIRONMENT", job.to);
        input("REGISTRY", job.target);
    } else {
        input("ENVIRONMENTS", &format!("dev,{}", job.to));
        input("TO", job.to);
        input("SOURCE_REGISTRY", job.source);
        input("TARGET_REGISTRY", job.target);
    }
    command
}

/// An action in a checkout that is also its home.
pub(crate) fn action(action: Action, folder: &Path) -> Command {
    let mut command = Command::new(action.binary());
    command.env_clear().current_dir(folder).env("PATH", "/usr/bin:/bin").env("GITHUB_WORKSPACE", folder);
    command.env("HOME", folder).env("RUNNER_TEMP", folder);
    for file in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        fs::write(folder.join(file), "").unwrap();
        command.env(file, folder.join(file));
    }
    command
}

/// To root, skopeo keeps what it knows of blobs in a folder of the system; to anybody else, in the home.
fn without_root(command: &mut Command, job: &Job) {
    const NOBODY: u32 = 65534;
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        chown(job.home, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(job.layout, fs::Permissions::from_mode(0o755)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
}

//! The GitHub runner as far as a step can see it: starts a real binary in an environment of its own, and reads what it
//! left by the runner's own rules.
#![allow(dead_code, reason = "no single test needs all of it")]

mod log;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use log::Log;

/// A step that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(150);

/// Files that the runner reads after the step, by their variable.
const FILES: [&str; 6] =
    ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_ARTIFACTS"];

/// Which binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Build,
    Publish,
    Promote,
}

impl Action {
    pub(crate) fn binary(self) -> &'static Path {
        Path::new(match self {
            Action::Build => env!("CARGO_BIN_EXE_action-build"),
            Action::Publish => env!("CARGO_BIN_EXE_action-publish"),
            Action::Promote => env!("CARGO_BIN_EXE_action-promote"),
        })
    }
}

/// A step that is about to run.
pub(crate) struct Step {
    command: Command,
    files: tempfile::TempDir,
}

impl Step {
    /// A step in a checkout, with nothing of this process's environment.
    pub(crate) fn new(action: Action, workspace: &Path) -> Step {
        let files = tempfile::tempdir().unwrap();
        let mut command = Command::new(action.binary());
        command.env_clear().current_dir(workspace).stdin(Stdio::null());
        command.env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        for (variable, folder) in [("HOME", "home"), ("RUNNER_TEMP", "temp")] {
            fs::create_dir(files.path().join(folder)).unwrap();
            command.env(variable, files.path().join(folder));
        }
        for variable in FILES {
            fs::write(files.path().join(variable), "").unwrap();
            command.env(variable, files.path().join(variable));
        }
        command.env("GITHUB_WORKSPACE", workspace);
        command.envs([
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "shop/backend"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_SHA", "0123456789abcdef0123456789abcdef01234567"),
            ("GITHUB_RUN_ID", "42"),
            ("GITHUB_RUN_ATTEMPT", "1"),
            ("GITHUB_ACTOR", "octocat"),
            ("RUNNER_OS", "Linux"),
            ("RUNNER_ARCH", "X64"),
        ]);
        Step { command, files }
    }

    /// Sets an input, named as in `action.yml`.
    pub(crate) fn input(mut self, name: &str, value: &str) -> Step {
        self.command.env(format!("INPUT_{}", name.to_uppercase().replace('-', "_")), value);
        self
    }

    pub(crate) fn inputs(self, inputs: &[(&str, &str)]) -> Step {
        inputs.iter().fold(self, |step, (name, value)| step.input(name, value))
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Step {
        self.command.env(name, value);
        self
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Step {
        self.command.args(arguments);
        self
    }

    /// Runs it outside GitHub Actions: its runner sets nothing.
    pub(crate) fn elsewhere(mut self) -> Step {
        let of_runner: Vec<_> = self.command.get_envs().map(|(name, _)| name.to_owned()).collect();
        for name in of_runner {
            let name = name.to_str().unwrap();
            if name.starts_with("GITHUB_") || name.starts_with("RUNNER_") {
                self.command.env_remove(name);
            }
        }
        let temporary = self.temporary();
        self.env("TMPDIR", temporary)
    }

    pub(crate) fn envs(mut self, variables: impl IntoIterator<Item = (&'static str, String)>) -> Step {
        self.command.envs(variables);
        self
    }

    /// `RUNNER_TEMP`
    pub(crate) fn temporary(&self) -> PathBuf {
        self.files.path().join("temp")
    }

    /// Makes it run as a user who is not root, with a range of further user ids or without one.
    pub(crate) fn unprivileged(mut self, has_ids: bool) -> Step {
        const SCRIPT: &str = "if [ \"$2\" = true ]; then printf 'nobody:200000:65536\n' > \"$HOME/../ids\"; \
             else : > \"$HOME/../ids\"; fi; for file in /etc/subuid /etc/subgid; do [ -e $file ] && \
             mount --bind \"$HOME/../ids\" $file; done; \
             exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$1\"";
        let workspace = self.command.get_current_dir().unwrap().to_owned();
        let folders = [self.files.path(), &workspace];
        assert!(Command::new("chown").args(["-R", "65534:65534"]).args(folders).status().unwrap().success());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", SCRIPT, "sh"]);
        command.arg(self.command.get_program()).arg(has_ids.to_string());
        command.env_clear().envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(workspace).stdin(Stdio::null());
        self.command = command;
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Run {
        self.start().finish()
    }

    /// Starts it. The runner reads stdout and stderr alike, so they are one stream here.
    pub(crate) fn start(mut self) -> Running {
        let (mut reader, writer) = std::io::pipe().unwrap();
        self.command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = self.command.spawn().expect("the binary starts");
        let printed = Printed::default();
        let of_reader = printed.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                of_reader.0.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        // The thread ends when nobody can write any more: our own ends of the pipe are in the command.
        let Step { command, files } = self;
        drop(command);
        Running { child, printed, reader: Some(reader), files }
    }
}

/// What a step has printed so far.
#[derive(Clone, Default)]
pub(crate) struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Waits until it has printed something.
    pub(crate) fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.text().contains(text) {
            assert!(Instant::now() < deadline, "the step has not printed `{text}` after {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A step that runs.
pub(crate) struct Running {
    child: Child,
    printed: Printed,
    reader: Option<JoinHandle<()>>,
    files: tempfile::TempDir,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn printed(&self) -> Printed {
        self.printed.clone()
    }

    /// Sends a signal: `INT`, `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Run {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("the step has not ended after {DEADLINE:?}"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        self.reader.take().expect("finished once").join().unwrap();
        Run::read(status, &self.printed.text(), self.files.path())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    // The shell's own: a small system has no program of that name.
    let mut shell = Command::new("sh");
    let _ = shell.args(["-c", "kill -\"$0\" \"$1\"", name, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// The most memory that a running process has had resident, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A step that has ended, as the runner sees it.
#[derive(Debug)]
pub(crate) struct Run {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) summary: String,
    pub(crate) log: Log,
    /// Lines of `GITHUB_ARTIFACTS`.
    pub(crate) artifacts: String,
    /// Files that are left in the temporary folder and in the home.
    pub(crate) left: Vec<String>,
}

impl Run {
    fn read(status: ExitStatus, raw: &str, files: &Path) -> Run {
        let text = |name: &str| fs::read_to_string(files.join(name)).unwrap();
        let outputs = runner_protocol::file_reader::read(&text("GITHUB_OUTPUT"))
            .unwrap_or_else(|error| panic!("GITHUB_OUTPUT: {error}"));
        let mut left = Vec::new();
        for folder in ["temp", "home"] {
            let entries = fs::read_dir(files.join(folder)).unwrap();
            left.extend(entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().display())));
        }
        let run = Run {
            code: status.code(),
            signal: status.signal(),
            outputs: outputs.into_iter().collect(),
            summary: text("GITHUB_STEP_SUMMARY"),
            log: Log::read(raw),
            artifacts: text("GITHUB_ARTIFACTS"),
            left,
        };
        // What holds for every run of every action.
        assert_eq!(run.log.foreign, [], "commands of somebody else: {raw}");
        if run.signal.is_none() {
            assert_eq!(run.log.open, [""; 0], "not closed: {raw}");
        }
        for untouched in ["GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE"] {
            assert_eq!(text(untouched), "", "{untouched}");
        }
        assert!(!raw.contains("panicked at"), "{raw}");
        run
    }

    /// Fails with the log unless it ended with this exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, Some(code), "signal {:?}\n{}", self.signal, self.log.raw);
        self
    }

    #[track_caller]
    pub(crate) fn output(&self, name: &str) -> &str {
        self.outputs.get(name).unwrap_or_else(|| panic!("no output {name} in {:?}", self.outputs))
    }

    /// An output as JSON.
    #[track_caller]
    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        let text = self.output(name);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("output {name}: {error}: `{text}`\n{}", self.log.raw))
    }

    /// One member of each object of the output `images`.
    #[track_caller]
    pub(crate) fn of_images(&self, member: &str) -> Vec<String> {
        let images = self.json("images");
        let text = |image: &serde_json::Value| image[member].as_str().unwrap_or_default().to_owned();
        images.as_array().expect("an array").iter().map(text).collect()
    }

    /// The one error, on one line.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        let errors = self.log.messages("error");
        assert_eq!(errors.len(), 1, "{}", self.log.raw);
        assert!(!errors[0].contains(['\n', '\r']), "{:?}", errors[0]);
        errors[0]
    }
}

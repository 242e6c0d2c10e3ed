use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

/// How much of a program's output is kept from its beginning and from its end, in bytes each.
const KEPT: usize = 4 * 1024 * 1024;

/// A program that has exited.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// The output on stdout, complete unless it was too long.
    pub stdout: Vec<u8>,
    /// The output on stderr. If stdout goes to the log as well, both are in the order of arrival.
    pub log: Vec<u8>,
}

/// Why a program did not exit on its own.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It does not exist, or cannot be started.
    #[error("cannot run `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// It exceeded its time limit.
    #[error("`{program}` was killed after {} s", deadline.as_secs())]
    Deadline {
        /// The program.
        program: String,
        /// The time limit.
        deadline: Duration,
    },
    /// It printed too much to stdout.
    #[error("`{program}` printed more than {limit} bytes")]
    TooMuch {
        /// The program.
        program: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// Its output cannot be read.
    #[error("cannot read what `{program}` prints")]
    Read {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
}

/// Returns whether a path is an executable file.
pub fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Runs a program until it exits. Nothing that it prints is passed through to stdout or stderr. If the future is
/// dropped, the program and everything that it started is killed. Keeps up to `limit` bytes of stdout, and the
/// beginning and the end of the log.
///
/// # Errors
/// Returns an error if the program cannot be started, or exceeds the time limit or `limit`. A non-zero exit code is
/// not an error.
pub async fn run(mut command: Command, limit: usize, deadline: Duration) -> Result<Finished, ProcessError> {
    let program = program(&command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(&mut command, &program)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        let source = io::Error::other("no pipes");
        return Err(ProcessError::Start { program, source });
    };
    let group = Group::of(&child);
    let reading = async {
        let (stdout, log, status) = tokio::join!(read_whole(stdout, limit), read_both_ends(stderr), group.end(child));
        Ok::<_, io::Error>((stdout?, log?, status?))
    };
    match tokio::time::timeout(deadline, reading).await {
        Ok(Ok((Some(stdout), log, status))) => Ok(Finished { status, stdout, log }),
        Ok(Ok((None, ..))) => Err(ProcessError::TooMuch { program, limit }),
        Ok(Err(source)) => Err(ProcessError::Read { program, source }),
        Err(_) => Err(ProcessError::Deadline { program, deadline }),
    }
}

/// Runs a program whose output is for people: stdout and stderr become one log in the order of arrival, of which the
/// beginning and the end are kept.
///
/// # Errors
/// Returns an error if the program cannot be started or exceeds the time limit. A non-zero exit code is not an error.
pub async fn run_logged(mut command: Command, deadline: Duration) -> Result<Finished, ProcessError> {
    let program = program(&command);
    let not_started = |source| ProcessError::Start { program: program.clone(), source };
    let (reader, writer) = io::pipe().map_err(not_started)?;
    command.stdout(writer.try_clone().map_err(not_started)?).stderr(writer);
    let log = Receiver::from_owned_fd(reader.into()).map_err(not_started)?;
    let child = start(&mut command, &program)?;
    // The command holds the write ends of the pipe.
    drop(command);
    let group = Group::of(&child);
    let reading = async {
        let (log, status) = tokio::join!(read_both_ends(log), group.end(child));
        Ok::<_, io::Error>((log?, status?))
    };
    match tokio::time::timeout(deadline, reading).await {
        Ok(Ok((log, status))) => Ok(Finished { status, stdout: Vec::new(), log }),
        Ok(Err(source)) => Err(ProcessError::Read { program, source }),
        Err(_) => Err(ProcessError::Deadline { program, deadline }),
    }
}

fn program(command: &Command) -> String {
    command.as_std().get_program().to_string_lossy().into_owned()
}

fn start(command: &mut Command, program: &str) -> Result<Child, ProcessError> {
    let child = command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).spawn();
    child.map_err(|source| ProcessError::Start { program: program.to_owned(), source })
}

/// A program and everything that it started. All of them are killed when the program exits or this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    /// Waits for the program, then kills what it left running, which would keep the pipes open.
    async fn end(mut self, mut child: Child) -> io::Result<ExitStatus> {
        let status = child.wait().await;
        self.kill();
        status
    }

    fn kill(&mut self) {
        if let Some(leader) = self.0.take() {
            // An error means that no process is left.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads a whole stream. Returns `None` if it exceeds the limit, but still reads to the end, so that the program can
/// exit.
async fn read_whole(mut stream: impl AsyncRead + Unpin, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    let mut too_much = false;
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Ok((!too_much).then_some(bytes));
        }
        too_much |= bytes.len() + read > limit;
        if !too_much {
            bytes.extend_from_slice(&piece[..read]);
        }
    }
}

/// Reads the beginning and the end of a stream.
async fn read_both_ends(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut beginning = Vec::new();
    let mut end: VecDeque<u8> = VecDeque::new();
    let mut left_out: u64 = 0;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        let room = (KEPT - beginning.len()).min(read);
        beginning.extend_from_slice(&piece[..room]);
        end.extend(&piece[room..read]);
        let over = end.len().saturating_sub(KEPT);
        end.drain(..over);
        left_out += over as u64;
    }
    if left_out > 0 {
        beginning.extend_from_slice(format!("\n… {left_out} bytes left out …\n").as_bytes());
    }
    beginning.extend(end);
    Ok(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn keeps_both_streams_apart_and_the_exit_code() {
        let finished = run(sh("echo out; echo log >&2; exit 3"), 1000, Duration::from_secs(60)).await.unwrap();
        assert_eq!(
            (finished.stdout, finished.log, finished.status.code()),
            (b"out\n".into(), b"log\n".into(), Some(3))
        );
    }

    #[tokio::test]
    async fn what_hangs_or_floods_is_an_error() {
        let error = run(sh("sleep 600"), 1000, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, ProcessError::Deadline { .. }), "{error}");
        let error = run(sh("head -c 100000 /dev/zero"), 1000, Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, ProcessError::TooMuch { limit: 1000, .. }), "{error}");
        let error = run(Command::new("/no/such/program"), 1000, Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, ProcessError::Start { .. }), "{error}");
    }

    #[tokio::test]
    async fn one_log_has_the_order_of_arrival() {
        let finished = run_logged(sh("echo 1; echo 2 >&2; echo 3; exit 4"), Duration::from_secs(60)).await.unwrap();
        assert_eq!((finished.log.as_slice(), finished.status.code()), (&b"1\n2\n3\n"[..], Some(4)));
        let error = run_logged(sh("sleep 600"), Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, ProcessError::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_it_started_ends_with_it() {
        // The remaining process holds the pipes, and would keep them open for ten minutes.
        let finished = run(sh("sleep 600 & echo $!"), 1000, Duration::from_secs(60)).await.unwrap();
        assert!(is_gone(&finished.stdout).await);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sh -c 'echo $$ > {0}.part; mv {0}.part {0}; sleep 600'; true", file.display());
        let running = tokio::spawn(run_logged(sh(&script), Duration::from_secs(60)));
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
        assert!(is_gone(&std::fs::read(&file).unwrap()).await);
    }

    /// Returns whether a process exits within a minute.
    async fn is_gone(pid: &[u8]) -> bool {
        let stat = format!("/proc/{}/stat", String::from_utf8_lossy(pid).trim());
        for _ in 0..6000 {
            // A zombie waits for its parent to collect it, and process 1 may never do so.
            match std::fs::read_to_string(&stat) {
                Ok(text) if !text.contains(") Z ") => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => return true,
            }
        }
        false
    }

    #[tokio::test]
    async fn of_a_long_log_both_ends_are_kept() {
        let script = "echo begin >&2; head -c 20000000 /dev/zero >&2; echo end >&2";
        let finished = run(sh(script), 1000, Duration::from_secs(60)).await.unwrap();
        assert!(finished.log.starts_with(b"begin\n") && finished.log.ends_with(b"end\n"));
        assert!(finished.log.len() < 3 * KEPT);
    }
}

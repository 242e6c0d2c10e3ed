use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// How much of a program's output is kept from its beginning, and from its end, in bytes each.
const KEPT: usize = 4 * 1024 * 1024;

/// A program that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it printed to stdout, whole unless it was too much.
    pub stdout: Vec<u8>,
    /// What it printed to stderr; where both went to the log, in the order of arrival.
    pub log: Vec<u8>,
}

/// A program that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It is not there, or can't be started.
    #[error("cannot run `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It took too long.
    #[error("`{program}` was ended after {} s", deadline.as_secs())]
    Deadline {
        /// The program.
        program: String,
        /// The time that it had.
        deadline: Duration,
    },
    /// It printed more to stdout than a result can have.
    #[error("`{program}` printed more than {limit} bytes")]
    TooMuch {
        /// The program.
        program: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// Its output can't be read.
    #[error("cannot read what `{program}` prints")]
    Read {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

/// Runs a program to its end. Nothing that it prints reaches our stdout or stderr by itself, and it ends when the
/// future is dropped. stdout is kept up to `limit` bytes, of the log the beginning and the end.
///
/// # Errors
/// When it can't be started, exceeds the deadline or the limit. An exit code is not an error here.
pub async fn run(mut command: Command, limit: usize, deadline: Duration) -> Result<Finished, ProcessError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = child.map_err(|source| ProcessError::Start { program: program.clone(), source })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        let source = io::Error::other("no pipes");
        return Err(ProcessError::Start { program, source });
    };
    let reading = async {
        let (stdout, log, status) = tokio::join!(whole(stdout, limit), both_ends(stderr), child.wait());
        Ok::<_, io::Error>((stdout?, log?, status?))
    };
    match tokio::time::timeout(deadline, reading).await {
        Ok(Ok((Some(stdout), log, status))) => Ok(Finished { status, stdout, log }),
        Ok(Ok((None, ..))) => Err(ProcessError::TooMuch { program, limit }),
        Ok(Err(source)) => Err(ProcessError::Read { program, source }),
        Err(_) => Err(ProcessError::Deadline { program, deadline }),
    }
}

/// All of a stream; none where it is over the limit. It is read to its end either way, so that the program can end.
async fn whole(mut stream: impl AsyncRead + Unpin, limit: usize) -> io::Result<Option<Vec<u8>>> {
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

/// The beginning and the end of a stream.
async fn both_ends(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
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
    async fn of_a_long_log_both_ends_are_kept() {
        let script = "echo begin >&2; head -c 20000000 /dev/zero >&2; echo end >&2";
        let finished = run(sh(script), 1000, Duration::from_secs(60)).await.unwrap();
        assert!(finished.log.starts_with(b"begin\n") && finished.log.ends_with(b"end\n"));
        assert!(finished.log.len() < 3 * KEPT);
    }
}

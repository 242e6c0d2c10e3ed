//! The program that runs a fake.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use crate::call;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecr-fake"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Kills the program at the end of a test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program on a port, and returns it with what it prints. Nothing if another process has taken the port.
fn start(port: u16) -> Option<(Running, Vec<String>)> {
    let mut running = Running(program(&["--port", &port.to_string()]).spawn().unwrap());
    let mut lines = Vec::new();
    for line in BufReader::new(running.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let last = line.starts_with('#');
        lines.push(line);
        if last {
            return Some((running, lines));
        }
    }
    None
}

#[test]
fn the_program_prints_where_it_listens() {
    let (_running, port, lines) = (0..5)
        .find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            start(port.checked_sub(1)?).map(|(running, lines)| (running, port - 1, lines))
        })
        .expect("two free ports in a row");
    assert_eq!(lines[0], format!("export AWS_ENDPOINT_URL=http://127.0.0.1:{port}"));
    let registry = format!("http://127.0.0.1:{}", port + 1);
    assert_eq!(*lines.last().unwrap(), format!("# 111122223333.dkr.ecr.us-east-1.amazonaws.com is at {registry}"));
    assert_eq!(call(&registry, "GET", "/v2/", &[], b"").status, 401);
}

#[test]
fn the_program_explains_itself() {
    let help = program(&["--help"]).output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("Usage: ecr-fake [--port PORT]"));
    for (arguments, message) in
        [(&["--port", "70000"][..], "--port 70000: number too large"), (&["serve"], "unknown arguments: serve")]
    {
        let refused = program(arguments).output().unwrap();
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{error}");
        assert!(error.contains(message), "{error}");
    }
}

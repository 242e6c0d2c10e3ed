//! Runs a fake ECR until it is stopped.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::process::ExitCode;

use ecr_fake::{ACCESS_KEY, Config, Ecr, REGION};

const HELP: &str = "\
Runs a strict fake of AWS ECR on this machine until it is stopped. It keeps everything in memory.

Usage: ecr-fake [--port PORT]

  --port PORT  The port of the API; the registry gets the next one. Free ports by default.
  --help       Prints this text.

It prints the variables with which the AWS CLI and SDKs use it, as lines for a shell:

  ecr-fake --port 5000 > ecr.env &
  source ecr.env
  aws ecr create-repository --repository-name shop/api
  aws ecr get-login-password | docker login --username AWS --password-stdin 127.0.0.1:5001
  docker push 127.0.0.1:5001/shop/api:1.0.0
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let port = match arguments[..] {
        [] => 0,
        ["--help"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["--port", port] => match port.parse() {
            Ok(port) => port,
            Err(error) => return usage_error(&format!("--port {port}: {error}")),
        },
        _ => return usage_error(&format!("unknown arguments: {}", arguments.join(" "))),
    };
    let ecr = match Ecr::try_start(Config { port, ..Config::default() }) {
        Ok(ecr) => ecr,
        Err(error) => {
            eprintln!("ecr-fake: the fake cannot listen: {error}");
            return ExitCode::FAILURE;
        }
    };
    for (name, value) in ecr.environment(ACCESS_KEY, REGION) {
        println!("export {name}={value}");
    }
    let registry = ecr.default_registry();
    println!("# {} is at {}", registry.host(), registry.url());
    loop {
        std::thread::park();
    }
}

fn usage_error(message: &str) -> ExitCode {
    eprintln!("ecr-fake: {message}\n\n{HELP}");
    ExitCode::from(2)
}

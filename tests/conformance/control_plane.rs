//! moto's own tests of ECR, run against the fake ECR of this project.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use ecr_fake::{Config, Ecr, User};

use crate::suite::{Case, Data, Suite};
use crate::support::tools::{printed, tools};

/// The account of moto's tests.
const ACCOUNT: &str = "123456789012";
const KEY: &str = "AKIAMOTO000000000000";

pub(crate) fn suite() -> Suite {
    Suite { name: "moto's ECR tests on our fake", data: Data::Installed(version), run }
}

fn python() -> Command {
    let mut python = Command::new(tools().folder.join("python/bin/python"));
    python.env_clear().env("PATH", &tools().path).env("HOME", std::env::temp_dir());
    python
}

fn version() -> String {
    let print = "import importlib.metadata as m; print('PyPI moto', m.version('moto') + ', `tests/test_ecr`')";
    printed(python().args(["-c", print])).trim().to_owned()
}

fn run(folder: &Path) -> Vec<Case> {
    let folder = folder.join("moto");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Ends with the process: nothing tells it that the last test was.
    std::thread::spawn(move || {
        let mut running = VecDeque::new();
        while let Ok((mut connection, _)) = listener.accept() {
            let ecr = Ecr::start(config());
            if writeln!(connection, "{}", ecr.endpoint_url()).is_err() {
                break;
            }
            running.push_back(ecr);
            // A test uses only its own.
            if running.len() > 1 {
                running.pop_front();
            }
        }
    });
    let results = tempfile::NamedTempFile::new().unwrap();
    let plugin = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");
    let path = format!("{}:{plugin}", folder.join("packages").display());
    let mut pytest = python();
    pytest.current_dir(&folder).env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
    pytest.env("FAKE", address).env("RESULTS", results.path());
    pytest.envs([("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_DEFAULT_REGION", "us-east-1")]);
    pytest.args(["-m", "pytest", "-q", "-p", "moto_on_fake", "-p", "no:cacheprovider", "tests/test_ecr"]);
    // Tests of moto's own functions, without an API, and of CloudFormation.
    for file in ["helpers", "policy_validation", "cloudformation"] {
        pytest.arg(format!("--ignore=tests/test_ecr/test_ecr_{file}.py"));
    }
    let output = pytest.stdin(Stdio::null()).output().unwrap();
    let text = std::fs::read_to_string(results.path()).unwrap();
    let results: BTreeMap<String, Option<String>> = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
    results.into_iter().map(|(name, error)| Case { name, differences: error.into_iter().collect() }).collect()
}

fn config() -> Config {
    let regions = ["us-east-1", "eu-central-1", "eu-west-1"];
    Config {
        registries: regions.map(|region| (ACCOUNT.to_owned(), region.to_owned())).into(),
        users: vec![User::new(KEY, ACCOUNT)],
        ..Config::default()
    }
}

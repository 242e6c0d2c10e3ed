//! What the documentation says holds: links lead somewhere, blocks parse, inputs exist, and examples fit their schema.

use std::collections::BTreeSet;
use std::path::Path;

use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::Value;

use crate::support::documents::{Block, ROOT, blocks, documents, files, read, spans, split};

/// The text without what stands in backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// A heading as GitHub makes an address of it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for document in documents() {
        for line in split(&document).0 {
            for link in without_code(&line).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if link.contains("://") {
                    continue;
                }
                count += 1;
                let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
                let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
                assert!(target.exists(), "{}: {link}", document.display());
                let headings = || {
                    split(&target)
                        .0
                        .into_iter()
                        .filter_map(|line| Some(anchor(line.strip_prefix('#')?.trim_start_matches('#'))))
                };
                assert!(fragment.is_empty() || headings().any(|a| a == fragment), "{}: {link}", document.display());
            }
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn pictures_exist_and_have_a_description() {
    let mut count = 0;
    for document in documents() {
        let text = read(&document);
        for address in text.split("src=\"").chain(text.split("srcset=\"")).filter_map(|rest| rest.split_once('"')) {
            if address.0.ends_with(".png") {
                count += 1;
                assert!(document.parent().unwrap().join(address.0).exists(), "{}: {}", document.display(), address.0);
            }
        }
        for image in text.split("<img ").skip(1) {
            assert!(image.split('>').next().unwrap().contains(" alt=\""), "{}: {image}", document.display());
        }
    }
    assert!(count >= 2, "{count}");
}

/// A page that ends nowhere leaves its reader alone. Nothing stands below the link.
#[test]
fn pages_name_the_one_to_read_next() {
    let mut count = 0;
    for document in documents() {
        let lines = split(&document).0;
        let next: Vec<usize> = (0..lines.len()).filter(|line| lines[*line].starts_with("Next: ")).collect();
        if let [line] = next.as_slice() {
            count += 1;
            let link = &lines[*line];
            assert!(link.starts_with("Next: [") && link.ends_with(").") && link.matches("](").count() == 1, "{link}");
            assert_eq!(line + 1, lines.len(), "{}: something follows `{link}`", document.display());
        } else {
            assert!(next.is_empty(), "{}: several pages are next", document.display());
        }
    }
    assert!(count > 20, "{count}");
}

/// Every step of ours in a YAML value.
fn our_steps<'a>(node: &'a Yaml<'a>, found: &mut Vec<(&'a str, Vec<&'a str>)>) {
    if let Some(mapping) = node.as_mapping() {
        if let Some(action) =
            node.as_mapping_get("uses").and_then(Yaml::as_str).and_then(|uses| uses.strip_prefix("OWNER/REPO/"))
        {
            let with = node.as_mapping_get("with").and_then(Yaml::as_mapping);
            let names = with.into_iter().flat_map(|with| with.keys()).filter_map(Yaml::as_str).collect();
            found.push((action.split('@').next().unwrap(), names));
        }
        mapping.values().for_each(|value| our_steps(value, found));
    }
    node.as_vec().into_iter().flatten().for_each(|item| our_steps(item, found));
}

#[test]
fn yaml_parses_and_names_inputs_that_exist() {
    let mut count = 0;
    for Block { document, text, .. } in blocks("yaml") {
        let parsed = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{document}: {error}\n{text}"));
        let mut steps = Vec::new();
        parsed.iter().for_each(|node| our_steps(node, &mut steps));
        for (action, names) in steps {
            // A reusable workflow lists its inputs two levels deeper.
            let (path, indent) = if action.starts_with(".github/workflows/") {
                (action.to_owned(), "      ")
            } else {
                (format!("action-{action}.yml"), "  ")
            };
            let definition = read(&Path::new(ROOT).join(path));
            for name in names {
                count += 1;
                assert!(definition.contains(&format!("\n{indent}{name}:\n")), "{document}: {action} has no `{name}`");
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn json_parses_and_fits_its_schema() {
    let mut checked = BTreeSet::new();
    for block in blocks("json") {
        let value: Value =
            serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.document));
        if let Some(name) = block.marked("schema: ") {
            fits(&value, name);
            checked.insert(name.to_owned());
        }
    }
    // Files that people write are YAML. Their examples have the line by which an editor finds the schema.
    for Block { text, .. } in blocks("yaml") {
        let named = text.lines().next().and_then(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let Some(name) = named.and_then(|address| address.rsplit('/').next()?.strip_suffix(".schema.json")) else {
            continue;
        };
        fits(&cfn_images::yaml_to_json(&text).unwrap(), name);
        checked.insert(name.to_owned());
    }
    let schemas = files(&Path::new(ROOT).join("docs/schema"), ".schema.json").len();
    assert_eq!(checked.len(), schemas, "an example for each: {checked:?}");
}

/// The file of a test that a document names by its path: `gates::a` is in `tests/gates.rs`, `oci::digest::tests::a` in the
/// library or in a crate `oci`, `build::tools::tests::a` in the action.
fn file_of_test(module: &[&str]) -> Option<String> {
    let root = Path::new(ROOT);
    let inner = module.strip_suffix(&["tests"]).unwrap_or(module);
    let mut files = Vec::new();
    if let [scenario] = module {
        files.push(root.join("tests").join(scenario).with_extension("rs"));
    }
    for path in [module, inner] {
        let of_crate = root.join("crates").join(path[0].replace('_', "-")).join("src");
        let folders = [root.join("crates/lifecycle/src"), root.join("actions")];
        let whole = folders.into_iter().map(|folder| folder.join(path.join("/")));
        for place in whole.chain([of_crate.join(path[1..].join("/"))]) {
            files.extend([place.with_extension("rs"), place.join("mod.rs"), place.join("lib.rs")]);
        }
    }
    files.into_iter().find_map(|file| std::fs::read_to_string(file).ok())
}

/// Whether a file has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            if is_test && line.trim_start_matches("async ").starts_with(&format!("fn {name}(")) {
                return true;
            }
            is_test = false;
        }
    }
    false
}

/// Every claim of the threat model is held by a test, and the tests that it names exist.
#[test]
fn tests_of_the_threat_model_exist() {
    let lines = split(&Path::new(ROOT).join("docs/threat-model.md")).0;
    let tests = |text: &str| -> Vec<String> {
        spans(text).into_iter().filter(|span| span.contains("::") && !span.starts_with("::")).collect()
    };
    let examples = ["gates::x", "registry::request::tests::x", "build::tools::tests::x"];
    let mut count = 0;
    for test in lines.iter().flat_map(|line| tests(line)).filter(|test| !examples.contains(&test.as_str())) {
        let path: Vec<&str> = test.split("::").collect();
        let (name, module) = path.split_last().unwrap();
        let source = file_of_test(module).unwrap_or_else(|| panic!("{test}: there is no such file"));
        assert!(has_test(&source, name), "{test}: there is no such test");
        count += 1;
    }
    assert!(count > 150, "{count}");

    let mut claims = 0;
    let mut is_claim = false;
    for line in lines.iter().filter(|line| !line.starts_with("|---")) {
        let last = line.strip_suffix(" |").and_then(|line| line.rsplit_once("| "));
        match last {
            None => is_claim = false,
            Some((_, "tests")) => is_claim = true,
            Some((_, cell)) if is_claim => {
                claims += 1;
                assert!(!tests(cell).is_empty(), "no test holds it: {line}");
            }
            Some(_) => {}
        }
    }
    assert!(claims > 50, "{claims}");
}

/// The inputs of the actions that these replace, as they were in August 2026.
const REPLACED: [(&str, &str); 10] = [
    (
        "docker/build-push-action",
        "add-hosts allow annotations attests build-args build-contexts builder cache-from cache-to call cgroup-parent context \
         file labels load network no-cache no-cache-filters outputs platforms provenance pull push sbom secrets secret-envs \
         secret-files shm-size ssh tags target ulimit github-token",
    ),
    (
        "docker/bake-action",
        "builder allow call files no-cache pull load provenance push sbom set source targets vars github-token",
    ),
    (
        "docker/setup-buildx-action",
        "version driver driver-opts buildkitd-flags buildkitd-config buildkitd-config-inline use name endpoint platforms append \
         keep-state cache-binary cleanup",
    ),
    (
        "docker/metadata-action",
        "context images tags flavor labels annotations sep-tags sep-labels sep-annotations bake-target github-token",
    ),
    (
        "hadolint/hadolint-action",
        "dockerfile config recursive output-file no-color no-fail verbose format failure-threshold override-error \
         override-warning override-info override-style ignore trusted-registries",
    ),
    (
        "aquasecurity/trivy-action",
        "scan-type image-ref input scan-ref exit-code ignore-unfixed vuln-type severity format template output skip-dirs \
         skip-files cache-dir timeout ignore-policy hide-progress list-all-pkgs scanners trivyignores github-pat trivy-config \
         tf-vars limit-severities-for-sarif docker-host version cache skip-setup-trivy token-setup-trivy",
    ),
    ("snyk/actions/docker", "command args image json sarif"),
    (
        "anchore/scan-action",
        "image path sbom fail-build output-format output-file severity-cutoff only-fixed add-cpes-if-none by-cve \
         grype-version vex config cache-db",
    ),
    (
        "anchore/sbom-action",
        "path file image registry-username registry-password format github-token artifact-name output-file syft-version \
         dependency-snapshot upload-artifact upload-artifact-retention upload-release-assets config",
    ),
    ("aws-actions/amazon-ecr-login", "http-proxy mask-password registries registry-type skip-logout"),
];

#[test]
fn every_input_of_a_replaced_action_has_a_row() {
    let lines = split(&Path::new(ROOT).join("docs/guide/migration.md")).0;
    for (action, inputs) in REPLACED {
        let section = lines.iter().skip_while(|line| **line != format!("## {action}")).skip(1);
        let section = section.take_while(|line| !line.starts_with("## "));
        let rows = section.filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let named: BTreeSet<String> = rows.flat_map(|(cell, _)| spans(cell)).collect();
        for input in inputs.split_whitespace() {
            let is_named = |span: &String| span == input || span.starts_with(&format!("{input}: "));
            assert!(named.iter().any(is_named), "{action}: {input} in {named:?}");
        }
    }
}

/// Holds a value against `docs/schema/NAME.schema.json`. A part of JSON Schema, and an error for what is not of that part.
pub(crate) fn fits(value: &Value, name: &str) {
    let file = format!("{name}.schema.json");
    check(value, &schema(&file), &file, "$");
}

fn schema(file: &str) -> Value {
    serde_json::from_str(&read(&Path::new(ROOT).join("docs/schema").join(file))).unwrap()
}

fn check(value: &Value, rules: &Value, file: &str, at: &str) {
    for (rule, wanted) in rules.as_object().unwrap() {
        let holds = match rule.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "examples" | "pattern" | "format"
            | "properties" | "default" | "propertyNames" | "uniqueItems" => true,
            "$ref" => {
                let (other, path) = wanted.as_str().unwrap().split_once('#').unwrap_or((wanted.as_str().unwrap(), ""));
                let other = if other.is_empty() { file } else { other };
                check(value, schema(other).pointer(path).unwrap(), other, at);
                true
            }
            "type" => {
                let kind = match value {
                    Value::Object(_) => "object",
                    Value::Array(_) => "array",
                    Value::String(_) => "string",
                    Value::Bool(_) => "boolean",
                    Value::Number(number) if number.is_u64() => "integer",
                    Value::Null => "null",
                    Value::Number(_) => "number",
                };
                wanted == kind || wanted.as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind))
            }
            "enum" => wanted.as_array().unwrap().contains(value),
            "const" => value == wanted,
            "minimum" => value.as_u64() >= wanted.as_u64(),
            "minLength" => value.as_str().map(|text| text.len() as u64) >= wanted.as_u64(),
            "minProperties" => value.as_object().map(|members| members.len() as u64) >= wanted.as_u64(),
            "minItems" => value.as_array().map(|items| items.len() as u64) >= wanted.as_u64(),
            "required" => wanted.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                items.for_each(|(index, item)| check(item, wanted, file, &format!("{at}[{index}]")));
                true
            }
            "additionalProperties" => {
                for (key, item) in value.as_object().unwrap() {
                    let rules =
                        rules["properties"].get(key).or_else(|| Some(wanted).filter(|wanted| wanted.is_object()));
                    let rules = rules.unwrap_or_else(|| panic!("{file}: {at} has an unknown key `{key}`"));
                    check(item, rules, file, &format!("{at}.{key}"));
                }
                wanted == false || wanted.is_object()
            }
            other => panic!("{file}: the rule `{other}` is not checked here"),
        };
        assert!(holds, "{file}: {at} breaks `{rule}: {wanted}`: {value}");
    }
}

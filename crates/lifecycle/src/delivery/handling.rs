//! What people do with a delivered image: copy its digest, open it in the AWS console, pull it, verify it.

use super::Planned;
use oci::Location;
use registry::EcrHost;
use runner_protocol::{code_block, details, escape, link};

/// Formats a collapsible section for each image that has a digest: its full name, links and commands. `verify` returns
/// the command that verifies an image, given as a word of the shell, and `more` returns further Markdown.
pub fn handling<'a>(
    images: impl Iterator<Item = &'a Planned>,
    verify: impl Fn(&str) -> Option<String>,
    more: impl Fn(&'a Planned) -> String,
) -> String {
    images.filter_map(|planned| section(planned, &verify, &more(planned))).collect()
}

fn section(planned: &Planned, verify: impl Fn(&str) -> Option<String>, more: &str) -> Option<String> {
    let delivery = planned.delivery.as_ref().ok()?;
    let digest = delivery.kept().unwrap_or_else(|| delivery.digest());
    let reference = &planned.named.reference;
    let name = format!("{}@{digest}", reference.repository_address());
    let host = EcrHost::parse(&reference.location.to_string());
    let console = host.and_then(|host| host.console_url(&reference.repository.to_string(), &digest.to_string()));
    let console = console.and_then(|address| link("Open in the AWS console", &address));
    let mut content = code_block("text", [name.as_str()]);
    if let Location::Host(_) = &reference.location {
        // A variable keeps the lines short.
        let commands = [
            Some(format!("image={name}")),
            Some("docker pull \"$image\"".to_owned()),
            verify("\"$image\"").map(|command| format!("# Verify its signature.\n{command}")),
            Some("# List what is attached: evidence, records and signatures.\noras discover \"$image\"".to_owned()),
        ];
        let commands: Vec<String> = commands.into_iter().flatten().collect();
        content += &code_block("sh", commands.iter().flat_map(|command| command.lines()));
    }
    content += more;
    content += &console.map(|link| format!("{link}\n\n")).unwrap_or_default();
    Some(details(&format!("{}: digest, links and commands", escape(&planned.named.key)), &content))
}

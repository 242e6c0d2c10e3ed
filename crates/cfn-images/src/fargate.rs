//! Checks for sizes that Fargate does not have.

use super::document::Node;
use super::finding::{Finding, Severity};
use super::intrinsics::Scope;
use super::runtime::is_fargate;

/// CPU units with their memory sizes in MiB: minimum, maximum and step.
const SIZES: [(u32, u32, u32, u32); 7] = [
    (256, 512, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16384, 1024),
    (4096, 8192, 30720, 1024),
    (8192, 16384, 61440, 4096),
    (16384, 32768, 122880, 8192),
];

/// Reports a Fargate task with a combination of CPU and memory that does not exist.
pub(super) fn finding(scope: &Scope, properties: &Node) -> Option<Finding> {
    if !is_fargate(scope, properties) {
        return None;
    }
    let (cpu, memory) = (properties.get("Cpu")?, properties.get("Memory")?);
    let (cpu_said, memory_said) = (scope.known(cpu).ok()?, scope.known(memory).ok()?);
    let warn = |node: &Node, message: String, hint: String| {
        Some(Finding::new(Severity::Warning, scope.source_location(node), message).hint(hint))
    };
    let size = units(&cpu_said, "vcpu").and_then(|units| SIZES.iter().find(|size| size.0 == units));
    let Some((_, least, most, step)) = size else {
        let sizes = SIZES.map(|size| size.0.to_string()).join(", ");
        return warn(cpu, format!("Fargate has no CPU size `{cpu_said}`"), format!("sizes in CPU units: {sizes}"));
    };
    // 256 units can have 512, 1024 and 2048 MiB, but not 1536.
    let exists = |mib: u32| {
        (*least..=*most).contains(&mib)
            && (mib - least).is_multiple_of(*step)
            && (size.map(|s| s.0), mib) != (Some(256), 1536)
    };
    match units(&memory_said, "gb") {
        Some(mib) if exists(mib) => None,
        _ => {
            let sizes: Vec<String> = (*least..=*most)
                .step_by(*step as usize)
                .filter(|mib| exists(*mib))
                .map(|mib| mib.to_string())
                .collect();
            let hint = match sizes.as_slice() {
                [first, .., last] if sizes.len() > 6 => {
                    format!("memory in MiB for this CPU: {first} to {last} in steps of {step}")
                }
                sizes => format!("memory in MiB for this CPU: {}", sizes.join(", ")),
            };
            warn(memory, format!("Fargate has no memory size `{memory_said}` for CPU `{cpu_said}`"), hint)
        }
    }
}

/// Parses a size such as `512`, `.25 vCPU` or `0.5GB`. A whole unit is 1024.
fn units(text: &str, unit: &str) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    match text.strip_suffix(unit) {
        None => text.parse().ok(),
        Some(number) => {
            let parts = number.trim().parse::<f64>().ok()? * 1024.0;
            (parts.fract() == 0.0 && (0.0..=1_000_000.0).contains(&parts)).then_some(parts as u32)
        }
    }
}

use std::collections::BTreeMap;

use super::display;
use cfn_images::{Template, Version, yaml_to_json};
use oci::Reference;

/// Parses and evaluates a template. A second evaluation must have the same result, and every reference must survive a
/// round trip.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(yaml_to_json(text));
    let Ok(template) = Template::parse(text, display()) else { return };
    let lines = text.lines().count() + 1;
    let images = template.images("ImageBuildConfiguration").unwrap_or_default();
    for image in &images {
        assert!(image.key.source_location.line <= lines, "{:?}", image.key.source_location);
    }
    let version = Version::new(1, 2, 3);
    for environment in [None, Some("dev")] {
        let Ok(mut context) = template.context(environment, environment.map(|_| &version), &BTreeMap::new()) else {
            continue;
        };
        context.account_id = environment.map(|_| "111122223333".to_owned());
        context.region = environment.map(|_| "us-east-1".to_owned());
        for need in template.ssm_names(&context) {
            context.ssm.insert(need, "111122223333.dkr.ecr.us-east-1.amazonaws.com".to_owned());
        }
        drop(template.needs(&context));
        let usages = template.usages(&context);
        assert_eq!(format!("{usages:?}"), format!("{:?}", template.usages(&context)));
        drop(template.deployed(&images, &usages));
        drop(template.findings(&images, &usages, &context));
        drop(template.excluded(&context));
        for usage in &usages {
            let Ok(evaluated) = usage.with_registry("h.example") else { continue };
            let printed = evaluated.to_string();
            if let Ok(reference) = Reference::parse(&printed, None) {
                assert_eq!(Reference::parse(&reference.to_string(), None).ok(), Some(reference), "{printed}");
            }
        }
    }
}

//! The actions on a registry's settings, and the quota on images.

use serde_json::{Value, json};

use crate::{
    action::{Action, Answer, Exception},
    iam,
    state::{RegistryId, State},
};

/// The actions on a registry's settings.
pub(crate) const ACTIONS: [&str; 8] = [
    "DescribeRegistry",
    "PutReplicationConfiguration",
    "GetRegistryScanningConfiguration",
    "PutRegistryScanningConfiguration",
    "GetSigningConfiguration",
    "PutSigningConfiguration",
    "DeleteSigningConfiguration",
    "GetAccountSetting",
];

/// Answers an action on the settings of the caller's own registry. None of these actions has a `registryId`.
pub(crate) fn answer(state: &mut State, action: &Action<'_>) -> Answer {
    iam::identity(action.principal, &format!("ecr:{}", action.name), "*").map_err(Exception::denied)?;
    let registry = RegistryId::new(&action.principal.account, action.region);
    let mounting = state.quirks.mounting;
    let settings = state.settings.entry(registry.clone()).or_default();
    let own = |field: &str, value: &Value| json!({"registryId": registry.account, field: value});
    let signing = |value: &Value| own("signingConfiguration", value);
    let unsigned = || {
        let message = format!("The registry with id '{}' has no signing configuration", registry.account);
        Exception::new("SigningConfigurationNotFoundException", message)
    };
    match action.name {
        "DescribeRegistry" => Ok(own("replicationConfiguration", &settings.replication)),
        "PutReplicationConfiguration" => {
            settings.replication = replication(&action.input["replicationConfiguration"], &registry)?;
            Ok(json!({"replicationConfiguration": settings.replication}))
        }
        "GetRegistryScanningConfiguration" => Ok(own("scanningConfiguration", &settings.scanning)),
        "PutRegistryScanningConfiguration" => {
            settings.scanning = scanning(action.input)?;
            Ok(json!({"registryScanningConfiguration": settings.scanning}))
        }
        "GetSigningConfiguration" => settings.signing.as_ref().map(signing).ok_or_else(unsigned),
        "PutSigningConfiguration" => {
            let configuration = signing_rules(&action.input["signingConfiguration"])?;
            let answer = json!({"signingConfiguration": configuration});
            settings.signing = Some(configuration);
            Ok(answer)
        }
        "DeleteSigningConfiguration" => settings.signing.take().as_ref().map(signing).ok_or_else(unsigned),
        "GetAccountSetting" => match action.text("name") {
            Some("BLOB_MOUNTING") => {
                let value = if mounting { "ENABLED" } else { "DISABLED" };
                Ok(json!({"name": "BLOB_MOUNTING", "value": value}))
            }
            name => Err(Exception::invalid(format!("Invalid parameter at 'name': {name:?}"))),
        },
        _ => Err(Exception::new("UnknownOperationException", action.name)),
    }
}

/// Answers `GetServiceQuota` of Service Quotas.
pub(crate) fn quota(state: &mut State, action: &Action<'_>) -> Answer {
    let denied = |message| Exception::new("AccessDeniedException", message);
    iam::identity(action.principal, "servicequotas:GetServiceQuota", "*").map_err(denied)?;
    if (action.text("ServiceCode"), action.text("QuotaCode")) != (Some("ecr"), Some("L-03A36CE1")) {
        return Err(Exception::new(
            "NoSuchResourceException",
            "The request failed because the specified quota does not exist.",
        ));
    }
    let registry = RegistryId::new(&action.principal.account, action.region);
    let value = state.settings.entry(registry).or_default().images_quota;
    Ok(json!({"Quota": {
        "ServiceCode": "ecr",
        "QuotaCode": "L-03A36CE1",
        "QuotaName": "Images per repository",
        "Value": value as f64,
        "Adjustable": true,
        "GlobalQuota": false,
    }}))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Checks the filters of a rule: their type, and that there are at most 100.
fn check_filters(rule: &Value, kinds: &[&str]) -> Result<(), Exception> {
    let filters = list(&rule["repositoryFilters"]);
    let is_valid = |filter: &Value| {
        filter["filter"].is_string() && filter["filterType"].as_str().is_some_and(|kind| kinds.contains(&kind))
    };
    if filters.len() > 100 || !filters.iter().all(is_valid) {
        return Err(Exception::new("ValidationException", "Invalid parameter at 'repositoryFilters'"));
    }
    Ok(())
}

fn replication(configuration: &Value, source: &RegistryId) -> Result<Value, Exception> {
    let rules = configuration["rules"].as_array();
    let rules = rules.filter(|rules| rules.len() <= 10);
    let rules = rules.ok_or_else(|| Exception::new("ValidationException", "Invalid parameter at 'rules'"))?;
    for rule in rules {
        check_filters(rule, &["PREFIX_MATCH"])?;
        let destinations = list(&rule["destinations"]);
        let is_whole = |to: &Value| to["region"].is_string() && to["registryId"].is_string();
        if destinations.is_empty() || destinations.len() > 25 || !destinations.iter().all(is_whole) {
            return Err(Exception::new("ValidationException", "Invalid parameter at 'destinations'"));
        }
        let is_source = |to: &Value| to["region"] == *source.region && to["registryId"] == *source.account;
        if destinations.iter().any(is_source) {
            let message = "Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'Replication \
                           destination cannot be the same as the source registry'";
            return Err(Exception::invalid(message));
        }
        if rule.get("deleteReplication").is_some_and(|deletes| !deletes["enabled"].is_boolean()) {
            return Err(Exception::new("ValidationException", "Invalid parameter at 'deleteReplication'"));
        }
    }
    Ok(json!({"rules": rules}))
}

fn scanning(input: &Value) -> Result<Value, Exception> {
    let kind = input["scanType"].as_str().unwrap_or("BASIC");
    let frequencies: &[&str] = match kind {
        "BASIC" => &["SCAN_ON_PUSH"],
        "ENHANCED" => &["SCAN_ON_PUSH", "CONTINUOUS_SCAN"],
        _ => return Err(Exception::invalid("Invalid parameter at 'scanType'")),
    };
    let rules = list(&input["rules"]);
    for rule in rules {
        check_filters(rule, &["WILDCARD"])?;
        if !rule["scanFrequency"].as_str().is_some_and(|frequency| frequencies.contains(&frequency)) {
            return Err(Exception::invalid("Invalid parameter at 'scanFrequency'"));
        }
    }
    if rules.len() > 2 {
        return Err(Exception::invalid("Invalid parameter at 'rules'"));
    }
    Ok(json!({"scanType": kind, "rules": rules}))
}

fn signing_rules(configuration: &Value) -> Result<Value, Exception> {
    let rules = configuration["rules"].as_array().filter(|rules| rules.len() <= 10);
    let rules = rules.ok_or_else(|| Exception::new("ValidationException", "Invalid parameter at 'rules'"))?;
    for rule in rules {
        check_filters(rule, &["WILDCARD_MATCH"])?;
        if !rule["signingProfileArn"].as_str().is_some_and(|arn| arn.contains(":/signing-profiles/")) {
            return Err(Exception::new("ValidationException", "Invalid parameter at 'signingProfileArn'"));
        }
    }
    Ok(json!({"rules": rules}))
}

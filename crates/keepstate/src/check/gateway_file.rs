//! `keepstate check gateway.toml`: the gateway's file, and every file that it names.
use super::file_report::FileReport;
use super::one_file::{check_ruleset, check_services};
use crate::gateway::cluster_transport;
use anyhow::Result;
use keepstate_gateway::gateway_file::{
    GatewayFile, GatewaySettings, Given, ResolvedGateway, SettingFault, SettingOrigin,
};
use keepstate_gateway::ruleset::RulesetOptions;
use std::path::{Path, PathBuf};

/// Reports of the file, of its ruleset and of its services; with `environment`, of this machine too.
///
/// # Errors
/// The file itself cannot be read. One that it names is a fault of it.
pub(super) fn check(path: &Path, flags: GatewaySettings, environment: bool) -> Result<Vec<FileReport>> {
    let file = GatewayFile::read(path)?;
    let resolved = ResolvedGateway::new(Some(file.clone()), flags);
    let settings = resolved.settings();
    let mut faults = file.faults.clone();
    let mut others = Vec::new();
    // Half a file would seem to lack what its faults stand for.
    if faults.is_empty() {
        others = resolved.faults();
        if let Err(error) = resolved.check_sysctl_files()
            && let Some(files) = &settings.sysctl_files
            && others.is_empty()
        {
            others.push(SettingFault { origin: files.origin.clone(), message: format!("{error:#}") });
        }
        if let (Some(cluster), true) = (&settings.cluster, others.is_empty())
            && let Err(error) =
                resolved.cluster().and_then(|config| config.iter().try_for_each(cluster_transport::check))
        {
            others.push(SettingFault { origin: cluster.origin.clone(), message: format!("{error:#}") });
        }
        if environment {
            others.extend(resolved.environment_faults());
        }
    }
    let mut reports = Vec::new();
    if let Some(ruleset) = settings.ruleset.as_ref().filter(|ruleset| is_of_file(&ruleset.origin)) {
        let options = ruleset_options(settings);
        add(ruleset, check_ruleset(&ruleset.value, &options), &mut reports, &mut others);
    }
    if let Some(services) = settings.services.as_ref().filter(|services| is_of_file(&services.origin)) {
        add(services, check_services(&services.value), &mut reports, &mut others);
    }
    faults.extend(others.into_iter().map(|fault| file.diagnostic(fault)));
    let own = if faults.is_empty() {
        FileReport::ok_report(path, vec![("setting", resolved.count_of_file())])
    } else {
        FileReport::of_toml(&file.error(faults))
    };
    reports.insert(0, own);
    Ok(reports)
}

fn is_of_file(origin: &SettingOrigin) -> bool {
    matches!(origin, SettingOrigin::File(_))
}

/// A file that is named: its report, or a fault where its name stands.
fn add(
    name: &Given<PathBuf>,
    result: Result<FileReport>,
    reports: &mut Vec<FileReport>,
    faults: &mut Vec<SettingFault>,
) {
    match result {
        Ok(report) => reports.push(report),
        Err(error) => faults.push(SettingFault { origin: name.origin.clone(), message: format!("{error:#}") }),
    }
}

fn ruleset_options(settings: &GatewaySettings) -> RulesetOptions {
    let definitions = settings.define.entries.iter().map(|(name, value)| (name.value.clone(), value.value.clone()));
    RulesetOptions {
        definitions: definitions.collect(),
        include_dirs: settings.includepath.as_ref().map(|dirs| dirs.value.clone()).unwrap_or_default(),
        skip_unsupported: settings.skip_unsupported.as_ref().is_some_and(|skip| skip.value),
        is_clustered: settings.cluster.is_some(),
        shard_addresses: settings.cluster.as_ref().and_then(|given| given.value.divided_addresses()),
    }
}

//! Views of hosts: text for people, JSON for programs.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::Output;
use crate::fleet::{Explanation, Finding, Host, HostCheck, HostId, LastProbe, PreparedHost, Proof, Verdict};

/// A host as it is recorded.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostView {
    name: String,
    url: String,
    did: String,
    state: &'static str,
    health: &'static str,
    health_since: String,
    health_checked_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<i64>,
    accounts: u64,
    weight: u32,
    capacity: Option<u64>,
    region: String,
    sign_ups_per_hour: Option<u64>,
    version: Option<String>,
    blob_limit: Option<u64>,
}

impl HostView {
    pub(super) fn of(host: &Host, counts: &HashMap<HostId, u64>, probe: Option<&LastProbe>) -> Self {
        let (up, since, checked_at) = probe.map_or_else(
            // Without a recorded probe, this process's own view counts.
            || (host.health.is_up(), host.health.since(), host.health.checked_at()),
            |probe| (probe.up, probe.since, probe.checked_at),
        );
        Self {
            name: host.id.to_string(),
            url: host.origin.to_string(),
            did: host.did.to_string(),
            state: host.state.as_str(),
            health: if up { "up" } else { "down" },
            health_since: since.rfc3339(),
            health_checked_at: checked_at.rfc3339(),
            health_reason: probe.and_then(|probe| probe.reason.clone()),
            latency_ms: probe.and_then(|probe| probe.latency_ms),
            accounts: counts.get(&host.id).copied().unwrap_or(0),
            weight: host.weight,
            capacity: host.capacity,
            region: host.region.clone(),
            sign_ups_per_hour: host.sign_ups_per_hour,
            version: host.version.clone(),
            blob_limit: host.blob_limit,
        }
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let limit = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let reason = self.health_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        for (what, value) in [
            ("name", self.name.clone()),
            ("URL", self.url.clone()),
            ("DID", self.did.clone()),
            ("state", self.state.to_owned()),
            ("health", format!("{} since {}{reason}", self.health, self.health_since)),
            ("last probe", self.health_checked_at.clone()),
            ("accounts", format!("{} of {}", self.accounts, limit(self.capacity))),
            ("weight", self.weight.to_string()),
            ("sign-ups/hour", limit(self.sign_ups_per_hour)),
            ("region", self.region.clone()),
            ("version", self.version.clone().unwrap_or_default()),
            ("blob limit", limit(self.blob_limit)),
        ] {
            let _ = writeln!(out, "{what:<14} {value}");
        }
        out
    }
}

/// A host that waits to be added.
#[derive(Serialize)]
pub(super) struct PreparedView {
    name: String,
    url: String,
}

impl PreparedView {
    pub(super) fn of(prepared: &PreparedHost) -> Self {
        Self { name: prepared.id.to_string(), url: prepared.origin.to_string() }
    }
}

#[derive(Serialize)]
pub(super) struct HostList {
    pub(super) hosts: Vec<HostView>,
    pub(super) prepared: Vec<PreparedView>,
}

impl HostList {
    pub(super) fn text(&self, output: Output) -> String {
        if self.hosts.is_empty() && self.prepared.is_empty() {
            return "There are no hosts yet. `genkan host prepare --name NAME --url URL` records the first."
                .to_owned();
        }
        let width = |of: fn(&HostView) -> &str, least: usize| {
            self.hosts.iter().map(|host| of(host).len()).max().unwrap_or(0).max(least)
        };
        let (names, urls) = (width(|host| &host.name, 4), width(|host| &host.url, 3));
        let mut out = format!(
            "{:<names$}  {:<urls$}  {:<8}  {:<6}  {:>8}  {:>6}  {:<8}  VERSION\n",
            "NAME", "URL", "STATE", "HEALTH", "ACCOUNTS", "WEIGHT", "REGION"
        );
        for host in &self.hosts {
            let health = format!("{:<6}", host.health);
            let health = if host.health == "up" { output.good(&health) } else { output.bad(&health) };
            let _ = writeln!(
                out,
                "{:<names$}  {:<urls$}  {:<8}  {health}  {:>8}  {:>6}  {:<8}  {}",
                host.name,
                host.url,
                host.state,
                host.accounts,
                host.weight,
                host.region,
                host.version.as_deref().unwrap_or_default(),
            );
        }
        for waiting in &self.prepared {
            let _ = writeln!(out, "{}  {}  prepared; `genkan host add` adds it", waiting.name, waiting.url);
        }
        out
    }
}

/// The settings of a host, in the order of its documentation.
#[derive(Serialize)]
pub(super) struct Settings {
    name: String,
    #[serde(rename = "settings")]
    by_name: Map<String, Value>,
    #[serde(skip)]
    ordered: Vec<(&'static str, String)>,
}

impl Settings {
    pub(super) fn of(name: &HostId, ordered: Vec<(&'static str, String)>) -> Self {
        // JSON objects have no order, but the text keeps the order in which the settings are
        // explained.
        let by_name =
            ordered.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.clone()))).collect();
        Self { name: name.to_string(), by_name, ordered }
    }

    pub(super) fn text(&self) -> String {
        let mut out =
            format!("# The settings that host {} needs to work with Genkan, beside its own.\n", self.name);
        for (key, value) in &self.ordered {
            if *key == "PDS_DISABLE_SSRF_PROTECTION" {
                out.push_str(
                    "# Hosts resolve DIDs only at public https names on port 443. Not needed if\n\
                     # GENKAN_DIRECTORY_FRONT_URL is such a name, with a TLS proxy before Genkan.\n",
                );
            }
            let _ = writeln!(out, "{key}={value}");
        }
        out
    }
}

/// The result of a host check.
#[derive(Serialize)]
pub(super) struct CheckReport {
    name: String,
    passed: bool,
    findings: Vec<Finding>,
}

impl CheckReport {
    pub(super) fn of(name: &HostId, check: &HostCheck) -> Self {
        Self { name: name.to_string(), passed: check.passed(), findings: check.findings.clone() }
    }

    /// Adds the finding that the host which answers is not the one that was added.
    pub(super) fn note_other_did(&mut self, known: &str) {
        self.passed = false;
        let verdict = Verdict::Bad {
            wrong: format!("its DID has changed; it was {known} when it was added"),
            mend: format!("set PDS_SERVICE_DID={known}"),
        };
        self.findings.push(Finding { proof: Proof::Reachable, verdict });
    }

    pub(super) fn failures(&self) -> usize {
        self.findings.iter().filter(|finding| finding.verdict.is_bad()).count()
    }

    pub(super) fn text(&self, output: Output) -> String {
        let mut out = String::new();
        for Finding { proof, verdict } in &self.findings {
            let proof = proof.to_string();
            let _ = match verdict {
                Verdict::Good { detail } => writeln!(out, "{} {proof:<16} {detail}", output.good("✓")),
                Verdict::Bad { wrong, mend } => {
                    writeln!(out, "{} {proof:<16} {wrong}\n  {:<16} → {mend}", output.bad("✗"), "")
                }
                Verdict::Open { why } => {
                    writeln!(out, "{} {proof:<16} {}", output.faint("?"), output.faint(why))
                }
            };
        }
        out
    }
}

#[derive(Serialize)]
pub(super) struct HostReport {
    #[serde(flatten)]
    pub(super) recorded: HostView,
    #[serde(rename = "examined")]
    pub(super) check: CheckReport,
}

impl HostReport {
    pub(super) fn text(&self, output: Output) -> String {
        format!("{}\n{}", self.recorded.text(), self.check.text(output))
    }
}

/// The chance of every host to get the next account.
#[derive(Serialize)]
pub(super) struct PlacementTable {
    hosts: Vec<PlacementRow>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlacementRow {
    name: String,
    chance: f64,
    accounts: u64,
    against: Vec<String>,
}

impl PlacementTable {
    pub(super) fn of(explanations: &[Explanation]) -> Self {
        let standing = |one: &Explanation| PlacementRow {
            name: one.candidate.host.id.to_string(),
            chance: one.chance,
            accounts: one.candidate.accounts,
            against: one.exclusions.iter().map(ToString::to_string).collect(),
        };
        Self { hosts: explanations.iter().map(standing).collect() }
    }

    pub(super) fn text(&self, output: Output) -> String {
        if self.hosts.is_empty() {
            return "There are no hosts in the fleet. `genkan host add` adds one.".to_owned();
        }
        let mut out = String::new();
        for one in &self.hosts {
            let why = if one.against.is_empty() {
                output.good(&format!("{:.0} of 100 new accounts", one.chance * 100.0))
            } else {
                output.bad(&format!("none: {}", one.against.join("; ")))
            };
            let _ = writeln!(out, "{:<16} {:>8} accounts  {why}", one.name, one.accounts);
        }
        out
    }
}
